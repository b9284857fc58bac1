"""The rows of three questions: is it hard to train, can it improve, what happened in training; each judged from numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from loss_landscape.interpretation.evidence import Evidence
from loss_landscape.interpretation.path_shape import PathShape
from loss_landscape.interpretation.terrain import Terrain
from loss_landscape.results.grid import Grid
from loss_landscape.results.landscape import MODES
from loss_landscape.storage.records import LandscapeRecord

Answer = Literal["yes", "no", "cannot tell"]

QUESTIONS = ("Is the setup hard to train?", "Can it improve further?", "What happened in training?")

SLICE = "a line or plane of random directions misses most of the space: between its directions there may be anything"
RESCALE = (
    "sharpness changes when layers are rescaled without changing what the net computes, and is weakly tied to generalisation"
)
MUCH_OFF = 0.2
"""From which share of its own losses' range on a path's plane is said to tell another story."""

SHADOW = "the plane shows a shadow of the path"


@dataclass(frozen=True)
class Judgement:
    """An answer and the numbers it rests on."""

    answer: Answer
    evidence: str


@dataclass(frozen=True)
class Row:
    """A row of the tables: a `sight`, what it may mean, what one may try, how it is judged, its caveat, what would settle it."""

    question: str
    sight: str
    meaning: str
    action: str
    judged: Callable[[Evidence], Judgement]
    caveat: str
    settled_by: str


@dataclass(frozen=True)
class Hint:
    """A row with its judgement; `source` names the landscape or the path that the evidence is of, where it was judged alone."""

    row: Row
    answer: Answer
    evidence: str
    source: str = ""


def explained_each(record: LandscapeRecord, landscapes: Mapping[str, Grid]) -> list[Hint]:
    """Every row, judged from each of these `landscapes` by its name, those of training from each path of the record.

    A row that has none of them is judged once, from nothing.
    """
    grounds = {name: Evidence.of(replace(record, grids={MODES[grid.losses.ndim - 1]: grid})) for name, grid in landscapes.items()}
    paths = {
        path.name if len(record.trajectories) == 1 else f"{path.name}-{number}": Evidence.of(
            replace(record, trajectories=(path,))
        )
        for number, path in enumerate(record.trajectories, 1)
    }
    nothing = {"": Evidence()}
    ground_rows = [row for row in ROWS if row.question != TRAINING]
    training_rows = [row for row in ROWS if row.question == TRAINING]
    return _judged(ground_rows, grounds or nothing) + _judged(training_rows, paths or nothing)


def _judged(rows: Sequence[Row], evidence: Mapping[str, Evidence]) -> list[Hint]:
    """Each row judged from each evidence, which is known by the name of its source."""
    judged = [(row, source, row.judged(found)) for row in rows for source, found in evidence.items()]
    return [Hint(row, judgement.answer, judgement.evidence, source) for row, source, judgement in judged]


# -- judging

NO_GRID = Judgement("cannot tell", "no line or plane with a finite centre was sampled")
NO_FILTERS = Judgement("cannot tell", "no random directions with the filters' norms, sampled out to 0.1")
NO_PATH = Judgement("cannot tell", "no path of 4 checkpoints or more: record_checkpoint, then build_trajectory")


def _of_terrain(judge: Callable[[Terrain], Judgement]) -> Callable[[Evidence], Judgement]:
    return lambda evidence: NO_GRID if evidence.terrain is None else judge(evidence.terrain)


def _of_path(judge: Callable[[PathShape], Judgement]) -> Callable[[Evidence], Judgement]:
    return lambda evidence: NO_PATH if evidence.path is None else _with_gap(judge(evidence.path), evidence.path)


def _with_gap(judgement: Judgement, path: PathShape) -> Judgement:
    """The same with how far the plane's losses are from the path's own, where that is much."""
    if path.plane_gap <= MUCH_OFF:
        return judgement
    gap = f"; the plane's losses are off the path's own by {100 * path.plane_gap:.0f} % of their range"
    return Judgement(judgement.answer, judgement.evidence + gap)


def _answer(yes: bool, no: bool, evidence: str) -> Judgement:
    """Yes, no, or between the two: cannot tell."""
    return Judgement("yes" if yes else "no" if no else "cannot tell", evidence)


def _rugged(t: Terrain) -> Judgement:
    many = {1: 4, 2: 6, 3: 8}[t.dim]
    text = f"minima deeper than {t.resolvable:.2g}: {t.num_minima}; cells not finite: {t.num_nonfinite} of {t.size}"
    return _answer(t.num_minima >= many, t.num_minima <= 2 and not t.num_nonfinite, text)


def _smooth(t: Terrain) -> Judgement:
    text = f"minima deeper than {t.resolvable:.2g}: {t.num_minima}; the way to the lowest cell climbs {t.barrier:.2g}"
    if t.num_nonfinite:
        return Judgement("cannot tell", f"{text}; {t.num_nonfinite} cells are not finite")
    return _answer(t.num_minima == 1 and t.barrier <= t.resolvable, t.num_minima > 2, text)


def _sharp(evidence: Evidence) -> Judgement:
    if evidence.rise is None or evidence.terrain is None:
        return NO_FILTERS
    return _answer(*_compared(evidence.rise, evidence.terrain, sharp=True), _rise_text(evidence.rise, evidence.terrain))


def _flat(evidence: Evidence) -> Judgement:
    if evidence.rise is None or evidence.terrain is None:
        return NO_FILTERS
    text = _rise_text(evidence.rise, evidence.terrain)
    if _is_plateau(evidence.terrain):
        return Judgement("cannot tell", f"{text}, but nothing changes anywhere: a plateau is no minimum")
    return _answer(*_compared(evidence.rise, evidence.terrain, sharp=False), text)


def _compared(rise: float, t: Terrain, *, sharp: bool) -> tuple[bool, bool]:
    """Whether the rise is one of a sharp, or of a flat, place, and whether it clearly is not; a loss near 0 counts as 0.1."""
    scale = max(t.loss, 0.1)
    return (rise > scale, rise < 0.3 * scale) if sharp else (abs(rise) < 0.1 * scale, rise > 0.3 * scale)


def _rise_text(rise: float, t: Terrain) -> str:
    return f"the loss rises by {rise:.3g} from {t.loss:.3g} where each filter moves by a tenth of its norm"


def _is_plateau(t: Terrain) -> bool:
    return t.slope is not None and t.slope < 1e-3 and t.relief < 0.01 * abs(t.loss)


def _slope_text(t: Terrain) -> str:
    step = f"a step of 1 % of ‖θ‖ down the gradient (norm {t.gradient_norm:.3g})"
    return f"{step} would save {100 * (t.slope or 0):.2g} % of the loss"


def _bottom(t: Terrain) -> Judgement:
    if t.slope is None:
        return Judgement("cannot tell", "the gradient's norm at the centre is not known")
    text = f"{_slope_text(t)}; the lowest cell is {t.drop:.2g} lower"
    level, low = t.slope < 0.01, t.drop <= t.resolvable
    return _answer(level and low and not _is_plateau(t), t.slope > 0.05 or (not low and t.barrier <= t.resolvable), text)


def _on_a_slope(t: Terrain) -> Judgement:
    if t.slope is None:
        return Judgement("cannot tell", "the gradient's norm at the centre is not known")
    text = f"{_slope_text(t)}; the lowest cell is {t.drop:.2g} lower, behind a climb of {t.barrier:.2g}"
    downhill = t.drop > t.resolvable and t.barrier <= t.resolvable
    return _answer(t.slope > 0.05 or (downhill and t.slope > 0.01), t.slope < 0.01 and not downhill, text)


def _lower_areas(t: Terrain) -> Judgement:
    text = (
        f"the lowest cell is {t.drop:.2g} below the centre, behind a climb of {t.barrier:.2g} (what counts is {t.resolvable:.2g})"
    )
    lower = t.drop > t.resolvable
    return _answer(lower and t.barrier > t.resolvable, not lower, text)


def _plateau(t: Terrain) -> Judgement:
    if t.slope is None:
        return Judgement("cannot tell", "the gradient's norm at the centre is not known")
    text = f"the highest and the lowest loss differ by {t.relief:.2g} at a loss of {t.loss:.3g}; {_slope_text(t)}"
    return _answer(_is_plateau(t), t.slope > 0.01 or t.relief > 0.1 * abs(t.loss), text)


def _descent(p: PathShape) -> Judgement:
    falls = f"the loss falls at {100 * p.descending:.0f} % of the steps, by {100 * p.loss_change:.0f} % in all"
    text = f"{falls}; successive steps have a cosine of {p.mean_cosine:.2f}"
    smooth = p.descending > 0.8 and p.loss_change > 0.05 and p.mean_cosine > 0
    return _answer(smooth, p.descending < 0.6 or p.loss_change <= 0, text)


def _oscillating(evidence: Evidence) -> Judgement:
    p = evidence.path
    if p is None:
        return NO_PATH
    text = f"successive steps have a cosine of {p.mean_cosine:.2f}, and the loss falls at {100 * p.descending:.0f} % of them"
    if evidence.curvature is not None and evidence.threshold is not None:
        text += f"; λ_max is {evidence.curvature.max_eigenvalue:.3g} and 2/η {evidence.threshold:.3g}"
        if evidence.curvature.max_eigenvalue > evidence.threshold and p.mean_cosine < 0:
            return Judgement("yes", text)
    return _answer(p.mean_cosine < -0.3, p.mean_cosine > 0.2, text)


def _stuck(p: PathShape) -> Judgement:
    if p.length is None:
        return Judgement("cannot tell", "how long the parameters are is not known")
    text = f"the path is {p.length:.2g} ‖θ‖ long, and the loss changed by {100 * p.loss_change:.2g} %"
    return _answer(p.length < 0.01 and abs(p.loss_change) < 0.02, p.length > 0.1 or abs(p.loss_change) > 0.1, text)


def _spiralling(p: PathShape) -> Judgement:
    text = f"the path goes {p.winding:.2g} times around its end, {'coming closer' if p.inward else 'not coming closer'}"
    return _answer(p.winding > 1 and p.inward, p.winding < 0.5, text)


HARD, BETTER, TRAINING = QUESTIONS
OTHER_SEEDS = "more random directions (other seeds) and a range ten times as wide"
CURVATURE = "compute_hessian_metrics, and the test loss itself"
MORE_CHECKPOINTS = "checkpoints more often, and the plane's losses beside the path's own"

ROWS: Sequence[Row] = (
    Row(
        HARD,
        "rugged, many peaks",
        "hard to optimize",
        "try a larger batch, a lower learning rate or another optimizer",
        _of_terrain(_rugged),
        SLICE,
        OTHER_SEEDS,
    ),
    Row(
        HARD, "smooth, a single valley", "easy to optimize", "leave the setup as it is", _of_terrain(_smooth), SLICE, OTHER_SEEDS
    ),
    Row(HARD, "a sharp, narrow minimum", "perhaps overfitted", "try regularisation", _sharp, RESCALE, CURVATURE),
    Row(
        HARD,
        "a flat, wide minimum",
        "perhaps generalises well",
        "compare test losses before believing it",
        _flat,
        RESCALE,
        CURVATURE,
    ),
    Row(
        BETTER,
        "the bottom of a valley",
        "converged",
        "stop, or try another architecture",
        _of_terrain(_bottom),
        SLICE,
        "λ_min of compute_hessian_metrics: below 0 there is a way down",
    ),
    Row(
        BETTER,
        "on a slope",
        "not converged",
        "train longer",
        _of_terrain(_on_a_slope),
        "the gradient of a few batches is noisy, and dropout or augmentation change it",
        "max_batches=None, and training on",
    ),
    Row(
        BETTER,
        "a local minimum, lower areas in sight",
        "perhaps stuck",
        "try another initialisation or a larger step",
        _of_terrain(_lower_areas),
        "what is a barrier on a plane may have a way around it outside the plane",
        "fit_bezier from here to the lower place",
    ),
    Row(
        BETTER,
        "a plateau everywhere",
        "perhaps vanishing gradients",
        "check the architecture, the activations and the data",
        _of_terrain(_plateau),
        SLICE,
        "gradient norms by layer, and a wider range",
    ),
    Row(TRAINING, "a smooth descent", "healthy training", "nothing", _of_path(_descent), SHADOW, MORE_CHECKPOINTS),
    Row(
        TRAINING,
        "oscillating",
        "the learning rate may be too high",
        "lower the learning rate",
        _oscillating,
        "steps between checkpoints are not seen; training often hovers at the edge of stability and is well there",
        "learning_rate= of record_checkpoint and compute_hessian_metrics: λ_max against 2/η",
    ),
    Row(
        TRAINING,
        "stuck, no movement",
        "the learning rate may be too low",
        "raise the learning rate",
        _of_path(_stuck),
        "a training that has converged does not move either",
        "the gradient's norm, and one run with ten times the learning rate",
    ),
    Row(
        TRAINING,
        "spiralling in",
        "momentum at work",
        "nothing",
        _of_path(_spiralling),
        f"{SHADOW}, and principal axes of a random walk curl as well",
        MORE_CHECKPOINTS,
    ),
)
