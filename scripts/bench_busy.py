"""How long does the default command take beside processes that never rest, and what would a fair share of the cores give?

    python scripts/bench_busy.py                      this code
    python scripts/bench_busy.py --before 366a060     and that of another commit, alternately
    python scripts/bench_busy.py --words debug=tiny   a shorter command

Of C cores that 1 + N processes share, each gets C / (1 + N): a run that keeps one core busy takes (1 + N) / C times what it takes
alone.
Status 1 where this code takes more than 3 times that.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND = ("task_shift_mode=permuted", "lla.enable_sam=true")
MOST = 3.0  # times the fair share
SET_BY_HAND = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
"""Variables of which a user's shell has none: what is timed is what the code does by itself."""


def main() -> None:
    """Time each code alone and in company, in turn; print a table."""
    given = _words()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.cores])  # children inherit it
    with tempfile.TemporaryDirectory(prefix="busy-") as place:
        codes = {given.before: _checked_out(given.before, Path(place) / "before")} if given.before else {}
        codes["this code"] = ROOT
        seconds: dict[tuple[str, int], list[float]] = {}
        for repeat in range(given.repeats):
            for others in (0, given.others):
                for name, code in codes.items():
                    with _busy(others):
                        took = _timed(code, Path(place), given.words)
                    print(f"{repeat + 1}. {name}, beside {others}: {took:.1f} s", flush=True)
                    seconds.setdefault((name, others), []).append(took)
    shares = {name: _share(seconds, name, given) for name in codes}
    print("\n".join(_table(seconds, shares, given)))
    raise SystemExit(shares["this code"] > MOST)


def _checked_out(commit: str, folder: Path) -> Path:
    """The files of a commit in a folder of their own."""
    folder.mkdir()
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit], check=True, stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """So many processes that compute for ever."""
    with ExitStack() as stack:
        for _ in range(count):
            process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


def _timed(code: Path, place: Path, words: Sequence[str]) -> float:
    """Seconds from the command to its end."""
    environment = {name: value for name, value in os.environ.items() if name not in SET_BY_HAND}
    with tempfile.TemporaryDirectory(dir=place) as folder:
        command = [sys.executable, str(code / "train.py"), *COMMAND, *words]
        begin = time.monotonic()
        subprocess.run(
            command, cwd=folder, env=environment | {"PYTHONPATH": str(code / "src")}, check=True, stdout=subprocess.DEVNULL
        )
        return time.monotonic() - begin


def _share(seconds: dict[tuple[str, int], list[float]], name: str, given: argparse.Namespace) -> float:
    """How many times what a fair share would give it took in company."""
    alone, beside = (statistics.median(seconds[name, others]) for others in (0, given.others))
    return beside / (alone * _fair(given))


def _fair(given: argparse.Namespace) -> float:
    """How many times longer a run on one core takes in company, if all get the same."""
    return max(1.0, (1 + given.others) / given.cores)


def _table(seconds: dict[tuple[str, int], list[float]], shares: dict[str, float], given: argparse.Namespace) -> Iterator[str]:
    fair = _fair(given)
    yield f"| code | alone | a fair share beside {given.others} on {given.cores} cores | took | times the fair share |"
    yield "|---|---|---|---|---|"
    for name, times in shares.items():
        alone, beside = (statistics.median(seconds[name, others]) for others in (0, given.others))
        yield f"| {name} | {alone:.1f} s | {fair * alone:.1f} s | {beside:.1f} s | {times:.2f} |"


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", metavar="COMMIT", help="time the code of this commit too")
    parser.add_argument("--others", type=int, default=3, help="processes that compute for ever")
    parser.add_argument("--cores", type=int, default=2, help="cores that all of them share")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--words", nargs="*", default=(), metavar="KEY=VALUE", help="more words for the command")
    return parser.parse_args()


if __name__ == "__main__":
    main()
