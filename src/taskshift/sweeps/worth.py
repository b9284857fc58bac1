"""Whether runs that may train as one program had better do so, and how many of them."""

from __future__ import annotations

from typing import NamedTuple

from taskshift.config.build import PartsInTurn
from taskshift.execute import why_not_worth_it
from taskshift.execution.shared import fitting_block
from taskshift.script import Config


class Worth(NamedTuple):
    """What stacking some runs would bring."""

    why_alone: str | None  # None: they go together
    block: int = 1  # how many of them a program steps at a time


def worth_of(config: Config, build: PartsInTurn, *, number: int, asked: bool) -> Worth:
    """What stacking so many runs like this one would bring.

    By rule, of all their steps: a program is compiled once for all. Where it is `asked` for, only what can't be is left alone.
    """
    if config["execution"] == "eager":
        return Worth("execution=eager has no program")
    parts = build(config)
    training, stream = parts.training, parts.stream
    task = stream[0]
    batch = next(stream.apart().epoch(task, 0, actor=training))
    if asked or config["execution"] != "auto":
        why = training.learner.why_eager()
    else:
        num_steps = number * parts.top.num_tasks * parts.top.epochs * stream.num_batches(task)
        why = why_not_worth_it(training, task, batch, num_steps)
    return Worth(why, fitting_block(training.net, batch.inputs, number))
