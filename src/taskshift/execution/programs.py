"""A learner's steps by programs, a chunk at a time."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor

from taskshift.execution.leaves import FixedTensors
from taskshift.execution.losses import structure, tensors_of_loss
from taskshift.execution.program import Program
from taskshift.execution.recording import CHANGING, Given, recorded
from taskshift.learners.learner import Learner, Loss, State, Steps
from taskshift.shifts.task import Batch

MOST_STEPS, CHUNK_BYTES = 1024, 2**23
MOST_STEPS_OF_A_BLOCK, BLOCK_BYTES = 4096, 2**25
"""Larger, for what is done once for each member and chunk is to be little beside its steps."""


def fitting_length(batch: Batch, outputs: Tensor, bytes_of_draws: int, *, members: int = 1) -> int:
    """How many steps are taken in a row: by sizes alone, so that what they need at once is some 8 MB, of a block 32 MB."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in (*batch, outputs)) + bytes_of_draws
    most = MOST_STEPS if members == 1 else MOST_STEPS_OF_A_BLOCK
    return max(1, min(most, CHUNK_BYTES // size, BLOCK_BYTES // (members * size)))


class Asked(NamedTuple):
    """Some steps in a row, and all that they go by."""

    state: State
    batches: Batch  # inputs [K, B, …]
    loss: Loss
    draws: Mapping[str, Any]  # part → name → a tensor for all steps, or a sequence over them
    acting: Sequence[tuple[str, ...]]  # which interventions act, step by step
    moving: Mapping[str, Sequence[Tensor]]  # the settings of the optimizer that a scheduler moves, over the steps


class Programs:
    """Takes up to `length` steps in a row on batches of one size, on tensors that stay where they are.

    There is a program for each set of interventions that act together, and for each structure of a task's loss: it is recorded,
    and compiled with `compiles`, when it is first needed.
    """

    size = 1
    """How many trainings step together."""

    def __init__(
        self,
        learner: Learner,
        state: State,
        batch_size: int,
        *,
        length: int,
        compiles: bool,
        programs: dict[Hashable, Program] | None = None,
    ):
        """`programs`: those of a learner that steps alike, which are used and added to."""
        self.learner, self.batch_size, self.length, self.compiles = learner, batch_size, length, compiles
        self.fixed = FixedTensors.copied({key: state[key] for key in CHANGING})
        self._programs = {} if programs is None else programs

    def learn(self, asked: Asked) -> tuple[State, Steps]:
        """The state after these steps, and what they leave behind until the next call."""
        state, batches, loss, draws, acting, moving = asked
        self.fixed.take({key: state[key] for key in CHANGING})
        settings = {**state["settings"], "optimizer": {**state["settings"].get("optimizer", {}), **moving}}
        given = Given(self.fixed.nest, settings, tensors_of_loss(loss), draws, *(part.contiguous().unbind() for part in batches))
        columns = [repeat(part) if isinstance(part, Tensor) else part for part in given.flat()]
        first = given.at_first()
        by_acting = {names: self._program(first, loss, names) for names in dict.fromkeys(acting)}
        programs = [by_acting[names] for names in acting]
        for number, (program, arguments) in enumerate(zip(programs, zip(*columns, strict=False), strict=True)):
            program.run(*arguments, program.row_views[number], program.output_views[number])
        return {**state, **self.fixed.nest}, steps_of(programs)

    def prepare(self, asked: Asked) -> bool:
        """Record such a step, and say whether it is compiled; raises UnrecordableError."""
        batch = (part.unbind() for part in asked.batches)
        given = Given(self.fixed.nest, asked.state["settings"], tensors_of_loss(asked.loss), asked.draws, *batch)
        return self._program(given.at_first(), asked.loss, asked.acting[0]).is_compiled

    def _program(self, given: Given, loss: Loss, acting: tuple[str, ...]) -> Program:
        key = structure(loss), acting, tuple((part.shape, part.dtype) for part in (given.inputs, given.targets))
        if key not in self._programs:
            recording = recorded(self.learner, loss, acting, given)
            self._programs[key] = Program(recording, given, length=self.length, compiles=self.compiles)
        return self._programs[key]


def steps_of(programs: Sequence[Program], lane: int | None = None) -> Steps:
    """What the steps of these programs left, step by step; where they are a block's, in this lane."""
    count, first = len(programs), programs[0]
    own = slice(None) if lane is None else (slice(None), lane)
    if all(program is first for program in programs):
        losses, *values = first.rows[:count][own].clone().unbind(1)
        return Steps(losses, first.outputs[:count][own].flatten(0, 1), dict(zip(first.names, values, strict=True)))
    losses, outputs = first.rows.new_empty(count), torch.empty_like(first.outputs[:count][own])
    numbers: dict[str, list[Tensor]] = {}
    for program in dict.fromkeys(programs):
        at = [number for number, other in enumerate(programs) if other is program]
        rows = program.rows[at][own]
        losses[at], outputs[at] = rows[:, 0], program.outputs[at][own]
        for name, values in zip(program.names, rows.unbind(1)[1:], strict=True):
            numbers.setdefault(name, []).append(values)
    return Steps(losses, outputs.flatten(0, 1), {name: torch.cat(values) for name, values in numbers.items()})
