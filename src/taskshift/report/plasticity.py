"""The card of plasticity: does the net learn new tasks worse than before, or than a new net does?"""

from __future__ import annotations

import math

import numpy as np

from loss_landscape.interpretation.hints import Answer
from loss_landscape.page.content import Card
from taskshift.report.trend import Indicator, Tasks, combined, telling_first
from taskshift.report.words import number, sentences, share, tasks_in_words
from taskshift.sweeps.intervals import FEWEST, LEVEL, t_quantile

QUESTION = "Is it losing plasticity?"
TWO_POINTS = 0.02
A_FIFTH = math.log(1.2)

TEST = Indicator("plasticity/test_accuracy", "test accuracy", -1, "share", TWO_POINTS, "plasticity/test_accuracy_standard_error")
TEST_OF_EPOCHS = Indicator("test_accuracy", "test accuracy", -1, "share", TWO_POINTS)
LEARNT = Indicator("task_last_epoch_accuracy", "training accuracy in the last epoch", -1, "share", TWO_POINTS)
TEST_LOSS = Indicator("plasticity/test_loss", "test loss", 1, "factor", A_FIFTH, "plasticity/test_loss_standard_error")
LOSS_LEARNT = Indicator("task_last_epoch_loss", "training loss in the last epoch", 1, "factor", A_FIFTH)

GAP_ACCURACY = Indicator(
    "plasticity/gap_test_accuracy", "gap in test accuracy", -1, "share", TWO_POINTS, "plasticity/gap_test_accuracy_standard_error"
)
GAP_LOSS = Indicator(
    "plasticity/gap_test_loss", "gap in test loss", 1, "difference", 0.0, "plasticity/gap_test_loss_standard_error"
)
GAPS = (GAP_ACCURACY, GAP_LOSS)
"""The gaps to a new net, of which the first that was measured answers; their `margin` is that of their mean as well."""

TREND_LIMITS = (
    "A trend over tasks is not plasticity: tasks that happen to be harder or easier move it as well. And tasks one after the "
    "other on one net are no independent points, so that the interval is too narrow."
)
GAP_LIMITS = (
    "One new net was trained for each task: another draw of its weights would move the gap by more than the test examples do. "
    "The gap is of the end of a task, not of how fast it was learnt. Tasks one after the other on one net are no independent "
    "points, so that the intervals of the mean and of the trend are too narrow."
)
CONTROL = "lla.plasticity.control=true: a new net on every task, which a harder task slows down alike"


def plasticity_card(tasks: Tasks) -> Card:
    """Judged by the gap to a new net where that was measured, else by the trends of what was learnt of each task."""
    measured = [gap for gap in GAPS if gap.is_in(tasks)]
    return _of_gaps(tasks, measured[0]) if measured else _of_trends(tasks)


def _of_gaps(tasks: Tasks, gap: Indicator) -> Card:
    """By the mean of the gaps and by their trend; the first task is left out of both: there the net was new itself."""
    worn = {task: row for task, row in tasks.items() if task > 0}
    (mean, why), trend = _mean_gap(worn, gap), gap.answer(worn)
    answer = "yes" if TEST_LOSS.breaks_down(tasks) else combined([mean, trend])
    learnt = _latest(tasks, (TEST, TEST_LOSS))
    return Card(
        QUESTION,
        answer,
        headline=said_gap(gap, gap.values(tasks)[-1], gap.errors(tasks)[-1]),
        context=f"{gap.words} to a new net, last task; {learnt}",
        evidence=sentences([why, gap.in_words(worn)]),
        limits=GAP_LIMITS,
        settled_by="more seeds: taskshift compare pairs them" if answer == "cannot tell" else "",
        series=tuple(gap.values(tasks).tolist()),
    )


def _mean_gap(worn: Tasks, gap: Indicator) -> tuple[Answer, str]:
    """Whether it is a loss after the first task, and why: by Student's t over the tasks, or by their own errors if larger."""
    gaps, counted = gap.values(worn), gap.counted(worn)
    count = int(counted.sum())
    if count < FEWEST:
        return "cannot tell", f"{tasks_in_words(count)} after the first, and an interval takes {FEWEST}"
    own = math.sqrt(float(np.nansum(gap.errors(worn)[counted] ** 2))) / count
    answer, told = judged_gaps(gaps[counted], gap, own=own)
    answer = "cannot tell" if answer == "no" and count < len(gaps) else answer
    return answer, f"mean {gap.words} over the {count} tasks after the first: {told}"


def judged_gaps(gaps: np.ndarray, gap: Indicator, *, own: float = 0.0) -> tuple[Answer, str]:
    """Whether the mean of gaps [n] is a loss, and that mean with its interval; `own` is the mean's error from theirs."""
    mean, error = float(gaps.mean()), max(float(gaps.std(ddof=1)) / math.sqrt(len(gaps)), own)
    reach = error * t_quantile(len(gaps) - 1)
    told = f"{said_gap(gap, mean)}, {LEVEL:.0%} between {said_gap(gap, mean - reach)} and {said_gap(gap, mean + reach)}"
    nearest, furthest = sorted((gap.worse * (mean - reach), gap.worse * (mean + reach)))
    if nearest > 0 and furthest >= gap.margin:
        return "yes", told
    return ("no" if furthest <= gap.margin else "cannot tell"), told


def _of_trends(tasks: Tasks) -> Card:
    learnt = [one for one in (TEST if TEST.is_in(tasks) else TEST_OF_EPOCHS, LEARNT) if one.is_in(tasks)]
    learnt = learnt or [one for one in (TEST_LOSS, LOSS_LEARNT) if one.is_in(tasks)]
    answers = [one.answer(tasks) for one in learnt]
    learnt = telling_first(learnt, answers)
    return Card(
        QUESTION,
        combined(answers),
        headline=_latest(tasks, learnt),
        context=_first(tasks, learnt),
        evidence=sentences([*(one.in_words(tasks) for one in learnt), *_how_sure(tasks)]),
        limits=TREND_LIMITS,
        settled_by=CONTROL,
        series=tuple(learnt[0].values(tasks).tolist()) if learnt else (),
        logarithmic=bool(learnt) and learnt[0].scale == "factor",
    )


def _latest(tasks: Tasks, indicators: tuple[Indicator, ...] | list[Indicator]) -> str:
    """The first of the indicators that was measured, at the last task, with its error."""
    for one in indicators:
        if one.is_in(tasks):
            return f"{one.words} {one.said(one.values(tasks)[-1], one.errors(tasks)[-1])}"
    return "no task has ended"


def _first(tasks: Tasks, indicators: list[Indicator]) -> str:
    if not indicators:
        return ""
    others = [f"{one.words} {one.said(one.values(tasks)[-1])}" for one in indicators[1:]]
    return "; ".join([f"first task {indicators[0].said(indicators[0].values(tasks)[0])}", *others])


def _how_sure(tasks: Tasks) -> list[str]:
    """Where the last task's true test accuracy lies, by the number of examples it was taken over."""
    last = next(iter(reversed(TEST.measured(tasks).values())), {})
    count, accuracy = last.get("plasticity/num_test_examples"), last.get(TEST.name)
    if not count or accuracy is None or not math.isfinite(accuracy):
        return []
    low, high = wilson(accuracy, count)
    return [
        f"over {count:.0f} test examples the last task's lies, in {LEVEL:.0%} of draws, between {share(low)} and {share(high)}"
    ]


def wilson(fraction: float, count: float) -> tuple[float, float]:
    """Both ends of the `LEVEL` interval of a share that was seen to be `fraction` of `count` (Wilson 1927).

    Unlike ± 2 standard errors it stays within 0 … 1, and is no point where all or none were right.
    """
    from scipy.special import ndtri

    z = float(ndtri((1 + LEVEL) / 2))
    middle = (fraction + z * z / (2 * count)) / (1 + z * z / count)
    reach = z * math.sqrt(fraction * (1 - fraction) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def said_gap(gap: Indicator, value: float, error: float = math.nan) -> str:
    """A gap in points, or of losses as a number, with its error."""
    if gap.scale != "share" or not math.isfinite(value):
        return number(value, error)
    return f"{100 * value:+.1f}{f' ± {100 * error:.1f}' if math.isfinite(error) else ''} points"
