"""How much the loss rises on average under noise."""

from __future__ import annotations

import torch

from loss_landscape.randomness import GeneratorLike, generator_from
from loss_landscape.results.estimate import Estimate
from loss_landscape.surface.surface import LossSurface, require_surface


def expected_sharpness(surface: LossSurface, sigma: float, *, num_samples: int = 16, generator: GeneratorLike = None) -> Estimate:
    """The mean of L(θ + ε) − L(θ), θ the origin of `surface`, over Gaussian noise ε; with its standard error.

    `sigma` is the noise's standard deviation in each parameter, drawn from `generator`. It comes in pairs ±ε, which cancels the
    slope; a pair is one of `num_samples`. For a small sigma it is σ²/2 times the trace of the Hessian. Raises ValueError unless
    sigma is > 0 and there are 2 samples or more.

    >>> estimate = expected_sharpness(surface, 0.1, num_samples=500, generator=0)
    >>> abs(estimate.value - 0.1**2 / 2 * (4 + 1)) < 4 * estimate.standard_error
    True
    """
    require_surface(surface)
    if not sigma > 0:
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
