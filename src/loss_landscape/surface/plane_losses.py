"""A surface's losses at many points of a plane, by its traced graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loss_landscape.graphs.gram_matrices import with_gram_matrices
from loss_landscape.graphs.norm_folding import with_folded_norms
from loss_landscape.graphs.tracing import traced
from loss_landscape.nested import map_tensors, tensors_in
from loss_landscape.surface.cell_graph import BoundCells, CellGraph
from loss_landscape.surface.strategy import CellCost, GridPath, Precision

if TYPE_CHECKING:
    from loss_landscape.surface.surface import LossSurface

KEPT_BYTES = 1 << 28  # of what batches have bound; the others are bound anew for each chunk

Loss = Callable[..., Tensor]
"""(parameters, leaves) → scalar, of lists of tensors."""


@dataclass(frozen=True, eq=False)
class Term:
    """A part of the loss: `weight` times `function(parameters, leaves)`; terms of one `key` have one graph."""

    weight: float
    key: Any
    function: Loss
    leaves: list[Tensor]


class Cells:
    """The losses of `terms` along directions; graphs are traced once, and what belongs to a plane is computed once for it."""

    def __init__(self, surface: LossSurface, terms: Callable[[], Iterator[Term]]):
        self.surface, self.terms = surface, terms
        self.channels_last = surface.device.type == "cpu"
        self._traced: dict[Any, torch.fx.GraphModule] = {}
        self._graphs: dict[Any, CellGraph] = {}
        self._plane: list[tuple[Tensor, int]] = []  # its directions with their versions
        self._bound: list[tuple[float, BoundCells]] = []
        self._all_bound = False
        self._moved: tuple[bool, ...] = ()
        self._origin: list[Tensor] = []
        self._directions: list[list[Tensor]] = []

    def cost(self, num_directions: int) -> CellCost:
        """What a cell takes, by the first term; raises `UntraceableError`."""
        return self._graph(next(self.terms()), (True,) * len(self.surface.layout.names), num_directions).cost

    def losses(self, directions: Sequence[Tensor], coordinates: Tensor, path: GridPath) -> Tensor:
        """The losses [K], float64, at the origin plus Σ_d coordinates[:, d]·directions[d]; K = `path.chunk` where batched."""
        total = torch.zeros(len(coordinates), dtype=torch.float64, device=self.surface.device)
        with torch.inference_mode():
            for weight, cells in self._terms_bound(directions):
                total += weight * cells.losses(coordinates, path).to(total)
        return total.clone()

    def forget_plane(self) -> None:
        """Bind everything anew at the next call: a leaf has another value."""
        self._plane = []

    def _terms_bound(self, directions: Sequence[Tensor]) -> Iterator[tuple[float, BoundCells]]:
        if not self._is_same_plane(directions):
            self._enter(directions)
        yield from self._bound
        if self._all_bound:
            return
        kept = sum(cells.nbytes for _, cells in self._bound)
        fits = True
        for term in islice(self.terms(), len(self._bound), None):
            graph = self._graph(term, self._moved, len(directions))
            cells = graph.bound(self._origin, self._directions, [self._placed(leaf) for leaf in term.leaves])
            kept += cells.nbytes
            fits = fits and kept <= KEPT_BYTES
            if fits:
                self._bound.append((term.weight, cells))
            yield term.weight, cells
        self._all_bound = fits

    def _is_same_plane(self, directions: Sequence[Tensor]) -> bool:
        return len(directions) == len(self._plane) and all(
            given is known and _version(given) == version for given, (known, version) in zip(directions, self._plane, strict=True)
        )

    def _enter(self, directions: Sequence[Tensor]) -> None:
        """Turn to another plane."""
        layout = self.surface.layout
        self._plane, self._bound, self._all_bound = [(d, _version(d)) for d in directions], [], False
        self._origin = [self._placed(t) for t in layout.unflatten(self.surface.origin).values()]
        parts = [list(layout.unflatten(direction.to(self.surface.origin)).values()) for direction in directions]
        largest = torch.stack([torch.stack([part[i].abs().max() for part in parts]).max() for i in range(len(self._origin))])
        self._moved = tuple((largest != 0).tolist())
        self._directions = [[self._placed(t) for t in part] for part in parts]

    def _graph(self, term: Term, moved: tuple[bool, ...], num_directions: int) -> CellGraph:
        if term.key not in self._traced:
            parameters = list(self.surface.layout.unflatten(self.surface.origin).values())
            inputs = [self._placed(t) for t in [*parameters, *term.leaves]]
            count = len(parameters)
            with torch.no_grad():
                graph = traced(lambda *tensors: term.function(list(tensors[:count]), list(tensors[count:])), inputs)
            self._traced[term.key] = with_folded_norms(with_gram_matrices(graph, count))
        key = (term.key, moved, num_directions)
        if key not in self._graphs:
            self._graphs[key] = CellGraph(self._traced[term.key], moved, num_directions)
        return self._graphs[key]

    def _placed(self, tensor: Tensor) -> Tensor:
        if not self.channels_last or tensor.dim() != 4:
            return tensor
        # by a copy: one channel counts as contiguous in any order, and would not carry this one to what is made of it
        return torch.empty_like(tensor, memory_format=torch.channels_last).copy_(tensor)


def batch_terms(surface: LossSurface, precision: Precision = None) -> Callable[[], Iterator[Term]]:
    """The surface's loss, a term for each batch, and its regulariser; with `precision`, the net computes in that dtype."""

    def terms() -> Iterator[Term]:
        for weight, batch in surface.weighted_batches():
            yield Term(weight, _signature(batch), _batch_loss(surface, batch, precision), tensors_in(batch))
        if surface.regularizer is not None:
            yield Term(1.0, "regularizer", lambda parameters, _: surface.penalty(_named(surface, parameters)), [])

    return terms


def ascent_term(surface: LossSurface) -> Callable[[], Iterator[Term]]:
    """The loss one step of length ρ up the gradient, all batches in one graph; the first leaf is ρ."""

    def terms() -> Iterator[Term]:
        weights, batches = zip(*surface.weighted_batches(), strict=True)
        functions = [_batch_loss(surface, batch, None) for batch in batches]
        ends = list(accumulate(len(tensors_in(batch)) for batch in batches))

        def loss(parameters: list[Tensor], leaves: list[Tensor]) -> Tensor:
            parts = [leaves[first:last] for first, last in pairwise([0, *ends])]
            mean = sum(w * function(parameters, part) for w, function, part in zip(weights, functions, parts, strict=True))
            return mean if surface.regularizer is None else mean + surface.penalty(_named(surface, parameters))

        def ascended(parameters: list[Tensor], leaves: list[Tensor]) -> Tensor:
            rho, *rest = leaves
            slopes = torch.func.grad(loss)(parameters, rest)
            length = torch.stack([(slope * slope).sum() for slope in slopes]).sum().sqrt()
            step = torch.where(length > 0, rho / length, 0)
            return loss([parameter + step * slope for parameter, slope in zip(parameters, slopes, strict=True)], rest)

        yield Term(1.0, "ascent", ascended, [surface.radius, *(t for batch in batches for t in tensors_in(batch))])

    return terms


def _batch_loss(surface: LossSurface, batch: Any, precision: Precision) -> Loss:
    dtype = torch.bfloat16 if precision == "bfloat16" else None
    return lambda parameters, leaves: surface.batch_loss(_named(surface, parameters), _filled(batch, leaves), dtype=dtype)


def _named(surface: LossSurface, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    return dict(zip(surface.layout.names, parameters, strict=True))


def _filled(batch: Any, leaves: Sequence[Tensor]) -> Any:
    """`batch` with `leaves` in place of its tensors."""
    rest = iter(leaves)
    return map_tensors(lambda _: next(rest), batch)


def _version(tensor: Tensor) -> int:
    """How often it was written to; inference tensors do not count."""
    return -1 if tensor.is_inference() else tensor._version


def _signature(batch: Any) -> tuple[Any, ...]:
    """What batches of one graph have in common: structure, shapes, dtypes, and all that is no tensor."""
    tensors = tensors_in(batch)
    return repr(map_tensors(lambda _: None, batch)), tuple((t.shape, t.dtype) for t in tensors)
