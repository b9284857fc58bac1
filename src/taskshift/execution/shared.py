"""The programs that the trainings of one process share."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from taskshift.execution.block import Block, Lane, form_of
from taskshift.execution.leaves import leaves
from taskshift.execution.program import Program
from taskshift.execution.programs import Asked, Programs
from taskshift.execution.recording import CHANGING
from taskshift.execution.unrecordable import UnrecordableError
from taskshift.learners.forward import Forward, eval_mode
from taskshift.learners.learner import Learner, State
from taskshift.learners.part import Part
from taskshift.shifts.task import Batch

log = logging.getLogger(__name__)

WORTH_A_BLOCK = 4096
"""Multiplications of a batch's forward pass up to which members are stepped together on a CPU: above, one alone keeps it busy."""

MULTIPLICATIONS = 2**16
"""About how many a block's forward pass has."""

APART = "a run's step is another than those of the others of its stack, so it is stepped apart from them"

SMALLEST, LARGEST = 16, 128
"""Members of a block on a CPU, multiples of what a vector unit takes at once, so that every lane is computed alike."""


def fitting_block(net: nn.Module, inputs: Tensor, num_members: int) -> int:
    """How many of several members are stepped together; one that is alone is, whatever its shapes.

    On a CPU by shapes, so that bits do not depend on how many there are; on a GPU all of them.
    """
    if num_members == 1 or inputs.device.type != "cpu":
        return num_members
    with eval_mode(net), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(inputs)
    multiplications = max(1, counter.get_total_flops() // 2)
    if multiplications > WORTH_A_BLOCK:
        return 1
    wanted = MULTIPLICATIONS // multiplications
    return max(SMALLEST, min(LARGEST, 2 ** (wanted.bit_length() - 1)))


def fitting_memory(num_members: int, bytes_of_a_step: int, free: int) -> int:
    """How many members' steps at once half of the free memory holds, were nothing freed within a step; 1 at least."""
    return max(1, min(num_members, free // 2 // max(1, bytes_of_a_step)))


class SharedPrograms:
    """What trainings whose steps are alike have in common: recordings, or a block in which each holds a lane.

    `num_members` trainings are to use it; with a single one everything is that one's own.
    """

    def __init__(self, num_members: int = 1):
        self.num_members = num_members
        self.most_at_once: int | None = None  # members of a block that a GPU's memory holds, once that is known
        self.why_apart: str | None = None  # why their steps cannot be recorded together, where that was tried
        self._blocks: list[Block] = []
        self._said: set[str] = set()  # in what learners differed
        self._recorded: list[tuple[Learner, Hashable, dict[Hashable, Program]]] = []

    def turns(self, learner: Learner, asked: Asked, *, length: int, compiles: bool) -> Programs:
        """Programs for one training at a time, recorded once for all that step alike; `asked` is one step, as for a lane."""
        form, size = (form_of(asked), length, compiles), asked.batches.targets.shape[1]
        make = partial(Programs, learner, asked.state, size, length=length, compiles=compiles)
        for other, its, recorded in self._recorded:
            if its == form and self._alike(learner, other):
                if agrees(programs := make(programs=recorded), asked, _expected(learner, asked)):
                    return programs
                log.warning(APART)
        self._recorded.append((learner, form, {}))
        return make(programs=self._recorded[-1][2])

    def lane(self, learner: Learner, asked: Asked, *, size: int, length: int, compiles: bool) -> Lane:
        """A place in a block of `size`; `asked` is one step, by which a training is told from others that only look alike.

        Raises UnrecordableError where steps of several members cannot be recorded together.
        """
        form, expected = form_of(asked), _expected(learner, asked)
        for block in self._blocks:
            fits = (block.form, block.size, block.compiles) == (form, size, compiles) and len(block.lanes) < size
            if fits and self._alike(learner, block.learner):
                lane = block.join()
                if agrees(lane, asked, expected):
                    return lane
                lane.leave()
                log.warning(APART)
        block = Block(learner, asked, size=size, length=length, compiles=compiles)
        lane = block.join()
        if not agrees(lane, asked, expected):
            raise UnrecordableError("recorded over several members the step gives other numbers")
        self._blocks.append(block)
        return lane

    def halve(self, size: int) -> int:
        """A block of `size` is too large for the device's memory: what was made for it is let go, and the next size given."""
        self.most_at_once = size // 2
        self._blocks = [block for block in self._blocks if block.lanes]
        log.warning("the GPU's memory does not hold %d runs' steps at once: %d are taken at a time", size, self.most_at_once)
        return self.most_at_once

    def _alike(self, learner: Learner, other: Learner) -> bool:
        """Whether they can share a program; where not, what differs is said once."""
        where = unlike(learner, other)
        if where is not None and where not in self._said:
            self._said.add(where)
            log.warning("%s is another than in others of its stack, so a run is stepped apart from them", where)
        return where is None


def _expected(learner: Learner, asked: Asked) -> State:
    """The state to which the learner's own step leads."""
    return learner.step(asked.state, *_first(asked), acting=asked.acting[0])[0]


def agrees(programs: Programs | Lane, asked: Asked, expected: State) -> bool:
    """Whether a step by these leads to the `expected` state; lanes of others are as before."""
    state, _ = programs.learn(asked)
    ours, theirs = ({key: of[key] for key in CHANGING} for of in (state, expected))
    tolerance = {torch.float64: 1e-9}
    return all(
        torch.allclose(one, other, rtol=(by := tolerance.get(one.dtype, 1e-4)), atol=by, equal_nan=True)
        for one, other in zip(leaves(ours, ours), leaves(theirs, ours), strict=True)
    )


def unlike(one: Learner, other: Learner) -> str | None:
    """Where two learners are made of other parts, whatever their settings; None where they are alike."""
    if one is other:
        return None
    ours, theirs = ({**learner.parts, "trained": learner.trained} for learner in (one, other))
    return _first_unlike(ours, theirs, "learner", ())


def _first_unlike(one: Any, other: Any, at: str, within: tuple[int, ...]) -> str | None:
    """Where two values first differ in what a recording may hold; `within`: the objects that hold them, met but once."""
    if one is other or id(one) in within:
        return None
    if type(one) is not type(other):
        return at
    if isinstance(one, Forward):  # it holds its own net, whose tensors it is given
        return None
    if isinstance(one, Tensor):
        same = one.shape == other.shape and one.dtype == other.dtype and one.device == other.device
        return None if same and torch.equal(one, other) else at
    if isinstance(one, list | tuple):
        one, other = dict(enumerate(one)), dict(enumerate(other))
    elif type(one).__new__ is object.__new__ and hasattr(one, "__dict__"):
        one, other, within = _plain(one), _plain(other), (*within, id(one))
    if not isinstance(one, Mapping):
        return None if one == other else at
    if one.keys() != other.keys():
        return at
    found = (_first_unlike(value, other[key], f"{at}.{key}", within) for key, value in one.items())
    return next((where for where in found if where is not None), None)


def _plain(holder: object) -> dict[str, Any]:
    """What an object keeps, a part besides its settings."""
    settings = holder.settings() if isinstance(holder, Part) else {}
    return {
        name: value
        for name, value in vars(holder).items()
        if name not in settings and not (settings and isinstance(value, Mapping) and value == settings)
    }


def _first(asked: Asked) -> tuple[Batch, Any, Any]:
    """The batch, loss and draws of the first of the steps."""

    def first(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {name: first(below) for name, below in node.items()}
        return node if isinstance(node, Tensor) else node[0]

    return Batch(asked.batches.inputs[0], asked.batches.targets[0]), asked.loss, first(asked.draws)
