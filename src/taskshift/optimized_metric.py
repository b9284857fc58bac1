"""The one number that a run is judged by, for sweepers that look for the best."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from taskshift.faults import Fault

DEFAULTS = ("task_last_epoch_accuracy", "task_last_epoch_loss")


def optimized_metric(rows: Iterable[Mapping[str, float]], name: str | None) -> float:
    """The last value of the metric `name` in a record; None takes the last task's accuracy, or its loss where it has none.

    Raises Fault where the record has no such metric.
    """
    last: dict[str, float] = {}
    for row in rows:
        last.update(row)
    for wanted in DEFAULTS if name is None else (name,):
        if wanted in last:
            return last[wanted]
    near = difflib.get_close_matches(str(name), last, 1)
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(last)) or 'no rows'}"
    raise Fault(f"objective={name}: the record has no such metric; {hint}")
