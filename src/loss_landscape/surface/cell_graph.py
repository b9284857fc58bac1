"""The loss of one point as a graph: what all points share is computed once, the rest for each cell or for many at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx

from loss_landscape.graphs.affine import inner_length, is_affine, linear_part, operations_of
from loss_landscape.graphs.cell_batching import many_cells, one_cell
from loss_landscape.graphs.output_buffers import reused
from loss_landscape.graphs.tracing import constant, evaluated, placeholders
from loss_landscape.surface.strategy import CellCost, EvaluationStrategy

INNER_LENGTH_WORTH_KEEPING = 10  # times (directions + 2): then reading a product's affine_values beats making it anew
LARGE = 1 << 16  # entries of a tensor that is combined by itself, not together with other small ones

aten = torch.ops.aten


class CellGraph:
    """Which nodes of a traced loss are constant, affine in the coordinates, or neither (`varying`), and the latter's programs.

    The graph's first placeholders are the parameters; `moved` says which of them any of the `num_directions` directions moves.
    An affine node that feeds varying ones is kept as its value at the origin and its linear part along each direction. A product
    whose parts cost more to read than the product to make counts as varying, and its inputs are kept instead.
    """

    def __init__(self, graph: fx.GraphModule, moved: Sequence[bool], num_directions: int):
        self.graph = graph
        self.nodes = list(graph.graph.nodes)
        self.holders = placeholders(graph)
        self.num_directions = num_directions
        self.affine = {node for node, moves in zip(self.holders, moved, strict=False) if moves}  # the affine ones
        self.varying: list[fx.Node] = []
        self._sort()
        varied = set(self.varying)
        read = dict.fromkeys(used for node in self.varying for used in node.all_input_nodes if used not in varied)
        self.output = _single_output(self.nodes[-1])
        if self.output not in varied:
            read[self.output] = None
        self.frontier = [node for node in read if node in self.affine]
        self.shared = [node for node in read if node not in self.affine]  # constants

    def _sort(self) -> None:
        constants: set[fx.Node] = set()
        for node in self.nodes:
            if node.op == "output" or node in self.affine:
                continue
            if node.op != "call_function" or all(used in constants for used in node.all_input_nodes):
                constants.add(node)
            elif self._is_kept(node, constants):
                self.affine.add(node)
            else:
                self.varying.append(node)

    def _is_kept(self, node: fx.Node, constants: set[fx.Node]) -> bool:
        if not all(used in constants or used in self.affine for used in node.all_input_nodes) or not is_affine(node, self.affine):
            return False
        if operations_of(node):
            return inner_length(node) >= INNER_LENGTH_WORTH_KEEPING * (self.num_directions + 2)
        return _numel(node) <= 2 * max(_numel(used) for used in node.all_input_nodes if used in self.affine)

    @property
    def cost(self) -> CellCost:
        """What one cell takes."""
        sizes = [_bytes(node) for node in [*self.varying, *self.frontier]]
        convolutions = any(node.target is aten.convolution.default for node in self.varying)
        return CellCost(max(sizes, default=1), sum(map(operations_of, self.varying)), convolutions)

    @cached_property
    def one_cell(self) -> fx.GraphModule:
        """The varied nodes of a cell, a function of the frontier's values and of the shared constants."""
        return self._one_cell(reusing=self._on_cpu)

    def _one_cell(self, *, reusing: bool) -> fx.GraphModule:
        return one_cell(self.varying, [*self.frontier, *self.shared], self.output, set(self.frontier), reusing=reusing)

    @cached_property
    def many_cells(self) -> fx.GraphModule:
        """The same for [K, …] of the frontier's values; on a CPU in the memory of its last call."""
        return self._many_cells(reusing=self._on_cpu)

    def _many_cells(self, *, reusing: bool) -> fx.GraphModule:
        return many_cells(self.varying, self.frontier, self.shared, self.output, reusing=reusing)

    @property
    def _on_cpu(self) -> bool:
        return self.output.meta["val"].device.type == "cpu"

    @cached_property
    def compiled(self) -> Callable[..., Tensor]:
        """The loss of one cell from its coordinates [D], compiled."""

        program = self._one_cell(reusing=False)

        def whole(coordinates: Tensor, affine_values: list[list[Tensor]], shared: list[Any]) -> Tensor:
            return program(*(_combined(value, coordinates) for value in affine_values), *shared)

        return torch.compile(whole, dynamic=False)

    @cached_property
    def compiled_many(self) -> Callable[..., Tensor]:
        """The losses of K cells from their coordinates [K, D], compiled."""

        program = self._many_cells(reusing=False)

        def whole(coordinates: Tensor, affine_values: list[list[Tensor]], shared: list[Any]) -> Tensor:
            return program(*(_all_combined(value, coordinates) for value in affine_values), *shared)

        return torch.compile(whole, dynamic=False)

    def bind(self, parameters: Sequence[Tensor], directions: Sequence[Sequence[Tensor]], leaves: Sequence[Tensor]) -> BoundCells:
        """The graph with values: parameters at the origin, each direction's part of each of them, and the other inputs."""
        values: dict[fx.Node, Any] = dict(zip(self.holders, [*parameters, *leaves], strict=True))
        affine_values: dict[fx.Node, list[Any]] = {
            node: [parameter, *parts]
            for node, parameter, *parts in zip(self.holders, parameters, *directions, strict=False)
            if node in self.affine
        }
        wanted, skipped = {*self.frontier, *self.shared}, set(self.varying)
        last_user = {used: node for node in self.nodes for used in node.all_input_nodes if node not in skipped}
        for node in self.nodes:
            if node.op == "get_attr":
                values[node] = constant(self.graph, node)
            elif node.op == "call_function" and node in self.affine:
                affine_values[node] = self._affine_values(node, values, affine_values)
            elif node.op == "call_function" and node not in skipped:
                values[node] = evaluated(node, values)
            for used in node.all_input_nodes:
                if last_user.get(used) is node and used not in wanted:
                    values.pop(used, None)
                    affine_values.pop(used, None)
        return BoundCells(self, [affine_values[node] for node in self.frontier], [values[node] for node in self.shared])

    def _affine_values(self, node: fx.Node, values: dict[fx.Node, Any], affine_values: dict[fx.Node, list[Any]]) -> list[Any]:
        inputs = [used for used in node.all_input_nodes if used in self.affine]
        made = [evaluated(node, values | {used: affine_values[used][0] for used in inputs})]
        for k in range(1, 1 + self.num_directions):
            made.append(linear_part(node, values | {used: affine_values[used][k] for used in inputs}, self.affine))
        return made


@dataclass(frozen=True, eq=False)
class BoundCells:
    """A cell graph with a batch's and a plane's values: `affine_values` [at the origin, along each direction] of the frontier."""

    program: CellGraph
    affine_values: list[list[Tensor]]
    shared: list[Any]

    @property
    def nbytes(self) -> int:
        """What it keeps in memory, roughly: views count as if they were copies."""
        tensors = [*(t for value in self.affine_values for t in value), *(t for t in self.shared if isinstance(t, Tensor))]
        return sum(t.numel() * t.element_size() for t in tensors)

    def losses(self, coordinates: Tensor, strategy: EvaluationStrategy) -> Tensor:
        """The losses [K] at coordinates [K, D]; K is `strategy.chunk` where that is vectorized."""
        if strategy.name == "traced" and not strategy.compiled:
            return torch.stack([self._one(row) for row in coordinates.tolist()])  # on the CPU: no waiting for a GPU
        placed = coordinates.to(self.affine_values[0][0]) if self.affine_values else coordinates
        if strategy.name == "traced":
            return torch.stack([self.program.compiled(row, self.affine_values, self.shared).clone() for row in placed])
        if strategy.compiled:
            return self.program.compiled_many(placed, self.affine_values, self.shared)
        return self.program.many_cells(*self._stacked(placed), *self.shared)

    def _one(self, row: list[float]) -> Tensor:
        points = []
        for origin, first, *others in self.affine_values:
            point = torch.add(origin, first, alpha=row[0])
            for value, coordinate in zip(others, row[1:], strict=True):
                point.add_(value, alpha=coordinate)
            points.append(point)
        return self.program.one_cell(*points, *self.shared)

    def _stacked(self, coordinates: Tensor) -> list[Tensor]:
        """The frontier's values for all cells, [K, …] each; small tensors share one product."""
        small, large = self._flattened
        points: dict[int, Tensor] = {}
        for group in [small, *large]:
            if group is not None:
                places, sizes, combine = group
                combined = combine(coordinates)
                points |= dict(zip(places, combined.split(sizes, dim=1), strict=True))
        return [points[i].reshape(len(coordinates), *value[0].shape) for i, value in enumerate(self.affine_values)]

    @cached_property
    def _flattened(self) -> tuple[Any, list[Any]]:
        small = [i for i, value in enumerate(self.affine_values) if value[0].numel() <= LARGE]
        large = [i for i in range(len(self.affine_values)) if i not in small]
        return (self._group(small) if small else None), [self._group([i]) for i in large]

    def _group(self, places: list[int]) -> tuple[list[int], list[int], Callable[[Tensor], Tensor]]:
        rows = zip(*(self.affine_values[i] for i in places), strict=True)
        flat = torch.stack([torch.cat([t.reshape(-1) for t in row]) for row in rows])  # [1 + D, S]
        addmm = reused(torch.addmm) if flat.device.type == "cpu" else torch.addmm
        return (
            places,
            [self.affine_values[i][0].numel() for i in places],
            lambda coordinates: addmm(flat[:1], coordinates, flat[1:]),
        )


def _combined(value: list[Tensor], coordinates: Tensor) -> Tensor:
    return value[0] + sum(coordinates[d] * part for d, part in enumerate(value[1:]))


def _all_combined(value: list[Tensor], coordinates: Tensor) -> Tensor:
    shape = [-1] + [1] * value[0].dim()
    return value[0] + sum(coordinates[:, d].reshape(shape) * part for d, part in enumerate(value[1:]))


def _single_output(node: fx.Node) -> fx.Node:
    outputs = node.args[0]
    return outputs[0] if isinstance(outputs, tuple | list) else outputs


def _numel(node: fx.Node) -> int:
    value = node.meta.get("val")
    return value.numel() if isinstance(value, Tensor) else 0


def _bytes(node: fx.Node) -> int:
    value = node.meta.get("val")
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0
