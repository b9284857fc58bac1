"""Random numbers of steps, drawn ahead: the same ones alone, in a stack, resumed, and whatever the chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from math import ceil, prod
from typing import Any, Literal

import torch
from torch import Tensor

from taskshift.learners.part import Start, Tensors
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

    A step gets a ring of rows, of which `Context.rows` takes the next ones. With another `dim` they are its slices there. A part
    that acts after every `every`-th step uses some in these steps alone. A part that in any n of these steps uses n · `rate` rows
    and `at_most` more, and never beyond, says so: its ring is as much shorter.
    """

    parameter: str
    at_most: int
    dim: int = 0
    every: int = 1
    rate: float | None = None

    def most_in(self, first: int, count: int) -> int:
        """How many rows the steps `first`, `first` + 1, … look at, `count` steps in all."""
        return self._most_in((first + count) // self.every - first // self.every)

    def most_in_any(self, count: int) -> int:
        """The same for any `count` steps in a row."""
        return self._most_in(ceil(count / self.every))

    def _most_in(self, num_acting: int) -> int:
        most = self.at_most * num_acting
        return most if self.rate is None else min(most, ceil(self.rate * num_acting) + 2 * self.at_most)


def for_each_parameter(start: Start) -> dict[str, EveryStep]:
    """A standard normal number a step for every entry of each trained parameter, by the parameter's name."""
    return {name: EveryStep(tuple(start.net[name].shape)) for name in start.trained}


def none_taken(wanted: Mapping[str, EveryStep | FreshRows], device: torch.device) -> dict[str, Tensor]:
    """The counts of rows that a part has used at a run's start."""
    names = [name for name, spec in wanted.items() if isinstance(spec, FreshRows)]
    return {name: torch.zeros((), dtype=torch.int64, device=device) for name in names}


class Draws:
    """The draws of a learner's parts, by step.

    `wanted` is part → name → spec. Samples come in blocks, each from the generator of (seed, part, name, block). Rows come from
    nets that are drawn anew, one after another, so that any layer of any net has them as the run's own constructor drew them.
    A ring lasts for `most_steps` steps, or for as many as are asked for.
    """

    most_steps = 1

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
        return self._for(step, 1, taken, lambda *of: self._sample(*of, step))

    def ahead(self, step: int, count: int, taken: Mapping[str, Tensors]) -> dict[str, dict[str, Any]]:
        """The same for `count` steps from number `step` on: lists of samples, and rings that last for all of them."""
        return self._for(step, count, taken, lambda *of: [self._sample(*of, number) for number in range(step, step + count)])

    def _for(self, first: int, count: int, taken: Mapping[str, Tensors], sample: Callable[..., Any]) -> dict[str, dict[str, Any]]:
        steps = max(count, self.most_steps)
        return {
            part: {
                name: sample(part, name, spec)
                if isinstance(spec, EveryStep)
                else self._ring(part, name, spec, steps).around(taken[part][name], spec.most_in(first, steps))
                for name, spec in specs.items()
            }
            for part, specs in self.wanted.items()
        }

    def bytes_of_a_step(self) -> int:
        """How much a step's samples take."""
        size = next(iter(self.net.values())).element_size() if self.net else 0
        return sum(
            size * prod(spec.shape) for specs in self.wanted.values() for spec in specs.values() if isinstance(spec, EveryStep)
        )

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
            self._rings[key] = _Ring(source, like, spec.most_in_any(num_steps))
        return self._rings[key]

    def _fresh_block(self, part: str, spec: FreshRows, block: int) -> Tensor:
        return self.fresh(seed_from(self.seed, "fresh", part, block))[spec.parameter].movedim(spec.dim, 0)


class _Ring:
    """Rows by number, those that the next steps can ask for: row r lies at r modulo the ring's length, a power of two."""

    def __init__(self, source: Callable[[int], Tensor], like: Tensor, at_most: int):
        self.source, self.height = source, len(like)
        self.num_blocks = 1 + ceil(at_most / self.height)
        self.rows = like.new_empty(_power_of_two(self.num_blocks * self.height), *like.shape[1:])
        self.last = -1  # the last block that lies in it
        self.reached = None  # no more rows than these can have been taken; None: not looked at yet

    def around(self, taken: Tensor, at_most: int) -> Tensor:
        """The ring, with the rows `taken`, `taken` + 1, … in it, of which the next steps take `at_most`.

        It waits for the device when it may have run out.
        """
        end = (self.last + 1) * self.height
        if self.reached is None or self.reached + at_most > end:
            self.reached = int(taken)
            first = self.reached // self.height
            for block in range(max(first, self.last + 1), first + self.num_blocks):
                places = torch.arange(block * self.height, (block + 1) * self.height, device=self.rows.device)
                self.rows[places & (len(self.rows) - 1)] = self.source(block)
                self.last = block
        self.reached += at_most
        return self.rows


def _power_of_two(at_least: int) -> int:
    return 1 << (at_least - 1).bit_length()
