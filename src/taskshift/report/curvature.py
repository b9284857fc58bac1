"""The cards of curvature: does it grow over the tasks, and is it at the edge of what the optimizer bears?"""

from __future__ import annotations

import math

from loss_landscape.interpretation.edge import AT_THE_EDGE, FAR_FROM_IT, edge_answer
from loss_landscape.page.content import Card
from taskshift.pictures.curvature import eigenvalue_error
from taskshift.report.trend import Indicator, Row, Tasks
from taskshift.report.words import number, sentences, tasks_in_words

LARGEST = Indicator("spectrum/top_eigenvalue_1", "λ₁", 1, "factor", math.log(1.5))
TRACE = Indicator("spectrum/trace", "trace", 1, "factor", math.log(1.5), "spectrum/trace_standard_error")
RATIO = "spectrum/sharpness_to_threshold"
THRESHOLD = "spectrum/stability_threshold"

SWITCHED_ON = "lla.enable_spectrum=true"

GROWS = "Is the curvature growing?"
GROWS_LIMITS = (
    "λ depends on how the net is written down: rescaling a ReLU net's layers changes it without changing the function. It is of "
    "the evaluation data and of the task's loss alone, without regularisers."
)
EDGE = "Is training at the edge of stability?"
EDGE_LIMITS = (
    "The threshold is that of full-batch steps on a quadratic: the noise of mini-batches lets a net settle well below 1. It is "
    "taken at the tasks' ends, after the schedule of the learning rate."
)


def curvature_card(tasks: Tasks) -> Card:
    """Judged by the trend of the largest eigenvalue's logarithm."""
    if not LARGEST.is_in(tasks):
        return _not_measured(GROWS, GROWS_LIMITS)
    rows, answer = list(LARGEST.measured(tasks).values()), LARGEST.answer(tasks)
    traced = f"; trace {number(rows[-1][TRACE.name], rows[-1].get(TRACE.error, math.nan))}" if TRACE.name in rows[-1] else ""
    return Card(
        GROWS,
        answer,
        headline=f"λ₁ {number(rows[-1][LARGEST.name], eigenvalue_error(rows[-1], 'top', number=1))}",
        context=f"first task {number(rows[0][LARGEST.name])}{traced}",
        evidence=sentences([*(one.in_words(tasks) for one in (LARGEST, TRACE) if one.is_in(tasks)), "± of λ₁ is its residual"]),
        limits=GROWS_LIMITS,
        settled_by="more tasks, or seeds" if answer == "cannot tell" else "",
        series=tuple(LARGEST.values(tasks).tolist()),
        logarithmic=True,
    )


def edge_card(tasks: Tasks) -> Card:
    """Judged by the last task's curvature over what the optimizer bears; from `AT_THE_EDGE` on yes, below `FAR_FROM_IT` no."""
    if not LARGEST.is_in(tasks):
        return _not_measured(EDGE, EDGE_LIMITS, worrying=False)
    rows = list(LARGEST.measured(tasks).values())
    ratios, threshold = [row.get(RATIO, math.nan) for row in rows], rows[-1].get(THRESHOLD, math.nan)
    answer = edge_answer(ratios[-1])
    is_scaled = bears(rows[-1]) is None and math.isfinite(threshold)
    scaled = " (the ratio is of the Hessian as the optimizer scales it)" if is_scaled else ""
    return Card(
        EDGE,
        answer,
        headline=f"{number(ratios[-1])} of the threshold" if math.isfinite(ratios[-1]) else "no ratio",
        context=f"{_named(threshold)}, λ₁ {number(rows[-1][LARGEST.name])}{scaled}",
        evidence=sentences([_reached(ratios, threshold)]),
        limits=EDGE_LIMITS,
        settled_by="full-batch steps: batch_size as large as a task" if answer == "cannot tell" else "",
        worrying=None,
        series=tuple(ratios),
    )


def bears(row: Row) -> float | None:
    """The threshold on the scale of the Hessian's own eigenvalues; None where there is none, as for Adam's scaled Hessian."""
    threshold, ratio, largest = (row.get(name, math.nan) for name in (THRESHOLD, RATIO, LARGEST.name))
    if not math.isfinite(threshold) or not math.isclose(ratio * threshold, largest, rel_tol=1e-3):
        return None
    return threshold


def _named(threshold: float) -> str:
    return "no known threshold" if math.isnan(threshold) else f"threshold {number(threshold)}"


def _reached(ratios: list[float], threshold: float) -> str:
    finite = [ratio for ratio in ratios if math.isfinite(ratio)]
    if math.isinf(threshold):  # of a step of length 0
        return "the learning rate was 0 at the task's end: no curvature is too large for no step"
    if not finite:
        return "this optimizer has no known threshold, or had not taken a step"
    of_how_many = f"{sum(ratio >= AT_THE_EDGE for ratio in finite)} of {tasks_in_words(len(finite))}"
    rule = f"below {FAR_FROM_IT} it is far from the edge, from {AT_THE_EDGE} on at it"
    return (
        f"1 is the edge, (2 + 2β)/η for SGD; highest at a task's end {number(max(finite))}, at the edge in {of_how_many}; {rule}"
    )


def _not_measured(question: str, limits: str, worrying: bool = True) -> Card:
    return Card(
        question,
        "cannot tell",
        headline="not measured",
        context="",
        evidence="No task has eigenvalues of the Hessian.",
        limits=limits,
        settled_by=SWITCHED_ON,
        worrying="yes" if worrying else None,
    )
