"""Numbers of the library and of a run, on record, so that a change that is meant to change none can be shown to.

    python scripts/record_numbers.py record FOLDER [--only NAME …]    two minutes; of these nets and kinds
    python scripts/record_numbers.py compare BEFORE AFTER             every array by its bytes; ends with 1 where one differs

A folder holds an .npz for each net, its words (strategies, notes, errors) and seconds beside it. Words are compared but are no
fault, as names may change; seconds are not compared. On one machine, with one version of torch.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from number_records.connectivity import connectivity
from number_records.curvature import curvature, sharpness
from number_records.nets import MAKERS, case
from number_records.record import Record, compared
from number_records.run import run
from number_records.surfaces import grids, surfaces

import loss_landscape

KINDS = {f.__name__: f for f in (surfaces, grids, curvature, sharpness, connectivity)}
NAMES = (*MAKERS, *KINDS, "run")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="write a record")
    recording.add_argument("folder", type=Path)
    recording.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    comparing = commands.add_parser("compare", help="list what differs between two records")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    options = parser.parse_args()
    if options.command == "record":
        return write(options.folder, options.only)
    found = compared(options.before, options.after)
    print(found.report())
    sys.exit(int(found.are_faults))


def write(folder: Path, only: Sequence[str]) -> None:
    """Record what `only` names: of its nets (none named: all) its kinds (none named: all), and a run."""
    torch.set_num_threads(1)
    print(f"{Path(loss_landscape.__file__).parent}, torch {torch.__version__}")
    nets, kinds = ([name for name in names if name in only] for names in (MAKERS, KINDS))
    if nets or kinds:
        for name in nets or MAKERS:
            keep(folder, name, functools.partial(of_net, name, kinds or [*KINDS]))
    if "run" in only:
        keep(folder, "run", run)


def of_net(name: str, kinds: Sequence[str], record: Record) -> None:
    """Everything of these kinds on one net."""
    for kind in kinds:
        KINDS[kind](case(name), record)


def keep(folder: Path, name: str, fill: Callable[[Record], None]) -> None:
    """Fill a record, save it and print its size."""
    record, started = Record(), time.perf_counter()
    fill(record)
    record.save(folder, name)
    print(
        f"{name:20} {len(record.arrays):5} arrays {len(record.words):4} words {time.perf_counter() - started:6.1f} s", flush=True
    )


if __name__ == "__main__":
    main()
