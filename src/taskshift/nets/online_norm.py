"""Online normalisation: statistics of the examples before, and gradients that are kept orthogonal to them over time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPS = 1e-5


class OnlineNorm(nn.Module):
    """Each feature or channel over the mean and deviation of the examples before it (Chiley et al. 2019), example by example.

    Example t of a batch is normalised by what was seen before it, in its own batch as well, and then becomes a part of that; of a
    map, m and s² are its mean and variance over the places, of a feature itself and 0. With α = `forward_decay`:

        yₜ = (xₜ − μₜ₋₁)/√(σ²ₜ₋₁ + ε)
        σ²ₜ = α σ²ₜ₋₁ + (1 − α) s²ₜ + α (1 − α) (mₜ − μₜ₋₁)²
        μₜ = α μₜ₋₁ + (1 − α) mₜ

    No gradient goes through μ and σ. Two control processes stand for it, which hold the gradient's components along y and along
    1 near 0 in the long run, and take the examples in the same order. With β = `backward_decay`, ′ gradients, ⟨⟩ means over
    places:

        ỹ′ₜ = y′ₜ − (1 − β) vₜ₋₁ yₜ,   vₜ = vₜ₋₁ + ⟨ỹ′ₜ yₜ⟩
        x′ₜ = ỹ′ₜ/√(σ²ₜ₋₁ + ε) − (1 − β) uₜ₋₁,   uₜ = uₜ₋₁ + ⟨x′ₜ⟩

    Scale and shift follow, then layer scaling, z/√⟨z²⟩ of each example over all its features and places, which bounds what errors
    of the statistics can add up to. μ, σ², u and v are buffers; v and u move in the backward pass. In eval mode the norm is an
    affine map by μ and σ², whose gradient is its own.
    """

    mean: Tensor
    variance: Tensor
    u: Tensor
    v: Tensor

    def __init__(self, features: int, forward_decay: float = 0.999, backward_decay: float = 0.99):
        super().__init__()
        self.forward_decay, self.backward_decay = forward_decay, backward_decay
        self.weight, self.bias = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))
        for name, value in (("mean", 0.0), ("variance", 1.0), ("u", 0.0), ("v", 0.0)):
            self.register_buffer(name, torch.full((features,), value))

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, C] or [B, C, H, W] → the same shape."""
        x = inputs.flatten(2) if inputs.dim() > 2 else inputs[:, :, None]  # [B, C, P]
        y = self._normalised(x) if self.training else (x - _wide(self.mean)) * _wide((self.variance + EPS).rsqrt())
        z = y * _wide(self.weight) + _wide(self.bias)
        scaled = z * (z.square().mean(dim=(1, 2), keepdim=True) + EPS).rsqrt()
        return scaled.reshape(inputs.shape)

    def _normalised(self, x: Tensor) -> Tensor:
        """y [B, C, P] in train mode; the statistics follow, and the control processes when the gradient comes."""
        with torch.no_grad():
            means, variances = self._statistics(x)
            scales = (variances[:-1] + EPS).rsqrt()[:, :, None]
            self.mean.copy_(means[-1])
            self.variance.copy_(variances[-1])
        y = (x - means[:-1, :, None]) * scales
        if y.requires_grad:
            y.register_hook(_Control(y.detach(), scales, self.u, self.v, 1 - self.backward_decay))
        return y

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """μ and σ² [B + 1, C]: before the first example, and after each."""
        keeps = self.forward_decay
        own = x.mean(dim=2)
        share = torch.full_like(own, keeps)
        means = recurrence(self.mean, share, (1 - keeps) * own)
        spread = (x - own[:, :, None]).square().mean(dim=2) + keeps * (own - means[:-1]).square()
        return means, recurrence(self.variance, share, (1 - keeps) * spread)


class _Control:
    """A gradient with respect to y [B, C, P] → the one that the rules give; u and v [C] are moved in place.

    What is returned goes through y's own scale afterwards, so that the term of u is divided by it here.
    """

    def __init__(self, y: Tensor, scales: Tensor, u: Tensor, v: Tensor, share: float):
        self.y, self.scales, self.u, self.v, self.share = y, scales, u, v, share

    @torch.no_grad()
    def __call__(self, gradient: Tensor) -> Tensor:
        y, scales, share = self.y, self.scales, self.share
        given = gradient.detach()
        v = recurrence(self.v, 1 - share * y.square().mean(dim=2), (given * y).mean(dim=2))
        along = share * v[:-1, :, None] * y
        added = ((given - along) * scales).mean(dim=2)
        u = recurrence(self.u, torch.full_like(added, 1 - share), added)
        self.v.copy_(v[-1])
        self.u.copy_(u[-1])
        return given - along - share * u[:-1, :, None] / scales


def recurrence(first: Tensor, keeps: Tensor, adds: Tensor) -> Tensor:
    """s₀ = `first` [C] and sₜ = keepsₜ sₜ₋₁ + addsₜ for t = 1 … B, as [B + 1, C], in log₂ B passes: pairs of steps become one."""
    keeps, sums = torch.cat([torch.zeros_like(first)[None], keeps]), torch.cat([first[None], adds])
    reach = 1
    while reach < len(sums):
        sums = torch.cat([sums[:reach], sums[reach:] + keeps[reach:] * sums[:-reach]])
        keeps = torch.cat([keeps[:reach], keeps[reach:] * keeps[:-reach]])
        reach *= 2
    return sums


def _wide(of_features: Tensor) -> Tensor:
    """[C] → [C, 1], which broadcasts over examples and places."""
    return of_features[:, None]
