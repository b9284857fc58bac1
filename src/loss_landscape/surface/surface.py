"""The loss of a net as a function of its parameters, over fixed batches."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from loss_landscape.graphs.tracing import UntraceableError
from loss_landscape.nested import map_tensors
from loss_landscape.objective.batch_weights import batch_weights
from loss_landscape.objective.batches import Batches
from loss_landscape.objective.criterion import Criterion, LossFunction
from loss_landscape.objective.functional_net import (
    called,
    private_clone,
    recomputed_statistics,
    undisturbed,
    use_batch_statistics,
)
from loss_landscape.objective.layout import ParameterLayout
from loss_landscape.objective.used_parameters import common_dtype, prepare_criterion, snapshot, used_parameters
from loss_landscape.surface.plane_losses import Cells, ascent_term, batch_terms
from loss_landscape.surface.strategy import LOOP_CHUNK, Compile, GridPath, Precision, path_for

Parameters = Mapping[str, Tensor]
BatchNorm = Literal["running", "batch", "recompute"]


class LossSurface:
    """L(origin + displacement): reads the net once, at construction, and never writes it.

    `batches` is a re-iterable of `(inputs, targets)`, and the loss is the mean over all of them by what `loss_fn` itself divides
    by (class weights, ignored targets and soft ones included), or their sum where its reduction is 'sum'. Anything else:
    `batch_loss(model, batch)`, a scalar. `batch_weight(batch)` overrides the weights. The net runs in eval mode;
    `batch_norm="batch"` normalises by each batch's own statistics instead of the running ones. `dtype` is what it is evaluated
    in, the net's own unless given, at least float32; the loss itself is taken in float64 from the net's outputs.
    `batch_norm="recompute"` takes the running statistics anew over all batches at each point, and holds them fixed where it
    differentiates (Izmailov et al. 2018). `regularizer(model)`, a scalar, is added once to the mean over the batches.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction | None = None,
        batches: Iterable[Any] | None = None,
        *,
        batch_loss: Callable[[nn.Module, Any], Tensor] | None = None,
        batch_weight: Callable[[Any], float] | None = None,
        dtype: torch.dtype | None = None,
        batch_norm: BatchNorm = "running",
        regularizer: Callable[[nn.Module], Tensor] | None = None,
    ):
        if (loss_fn is None) == (batch_loss is None):
            raise ValueError("give exactly one of loss_fn(outputs, targets) and batch_loss(model, batch)")
        if batch_norm not in ("running", "batch", "recompute"):
            raise ValueError(f"batch_norm must be 'running', 'batch' or 'recompute', got {batch_norm!r}")
        if batch_norm == "recompute" and loss_fn is None:
            raise ValueError("batch_norm='recompute' needs to know a batch's inputs: give loss_fn(outputs, targets)")
        self.net = private_clone(model).eval()
        if batch_norm == "batch":
            use_batch_statistics(self.net)
        own = dict(model.named_parameters())
        self.dtype = dtype or common_dtype(own.values())
        self.device = next(iter(own.values())).device
        converted = any(p.dtype != self.dtype for p in own.values() if p.is_floating_point())
        self._parameters = {name: snapshot(p, self.dtype) for name, p in own.items()}
        self._buffers = {name: snapshot(b, self.dtype if converted else None) for name, b in self.net.named_buffers()}
        if isinstance(loss_fn, nn.Module) and {id(p) for p in loss_fn.parameters()} & {id(p) for p in own.values()}:
            raise ValueError("loss_fn holds parameters of the net, which it would not see move; give batch_loss=f(model, batch)")
        self.criterion = None if loss_fn is None else Criterion(loss_fn)
        self._objective = None if batch_loss is None else _Objective(self.net, batch_loss)
        self.regularizer = None if regularizer is None else _Objective(self.net, lambda net, _: regularizer(net))
        self.batch_norm = batch_norm
        self._batch_weight = batch_weight
        self._cells: dict[str, Cells] = {}
        self._rho = 0.0
        with undisturbed(self.device):
            self.batches = Batches(batches, self.device, self.dtype if converted else None)
            if batch_norm == "recompute":
                self._buffers = self._recomputed(self._parameters)
            if self.criterion is not None:
                prepare_criterion(self, self._parameters)
            trainable = {name: self._parameters[name] for name, p in own.items() if p.requires_grad}
            used, self.activation_bytes = used_parameters(self, trainable)
            self.layout = ParameterLayout.of(self.net, used)
            self.origin = self.layout.flatten(self._parameters)  # [P]
            self.weights, self.weighting = batch_weights(self, batch_weight)

    @property
    def size(self) -> int:
        """The number P of parameters that move."""
        return self.layout.size

    def loss(self) -> float:
        """The loss at the net's own parameters."""
        return self._baseline

    def at(self, displacements: Tensor) -> Tensor:
        """The losses [K], float64, at the origin plus each of `displacements` [K, P]: one forward pass each, nothing shared."""
        displacements = self._checked(displacements, 2)
        with undisturbed(self.device), torch.no_grad():
            return self._losses_one_by_one([lambda d=d: self.origin + d for d in displacements])

    def gradient(self, displacement: Tensor | None = None) -> Tensor:
        """The gradient [P] at the origin, or at the origin plus `displacement` [P]."""
        point = self.origin if displacement is None else self.origin + self._checked(displacement, 1)
        with undisturbed(self.device):
            return self._gradient_at(point)

    def along(self, directions: Sequence[Tensor], coordinates: Tensor, path: GridPath | None = None) -> Tensor:
        """The losses [K], float64, at origin + Σ_d coordinates[k, d]·directions[d], for D directions [P] and coordinates [K, D].

        The fast way for grids, lines and curves; `path` is `grid_path(D)` unless given. What a plane's cells share is computed at
        the first call and kept for the next ones with the same direction tensors.
        """
        directions, coordinates = self._checked_plane(directions, coordinates)
        path = path or self.grid_path(len(directions))
        with undisturbed(self.device), torch.no_grad():
            if path.name == "loop":
                return self._losses_one_by_one([self._point(directions, row) for row in coordinates.tolist()])
            return _in_whole_chunks(lambda rows: self._traced("loss", path).losses(directions, rows, path), coordinates, path)

    def sam_along(self, directions: Sequence[Tensor], coordinates: Tensor, rho: float, path: GridPath | None = None) -> Tensor:
        """The losses [K] one ascent step away from the same points: L(θ + ρ g/‖g‖), g the gradient at θ. Where g is 0, L(θ)."""
        directions, coordinates = self._checked_plane(directions, coordinates)
        path = path or self.grid_path(len(directions), "ascent")
        with undisturbed(self.device), torch.no_grad():
            if path.name == "loop":
                rows = [self._point(directions, row) for row in coordinates.tolist()]
                return torch.cat([self._losses_one_by_one([lambda row=row: self._ascended(row(), rho)]) for row in rows])
            cells = self._traced("ascent", path)
            if float(rho) != self._rho:
                self._rho = float(rho)
                cells.forget_plane()
            return _in_whole_chunks(lambda rows: cells.losses(directions, rows, path), coordinates, path)

    def grid_path(
        self,
        num_directions: int = 2,
        kind: Literal["loss", "ascent"] = "loss",
        *,
        num_cells: int | None = None,
        compile: Compile = "auto",
        precision: Precision = None,
        chunk: int | None = None,
    ) -> GridPath:
        """How `along` (`loss`) or `sam_along` (`ascent`) goes about it, by shapes, dtype and device type alone.

        A loss that is no fixed graph of the parameters is evaluated point by point, and the path's note says why. `chunk`
        replaces the rule's. `compile` and `precision` are as in `evaluate_grid`.
        """
        if precision is not None and self.criterion is None:
            raise ValueError(f"precision={precision!r} needs outputs and loss apart: give loss_fn(outputs, targets)")
        path = self._path_by_rule(num_directions, kind, num_cells, compile, precision)
        return path if chunk is None else replace(path, chunk=chunk)

    def restricted(self, *patterns: str) -> LossSurface:
        """The same surface moving only the parameters whose names match one of the globs, such as `layer1.*`."""
        names = [name for name in self.layout.names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
        if not names:
            raise ValueError(f"no parameter matches {', '.join(map(repr, patterns))}; there are {', '.join(self.layout.names)}")
        twin = self._twin()
        twin.layout = ParameterLayout.of(self.net, names)
        twin.origin = twin.layout.flatten(self._own_parameters())
        return twin

    def in_dtype(self, dtype: torch.dtype) -> LossSurface:
        """The same surface, evaluated in another dtype."""
        twin = self._twin()
        twin.dtype = dtype
        twin.batches = self.batches.in_dtype(dtype)
        twin._parameters = {name: snapshot(p, dtype) for name, p in self._parameters.items()}
        twin._buffers = {name: snapshot(b, dtype) for name, b in self._buffers.items()}
        twin.origin = self.origin.to(dtype)
        return twin

    def on(self, device: torch.device | str) -> LossSurface:
        """The same surface on another device."""
        twin = self._twin()
        twin.device = torch.device(device)
        twin.batches = self.batches.on(twin.device)
        twin.criterion = None if self.criterion is None else self.criterion.on(twin.device)
        twin._parameters = {name: p.to(twin.device) for name, p in self._parameters.items()}
        twin._buffers = {name: b.to(twin.device) for name, b in self._buffers.items()}
        twin.origin = self.origin.to(twin.device)
        return twin

    def moved_to(self, point: Tensor) -> LossSurface:
        """The same surface with its origin at `point` [P]; the parameters that don't move stay as they are."""
        twin = self._twin()
        twin.origin = self._checked(point, 1).clone()
        if twin.batch_norm == "recompute":
            with undisturbed(self.device):
                twin._buffers = twin._recomputed(twin._own_parameters())
        return twin

    def with_batch_statistics(self) -> LossSurface:
        """The same surface with `batch_norm="batch"`."""
        if self.batch_norm == "batch":
            return self
        twin = self._twin()
        twin.batch_norm, twin.net = "batch", private_clone(self.net)
        use_batch_statistics(twin.net)
        twin._buffers = {name: self._buffers[name] for name, _ in twin.net.named_buffers()}
        twin._objective = None if self._objective is None else _Objective(twin.net, self._objective.batch_loss)
        twin.regularizer = None if self.regularizer is None else _Objective(twin.net, self.regularizer.batch_loss)
        return twin

    def in_halves(self) -> LossSurface:
        """The same surface with every batch cut in two; ValueError where that changes the loss, or a batch has one example."""
        if self.batch_norm != "running":
            raise ValueError(f"with batch_norm={self.batch_norm!r} the loss depends on how the data are cut into batches")
        twin = self._twin()
        twin.batches = self.batches.in_halves()
        with undisturbed(self.device):
            twin.weights, twin.weighting = batch_weights(twin, self._batch_weight)
        return twin

    def terms(self) -> Iterator[tuple[float, Callable[[Parameters], Tensor]]]:
        """The loss as a sum: a weight and a function of the moving parameters by name, for each batch and the regulariser."""
        for weight, batch in self.weighted_batches():
            yield weight, lambda parameters, batch=batch: self.batch_loss(parameters, batch)
        if self.regularizer is not None:
            yield 1.0, self.penalty

    def penalty(self, parameters: Parameters) -> Tensor:
        """The regulariser at `parameters`, a scalar to be differentiated; only where there is one."""
        return called(self.regularizer, _prefixed(self.state(parameters)), (None,))

    def weighted_batches(self) -> Iterator[tuple[float, Any]]:
        """Each batch with its weight in the loss; those that weigh nothing are left out."""
        return ((weight, batch) for weight, batch in zip(self.weights, self.batches, strict=True) if weight != 0)

    def leaves(self) -> dict[str, Tensor]:
        """The moving parameters at the origin as new leaves that require a gradient."""
        return {name: t.clone().requires_grad_() for name, t in self.layout.unflatten(self.origin).items()}

    def outputs(self, parameters: Parameters, batch: Any, dtype: torch.dtype | None = None) -> Any:
        """What the net gives for a batch of (inputs, targets) at `parameters`, in `dtype`, the surface's unless given."""
        inputs, state = batch[0], self.state(parameters)
        if dtype is not None:
            inputs, state = map_tensors(lambda t: _cast(t, dtype), inputs), {name: _cast(t, dtype) for name, t in state.items()}
        if isinstance(inputs, Mapping):
            return called(self.net, state, (), inputs)
        return called(self.net, state, tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,))

    def batch_loss(self, parameters: Parameters, batch: Any, dtype: torch.dtype | None = None) -> Tensor:
        """The loss of one batch at `parameters` by name, a scalar to be differentiated; `dtype` is as in `outputs`."""
        if self._objective is not None:
            with torch.enable_grad():  # it may differentiate the net itself
                return called(self._objective, _prefixed(self.state(parameters)), (batch,))
        return self.criterion(self.outputs(parameters, batch, dtype), batch[1])

    @cached_property
    def _baseline(self) -> float:
        return self.at(torch.zeros_like(self.origin)[None]).item()

    @property
    def radius(self) -> Tensor:
        """The ρ of the last `sam_along`, a scalar tensor for its graph."""
        return torch.tensor(self._rho, dtype=self.dtype, device=self.device)

    def _path_by_rule(
        self, num_directions: int, kind: str, num_cells: int | None, compile: Compile, precision: Precision
    ) -> GridPath:
        if self.batch_norm == "recompute":
            return GridPath("loop", LOOP_CHUNK, note="batch norm's statistics are taken anew at each point")
        if self.device.type == "mps":
            return GridPath("loop", LOOP_CHUNK, note="mps has no float64")
        path = GridPath("graph", LOOP_CHUNK, dtype=precision)
        try:
            with undisturbed(self.device):
                cost = self._traced(kind, path).cost(num_directions)
        except UntraceableError as error:
            return GridPath("loop", LOOP_CHUNK, note=f"the loss can't be traced: {error}")
        return path_for(cost, self.device.type, num_cells, compile, precision)

    def _traced(self, kind: str, path: GridPath) -> Cells:
        key = f"{kind} {path.dtype}"
        if key not in self._cells:
            terms = batch_terms(self, path.dtype) if kind == "loss" else ascent_term(self)
            self._cells[key] = Cells(self, terms)
        return self._cells[key]

    def _twin(self) -> LossSurface:
        twin = copy.copy(self)
        twin._cells, twin._rho = {}, 0.0
        twin.__dict__.pop("_baseline", None)
        return twin

    def _own_parameters(self) -> Parameters:
        return {**self._parameters, **self.layout.unflatten(self.origin)}

    def state(self, parameters: Parameters) -> dict[str, Tensor]:
        """Everything the net holds, by name, with `parameters` in place of its own; buffers are clones, to be counted in."""
        return {**self._parameters, **{name: b.clone() for name, b in self._buffers.items()}, **parameters}

    def _at_point(self, parameters: Parameters) -> LossSurface:
        """The surface to ask for the loss at `parameters`: with their own statistics where these are recomputed."""
        if self.batch_norm != "recompute":
            return self
        twin = self._twin()
        twin._buffers = self._recomputed({**self._parameters, **parameters})
        return twin

    def _recomputed(self, parameters: Parameters) -> dict[str, Tensor]:
        return recomputed_statistics(self.net, parameters, self._buffers, (batch[0] for batch in self.batches))

    def _checked(self, displacement: Tensor, dims: int) -> Tensor:
        wanted = "[K, P]" if dims == 2 else "[P]"
        if displacement.dim() != dims or displacement.shape[-1] != self.size:
            raise ValueError(
                f"expected displacements {wanted} with P = {self.size} parameters, got {list(displacement.shape)}; "
                "build them with surface.layout.flatten(...)"
            )
        return displacement.detach().to(self.origin)

    def _checked_plane(self, directions: Sequence[Tensor], coordinates: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        directions = tuple(directions)
        for direction in directions:
            self._checked(direction, 1)
        coordinates = torch.as_tensor(coordinates)
        if coordinates.dim() != 2 or coordinates.shape[1] != len(directions):
            raise ValueError(f"expected coordinates [K, {len(directions)}], a column a direction, got {list(coordinates.shape)}")
        return directions, coordinates

    def _point(self, directions: Sequence[Tensor], row: Sequence[float]) -> Callable[[], Tensor]:
        def point() -> Tensor:  # made when it is needed: a hundred points of a large net do not fit into memory
            moved = self.origin
            for direction, coordinate in zip(directions, row, strict=True):
                moved = moved.add(direction.to(self.origin), alpha=coordinate)
            return moved

        return point

    def _losses_one_by_one(self, points: Sequence[Callable[[], Tensor]]) -> Tensor:
        total = torch.zeros(len(points), dtype=self._loss_dtype, device=self.device)
        if self.batch_norm == "recompute":
            for index, point in enumerate(points):
                total[index] = self._loss_of(self.layout.unflatten(point()))
            return total
        for weight, term in self.terms():
            losses = [term(self.layout.unflatten(point())).detach() for point in points]
            total += weight * torch.stack(losses).to(total)
        return total

    def _loss_of(self, parameters: Parameters) -> Tensor:
        return sum(weight * term(parameters).detach() for weight, term in self._at_point(parameters).terms())

    def _gradient_at(self, point: Tensor) -> Tensor:
        leaves = {name: t.requires_grad_() for name, t in self.layout.unflatten(point.detach().clone()).items()}
        total = torch.zeros_like(self.origin)
        for weight, term in self._at_point({name: t.detach() for name, t in leaves.items()}).terms():
            with torch.enable_grad():
                loss = term(leaves)
            if not loss.requires_grad:  # this term depends on none of the parameters that move
                continue
            parts = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
            total += weight * self.layout.flatten(parts)
        return total

    def _ascended(self, point: Tensor, rho: float) -> Tensor:
        slope = self._gradient_at(point)
        length = torch.linalg.vector_norm(slope)
        return point + torch.where(length > 0, rho / length, 0) * slope

    @property
    def _loss_dtype(self) -> torch.dtype:
        return torch.float32 if self.device.type == "mps" else torch.float64


class _Objective(nn.Module):
    """A net and a loss of it in one module, so that functional_call gives `batch_loss` a real module."""

    def __init__(self, net: nn.Module, batch_loss: Callable[[nn.Module, Any], Tensor]):
        super().__init__()
        self.net, self.batch_loss = net, batch_loss

    def forward(self, batch: Any) -> Tensor:
        return self.batch_loss(self.net, batch)


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _prefixed(state: Parameters) -> dict[str, Tensor]:
    return {f"net.{name}": tensor for name, tensor in state.items()}


def _in_whole_chunks(function: Callable[[Tensor], Tensor], rows: Tensor, path: GridPath) -> Tensor:
    if path.name != "batched":
        return function(rows)
    missing = -len(rows) % path.chunk
    filled = torch.cat([rows, rows[-1:].expand(missing, -1)]) if missing else rows
    return torch.cat([function(part) for part in filled.split(path.chunk)])[: len(rows)]
