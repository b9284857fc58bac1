"""The library's numbers on a trial, held against plain loops and dense matrices in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from zoo.plain import PlainLoss, Vector

from loss_landscape import (
    Evaluation,
    HessianOperator,
    LossSurface,
    spectral_density,
    trace,
)
from loss_landscape.spectra.probes import probe
from random_nets.trial import Trial

MOST_PARAMETERS_IN_FULL = 150
NOISE_FACTOR = 8  # times what a plain float32 loop itself is off
EPS32 = torch.finfo(torch.float32).eps
CELLS = 7


@dataclass(frozen=True)
class Comparison:
    """A quantity of the library's beside the right one; `allowed` is absolute, for the largest difference."""

    name: str
    found: Tensor
    right: Tensor
    allowed: float

    @property
    def error(self) -> float:
        """The largest difference; infinite where one is a number and the other not."""
        both = self.found.isnan() & self.right.isnan() | (self.found == self.right)
        difference = torch.where(both, 0, (self.found - self.right).abs())
        return float(difference.nan_to_num(nan=torch.inf).max()) if len(difference) else 0.0

    @property
    def holds(self) -> bool:
        """Whether they agree."""
        return self.error <= self.allowed

    def __str__(self) -> str:
        return f"{self.name}: off by {self.error:.3g}, allowed {self.allowed:.3g}, of {float(self.right.abs().max()):.3g}"


def comparisons(trial: Trial) -> Iterator[Comparison]:
    """Everything that is compared for a trial, one after the other."""
    state, batches = copy.deepcopy(trial.net.state_dict()), copy.deepcopy(trial.batches)
    plain, surface = trial.plain(), trial.surface(trial.options.dtype)
    yield from _losses(trial, plain, surface)
    yield from _ascents(trial, plain, surface)
    yield from _gradients(trial, plain, surface)
    yield from _products(trial, plain, surface)
    if surface.size <= MOST_PARAMETERS_IN_FULL:
        yield from _in_full(trial, plain, trial.surface(torch.float64))
    yield from _untouched(trial, state, batches)


def _losses(trial: Trial, plain: PlainLoss, surface: LossSurface) -> Iterator[Comparison]:
    """A plane by the default strategy, and by each that is forced on it."""
    directions, cells = drawn_directions(trial, surface), drawn_cells(trial)
    points = [_displacement(surface, directions, row) for row in cells]
    right = torch.tensor([plain.value(torch.float64, point) for point in points], dtype=torch.float64)
    rough = torch.tensor([plain.value(torch.float32, point) for point in points], dtype=torch.float64)
    allowed = _allowed(surface.dtype, right, rough)
    plane = surface.plane(list(directions))
    evaluation = Evaluation(compile=False, chunk=trial.options.chunk)
    yield Comparison("plane", plane.losses(cells, evaluation=evaluation), right, allowed)
    yield Comparison("losses at points", surface.losses(displacements=cells.to(directions) @ directions), right, allowed)
    strategy = plane.strategy(evaluation=evaluation)
    for name, chunk in (("traced", 16), ("vectorized", 4)) if strategy.name != "eager" else ():
        forced = replace(strategy, name=name, chunk=chunk)
        yield Comparison(f"plane, {name}", plane.evaluate(cells, forced), right, allowed)


def _ascents(trial: Trial, plain: PlainLoss, surface: LossSurface) -> Iterator[Comparison]:
    """The losses one step of length ρ up the gradient; near a kink, or a gradient of 0, its direction is not to be known."""
    directions, cells, rho = drawn_directions(trial, surface), drawn_cells(trial)[:4], trial.options.rho
    right, rough = (
        torch.tensor([_ascended(plain, dtype, surface, directions, row, rho) for row in cells], dtype=torch.float64)
        for dtype in DTYPES
    )
    found = surface.plane(list(directions)).losses(cells, rho)
    yield Comparison("plane with ρ", found, right, _allowed(surface.dtype, right, rough))


DTYPES = (torch.float64, torch.float32)


def _ascended(plain: PlainLoss, dtype: torch.dtype, surface: LossSurface, directions: Tensor, row: Tensor, rho: float) -> float:
    point = _displacement(surface, directions, row)
    slope = plain.gradient(dtype, point).double()
    length = slope.norm()
    step = surface.layout.unflatten(slope * (rho / length if length > 0 else 0))
    return plain.value(dtype, {name: point[name].double() + step[name] for name in point})


def _gradients(trial: Trial, plain: PlainLoss, surface: LossSurface) -> Iterator[Comparison]:
    directions, cells = drawn_directions(trial, surface), drawn_cells(trial)
    for row in (torch.zeros_like(cells[0]), cells[-1]):
        point = _displacement(surface, directions, row)
        right, rough = (plain.gradient(dtype, point).double() for dtype in DTYPES)
        found = surface.gradient(surface.layout.flatten(point)).double()
        yield Comparison(f"gradient at {row.tolist()}", found, right, _allowed(surface.dtype, right, rough))


def _products(trial: Trial, plain: PlainLoss, surface: LossSurface) -> Iterator[Comparison]:
    """Products with the Hessian at the origin by each method, against double backward where that is the derivative.

    Where the gradient is told not to be the loss's slope, as behind a padding's row, the matrix is that of double backward.
    """
    vector = torch.randn(surface.size, generator=torch.Generator().manual_seed(trial.seed + 1), dtype=torch.float64)
    along, here = surface.layout.unflatten(vector), _displacement(surface, None, None)
    twice, uncertain = differences(plain, here, along)
    try:
        right, rough = (plain.product(dtype, here, along).double() for dtype in DTYPES)
    except RuntimeError as error:
        if "not implemented" not in str(error):
            raise
        return  # torch has no second derivative of a hard sigmoid, and a difference is none at its kinks
    differs = float((twice - right).abs().max()) > 1e-4 * float(right.abs().max()) + 10 * uncertain
    doubtful = trial.smooth and differs and not surface.derivative_note
    right = twice if doubtful else right
    allowed = _allowed(surface.dtype, right, rough) + (10 * uncertain if doubtful else 0)
    for method in ("auto", "traced", "retained", "finite_differences"):
        if method == "finite_differences" and not trial.smooth:
            continue  # at a kink a difference is not the derivative
        try:
            operator = HessianOperator(surface, method=method)
        except ValueError as error:
            if method == "auto":
                raise
            if "not symmetric" in str(error) or "not " in str(error):
                continue  # refused, with its reason
            raise
        found = (operator @ vector.to(surface.dtype)).double()
        by_differences = operator.method == "finite_differences"
        slack = allowed + (1e-4 * float(right.abs().max()) + 10 * uncertain if by_differences else 0)
        if by_differences and not trial.smooth:
            continue
        yield Comparison(f"product, {method} ({operator.method})", found, right, slack)


def differences(plain: PlainLoss, here: Vector, along: Vector) -> tuple[Tensor, float]:
    """The product by differences of gradients, and how uncertain it is: what half the step changes."""
    coarse, fine = (plain.difference(here, along, step) for step in (2e-5, 1e-5))
    return fine, float((coarse - fine).abs().max())


def _in_full(trial: Trial, plain: PlainLoss, surface: LossSurface) -> Iterator[Comparison]:
    """The exact trace and the moments of the density, by the whole matrix."""
    here, size = _displacement(surface, None, None), surface.size
    try:
        operator = HessianOperator(surface, method="retained")
    except ValueError:
        return  # refused, with its reason
    units = torch.eye(size, dtype=torch.float64)
    matrix = torch.stack([plain.product(torch.float64, here, surface.layout.unflatten(unit)) for unit in units])
    scale = float(matrix.abs().max())
    found = torch.tensor([trace(operator, num_products=size).value], dtype=torch.float64)
    yield Comparison("trace", found, matrix.trace()[None], 1e-9 * size * scale + 1e-12)
    start = probe(operator, "rademacher", torch.Generator().manual_seed(trial.seed))[:, None]
    density = spectral_density(operator, num_probes=1, lanczos_steps=min(size, 20), generator=trial.seed)
    image = start
    for order in (1, 2, 3):
        image = matrix @ image
        right = (start * image).sum(0) / size
        allowed = 1e-8 * float(image.norm() * start.norm()) / size + 1e-12
        yield Comparison(
            f"moment {order} of the density", torch.tensor([density.moment(order).value], dtype=torch.float64), right, allowed
        )


def _untouched(trial: Trial, state: dict[str, Tensor], batches: list) -> Iterator[Comparison]:
    for name, tensor in trial.net.state_dict().items():
        yield Comparison(f"the net's own {name}", tensor.double().reshape(-1), state[name].double().reshape(-1), 0.0)
    for now, then in zip(_leaves(trial.batches), _leaves(batches), strict=True):
        yield Comparison("a batch", now.double().reshape(-1), then.double().reshape(-1), 0.0)
    yield Comparison("the net's mode", torch.tensor([float(trial.net.training)]), torch.ones(1), 0.0)


def _leaves(batches: list) -> list[Tensor]:
    return [t for inputs, targets in batches for t in (*_parts(inputs), targets)]


def _parts(inputs: object) -> list[Tensor]:
    if isinstance(inputs, dict):
        return list(inputs.values())
    return list(inputs) if isinstance(inputs, tuple) else [inputs]


def drawn_directions(trial: Trial, surface: LossSurface) -> Tensor:
    """[D, P], each as long as the origin, but at least 1."""
    generator = torch.Generator().manual_seed(trial.seed + 2)
    made = torch.randn(trial.options.num_directions, surface.size, generator=generator, dtype=torch.float64)
    length = max(1.0, float(surface.origin.double().norm()))
    return (length * made / made.norm(dim=1, keepdim=True)).to(surface.dtype)


def drawn_cells(trial: Trial) -> Tensor:
    """Coordinates [K, D] within the trial's radius; the first is the origin."""
    generator = torch.Generator().manual_seed(trial.seed + 3)
    cells = 2 * torch.rand(CELLS, trial.options.num_directions, generator=generator, dtype=torch.float64) - 1
    cells[0] = 0
    return trial.options.radius * cells


def _displacement(surface: LossSurface, directions: Tensor | None, row: Tensor | None) -> dict[str, Tensor]:
    flat = torch.zeros_like(surface.origin) if directions is None else row.to(directions) @ directions
    return surface.layout.unflatten(flat)


def _allowed(dtype: torch.dtype, right: Tensor, rough: Tensor) -> float:
    """In float64 a little more than its rounding, in float32 a few times what a plain loop is off itself."""
    scale = float(right[right.isfinite()].abs().max()) if bool(right.isfinite().any()) else 0.0
    if dtype == torch.float64:
        return 1e-9 * scale + 1e-12
    off = (rough - right).abs()
    noise = float(off[off.isfinite()].max()) if bool(off.isfinite().any()) else 0.0
    return NOISE_FACTOR * noise + 32 * EPS32 * scale + 1e-7
