"""The card of trust: are a run's pictures above the noise, whole, converged, and of the path they seem to show?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from loss_landscape.interpretation.hints import MUCH_OFF, Answer
from loss_landscape.page.content import Card
from loss_landscape.results.grid import Grid
from loss_landscape.results.info import NOISE_MARGIN
from loss_landscape.viewing.colour_scale import COMMON
from taskshift.evaluators.axes import LOSS_ERROR
from taskshift.report.trend import Tasks
from taskshift.report.words import number, sentences

Place = tuple[str, int]
"""A plane's kind and task."""

UNCONVERGED = "spectrum/num_unconverged"

LIMITS = (
    "Two axes of many: between them there may be anything. Sampling error is over the evaluation examples, whose loss stands for "
    "that of all such; the optimizer's own mini-batches see another surface each step."
)


@dataclass(frozen=True)
class PlaneFacts:
    """What a plane is worth: `relief` over its float `noise` and over the `sampling` error of its centre, lost cells, its path.

    `relief` is without the highest cells, see `COMMON`. `off` is the largest difference between a net's own loss and that of its
    shadow on the plane, over the range of the own losses. None: not known.
    """

    relief: float
    num_lost: int
    noise: float | None = None
    sampling: float | None = None
    off: float | None = None

    @classmethod
    def of(cls, grid: Grid) -> PlaneFacts:
        """Those of a grid."""
        finite = grid.losses[np.isfinite(grid.losses)]
        relief = float(np.quantile(finite, COMMON) - finite.min()) if finite.size else math.nan
        sampling = grid.info.extra.get(LOSS_ERROR)
        return cls(relief, grid.num_nonfinite, grid.float_noise, sampling, _off(grid))

    @property
    def over_noise(self) -> float:
        """How many times the noise the relief is; infinite where there is none to speak of, NaN where none was measured."""
        if self.noise is None or self.relief == 0:
            return math.nan if self.noise is None else 0.0
        return self.relief / self.noise if self.noise else math.inf

    @property
    def is_shallow(self) -> bool:
        """Whether its relief may be noise alone, by what was measured."""
        return self.relief == 0 or (self.noise is not None and not self.over_noise >= NOISE_MARGIN)


def trust_card(tasks: Tasks, planes: Mapping[Place, PlaneFacts]) -> Card:
    """Judged over all planes and eigenpairs: one that is below the noise, has lost cells, or shows another path says no."""
    doubts = [*_doubts(tasks, planes)]
    measured = [place for place, facts in planes.items() if facts.noise is not None]
    worst = min(measured, key=lambda place: np.nan_to_num(planes[place].over_noise), default=None)
    return Card(
        "Can the pictures be trusted?",
        _answer(planes, doubts),
        headline=_times(planes[worst].over_noise) if worst else "float noise not measured" if planes else "no planes",
        context=f"relief over float noise, the worst of {len(measured)} measured of {len(planes)} planes: {_named(worst)}"
        if worst
        else _counted(planes),
        evidence=sentences(doubts + _facts(tasks, planes)) or "There is no plane and no eigenvalue to be trusted.",
        limits=LIMITS,
        settled_by=_what_settles(planes),
        worrying="no",
    )


def _doubts(tasks: Tasks, planes: Mapping[Place, PlaneFacts]) -> Iterator[str]:
    """What is wrong, each in a few words."""
    shallow = [place for place, facts in planes.items() if facts.is_shallow]
    if shallow:
        yield f"below {NOISE_MARGIN:.0f} × the float noise: {_listed(shallow)}"
    if lost := {place: facts.num_lost for place, facts in planes.items() if facts.num_lost}:
        yield f"cells that are not finite: {sum(lost.values())}, in {_listed(list(lost))}"
    if unconverged := _num_unconverged(tasks):
        yield f"eigenpairs that did not converge: {unconverged:.0f}"
    if small := [place for place, facts in planes.items() if facts.sampling and facts.relief < facts.sampling]:
        yield f"lower than the sampling error of the loss: {_listed(small)}"
    if off := {place: facts.off for place, facts in planes.items() if facts.off is not None and facts.off > MUCH_OFF}:
        told = f"by more than {MUCH_OFF:.0%} of its range, {max(off.values()):.0%} at most"
        yield f"along the path the plane's loss is off the real one {told}: {_listed(list(off))}"


def _facts(tasks: Tasks, planes: Mapping[Place, PlaneFacts]) -> list[str]:
    """What was looked at, and how large the errors are."""
    noise = [facts.noise for facts in planes.values() if facts.noise is not None]
    sampling = [facts.sampling for facts in planes.values() if facts.sampling is not None]
    off = [facts.off for facts in planes.values() if facts.off is not None]
    unmeasured = [place for place, facts in planes.items() if facts.noise is None]
    return [
        *([f"largest float noise {number(max(noise))}"] if noise else []),
        *([f"no float noise was measured: {_listed(unmeasured)}"] if unmeasured else []),
        *([f"sampling error of the loss at the centre ± {max(sampling):.2g} at most"] if sampling else []),
        *([f"plane loss beside real loss differs by {max(off):.0%} of the real one's range at most"] if off else []),
        *(["eigenpairs not converged: 0"] if _num_unconverged(tasks) == 0 else []),
    ]


def _answer(planes: Mapping[Place, PlaneFacts], doubts: list[str]) -> Answer:
    if doubts:
        return "no"
    return "yes" if planes and all(facts.noise is not None for facts in planes.values()) else "cannot tell"


def _what_settles(planes: Mapping[Place, PlaneFacts]) -> str:
    if not planes:
        return "lla.enable_planes=true"
    if any(facts.is_shallow for facts in planes.values()):
        return "lla.dtype=float64, or a wider lla.planes.span"
    if any(facts.noise is None for facts in planes.values()):
        return "lla.dtype=float64"
    return "a smaller lla.planes.span" if any(facts.num_lost for facts in planes.values()) else ""


def _num_unconverged(tasks: Tasks) -> float | None:
    """Eigenpairs that did not converge, at all tasks together; None where none was looked for."""
    counts = [row[UNCONVERGED] for row in tasks.values() if UNCONVERGED in row]
    return sum(counts) if counts else None


def _off(grid: Grid) -> float | None:
    points = [(point.loss, point.plane_loss) for point in grid.info.directions.trajectory or ()]
    pairs = np.array([pair for pair in points if None not in pair and np.isfinite(pair).all()], dtype=float).reshape(-1, 2)
    spread = float(np.ptp(pairs[:, 0])) if len(pairs) else 0.0
    return float(np.abs(pairs[:, 0] - pairs[:, 1]).max()) / spread if spread else None


def _times(factor: float) -> str:
    if math.isinf(factor):
        return "no noise"
    return "over 1000 ×" if factor > 1000 else f"{factor:.2g} ×" if math.isfinite(factor) else "nothing finite"


def _counted(planes: Mapping[Place, PlaneFacts]) -> str:
    return f"of {len(planes)} planes" if planes else ""


def _named(place: Place) -> str:
    return f"{place[0]}, task {place[1]}"


def _listed(places: list[Place]) -> str:
    """The first three by name, the rest counted."""
    rest = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return "; ".join(map(_named, places[:3])) + rest
