"""Does a run survive whatever happens to it? Kills, full disks, damaged files, two processes, a helper of W&B that cannot start.

Every trial must end with the bits of an undisturbed run, or in one sentence after which, mended, it ends with those bits.
`python scripts/soak.py --minutes 10 --save docs/RELIABILITY.md`
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(Path(__file__).parent)]

from soak_trials import damage, disks, helpers, kills, processes  # noqa: E402
from soak_trials.runs import Reference, reference  # noqa: E402

KINDS: dict[str, Callable[[Reference, Path, random.Random], str]] = {
    "killed at a file event": kills.at_an_event,
    "killed at a random moment": kills.at_a_moment,
    "a disk that is full": disks.full,
    "a file damaged or gone": damage.one_file,
    "two processes at once": processes.two,
    "a helper of W&B that cannot start": helpers.broken,
}
"""What happens → a trial of it: (undisturbed run, an empty folder, what draws) → "the same bits", or "a sentence, then …"."""

MARK = "<!-- made by scripts/soak.py -->"


def main() -> None:
    """Carry out trials in turn until the time is over; print a line each, and a table; status 1 where one went wrong."""
    given = _words()
    with tempfile.TemporaryDirectory(prefix="soak-") as place:
        outcomes = list(_trials(Path(place), given.minutes, given.seed))
    table = "\n".join(_table(outcomes))
    print(table)
    if given.save is not None:
        head, _, _ = given.save.read_text(encoding="utf-8").partition(MARK)
        given.save.write_text(f"{head}{MARK}\n\n{table}\n", encoding="utf-8")
    raise SystemExit(any(outcome.startswith("WRONG") for _, outcome in outcomes))


def _trials(place: Path, minutes: float, seed: int) -> Iterator[tuple[str, str]]:
    """(kind, outcome) of trial after trial, each kind in turn."""
    undisturbed, end = reference(place / "undisturbed"), time.monotonic() + 60 * minutes
    for number, kind in enumerate(itertools.cycle(KINDS)):
        if number >= len(KINDS) and time.monotonic() > end:
            return
        folder = place / f"trial_{number}"
        folder.mkdir()
        outcome = KINDS[kind](undisturbed, folder, random.Random(f"{seed} {number}"))
        print(f"{number:4} {kind}: {outcome}", flush=True)
        yield kind, outcome.partition(":")[0]


def _table(outcomes: list[tuple[str, str]]) -> Iterator[str]:
    """A row for each kind: how many trials, and how they ended."""
    yield "| what happened | trials | the same bits at once | a sentence, and mended the same bits | anything else |"
    yield "|---|---|---|---|---|"
    for kind in KINDS:
        ends = Counter(outcome for one, outcome in outcomes if one == kind)
        same, told = ends.pop("the same bits", 0), ends.pop("a sentence, then the same bits", 0)
        yield f"| {kind} | {same + told + ends.total()} | {same} | {told} | {ends.total()} |"


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long; each kind is tried once at least")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--save", type=Path, metavar="PAGE", help="a page whose table is written anew")
    return parser.parse_args()


if __name__ == "__main__":
    main()
