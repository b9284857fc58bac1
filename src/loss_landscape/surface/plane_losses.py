"""A traced loss with the values of one plane: what its cells share is computed once and kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from loss_landscape.objective.layout import ParameterLayout
from loss_landscape.surface.cell_graph import BoundCells
from loss_landscape.surface.strategy import EvaluationStrategy
from loss_landscape.surface.traced_loss import TracedLoss

KEPT_BYTES = 1 << 28  # of what batches have bound; the others are bound anew for each chunk


class PlaneLosses:
    """The losses of `traced` at origin + Σ_d c_d·directions[d], for directions [P] that nobody writes to; `rho` is SAM's."""

    def __init__(self, traced: TracedLoss, layout: ParameterLayout, directions: Sequence[Tensor], rho: float = 0.0):
        self.traced, self.rho, self.num_directions = traced, rho, len(directions)
        parts = [list(layout.unflatten(direction).values()) for direction in directions]
        moving = [torch.stack([part[i].any() for part in parts]).any() for i in range(len(layout.names))]
        self._moved = tuple(torch.stack(moving).tolist())
        self._directions = [[traced.placed(tensor) for tensor in part] for part in parts]
        self._bound: list[tuple[float, BoundCells]] = []
        self._all_bound = False

    def losses(self, coordinates: Tensor, strategy: EvaluationStrategy) -> Tensor:
        """The losses [K], float64, at `coordinates` [K, D]; a vectorized chunk is filled up with copies of its last row."""
        if strategy.name != "vectorized":
            return self._chunk(coordinates, strategy)
        missing = -len(coordinates) % strategy.chunk
        filled = torch.cat([coordinates, coordinates[-1:].expand(missing, -1)]) if missing else coordinates
        return torch.cat([self._chunk(part, strategy) for part in filled.split(strategy.chunk)])[: len(coordinates)]

    def _chunk(self, coordinates: Tensor, strategy: EvaluationStrategy) -> Tensor:
        total = torch.zeros(len(coordinates), dtype=torch.float64, device=self.traced.objective.device)
        with torch.inference_mode():
            for weight, cells in self._terms_bound():
                total += weight * cells.losses(coordinates, strategy).to(total)
        return total.clone()

    def _terms_bound(self) -> Iterator[tuple[float, BoundCells]]:
        yield from self._bound
        if self._all_bound:
            return
        kept = sum(cells.nbytes for _, cells in self._bound)
        fits = True
        for term in islice(self.traced.terms(self.rho), len(self._bound), None):
            graph = self.traced.cell_graph(term, self._moved, self.num_directions)
            leaves = [self.traced.placed(leaf) for leaf in term.leaves]
            cells = graph.bind(self.traced.origin, self._directions, leaves)
            kept += cells.nbytes
            fits = fits and kept <= KEPT_BYTES
            if fits:
                self._bound.append((term.weight, cells))
            yield term.weight, cells
        self._all_bound = fits
