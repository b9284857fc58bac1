"""Where the training loss of a run stopped being a number, and what to try then."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

ADVICE = "lower learner.optimizer.lr, or bound the gradient by learner.gradient_clip"


def divergence(rows: Sequence[Mapping[str, float]], epochs: int) -> str | None:
    """In which task and epoch, counted from 1, the loss became NaN or infinite for good, in words; None where it did not.

    `epochs` are those of a task. A loss that was infinite for an epoch and came back is none.
    """
    first = None
    for row in rows:
        if "epoch_loss" in row:
            first = None if math.isfinite(row["epoch_loss"]) else first or row
    if first is None:
        return None
    task, epoch = int(first["task_idx"]), int(first["global_epoch"]) % epochs + 1
    return f"the loss became {_in_words(first['epoch_loss'])} in task {task}, epoch {epoch}"


def _in_words(loss: float) -> str:
    return "NaN" if math.isnan(loss) else "infinite"
