"""Nets, losses, batches and options drawn at random: the library's numbers on them against plain loops in float64.

    python scripts/try_random_nets.py --minutes 120 --seed 0     one seed after the other from this one on
    python scripts/try_random_nets.py --only 1234                one again, with all that is compared

A failure is printed with its seed and the command that repeats it. Ends with 1 where there was one.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(Path(__file__).parent)]

import torch  # noqa: E402
from random_nets.checks import comparisons  # noqa: E402
from random_nets.trial import Trial  # noqa: E402

SECONDS = 600  # of processor time, for one seed
PATIENCE = 20  # times as long by the clock, on a machine that has other things to do


def main() -> None:
    """Try what the command's words say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--only", type=int, metavar="SEED")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if given.only is not None:
        return tell(given.only)
    end, failed, tried = time.monotonic() + 60 * given.minutes, 0, 0
    for seed in itertools.count(given.seed):
        if time.monotonic() > end:
            break
        found = in_a_process(seed)
        failed, tried = failed + bool(found), tried + 1
        if found:
            print("\n".join(found), f"  again: python scripts/try_random_nets.py --only {seed}", sep="\n", flush=True)
    print(f"{tried} seeds from {given.seed} on, {failed} with failures")
    sys.exit(failed > 0)


def in_a_process(seed: int) -> list[str]:
    """A seed's failures, found in a process of its own: one that crashes, or never ends, is one as well."""
    context = multiprocessing.get_context("fork")
    reading, writing = context.Pipe(duplex=False)
    process = context.Process(target=_try, args=(seed, writing))
    process.start()
    writing.close()
    try:
        return reading.recv() if reading.poll(PATIENCE * SECONDS) else [f"seed {seed}: nothing after {PATIENCE * SECONDS} s"]
    except EOFError:
        process.join()
        return [f"seed {seed}: the process ended with {process.exitcode}"]
    finally:
        process.kill()
        process.join()


def _try(seed: int, writing: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    writing.send(list(failures(seed)))


def failures(seed: int) -> Iterator[str]:
    """What went wrong with a seed, in a line each."""
    try:
        for comparison in comparisons(Trial.drawn(seed)):
            if not comparison.holds:
                yield f"seed {seed}: {comparison}"
    except (
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
        AssertionError,
        NotImplementedError,
    ) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        yield f"seed {seed}: {type(error).__name__}: {str(error)[:300]} ({Path(place.filename).name}:{place.lineno})"


def tell(seed: int) -> None:
    """A seed's situation, and every comparison."""
    trial = Trial.drawn(seed)
    print(trial.words)
    wrong = 0
    for comparison in comparisons(trial):
        wrong += not comparison.holds
        print("  " if comparison.holds else "! ", comparison, sep="")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
