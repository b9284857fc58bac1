"""A surface's loss as graphs, traced once: they hold no values, and serve every plane."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Literal

import torch
from torch import Tensor, fx

from loss_landscape.graphs.gram_matrices import with_gram_matrices
from loss_landscape.graphs.norm_folding import with_folded_norms
from loss_landscape.graphs.tracing import SpecializedGraph, UntraceableError, specialized
from loss_landscape.nested import form_of, map_tensors, objects_in, tensors_in
from loss_landscape.objective.objective import Objective
from loss_landscape.surface.cell_graph import CellGraph
from loss_landscape.surface.strategy import CellCost, Precision

Kind = Literal["loss", "ascent"]
"""The loss itself, or the loss one step of length ρ up the gradient."""

MAX_GRAPHS = 8  # of batches that are alike in shape: each takes as long as some hundred cells

TensorLoss = Callable[..., Tensor]
"""(parameters, leaves) → scalar, of lists of tensors."""


@dataclass(frozen=True, eq=False)
class LossTerm:
    """A part of the loss: `weight` times `function(parameters, leaves)`; terms of one `key` have one graph."""

    weight: float
    key: Any
    function: TensorLoss
    leaves: list[Tensor]


class TracedLoss:
    """The graphs of an objective's terms as functions of the parameters called `names`, traced when they are first needed."""

    def __init__(self, objective: Objective, origin: dict[str, Tensor], kind: Kind, precision: Precision):
        self.objective, self.kind, self.precision = objective, kind, precision
        self.names = tuple(origin)
        self.origin = [self.placed(tensor) for tensor in origin.values()]
        self._graphs: dict[Any, list[SpecializedGraph]] = {}
        self._cell_graphs: dict[Any, CellGraph] = {}

    def cost(self, num_directions: int) -> CellCost:
        """What a cell takes, by the first term; raises `UntraceableError`."""
        term = next(self.terms(0.0))
        return self.cell_graph(term, (True,) * len(self.names), num_directions).cost

    def terms(self, rho: float) -> Iterator[LossTerm]:
        """The terms with their leaves; `rho` is for the ascent alone. UntraceableError where random numbers are held."""
        if note := self.objective.net.rules.draw_note:
            raise UntraceableError(note)
        return self._ascent_term(rho) if self.kind == "ascent" else self._batch_terms()

    def cell_graph(self, term: LossTerm, moved: tuple[bool, ...], num_directions: int) -> CellGraph:
        """The term's graph for planes of `num_directions` that move the parameters marked in `moved`."""
        number, graph = self._graph(term)
        key = (term.key, number, moved, num_directions)
        if key not in self._cell_graphs:
            self._cell_graphs[key] = CellGraph(graph, moved, num_directions)
        return self._cell_graphs[key]

    def _graph(self, term: LossTerm) -> tuple[int, fx.GraphModule]:
        """The graph of a term, and its number among those of the same key, which differ where the batches' values decide."""
        known, inputs = self._graphs.setdefault(term.key, []), [*self.origin, *map(self.placed, term.leaves)]
        for number, graph in enumerate(known):
            if graph.serves(inputs):
                return number, graph.graph
        if len(known) == MAX_GRAPHS:
            raise UntraceableError(f"the values of the batches decide its operations, in more than {MAX_GRAPHS} ways")
        count = len(self.names)
        with torch.no_grad():
            made = specialized(lambda *tensors: term.function(list(tensors[:count]), list(tensors[count:])), inputs, count)
        known.append(replace(made, graph=with_folded_norms(with_gram_matrices(made.graph, count))))
        return len(known) - 1, known[-1].graph

    def placed(self, tensor: Tensor) -> Tensor:
        """`tensor` in the memory format that the graphs like best: on a CPU images are channels-last."""
        if self.objective.device.type != "cpu" or tensor.dim() != 4:
            return tensor
        # by a copy: one channel counts as contiguous in any order, and would not carry this one to what is made of it
        return torch.empty_like(tensor, memory_format=torch.channels_last).copy_(tensor)

    def _batch_terms(self) -> Iterator[LossTerm]:
        for weight, batch in self.objective.weighted_batches():
            if not self.objective.batches.in_memory and objects_in(batch):
                raise UntraceableError("batches that are objects are others in each pass over the data")
            yield LossTerm(weight, form_of(batch), self._batch_loss(batch), tensors_in(batch))
        if self.objective.regularizer is not None:
            yield LossTerm(1.0, "regularizer", lambda parameters, _: self.objective.penalty(self._named(parameters)), [])

    def _ascent_term(self, rho: float) -> Iterator[LossTerm]:
        """The loss one step of length ρ up the gradient, all batches in one graph; the first leaf is ρ."""
        weights, batches = zip(*self.objective.weighted_batches(), strict=True)
        functions = [self._batch_loss(batch) for batch in batches]
        ends = list(accumulate(len(tensors_in(batch)) for batch in batches))

        def loss(parameters: list[Tensor], leaves: list[Tensor]) -> Tensor:
            parts = [leaves[first:last] for first, last in pairwise([0, *ends])]
            mean = sum(w * function(parameters, part) for w, function, part in zip(weights, functions, parts, strict=True))
            return mean if self.objective.regularizer is None else mean + self.objective.penalty(self._named(parameters))

        radius = torch.tensor(rho, dtype=self.objective.dtype, device=self.objective.device)
        yield LossTerm(1.0, "ascent", ascended(loss), [radius, *(t for batch in batches for t in tensors_in(batch))])

    def _batch_loss(self, batch: Any) -> TensorLoss:
        dtype = torch.bfloat16 if self.precision == "bfloat16" else None

        def loss(parameters: Sequence[Tensor], leaves: Sequence[Tensor]) -> Tensor:
            return self.objective.batch_loss(self._named(parameters), _filled(batch, leaves), dtype=dtype)

        return loss

    def _named(self, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
        return dict(zip(self.names, parameters, strict=True))


def ascended(loss: TensorLoss) -> TensorLoss:
    """`loss` at θ + ρ g/‖g‖, g its gradient at θ, as a function whose first leaf is ρ; at θ where g is 0."""

    def function(parameters: list[Tensor], leaves: list[Tensor]) -> Tensor:
        rho, *rest = leaves
        slopes = torch.func.grad(loss)(parameters, rest)
        length = torch.stack([(slope * slope).sum() for slope in slopes]).sum().sqrt()
        step = torch.where(length > 0, rho / length, 0)
        return loss([parameter + step * slope for parameter, slope in zip(parameters, slopes, strict=True)], rest)

    return function


def _filled(batch: Any, leaves: Sequence[Tensor]) -> Any:
    """`batch` with `leaves` in place of its tensors."""
    rest = iter(leaves)
    return map_tensors(lambda _: next(rest), batch)
