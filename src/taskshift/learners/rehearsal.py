"""Every part tried once on two examples, before anything is trained or written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from taskshift.faults import Fault
from taskshift.learners.learner import Learner, Loss, State
from taskshift.learners.part import Switch, Tensors
from taskshift.learners.shapes import refuse_other_tensors
from taskshift.shifts.task import Batch


def rehearse(
    learner: Learner, state: State, batch: Batch, loss: Loss, *, draws: Mapping[str, Tensors], contexts: Mapping[str, Switch]
) -> None:
    """Raise Fault, naming the part, where a step or a switch changes the names or shapes of what the state holds.

    The state is left as it is; what eager parts remember, and torch's random state, are the caller's to put back.
    """
    _refuse_other_shapes("the optimizer or the gradient", state, learner.step(state, batch, loss, draws, acting=())[0])
    for name in learner.interventions:
        acted, _ = learner.step(state, batch, loss, draws, acting=(name,))
        refuse_other_tensors(name, state["net"], acted["net"])
        _refuse_other_shapes(name, state, acted)
        for between in (learner.switch, learner.after_epoch):
            changed, _ = between(state, {name: contexts[name]})
            refuse_other_tensors(name, state["net"], changed["net"])
            _refuse_other_shapes(name, state, changed)


def _refuse_other_shapes(part: str, before: Any, after: Any, at: str = "") -> None:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        if before.keys() != after.keys() and not at.startswith("slots"):  # torch's optimizers make their slots at the first step
            other = ", ".join(sorted(map(str, before.keys() ^ after.keys())))
            raise Fault(f"{part} changed the names in the learner's {at or 'state'}: {other}; give `init` all of them")
        for key in before.keys() & after.keys():
            _refuse_other_shapes(part, before[key], after[key], f"{at}.{key}" if at else str(key))
    elif isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor) and before.shape != after.shape:
        raise Fault(
            f"{part} changed the shape of the learner's {at} from {list(before.shape)} to {list(after.shape)}; "
            "shapes stay as they are from the start"
        )
