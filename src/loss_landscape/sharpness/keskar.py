"""How far the loss rises within a box around the origin."""

from __future__ import annotations

import torch

from loss_landscape.randomness import GeneratorLike, generator_from
from loss_landscape.surface.surface import LossSurface, require_surface

STEP = 0.25  # of the box's half-width: from one corner to the opposite one in 8 steps


def keskar_sharpness(
    surface: LossSurface, epsilon: float = 1e-3, *, num_steps: int = 20, generator: GeneratorLike = None
) -> float:
    """100 · (max L − L)/(1 + L), the largest loss L(θ + z) in the box |zᵢ| ≤ ε(|θᵢ| + 1) (Keskar et al. 2017, metric 2.1).

    In per cent; θ is the origin of `surface`, `epsilon` ε. The maximum is sought by projected sign-gradient ascent, where Keskar
    et al. take L-BFGS-B: `num_steps` steps of a quarter of the box's half-width, each a gradient and a forward pass, from random
    signs of `generator`, a hundredth of it away, so that a minimum is left too. The largest loss on the way counts: a lower
    bound. For losses ≥ 0, where 1 + L makes sense. Raises ValueError unless ε is finite and > 0 and there is a step.

    >>> round(keskar_sharpness(surface, 0.05), 4)  # the corner (1.1, 1.1) of the box has a loss of 3.025
    15.0
    """
    require_surface(surface)
    if not 0 < epsilon < float("inf"):
        raise ValueError(f"epsilon must be finite and > 0, got {epsilon}")
    if num_steps < 1:
        raise ValueError(f"num_steps must be ≥ 1, got {num_steps}")
    generator = generator_from(generator)
    box = epsilon * (surface.origin.abs() + 1)
    draws = torch.randn(surface.size, generator=generator, dtype=torch.float64, device=generator.device)
    place = 0.01 * box * draws.to(box).sign()
    losses = []
    for _ in range(num_steps):
        place = (place + STEP * box * surface.gradient(place).sign()).clamp(-box, box)
        losses.append(surface.losses(displacements=place[None]))
    loss = surface.loss()
    highest = torch.cat(losses).clamp_min(loss).max()
    return 100 * (float(highest) - loss) / (1 + loss)
