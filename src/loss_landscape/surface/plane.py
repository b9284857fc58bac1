"""A surface along directions that are the plane's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from loss_landscape.blockwise import blocks
from loss_landscape.graphs.tracing import UntraceableError
from loss_landscape.nested import as_tensor
from loss_landscape.objective.functional_net import undisturbed
from loss_landscape.objective.layout import ParameterLayout
from loss_landscape.objective.objective import Objective
from loss_landscape.surface.eager_losses import ascended_point, checked_rho, losses_at
from loss_landscape.surface.plane_losses import PlaneLosses
from loss_landscape.surface.strategy import EAGER, Evaluation, EvaluationStrategy, Precision, strategy_for
from loss_landscape.surface.strategy_check import FAILURES, alternatives, failure_of, objection_to
from loss_landscape.surface.traced_loss import Kind, TracedLoss

TRIAL_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)

TracedLosses = Callable[[Kind, Precision], TracedLoss]


class Plane:
    """The losses at origin + Σ_d c_d·directions[d], for D directions [P]: a line, a plane or a volume of a surface.

    Made by `surface.plane(directions)`. Nobody may write to the directions while it is used. What its cells share is computed at
    the first call and kept until `release` is called, or as long as the plane lives.

    >>> import torch
    >>> from torch import nn
    >>> from loss_landscape import LossSurface
    >>> net = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(net.weight, 2.0)
    >>> surface = LossSurface(net, nn.MSELoss(), [(torch.ones(1, 1), torch.zeros(1, 1))])  # L(θ) = θ²
    >>> plane = surface.plane([torch.ones(1)])
    >>> plane.losses(torch.tensor([[0.0], [1.0], [-2.0]])).tolist()
    [4.0, 9.0, 0.0]
    """

    def __init__(
        self, objective: Objective, layout: ParameterLayout, origin: Tensor, directions: Sequence[Tensor], *, traced: TracedLosses
    ):
        self.objective, self.layout, self.origin = objective, layout, origin
        self.directions = tuple(directions)
        self._traced = traced
        self._bound: dict[tuple[Kind, Precision], PlaneLosses] = {}
        self._verified: dict[tuple[Kind, Evaluation], EvaluationStrategy] = {}

    def losses(
        self, coordinates: Tensor | np.ndarray, rho: float | None = None, *, evaluation: Evaluation | None = None
    ) -> Tensor:
        """The losses [K], float64, at `coordinates` [K, D].

        With `rho` those one ascent step away, L(θ + ρ g/‖g‖) with g the gradient at θ, and L(θ) where g is 0. How they are
        evaluated goes by `evaluation`; the first call also evaluates five of its cells by the plain loop, and goes over to that
        where they differ. Raises ValueError for coordinates of another shape, and unless `rho` is finite and ≥ 0.
        """
        coordinates, rho = self._checked(coordinates), None if rho is None else checked_rho(rho)
        with undisturbed(self.objective.device), torch.no_grad():
            strategy = self._verified_strategy(coordinates, rho, Evaluation() if evaluation is None else evaluation)
            return self.evaluate(coordinates, strategy, rho)

    def strategy(
        self, kind: Kind = "loss", *, num_cells: int | None = None, evaluation: Evaluation | None = None
    ) -> EvaluationStrategy:
        """How `num_cells` cells (None: as many as come) are evaluated: by shapes, dtype and device, unless `evaluation` says how.

        `kind` is "loss", or "ascent" for the loss after an ascent step. A loss that is no fixed graph of the parameters is
        evaluated point by point, and the strategy's note says why.
        """
        wanted = Evaluation() if evaluation is None else evaluation
        if not isinstance(wanted, Evaluation):
            raise TypeError(f"expected evaluation=Evaluation(…), with options of how cells are evaluated, got {evaluation!r}")
        if wanted.precision is not None and self.objective.criterion is None:
            raise ValueError(f"precision={wanted.precision!r} needs outputs and loss apart: give loss_fn(outputs, targets)")
        found = self._strategy_by_rule(kind, num_cells, wanted)
        return found if wanted.chunk is None else replace(found, chunk=wanted.chunk)

    def evaluate(self, coordinates: Tensor, strategy: EvaluationStrategy, rho: float | None = None) -> Tensor:
        """The losses [K] at `coordinates` [K, D], with `rho` as in `losses`, by a `strategy` that the caller has checked."""
        if strategy.name == "eager":
            return self.plain_losses(coordinates, rho)
        coordinates = self._checked(coordinates)
        with undisturbed(self.objective.device), torch.no_grad():
            return self._plane_losses(strategy, rho).losses(coordinates, strategy)

    def plain_losses(self, coordinates: Tensor, rho: float | None = None) -> Tensor:
        """The losses [K] at `coordinates` [K, D], with `rho` as in `losses`, by the plain loop through the net itself."""
        coordinates = self._checked(coordinates)
        with undisturbed(self.objective.device), torch.no_grad():
            points = [self._point(row) for row in coordinates.tolist()]
            if rho is None:
                return losses_at(self.objective, self.layout, points)
            away = [lambda point=point: ascended_point(self.objective, self.layout, point(), rho) for point in points]
            return torch.cat([losses_at(self.objective, self.layout, [point]) for point in away])

    def in_dtype(self, dtype: torch.dtype) -> Plane:
        """The same plane, evaluated in another dtype by the plain loop alone."""

        def untraced(kind: Kind, precision: Precision) -> TracedLoss:
            raise UntraceableError("a plane in another dtype than its surface's is evaluated by the plain loop")

        objective = self.objective.in_dtype(dtype, but=self.layout.names)
        return Plane(objective, self.layout, self.origin, self.directions, traced=untraced)

    def release(self) -> None:
        """Drop what cells share; it is computed again when it is needed."""
        self._bound.clear()

    def _checked(self, coordinates: Tensor | np.ndarray) -> Tensor:
        coordinates = torch.as_tensor(as_tensor(coordinates))
        if coordinates.dim() != 2 or coordinates.shape[1] != len(self.directions):
            raise ValueError(
                f"expected coordinates [K, {len(self.directions)}], a column a direction, got {list(coordinates.shape)}"
            )
        return coordinates

    def _verified_strategy(self, coordinates: Tensor, rho: float | None, evaluation: Evaluation) -> EvaluationStrategy:
        kind: Kind = "loss" if rho is None else "ascent"
        if (kind, evaluation) not in self._verified:
            by_rule = self.strategy(kind, num_cells=len(coordinates), evaluation=evaluation)
            self._verified[kind, evaluation] = self._agreeing(by_rule, _trial_cells(coordinates), rho)
        return self._verified[kind, evaluation]

    def _agreeing(self, strategy: EvaluationStrategy, cells: Tensor, rho: float | None) -> EvaluationStrategy:
        """The first of a strategy's alternatives that agrees with the plain loop on `cells`; its note says why not the others."""
        for candidate in alternatives(strategy):
            trial = replace(candidate, note=strategy.note)
            objection = self._objection(trial, cells, rho)
            if objection is None:
                return trial
            strategy = strategy.with_note(objection)
        raise AssertionError("the plain loop agrees with itself")

    def _objection(self, strategy: EvaluationStrategy, cells: Tensor, rho: float | None) -> str | None:
        if strategy.name == "eager":
            return None
        exact = replace(strategy, precision=None)  # its rounding would hide a wrong graph
        try:
            found = self.evaluate(cells, exact, rho).cpu().numpy()
        except torch.OutOfMemoryError:
            raise
        except FAILURES as error:
            return failure_of(strategy, error)
        return objection_to(strategy, found, self.evaluate(cells, EAGER, rho).cpu().numpy(), self.objective.dtype)

    def _strategy_by_rule(self, kind: Kind, num_cells: int | None, evaluation: Evaluation) -> EvaluationStrategy:
        if draws := self.objective.net.rules.draw_note:
            return replace(EAGER, note=draws)
        if self.objective.batch_norm == "recompute":
            return replace(EAGER, note="batch norm's statistics are taken anew at each point")
        if self.objective.device.type == "mps":
            return replace(EAGER, note="mps has no float64")
        try:
            with undisturbed(self.objective.device):
                cost = self._traced(kind, evaluation.precision).cost(len(self.directions))
        except UntraceableError as error:
            return replace(EAGER, note=f"the loss can't be traced: {error}")
        return strategy_for(cost, self.objective.device.type, num_cells, evaluation.compile, evaluation.precision)

    def _plane_losses(self, strategy: EvaluationStrategy, rho: float | None) -> PlaneLosses:
        key: tuple[Kind, Precision] = ("loss" if rho is None else "ascent", strategy.precision)
        radius = 0.0 if rho is None else float(rho)
        if key not in self._bound or self._bound[key].rho != radius:
            self._bound[key] = PlaneLosses(self._traced(*key), self.layout, self.directions, radius)
        return self._bound[key]

    def _point(self, row: Sequence[float]) -> Callable[[], Tensor]:
        def point() -> Tensor:  # made when it is needed: a hundred points of a large net do not fit into memory
            moved = torch.empty_like(self.origin, dtype=self.objective.dtype)
            for block in blocks(len(moved)):
                here, start = moved[block], self.origin[block].to(moved.dtype)
                for direction, coordinate in zip(self.directions, row, strict=True):
                    start = torch.add(start, direction[block].to(moved.dtype), alpha=coordinate, out=here)
            return moved

        return point


def _trial_cells(coordinates: Tensor) -> Tensor:
    """The cell nearest to the origin, those a quarter, half and three quarters of the way out, and the farthest."""
    by_distance = coordinates.double().square().sum(dim=1).argsort(stable=True)
    last = len(by_distance) - 1
    chosen = dict.fromkeys(by_distance[[round(last * share) for share in TRIAL_SHARES]].tolist()) if len(by_distance) else {}
    return coordinates[list(chosen)]
