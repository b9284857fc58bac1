"""Planes, products and densities beside the other programs', as scripts/bench_lla.py compares them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from lla_benchmarks import curvature, planes
from lla_benchmarks.lines import Case, Measured, measure
from lla_benchmarks.sizes import Sizes, full, quick

from gpu_checks.rows import FAILED, FALLS_SHORT, HOLDS, LEFT_OUT, TOLD, Place, Row

CASES = (planes.plane_mlp, planes.plane_convnet, planes.plane_resnet, curvature.products, curvature.density)
NEEDED = 20.0  # seconds that have to be left for another case


def against_peers(place: Place) -> Iterator[Row]:
    """A row a comparison, as long as there is time."""
    sizes = (quick if place.quick else full)(place.device, 3)
    for case in CASES:
        if place.budget.left() < NEEDED:
            yield Row(f"benchmark {case.__name__}", "no time was left", verdict=LEFT_OUT)
            continue
        yield from rows_of(case, sizes, place)


def rows_of(case, sizes: Sizes, place: Place) -> Iterator[Row]:
    """The comparisons of one case."""
    made = case(sizes)
    if not isinstance(made, Case):
        return
    measured, left_out = measure(made, place.device)
    yield from (row_of(one) for one in measured)
    yield from (Row(sentence, "", verdict=LEFT_OUT) for sentence in left_out)


def row_of(measured: Measured) -> Row:
    """How many times faster, beside what was asked for; FAILED where the numbers are not the same."""
    line, ratio = measured.line, statistics.median(measured.ratios)
    seconds = f"{statistics.median(measured.ours):.3g} s against {statistics.median(measured.theirs):.3g} s"
    asked = "" if line.wanted is None else f"{line.wanted:g} × asked"
    verdict = TOLD if line.wanted is None else HOLDS if ratio >= line.wanted else FALLS_SHORT
    if not measured.agreement.holds:
        verdict = FAILED
    return Row(f"{line.work}, against {line.peer.name}", f"{ratio:.2f} × ({seconds})", asked, verdict)
