"""Whether runs that may train as one program had better do so."""

from __future__ import annotations

from taskshift.config.build import build_parts
from taskshift.execution.rule import count_operations, pays
from taskshift.sweeps.plan import Config


def why_alone(config: Config, *, number: int, asked: bool) -> str | None:
    """Why so many runs like this one go one by one, None where they go together.

    By rule, of all their steps: a program is compiled once for all. Where it is `asked` for, only what can't be is left.
    """
    if config["execution"] == "eager":
        return "execution=eager has no program"
    parts = build_parts(config)
    training, stream = parts.training, parts.stream
    if (why := training.learner.why_eager()) is not None or asked or config["execution"] != "auto":
        return why
    task = stream[0]
    batch = next(stream.apart().epoch(task, 0, actor=training))
    num_steps = number * parts.top.num_tasks * parts.top.epochs * stream.num_batches(task)
    is_worth_it = pays(num_steps, count_operations(lambda: training.try_step(task, batch)))
    return None if is_worth_it else f"{num_steps} steps are too few to be worth compiling"
