"""How much the loss rises after one step up the gradient."""

from __future__ import annotations

import torch

from loss_landscape.surface.eager_losses import checked_rho
from loss_landscape.surface.strategy import EAGER
from loss_landscape.surface.surface import LossSurface, require_surface


def sam_sharpness(surface: LossSurface, rho: float = 0.05) -> float:
    """L(θ + ρ g/‖g‖) − L(θ), θ the origin of `surface` and g the gradient there (Foret et al. 2021, eq. 1).

    `rho` is the length of the step, in units of the parameters. 0 where the gradient is 0. Raises ValueError unless it is finite
    and ≥ 0.

    >>> round(sam_sharpness(surface, 0.5), 4)
    2.5395
    """
    return sam_loss(surface, rho) - surface.loss()


def first_order_sharpness(surface: LossSurface, rho: float = 0.05) -> float:
    """ρ‖g‖, what `sam_sharpness` of `surface` is for a small `rho`. Raises what that does.

    >>> round(first_order_sharpness(surface, 0.5), 6)  # half of √(4² + 1²)
    2.061553
    """
    require_surface(surface)
    return checked_rho(rho) * float(surface.gradient().double().norm())


def asam_sharpness(surface: LossSurface, rho: float = 0.5, *, eta: float = 0.01) -> float:
    """L(θ + ρ T²g/‖Tg‖) − L(θ), T = |θ| + η (Kwon et al. 2021): a step measured against each parameter's own size.

    θ is the origin of `surface`, g the gradient there, `rho` the step's length in units of T, `eta` η. It does not change when a
    ReLU net's layers are rescaled against each other (with η = 0). Every parameter is scaled, where the authors' code scales only
    those called weight. 0 where the gradient is 0. Raises ValueError unless both are finite and ≥ 0.

    >>> round(asam_sharpness(surface, 0.5, eta=0.0), 4)  # all parameters are 1, so T is as well
    2.5395
    """
    require_surface(surface)
    if not 0 <= eta < float("inf"):
        raise ValueError(f"eta must be finite and ≥ 0, got {eta}")
    gradient = surface.gradient().double()
    scale = surface.origin.double().abs() + eta
    length = (scale * gradient).norm()
    if bool(length == 0):
        return 0.0
    step = checked_rho(rho) * scale.square() * gradient / length
    return float(surface.losses(displacements=step[None])) - surface.loss()


def sam_loss(surface: LossSurface, rho: float) -> float:
    """L(θ + ρ g/‖g‖)."""
    require_surface(surface)
    nowhere = surface.plane([torch.zeros_like(surface.origin)])
    return float(nowhere.evaluate(torch.zeros(1, 1, dtype=torch.float64), EAGER, checked_rho(rho)))
