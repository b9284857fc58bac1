"""The loss of a net as a function of its parameters, over fixed batches."""

from __future__ import annotations

import copy
import fnmatch
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from loss_landscape.nested import as_tensor
from loss_landscape.objective.criterion import LossFunction
from loss_landscape.objective.functional_net import undisturbed
from loss_landscape.objective.layout import ParameterLayout
from loss_landscape.objective.objective import BatchNorm, Objective, objective_of
from loss_landscape.randomness import GeneratorLike
from loss_landscape.surface.eager_losses import gradient_at, losses_at
from loss_landscape.surface.plane import Plane
from loss_landscape.surface.slopes import slope_objection
from loss_landscape.surface.strategy import Precision
from loss_landscape.surface.traced_loss import Kind, TracedLoss

Vectors = Tensor | np.ndarray
MAX_NAMES = 8  # of parameters that an error lists


class LossSurface:
    """L(origin + displacement): reads the net once, at construction, and never writes it.

    `model` is the net. `batches` is a re-iterable of `(inputs, targets)`, and the loss is the mean over all of them by what
    `loss_fn` itself divides by (class weights, ignored targets and soft ones included), or their sum where its reduction is
    'sum'. Anything else: `batch_loss(model, batch)`, a scalar. `batch_weight(batch)` overrides the weights. The net runs in eval
    mode; `batch_norm="batch"` normalises by each batch's own statistics instead of the running ones. `dtype` is what it is
    evaluated in, the net's own unless given, at least float32; the loss itself is taken in float64 from the net's outputs.
    `batch_norm="recompute"` takes the running statistics anew over all batches at each point, and holds them fixed where it
    differentiates (Izmailov et al. 2018). `regularizer(model)`, a scalar, is added once to the mean over the batches.
    A net or a loss that draws random numbers (torch's, NumPy's or Python's) keeps one draw, which follows from `generator` (None:
    the same every time) and the batch, at every point and call, in every dtype; the repr and the results say so.

    Raises TypeError or ValueError, saying what to give instead, for a loss that is no scalar or says not what it divides by, for
    batches that shuffle or are used up, and for a net without parameters that the loss depends on.

    >>> import torch
    >>> from torch import nn
    >>> net = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(net.weight, 2.0)
    >>> surface = LossSurface(net, nn.MSELoss(), [(torch.ones(1, 1), torch.zeros(1, 1))])  # L(θ) = θ²
    >>> surface.loss(), surface.gradient().item()
    (4.0, 4.0)
    >>> surface
    LossSurface(loss 4, P=1, 1 batch, float32, cpu)
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
        generator: GeneratorLike = None,
    ):
        self.objective = objective_of(
            model,
            loss_fn,
            batches,
            batch_loss=batch_loss,
            batch_weight=batch_weight,
            dtype=dtype,
            batch_norm=batch_norm,
            regularizer=regularizer,
            generator=generator,
        )
        self.layout = ParameterLayout.of(self.objective.net.module, self.objective.used.names)
        self.origin = self.layout.flatten(self.objective.net.parameters)  # [P]
        self.objective = self.objective.holding(self.layout.unflatten(self.origin))  # views: nothing is there twice
        self._traced: dict[tuple[Kind, Precision], TracedLoss] = {}

    def __repr__(self) -> str:
        count = len(self.objective.batch_weights.values)
        batches = f"{count} batch{'es' if count != 1 else ''}"
        dtype = str(self.dtype).removeprefix("torch.")
        facts = [f"loss {self.loss():.4g}", f"P={self.size}", batches, dtype, str(self.device), *self._told()]
        return f"LossSurface({', '.join(facts)})"

    @property
    def size(self) -> int:
        """The number P of parameters that move."""
        return self.layout.size

    @property
    def unmoved(self) -> dict[str, str]:
        """The parameters that stay as they are, by name, and why: `frozen`, `unused`, or `left out` by `restricted`.

        Those that the loss reads though the net has not registered them are there by their shapes, as `outside the net`.
        """
        return self.objective.unmoved(self.layout.names)

    @property
    def dtype(self) -> torch.dtype:
        """What the net is evaluated in."""
        return self.objective.dtype

    @property
    def device(self) -> torch.device:
        """Where the net and the batches lie."""
        return self.objective.device

    @cached_property
    def derivative_note(self) -> str:
        """Why autograd's gradient at the origin is not the loss's slope there, judged on a few examples; "" where it is."""
        with undisturbed(self.device):
            return slope_objection(self.objective, self.layout, self.origin)

    def loss(self) -> float:
        """The loss at the origin."""
        return self._baseline

    def losses(self, *, displacements: Vectors | None = None, points: Vectors | None = None) -> Tensor:
        """The losses [K], float64, at the origin plus each of `displacements` [K, P], or at each of `points` [K, P].

        One forward pass each, nothing shared: for many cells of a line or a plane take `plane`. Exactly one of the two is given.
        """
        if (displacements is None) == (points is None):
            raise ValueError("give exactly one of displacements, from the origin, and points, parameters themselves")
        rows = self._checked(displacements if points is None else points, 2)
        base = self.origin if points is None else None
        with undisturbed(self.device), torch.no_grad():
            return losses_at(self.objective, self.layout, [functools.partial(_moved, base, row) for row in rows])

    def gradient(self, displacement: Vectors | None = None) -> Tensor:
        """The gradient [P] at the origin, or at the origin plus `displacement` [P]."""
        point = self.origin if displacement is None else self.origin + self._checked(displacement, 1)
        with undisturbed(self.device):
            return gradient_at(self.objective, self.layout, point)

    def plane(self, directions: Sequence[Vectors] | Vectors, *, copy: bool = True) -> Plane:
        """The surface along D `directions` [P], or [D, P]: a line, a plane, a volume.

        The plane has copies of them, so that one changed in place later changes nothing there; with `copy=False` it reads the
        very ones, where they have the surface's dtype and device, and they must stay as they are as long as it is used.
        Directions in other forms, such as a tensor for each parameter, become these by `as_directions(surface, …)`.
        """
        if isinstance(directions, Tensor | np.ndarray) and directions.ndim != 2:
            raise ValueError(f"expected directions [D, P] or a list of them, got {list(directions.shape)}")
        checked = [self._checked(direction, 1) for direction in directions]
        if not checked:
            raise ValueError("expected one direction [P] or more, got none")
        kept = [direction.clone() for direction in checked] if copy else checked
        return Plane(self.objective, self.layout, self.origin, kept, traced=self._traced_loss)

    def leaves(self) -> dict[str, Tensor]:
        """The moving parameters at the origin, by name, as new leaves that require a gradient."""
        return {name: t.clone().requires_grad_() for name, t in self.layout.unflatten(self.origin).items()}

    def restricted(self, *patterns: str) -> LossSurface:
        """The same surface moving only the parameters whose names match one of the globs `patterns`, such as `layer1.*`."""
        if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
            raise TypeError("expected globs of parameters' names one by one, such as restricted('layer1.*', 'head.*')")
        names = [name for name in self.layout.names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
        if not names:
            there = ", ".join(self.layout.names[:MAX_NAMES]) + ", …" * (len(self.layout.names) > MAX_NAMES)
            raise ValueError(f"no parameter matches {', '.join(map(repr, patterns))}; there are {there}")
        here = self.layout.unflatten(self.origin)
        twin = self._twin(self.objective.holding(here))
        twin.layout = ParameterLayout.of(self.objective.net.module, names)
        twin.origin = twin.layout.flatten(here)
        return twin

    def in_dtype(self, dtype: torch.dtype) -> LossSurface:
        """The same surface, evaluated in another dtype."""
        with undisturbed(self.device):
            return self._twin(self.objective.in_dtype(dtype), self.origin.to(dtype))

    def on(self, device: torch.device | str) -> LossSurface:
        """The same surface on another device."""
        device = torch.device(device)
        with undisturbed(self.device):
            return self._twin(self.objective.on(device), self.origin.to(device))

    def moved_to(self, point: Vectors) -> LossSurface:
        """The same surface with its origin at `point` [P]; the parameters that don't move stay as they are."""
        origin = self._checked(point, 1).clone()
        with undisturbed(self.device):
            return self._twin(self.objective.at(self.layout.unflatten(origin)), origin)

    def with_batch_statistics(self) -> LossSurface:
        """The same surface with `batch_norm="batch"`."""
        return self._twin(self.objective.with_batch_statistics())

    def in_halves(self) -> LossSurface:
        """The same surface with every batch cut in two; ValueError where that changes the loss, or a batch has one example."""
        return self._twin(self.objective.in_halves(self.leaves()))

    def _told(self) -> Iterator[str]:
        """What does not move, and what moves without a slope, in words."""
        for reason, count in Counter(self.unmoved.values()).items():
            names = [name for name, why in self.unmoved.items() if why == reason]
            yield f"{reason}: {', '.join(names[:2])}" + (f" and {count - 2} more" if count > 2 else "")
        yield from filter(None, (self.objective.net.rules.draw_note, self.objective.batch_norm_note))
        if self.objective.used.without_slope:
            yield f"no derivative in {', '.join(self.objective.used.without_slope[:2])}"

    @cached_property
    def _baseline(self) -> float:
        return self.losses(points=self.origin[None]).item()

    def _traced_loss(self, kind: Kind, precision: Precision) -> TracedLoss:
        key = kind, precision
        if key not in self._traced:
            self._traced[key] = TracedLoss(self.objective, self.layout.unflatten(self.origin), kind, precision)
        return self._traced[key]

    def _twin(self, objective: Objective, origin: Tensor | None = None) -> LossSurface:
        twin = copy.copy(self)
        twin.objective, twin._traced = objective, {}
        twin.origin = self.origin if origin is None else origin
        for known in ("_baseline", "derivative_note"):
            twin.__dict__.pop(known, None)
        return twin

    def _checked(self, vectors: Vectors | None, dims: int) -> Tensor:
        wanted = "[K, P]" if dims == 2 else "[P]"
        vectors = as_tensor(vectors)
        if not isinstance(vectors, Tensor) or vectors.dim() != dims or vectors.shape[-1] != self.size:
            got = list(vectors.shape) if isinstance(vectors, Tensor) else type(vectors).__name__
            raise ValueError(
                f"expected a tensor {wanted} with P = {self.size} parameters, got {got}; as_directions(surface, …) and "
                "point_in(surface, net) make vectors of what else there is, surface.layout.flatten(...) of a tensor a parameter"
            )
        return vectors.detach().to(self.origin)

    def __getstate__(self) -> dict[str, Any]:
        """All but the traced losses, which can't be pickled and are made again when they are needed."""
        return {**self.__dict__, "_traced": {}}


def require_surface(given: object) -> None:
    """TypeError for what is `given` in place of a surface, with what to write."""
    if not isinstance(given, LossSurface):
        what = "a net" if isinstance(given, nn.Module) else f"a {type(given).__name__}"
        raise TypeError(f"expected a surface, got {what}; write LossSurface(net, loss_fn, batches), and give that")


def _moved(base: Tensor | None, row: Tensor) -> Tensor:
    return row if base is None else base + row
