"""The loss of a net as a function of its parameters, over fixed batches."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from loss_landscape.batches import Batches, tensors_in
from loss_landscape.criterion import Criterion, LossFunction
from loss_landscape.parameters import ParameterLayout
from loss_landscape.snapshot import private_clone, undisturbed, use_batch_statistics
from loss_landscape.weighting import batch_weights

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class GridPath:
    """How many points are evaluated: `vmap`, `chunk` of them in one batched pass, or `loop`, one after another.

    A vmapped chunk is always whole, filled up with copies of its last point, so that its arithmetic is the same for any number of
    points. A loop's chunk is only what is handed back at a time.
    """

    name: Literal["vmap", "loop"]
    chunk: int
    note: str = ""  # why it is not what the rule would choose


class LossSurface:
    """L(origin + displacement): reads the net once, at construction, and never writes it.

    `batches` is a re-iterable of `(inputs, targets)`, and the loss is the mean over all of them by what `loss_fn` itself divides
    by (class weights, ignored targets and soft ones included), or their sum where its reduction is 'sum'. Anything else:
    `batch_loss(model, batch)`, a scalar. `batch_weight(batch)` overrides the weights. The net runs in eval mode;
    `batch_norm="batch"` normalises by each batch's own statistics instead of the running ones. `dtype` is what it is evaluated
    in, the net's own unless given, at least float32; the loss itself is taken in float64 from the net's outputs.
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
        batch_norm: Literal["running", "batch"] = "running",
    ):
        if (loss_fn is None) == (batch_loss is None):
            raise ValueError("give exactly one of loss_fn(outputs, targets) and batch_loss(model, batch)")
        if batch_norm not in ("running", "batch"):
            raise ValueError(f"batch_norm must be 'running' or 'batch', got {batch_norm!r}")
        self.net = private_clone(model).eval()
        if batch_norm == "batch":
            use_batch_statistics(self.net)
        own = dict(model.named_parameters())
        self.dtype = dtype or _common_dtype(own.values())
        self.device = next(iter(own.values())).device
        converted = any(p.dtype != self.dtype for p in own.values() if p.is_floating_point())
        self._parameters = {name: _snapshot(p, self.dtype) for name, p in own.items()}
        self._buffers = {name: _snapshot(b, self.dtype if converted else None) for name, b in self.net.named_buffers()}
        if isinstance(loss_fn, nn.Module) and {id(p) for p in loss_fn.parameters()} & {id(p) for p in own.values()}:
            raise ValueError("loss_fn holds parameters of the net, which it would not see move; give batch_loss=f(model, batch)")
        self.criterion = None if loss_fn is None else Criterion(loss_fn)
        self._objective = None if batch_loss is None else _Objective(self.net, batch_loss)
        with undisturbed(self.device):
            self.batches = Batches(batches, self.device, self.dtype if converted else None)
            if self.criterion is not None:
                self._prepare_criterion()
            used, seen = self._probe([name for name, p in own.items() if p.requires_grad])
            self.largest_activation, self.activation_bytes = seen.largest, seen.bytes
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

        The fast way for grids, lines and curves; `path` is `grid_path()` unless given.
        """
        directions, coordinates = self._checked_plane(directions, coordinates)
        path = path or self.grid_path()
        with undisturbed(self.device), torch.no_grad():
            if path.name == "loop":
                return self._losses_one_by_one([self._point(directions, row) for row in coordinates.tolist()])
            return _in_whole_chunks(lambda rows: self._losses(self._points(directions, rows)), coordinates, path.chunk)

    def sam_along(self, directions: Sequence[Tensor], coordinates: Tensor, rho: float, path: GridPath | None = None) -> Tensor:
        """The losses [K] one ascent step away from the same points: L(θ + ρ g/‖g‖), g the gradient at θ. Where g is 0, L(θ)."""
        directions, coordinates = self._checked_plane(directions, coordinates)
        path = path or self.grid_path(copies=3)
        with undisturbed(self.device), torch.no_grad():
            if path.name == "loop":
                rows = [self._point(directions, row) for row in coordinates.tolist()]
                return torch.cat([self._losses_one_by_one([lambda row=row: self._ascended(row(), rho)]) for row in rows])
            return _in_whole_chunks(lambda c: self._sam_losses(self._points(directions, c), rho), coordinates, path.chunk)

    def grid_path(self, copies: int = 1) -> GridPath:
        """How `along` goes about it, by shapes, dtype and device type alone; `copies` is how many points' worth a cell needs.

        Batching points pays where a pass is bound by its overhead: small dense nets on a CPU, any small net on a GPU. What a
        `batch_loss` does is not known, so it is called point by point.
        """
        cell = torch.finfo(self.dtype).bits // 8 * max(self.largest_activation, self.size)  # bytes
        on_cpu = self.device.type == "cpu"
        recurrent = any(isinstance(module, nn.RNNBase) for module in self.net.modules())
        dense = all(len(shape) <= 2 for shape in self.layout.shapes) and not recurrent
        largest, together = (1 << 19, 1 << 22) if on_cpu else (1 << 24, 1 << 28)
        if self._objective is not None or cell > largest or (on_cpu and not dense):
            return GridPath("loop", 16)
        return GridPath("vmap", max(1, min(128, 1 << int(math.log2(together / (copies * cell))))))

    def in_dtype(self, dtype: torch.dtype) -> LossSurface:
        """The same surface, evaluated in another dtype."""
        twin = copy.copy(self)
        twin.dtype = dtype
        twin.batches = self.batches.in_dtype(dtype)
        twin._parameters = {name: _snapshot(p, dtype) for name, p in self._parameters.items()}
        twin._buffers = {name: _snapshot(b, dtype) for name, b in self._buffers.items()}
        twin.origin = self.origin.to(dtype)
        twin.__dict__.pop("_baseline", None)
        return twin

    def weighted_batches(self) -> Iterator[tuple[float, Any]]:
        """Each batch with its weight in the loss; those that weigh nothing are left out."""
        return ((weight, batch) for weight, batch in zip(self.weights, self.batches, strict=True) if weight != 0)

    def leaves(self) -> dict[str, Tensor]:
        """The moving parameters at the origin as new leaves that require a gradient."""
        return {name: t.clone().requires_grad_() for name, t in self.layout.unflatten(self.origin).items()}

    def outputs(self, parameters: Parameters, batch: Any) -> Any:
        """What the net gives for a batch of (inputs, targets) at `parameters`."""
        inputs = batch[0]
        state = self._state(parameters)
        if isinstance(inputs, Mapping):
            return functional_call(self.net, state, (), dict(inputs))
        return functional_call(self.net, state, tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,))

    def batch_loss(self, parameters: Parameters, batch: Any) -> Tensor:
        """The loss of one batch at `parameters` by name, a scalar to be differentiated."""
        if self._objective is not None:
            with torch.enable_grad():  # it may differentiate the net itself
                return functional_call(self._objective, {f"net.{n}": t for n, t in self._state(parameters).items()}, (batch,))
        return self.criterion(self.outputs(parameters, batch), batch[1])

    @cached_property
    def _baseline(self) -> float:
        return self.at(torch.zeros_like(self.origin)[None]).item()

    def _state(self, parameters: Parameters) -> dict[str, Tensor]:
        # clones: a net that counts in its buffers counts in these
        return {**self._parameters, **{name: b.clone() for name, b in self._buffers.items()}, **parameters}

    def _checked(self, displacement: Tensor, dims: int) -> Tensor:
        wanted = "[K, P]" if dims == 2 else "[P]"
        if displacement.dim() != dims or displacement.shape[-1] != self.size:
            raise ValueError(
                f"expected displacements {wanted} with P = {self.size} parameters, got {list(displacement.shape)}; "
                "build them with surface.layout.flatten(...)"
            )
        return displacement.detach().to(self.origin)

    def _checked_plane(self, directions: Sequence[Tensor], coordinates: Tensor) -> tuple[Tensor, Tensor]:
        stacked = self._checked(torch.stack(tuple(directions)), 2)
        coordinates = torch.as_tensor(coordinates)
        if coordinates.dim() != 2 or coordinates.shape[1] != len(stacked):
            raise ValueError(f"expected coordinates [K, {len(stacked)}], one for each direction, got {list(coordinates.shape)}")
        return stacked, coordinates

    def _point(self, directions: Tensor, row: Sequence[float]) -> Callable[[], Tensor]:
        def point() -> Tensor:  # made when it is needed: a hundred points of a large net do not fit into memory
            moved = self.origin.add(directions[0], alpha=row[0])
            for direction, coordinate in zip(directions[1:], row[1:], strict=True):
                moved.add_(direction, alpha=coordinate)
            return moved

        return point

    def _points(self, directions: Tensor, coordinates: Tensor) -> Tensor:
        moved = self.origin
        for direction, column in zip(directions, coordinates.to(self.origin).T, strict=True):
            moved = moved + column[:, None] * direction
        return moved  # [K, P]

    def _losses_one_by_one(self, points: Sequence[Callable[[], Tensor]]) -> Tensor:
        total = torch.zeros(len(points), dtype=self._loss_dtype, device=self.device)
        for weight, batch in self.weighted_batches():
            losses = [self.batch_loss(self.layout.unflatten(point()), batch).detach() for point in points]
            total += weight * torch.stack(losses).to(total)
        return total

    def _losses(self, points: Tensor) -> Tensor:
        total = torch.zeros(len(points), dtype=self._loss_dtype, device=self.device)
        parameters = self.layout.unflatten(points)
        for weight, batch in self.weighted_batches():
            total += weight * torch.func.vmap(lambda p, batch=batch: self.batch_loss(p, batch))(parameters).to(total)
        return total

    def _sam_losses(self, points: Tensor, rho: float) -> Tensor:
        gradients = torch.zeros_like(points)
        parameters = self.layout.unflatten(points)
        for weight, batch in self.weighted_batches():
            slopes = torch.func.vmap(torch.func.grad(lambda p, batch=batch: self.batch_loss(p, batch)))(parameters)
            gradients += weight * torch.cat([slopes[name].flatten(1) for name in self.layout.names], dim=1)
        return self._losses(points + rho * _unit(gradients))

    def _gradient_at(self, point: Tensor) -> Tensor:
        leaves = {name: t.requires_grad_() for name, t in self.layout.unflatten(point.detach().clone()).items()}
        total = torch.zeros_like(self.origin)
        for weight, batch in self.weighted_batches():
            with torch.enable_grad():
                loss = self.batch_loss(leaves, batch)
            parts = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
            total += weight * self.layout.flatten(parts)
        return total

    def _ascended(self, point: Tensor, rho: float) -> Tensor:
        return point + rho * _unit(self._gradient_at(point)[None])[0]

    @property
    def _loss_dtype(self) -> torch.dtype:
        return torch.float32 if self.device.type == "mps" else torch.float64

    def _prepare_criterion(self) -> None:
        batch = next(iter(self.batches))
        if not (isinstance(batch, tuple | list) and len(batch) == 2):
            raise TypeError(
                f"each batch must be (inputs, targets) for a loss_fn, got {type(batch).__name__}; for other batches give "
                "batch_loss=f(model, batch) instead"
            )
        with torch.no_grad():
            # clones: a net may write to what it is given
            self.criterion.prepare(self.outputs({n: p.clone() for n, p in self._parameters.items()}, batch), batch[1])

    def _probe(self, trainable: Sequence[str]) -> tuple[list[str], _WatchedOutputs]:
        """Which of `trainable` the loss depends on, in order, and what the modules gave out."""
        leaves = {name: self._parameters[name].clone().requires_grad_() for name in trainable}
        used: set[str] = set()
        with torch.enable_grad(), _WatchedOutputs(self.net) as seen:
            for batch in self.batches:
                seen.bytes = 1  # of this batch alone
                loss = self.batch_loss(leaves, batch)
                self._check_scalar(loss)
                waiting = [name for name in trainable if name not in used]
                if loss.requires_grad:
                    slopes = torch.autograd.grad(loss, [leaves[name] for name in waiting], allow_unused=True)
                    used |= {name for name, slope in zip(waiting, slopes, strict=True) if slope is not None}
                if len(used) == len(trainable):
                    break
        if not used:
            raise ValueError("the loss depends on no parameter with requires_grad=True, so there is no direction to move in")
        return [name for name in trainable if name in used], seen

    def _check_scalar(self, loss: Any) -> None:
        if not isinstance(loss, Tensor) or loss.numel() != 1 or loss.dim() > 0:
            got = f"a tensor {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"the loss of a batch must be a scalar tensor, got {got}; reduce it by mean or sum")


class _Objective(nn.Module):
    """A net and a loss of it in one module, so that functional_call gives `batch_loss` a real module."""

    def __init__(self, net: nn.Module, batch_loss: Callable[[nn.Module, Any], Tensor]):
        super().__init__()
        self.net, self.batch_loss = net, batch_loss

    def forward(self, batch: Any) -> Tensor:
        return self.batch_loss(self.net, batch)


class _WatchedOutputs:
    """A context that watches what the modules of `net` give out: the entries of the largest tensor, and the bytes of all."""

    def __init__(self, net: nn.Module):
        self.net, self.largest, self.bytes = net, 1, 1

    def __enter__(self) -> _WatchedOutputs:
        self.hooks = [module.register_forward_hook(self._watch) for module in self.net.modules()]
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self.hooks:
            hook.remove()

    def _watch(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        for tensor in tensors_in(outputs):
            self.largest = max(self.largest, tensor.numel())
            self.bytes += tensor.numel() * tensor.element_size()


def _common_dtype(parameters: Iterable[Tensor]) -> torch.dtype:
    """The widest dtype among the parameters, at least float32: a displacement of half precision would be lost in rounding."""
    found = torch.float32
    parameters = list(parameters)
    if not parameters:
        raise ValueError("the model has no parameters")
    for parameter in parameters:
        found = torch.promote_types(found, parameter.dtype) if parameter.is_floating_point() else found
    return found


def _snapshot(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.detach().to(dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype, copy=True)


def _unit(vectors: Tensor) -> Tensor:
    """The rows of `vectors` [K, P] at length 1; a row of zeros stays."""
    norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return torch.where(norms == 0, torch.zeros_like(vectors), vectors / norms)


def _in_whole_chunks(function: Callable[[Tensor], Tensor], rows: Tensor, chunk: int) -> Tensor:
    missing = -len(rows) % chunk
    filled = torch.cat([rows, rows[-1:].expand(missing, -1)]) if missing else rows
    return torch.cat([function(part) for part in filled.split(chunk)])[: len(rows)]
