"""What a training step costs, as scripts/bench_train.py counts it: the reference's loop, eager, replayed and compiled."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench_train import WORKS, Work, ours, reference

from gpu_checks.rows import LEFT_OUT, Place, Row
from taskshift.clock import synchronize

SECONDS = 0.5
"""A block's length, by the clock."""

REPEATS = 3
NEEDED = 25.0  # seconds that have to be left for another work: most are the compiler's


def training_rates(place: Place) -> Iterator[Row]:
    """A row for each work of one run, as long as there is time; blocks are taken in turns, and the least counts."""
    for name, work in {name: work for name, work in WORKS.items() if work.num_members == 1}.items():
        if place.budget.left() < NEEDED:
            yield Row(f"training, {name}", "no time was left", verdict=LEFT_OUT)
            continue
        yield _row(name, work, place)


def _row(name: str, work: Work, place: Place) -> Row:
    runs: dict[str, Iterator[int]] = {"reference": reference(work, place.device)}
    runs |= {how: ours(work, how, place.device) for how in ("eager", "replay", "compiled")}
    begin = time.monotonic()
    for steps in runs.values():
        next(steps)
    set_up, seconds = time.monotonic() - begin, SECONDS / 5 if place.quick else SECONDS
    taken = {how: [_block(steps, seconds, place) for _ in range(2)][1:] for how, steps in runs.items()}  # the first for caches
    for _ in range(REPEATS - 1):
        for how, steps in runs.items():
            taken[how].append(_block(steps, seconds, place))
    least = {how: min(of) for how, of in taken.items()}
    told = ", ".join(f"{how} {of * 1e6:.0f}" for how, of in least.items())
    ratio = least["reference"] / least["compiled"]
    return Row(f"training, {name}", f"{told} µs a step: {ratio:.1f} ×", f"set up in {set_up:.0f} s")


def _block(steps: Iterator[int], seconds: float, place: Place) -> float:
    """Seconds a step by the clock, the card's own included."""
    begin, count = time.monotonic(), 0
    while time.monotonic() - begin < seconds:
        count += next(steps)
    synchronize(place.device)
    return (time.monotonic() - begin) / count
