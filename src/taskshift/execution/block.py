"""The steps of several trainings as one program: each holds a lane of the tensors that it works on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from taskshift.execution.leaves import FixedTensors, copies, leaves, nested, over_steps
from taskshift.execution.losses import structure, tensors_of_loss
from taskshift.execution.program import Program
from taskshift.execution.programs import Asked, steps_of
from taskshift.execution.recording import CHANGING, Given, recorded
from taskshift.learners.learner import Learner, Loss, State, Steps
from taskshift.learners.part import Tensors


class OverSteps:
    """A buffer [length, size, …], and each step's part of it."""

    def __init__(self, like: Tensor, length: int, size: int, *, innermost: bool):
        self.buffer = over_steps(copies(like, size, innermost=innermost), length, innermost=innermost)
        self.steps = self.buffer.unbind()


class Block:
    """Takes steps of up to `size` trainings in a row, on tensors [size, …] that stay where they are.

    Lanes that nobody holds hold copies of a first state, and step along: so a training's bits do not depend on who else steps.
    """

    def __init__(self, learner: Learner, example: Asked, *, size: int, length: int, compiles: bool):
        self.learner, self.size, self.length, self.compiles = learner, size, length, compiles
        self.batch_size = example.batches.targets.shape[1]
        self.form = form_of(example)
        self.innermost = example.batches.inputs.device.type == "cpu"  # there a vector unit takes the members at once
        state = example.state
        self.changing = self._fixed({key: state[key] for key in CHANGING})
        self.settings, self.draws = self._fixed(state["settings"]), self._drawn(example.draws)
        self.moving = {name: self._over_steps(values[0]) for name, values in example.moving.items()}
        self.inputs, self.targets = (self._over_steps(part[0]) for part in example.batches)
        self.losses: dict[Hashable, Tensors] = {}
        self.lanes: dict[int, Lane] = {}
        self._programs: dict[Hashable, Program] = {}
        self._arguments: dict[Hashable, list[tuple[Tensor, ...]]] = {}
        self._tensors = leaves(self.changing, self.changing)

    def join(self) -> Lane:
        """The next free lane."""
        number = next(number for number in range(self.size) if number not in self.lanes)
        self.lanes[number] = Lane(self, number)
        return self.lanes[number]

    def learn(self, asked: Mapping[int, Asked]) -> dict[int, tuple[State, Steps]]:
        """By lane, the state after the steps that each asks for, as many as all others, and what these leave behind.

        Lanes that are held and ask for nothing stay as they are.
        """
        waiting = [number for number in self.lanes if number not in asked]
        held = [tensor[waiting] for tensor in self._tensors] if waiting else []
        for number, one in asked.items():
            self.lanes[number].write(one)
        self._write_batches(asked)
        try:
            programs = self._run(next(iter(asked.values())))
        finally:  # steps that were taken before one fails have moved them as well
            for tensor, values in zip(self._tensors, held, strict=False):
                tensor[waiting] = values
        found = _Told(programs)
        return {number: ({**one.state, **self.lanes[number].own.nest}, found.of(number)) for number, one in asked.items()}

    def prepare(self, asked: Asked) -> bool:
        """Record such a step, and say whether it is compiled; raises UnrecordableError."""
        return self._program(asked.loss, asked.acting[0]).is_compiled

    def loss_places(self, loss: Loss) -> Tensors:
        """Where the tensors of a loss of this structure lie."""
        key = structure(loss)
        if key not in self.losses:
            self.losses[key] = self._fixed(tensors_of_loss(loss))
        return self.losses[key]

    # -- within -----------------------------------------------------------------------------------------------------

    def _write_batches(self, asked: Mapping[int, Asked]) -> None:
        lanes, batches = list(asked), [one.batches for one in asked.values()]
        in_a_row = lanes == list(range(len(lanes)))
        for place, part in ((self.inputs, 0), (self.targets, 1)):
            values = torch.stack([of[part] for of in batches], dim=1)  # [K, members, B, …]
            where = place.buffer[: len(values)]
            if in_a_row:
                where[:, : len(lanes)] = values
            else:
                where[:, lanes] = values

    def _run(self, first: Asked) -> list[Program]:
        programs = {names: self._program(first.loss, names) for names in dict.fromkeys(first.acting)}
        steps = {names: self._steps(first.loss, names) for names in programs}
        for number, names in enumerate(first.acting):
            programs[names].run(*steps[names][number])
        return [programs[names] for names in first.acting]

    def _steps(self, loss: Loss, acting: tuple[str, ...]) -> list[tuple[Tensor, ...]]:
        """The arguments of each step: always the same tensors."""
        key = structure(loss), acting
        if key not in self._arguments:
            program, given = self._program(loss, acting), self._given(loss)
            columns = [part.steps if isinstance(part, OverSteps) else repeat(part, self.length) for part in given.flat()]
            self._arguments[key] = list(zip(*columns, program.row_views, program.output_views, strict=True))
        return self._arguments[key]

    def _program(self, loss: Loss, acting: tuple[str, ...]) -> Program:
        key = structure(loss), acting
        if key not in self._programs:
            given = self._given(loss)
            first = given.of([part.steps[0] if isinstance(part, OverSteps) else part for part in given.flat()])
            recording = recorded(self.learner, loss, acting, first, over_lanes=True)
            self._programs[key] = Program(recording, first, length=self.length, compiles=self.compiles, innermost=self.innermost)
        return self._programs[key]

    def _given(self, loss: Loss) -> Given:
        settings = {**self.settings, "optimizer": {**self.settings.get("optimizer", {}), **self.moving}}
        return Given(self.changing, settings, self.loss_places(loss), self.draws, self.inputs, self.targets)

    def _fixed(self, node: Any) -> Any:
        return nested([copies(tensor, self.size, innermost=self.innermost) for tensor in leaves(node, node)], node)

    def _drawn(self, node: Any) -> Any:
        if isinstance(node, Mapping):
            return {name: self._drawn(below) for name, below in node.items()}
        return copies(node, self.size, innermost=self.innermost) if isinstance(node, Tensor) else self._over_steps(node[0])

    def _over_steps(self, like: Tensor) -> OverSteps:
        return OverSteps(like, self.length, self.size, innermost=self.innermost)


class Lane:
    """A training's place in a block: programs that it has to itself, as far as it sees."""

    def __init__(self, block: Block, number: int):
        self.block, self.number = block, number
        self.length, self.batch_size, self.size, self.compiles = block.length, block.batch_size, block.size, block.compiles
        self.own = FixedTensors([tensor[number] for tensor in block._tensors], block.changing)
        self._seen: dict[int, tuple[Tensor, int]] = {}
        self._loss: Loss | None = None
        self._judged_by: tuple[Loss | None, Hashable] = None, None

    def learn(self, asked: Asked) -> tuple[State, Steps]:
        """The state after these steps, and what they leave behind."""
        return self.block.learn({self.number: asked})[self.number]

    def prepare(self, asked: Asked) -> bool:
        """Record such a step, and say whether it is compiled; raises UnrecordableError."""
        return self.block.prepare(asked)

    def structure(self, loss: Loss) -> Hashable:
        """What a recording depends on of the loss of the present task."""
        if loss is not self._judged_by[0]:
            self._judged_by = loss, structure(loss)
        return self._judged_by[1]

    def leave(self) -> None:
        """Let another training have it."""
        del self.block.lanes[self.number]

    def write(self, asked: Asked) -> None:
        """Put what its steps go by, but for their batches, where the block's programs read it."""
        block = self.block
        self.own.take({key: asked.state[key] for key in CHANGING})
        self._write(block.settings, asked.state["settings"])
        self._write(block.draws, asked.draws)
        self._write(block.moving, asked.moving)
        if asked.loss is not self._loss:
            self._write(block.loss_places(asked.loss), tensors_of_loss(asked.loss))
            self._loss = asked.loss

    def _write(self, places: Any, values: Any) -> None:
        """What has not changed since it was last written lies there already."""
        if isinstance(places, Mapping):
            for key, place in places.items():
                self._write(place, values[key])
        elif isinstance(places, OverSteps):
            places.buffer[: len(values), self.number] = torch.stack(list(values))
        elif not self._is_known(places, values):
            places[self.number] = values

    def _is_known(self, place: Tensor, value: Tensor) -> bool:
        before, version = self._seen.get(id(place), (None, -1))
        if before is value and version == value._version:
            return True
        self._seen[id(place)] = value, value._version
        return False


class _Told:
    """What the steps of these programs left, for every lane."""

    def __init__(self, programs: Sequence[Program]):
        self._programs, first, count = programs, programs[0], len(programs)
        self._is_one = all(program is first for program in programs)
        if self._is_one:
            # copies, also of a single step, of which a window may be contiguous: the next chunk is written over it
            self._rows = _copied(first.rows[:count].permute(1, 2, 0))  # [size, 1 + names, K]
            self._outputs = _copied(first.outputs[:count].transpose(0, 1))  # [size, K, B, outputs]

    def of(self, lane: int) -> Steps:
        if not self._is_one:
            return steps_of(self._programs, lane)
        losses, *numbers = self._rows[lane].unbind()
        return Steps(losses, self._outputs[lane].flatten(0, 1), dict(zip(self._programs[0].names, numbers, strict=True)))


def _copied(window: Tensor) -> Tensor:
    return window.clone(memory_format=torch.contiguous_format)


def form_of(asked: Asked) -> Hashable:
    """The names, shapes and types of all that steps go by but their losses; `*` stands before what is another at each step."""
    state = {key: asked.state[key] for key in (*CHANGING, "settings")}
    batch = {"inputs": list(asked.batches.inputs), "targets": list(asked.batches.targets)}
    return tuple(_forms({"state": state, "draws": asked.draws, "moving": asked.moving, "batch": batch}, ""))


def _forms(node: Any, at: str) -> list[tuple[Any, ...]]:
    if isinstance(node, Mapping):
        return [found for key, below in node.items() for found in _forms(below, f"{at}.{key}")]
    each, mark = (node, "") if isinstance(node, Tensor) else (node[0], "*")
    return [(f"{mark}{at}", tuple(each.shape), each.dtype, each.device)]
