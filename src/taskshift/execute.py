"""How a run's steps are carried out: eager, or by programs that are replayed or compiled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from taskshift.execution.compiling import compiler_for
from taskshift.execution.rule import count_operations, pays
from taskshift.execution.unrecordable import UnrecordableError
from taskshift.faults import Fault
from taskshift.randomness import random_state_kept
from taskshift.shifts.source import Source
from taskshift.shifts.task import Batch, Task
from taskshift.training import Training

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


def settle(training: Training, source: Source, task: Task, *, wanted: str, num_steps: int) -> Execution:
    """Choose by rule where `auto` is wanted, get the training ready for it, and say what it is; random state as before.

    Raises Fault where programs are asked for and the step cannot be recorded.
    """
    if wanted == "eager":
        return Execution("eager", "as the config says")
    device = source.device
    with random_state_kept(device):
        batch = next(source.apart().epoch(task, 0, actor=training))
        if wanted == "auto" and (why := _why_not_worth_it(training, task, batch, num_steps)) is not None:
            return Execution("eager", why)
        compiler = compiler_for(device)
        try:
            is_compiled = training.use_programs(task, batch, compiles=wanted != "replay" and compiler is not None)
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


def _why_not_worth_it(training: Training, task: Task, batch: Batch, num_steps: int) -> str | None:
    if (reason := training.learner.why_eager()) is not None:
        return reason
    num_operations = count_operations(lambda: training.try_step(task, batch))
    if pays(num_steps, num_operations):
        return None
    return f"{num_steps} steps of {num_operations} operations are too few to be worth compiling"
