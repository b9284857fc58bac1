"""How much the loss can rise near the origin."""

from __future__ import annotations

import torch

from loss_landscape.randomness import GeneratorLike, generator_from
from loss_landscape.results.estimate import Estimate
from loss_landscape.surface.strategy import EAGER
from loss_landscape.surface.surface import LossSurface


def sam_sharpness(surface: LossSurface, rho: float = 0.05) -> float:
    """L(θ + ρ g/‖g‖) − L(θ), g the gradient at θ (Foret et al. 2021); ρ is absolute. 0 where the gradient is 0."""
    return sam_loss(surface, rho) - surface.loss()


def first_order_sharpness(surface: LossSurface, rho: float = 0.05) -> float:
    """ρ‖g‖, what `sam_sharpness` is for a small ρ."""
    return checked_rho(rho) * float(surface.gradient().double().norm())


def asam_sharpness(surface: LossSurface, rho: float = 0.5, eta: float = 0.01) -> float:
    """L(θ + ρ T²g/‖Tg‖) − L(θ), T = |θ| + η (Kwon et al. 2021): a step measured against each parameter's own size.

    It does not change when a ReLU net's layers are rescaled against each other (with η = 0). Every parameter is scaled, where the
    authors' code scales only those called weight.
    """
    gradient = surface.gradient().double()
    scale = surface.origin.double().abs() + eta
    length = (scale * gradient).norm()
    if bool(length == 0):
        return 0.0
    step = checked_rho(rho) * scale.square() * gradient / length
    return float(surface.losses(displacements=step[None])) - surface.loss()


def expected_sharpness(surface: LossSurface, sigma: float, num_samples: int = 16, generator: GeneratorLike = None) -> Estimate:
    """The mean of L(θ + ε) − L(θ) over Gaussian noise ε of standard deviation `sigma` in each parameter.

    Noise comes in pairs ±ε, which cancels the slope; a pair is one sample.
    """
    if sigma <= 0:
        raise ValueError(f"sigma must be > 0, got {sigma}")
    if num_samples < 2:
        raise ValueError(f"num_samples must be ≥ 2 to know its own error, got {num_samples}")
    generator = generator_from(generator)
    rises = []
    for _ in range(num_samples):
        noise = torch.randn(surface.size, generator=generator, dtype=torch.float64, device=generator.device)
        noise = sigma * noise.to(surface.origin)
        rises.append(surface.losses(displacements=torch.stack([noise, -noise])).mean() - surface.loss())
    return Estimate.from_samples(torch.stack(rises).cpu())


def sam_loss(surface: LossSurface, rho: float) -> float:
    """L(θ + ρ g/‖g‖)."""
    nowhere = surface.plane([torch.zeros_like(surface.origin)])
    return float(nowhere.evaluate(torch.zeros(1, 1, dtype=torch.float64), EAGER, checked_rho(rho)))


def checked_rho(rho: float) -> float:
    """`rho` itself; ValueError unless it is finite and ≥ 0."""
    if not 0 <= rho < float("inf"):
        raise ValueError(f"rho must be finite and ≥ 0, got {rho}")
    return rho
