"""How a run's steps are carried out: eager, or by programs that are replayed or compiled."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch

from taskshift.execution.compiling import compiler_for
from taskshift.execution.rule import count_bytes, count_operations, pays
from taskshift.execution.shared import SharedPrograms, fitting_block, fitting_memory
from taskshift.execution.unrecordable import UnrecordableError
from taskshift.faults import Fault
from taskshift.randomness import random_state_kept
from taskshift.shifts.source import Source
from taskshift.shifts.task import Batch, Task
from taskshift.training import Training

log = logging.getLogger(__name__)

How = Literal["eager", "replay", "compiled"]


class Execution(NamedTuple):
    """What `run.json` says of it."""

    how: How
    why: str

    def __str__(self) -> str:
        said = {"eager": "run eager", "replay": "are recorded and replayed", "compiled": "are recorded and compiled"}
        return f"steps {said[self.how]}: {self.why}"


def begun(known: Mapping[str, Any]) -> Execution:
    """What `run.json` says; a run from before there was a choice is eager."""
    return Execution(**known["execution"]) if "execution" in known else Execution("eager", "as it began")


def kept(wanted: str, known: Mapping[str, Any]) -> How:
    """The execution in which the run that `run.json` is of began; raises Fault where another one is wanted."""
    began = begun(known).how
    if wanted not in ("auto", began, known["config"].get("execution")):
        raise Fault(f"execution={wanted}: this folder's run began with {began} and goes on so; give execution=auto or {began}")
    return began


def settle(
    training: Training,
    source: Source,
    task: Task,
    *,
    wanted: str,
    num_steps: int,
    shared: SharedPrograms | None = None,
    block: int | None = None,
) -> Execution:
    """Choose by rule where `auto` is wanted, get the training ready for it, and say what it is; random state as before.

    `shared` is what it has in common with the others of its stack, `block` how many step together, where that is known.
    Raises Fault where programs are asked for and the step cannot be recorded.
    """
    if wanted == "eager":
        return Execution("eager", "as the config says")
    device, shared = source.device, SharedPrograms() if shared is None else shared
    with random_state_kept(device):
        batch = next(source.apart().epoch(task, 0, actor=training))
        if wanted == "auto" and (why := why_not_worth_it(training, task, batch, num_steps * shared.num_members)) is not None:
            return Execution("eager", why)
        compiler = compiler_for(device)
        try:
            compiles = wanted != "replay" and compiler is not None
            is_compiled = _use_programs(training, task, batch, compiles=compiles, shared=shared, block=block)
        except UnrecordableError as error:
            if wanted == "auto":
                return Execution("eager", str(error))
            raise Fault(f"execution={wanted}: {error}; give execution=auto or eager") from error
    if is_compiled:
        return Execution("compiled", f"by {compiler}")
    if wanted == "replay":
        return Execution("replay", "as the config says")
    lacking = "there is no Triton" if device.type == "cuda" else "there is no C++ compiler"
    return Execution("replay", lacking if compiler is None else "the compiler failed")


def _use_programs(
    training: Training, task: Task, batch: Batch, *, compiles: bool, shared: SharedPrograms, block: int | None
) -> bool:
    """Together with others in a block where their number and the shapes say so, and their steps can be recorded together."""
    size = _fitting(training, task, batch, shared) if block is None else block
    while size > 1 and (block is not None or shared.why_apart is None):
        try:
            return training.use_programs(task, batch, compiles=compiles, shared=shared, block=size)
        except UnrecordableError as error:
            if block is not None:
                raise
            shared.why_apart = str(error)
            log.info("steps are taken one run after the other: %s", error)
        except torch.OutOfMemoryError:
            if block is not None:
                raise
            size = shared.halve(size)
    return training.use_programs(task, batch, compiles=compiles, shared=shared)


def _fitting(training: Training, task: Task, batch: Batch, shared: SharedPrograms) -> int:
    """How many step together, by shapes and, on a GPU, by the memory that was free when the first of them asked."""
    size = fitting_block(training.net, batch.inputs, shared.num_members)
    if size > 1 and shared.most_at_once is None and batch.inputs.device.type == "cuda":
        bytes_of_a_step = count_bytes(lambda: training.try_step(task, batch))
        free, _ = torch.cuda.mem_get_info(batch.inputs.device)
        shared.most_at_once = fitting_memory(size, bytes_of_a_step, free)
        if shared.most_at_once < size:
            log.info("the GPU's memory is taken to hold %d of %d runs' steps at once", shared.most_at_once, size)
    return size if shared.most_at_once is None else min(size, shared.most_at_once)


def why_not_worth_it(training: Training, task: Task, batch: Batch, num_steps: int) -> str | None:
    """Why so many steps had better run eager, None where they are worth compiling."""
    if (reason := training.learner.why_eager()) is not None:
        return reason
    num_operations = count_operations(lambda: training.try_step(task, batch))
    if pays(num_steps, num_operations):
        return None
    return f"{num_steps} steps of {num_operations} operations are too few to be worth compiling"
