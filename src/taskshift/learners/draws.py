"""Random numbers of steps, drawn ahead: the same ones alone, in a stack, resumed, and whatever the chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from math import ceil, prod
from typing import Literal

import torch
from torch import Tensor

from taskshift.learners.part import Tensors
from taskshift.randomness import generator, seed_from

BLOCK = 2**18
"""About how many numbers are drawn at a time."""


@dataclass(frozen=True)
class EveryStep:
    """One sample [*shape] a step: standard normal, or uniform in [0, 1)."""

    shape: tuple[int, ...]
    kind: Literal["normal", "uniform"] = "normal"


@dataclass(frozen=True)
class FreshRows:
    """Rows of a parameter as they are drawn before training, used one after another, at most `at_most` a step.

    A step gets a ring of rows, of which `Context.rows` takes the next ones. With another `dim` they are its slices there.
    """

    parameter: str
    at_most: int
    dim: int = 0


def none_taken(wanted: Mapping[str, EveryStep | FreshRows], device: torch.device) -> dict[str, Tensor]:
    """The counts of rows that a part has used at a run's start."""
    names = [name for name, spec in wanted.items() if isinstance(spec, FreshRows)]
    return {name: torch.zeros((), dtype=torch.int64, device=device) for name in names}


class Draws:
    """The draws of a learner's parts, by step.

    `wanted` is part → name → spec. Samples come in blocks, each from the generator of (seed, part, name, block). Rows come from
    nets that are drawn anew, one after another, so that any layer of any net has them as the run's own constructor drew them.
    """

    def __init__(
        self,
        wanted: Mapping[str, Mapping[str, EveryStep | FreshRows]],
        *,
        seed: int,
        fresh: Callable[[int], Tensors],
        net: Tensors,
        device: torch.device,
    ):
        self.wanted = {part: specs for part, specs in wanted.items() if specs}
        self.seed, self.net, self.device = seed, net, device
        self.fresh = lru_cache(maxsize=4)(fresh)
        self._rings: dict[tuple[str, str, int], _Ring] = {}
        self._blocks: dict[tuple[str, str], tuple[int, Tensor]] = {}

    def at(self, step: int, taken: Mapping[str, Tensors]) -> dict[str, dict[str, Tensor]]:
        """What step number `step` of the run needs, where its parts have `taken` so many rows: samples and rings of rows."""
        return {
            part: {
                name: self._sample(part, name, spec, step)
                if isinstance(spec, EveryStep)
                else self._ring(part, name, spec, 1).around(taken[part][name])
                for name, spec in specs.items()
            }
            for part, specs in self.wanted.items()
        }

    def ahead(self, step: int, count: int, taken: Mapping[str, Tensors]) -> dict[str, dict[str, Tensor]]:
        """The same for `count` steps from number `step` on: samples [count, …], and rings that last for all of them."""
        return {
            part: {
                name: torch.stack([self._sample(part, name, spec, step + number) for number in range(count)])
                if isinstance(spec, EveryStep)
                else self._ring(part, name, spec, count).around(taken[part][name])
                for name, spec in specs.items()
            }
            for part, specs in self.wanted.items()
        }

    def forget(self) -> None:
        """Look anew at how many rows were taken: another state was loaded."""
        self._rings.clear()

    def _sample(self, part: str, name: str, spec: EveryStep, step: int) -> Tensor:
        rows = max(1, min(256, BLOCK // max(1, prod(spec.shape))))
        block, row = divmod(step, rows)
        known = self._blocks.get((part, name))
        if known is None or known[0] != block:
            draw = torch.randn if spec.kind == "normal" else torch.rand
            made = draw(rows, *spec.shape, generator=generator(self.seed, "draws", part, name, block))
            known = self._blocks[part, name] = block, made.to(self.device)
        return known[1][row]

    def _ring(self, part: str, name: str, spec: FreshRows, num_steps: int) -> _Ring:
        key = part, name, num_steps
        if key not in self._rings:
            source, like = partial(self._fresh_block, part, spec), self.net[spec.parameter].movedim(spec.dim, 0)
            self._rings[key] = _Ring(source, like, spec.at_most * num_steps)
        return self._rings[key]

    def _fresh_block(self, part: str, spec: FreshRows, block: int) -> Tensor:
        return self.fresh(seed_from(self.seed, "fresh", part, block))[spec.parameter].movedim(spec.dim, 0)


class _Ring:
    """Rows by number, those that the next steps can ask for: row r lies at r modulo the ring's length."""

    def __init__(self, source: Callable[[int], Tensor], like: Tensor, at_most: int):
        self.source, self.at_most, self.height = source, at_most, len(like)
        self.num_blocks = 1 + ceil(at_most / self.height)
        self.rows = like.new_empty(self.num_blocks * self.height, *like.shape[1:])
        self.last = -1  # the last block that lies in it
        self.reached = None  # no more rows than these can have been taken; None: not looked at yet

    def around(self, taken: Tensor) -> Tensor:
        """The ring, with the rows `taken`, `taken` + 1, … in it. It waits for the device when it may have run out."""
        end = (self.last + 1) * self.height
        if self.reached is None or self.reached + self.at_most > end:
            self.reached = int(taken)
            first = self.reached // self.height
            for block in range(max(first, self.last + 1), first + self.num_blocks):
                at = block % self.num_blocks * self.height
                self.rows[at : at + self.height] = self.source(block)
                self.last = block
        self.reached += self.at_most
        return self.rows
