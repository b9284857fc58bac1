"""What must hold on a GPU: tests, a killed run, rates beside the other programs', the published ResNet-18 profile.

    python scripts/check_gpu.py                  # on cuda, within six minutes; a table at the end
    python scripts/check_gpu.py --device cpu --quick   # whether all of it runs

scripts/check_gpu.sh makes an environment for it on a machine without a network.
"""

from __future__ import annotations

import argparse
import platform
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from gpu_checks.commands import a_killed_run_goes_on, tests_on_the_device, the_pipeline
from gpu_checks.profile import resnet_profile
from gpu_checks.rates import against_peers
from gpu_checks.rows import FAILED, FALLS_SHORT, LEFT_OUT, TOLD, Budget, Place, Row
from gpu_checks.training import training_rates
from rich.console import Console
from rich.table import Table

Check = Callable[[Place], Iterable[Row]]
CHECKS: tuple[Check, ...] = (
    tests_on_the_device,
    a_killed_run_goes_on,
    resnet_profile,
    training_rates,
    against_peers,
    the_pipeline,
)
NEEDED = 15.0  # seconds that have to be left for another check


def main() -> int:
    """Carry out what there is time for; 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=5.5)
    parser.add_argument("--quick", action="store_true", help="small sizes, to try whether all of it runs")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print(f"torch {torch.__version__} sees no CUDA card here; --device cpu --quick tries the script itself")
        return 2
    place = Place(torch.device(options.device), Budget(60 * options.minutes), options.quick)
    rows = [Row("machine", machine(place.device))]
    for check in CHECKS:
        for row in carried_out(check, place):
            print(f"{row.what}: {row.found} {row.verdict}".rstrip(), flush=True)
            rows.append(row)
    show(rows)
    return 1 if any(row.verdict == FAILED for row in rows) else 0


def carried_out(check: Check, place: Place) -> Iterator[Row]:
    """The rows of a check; one row where it broke, or where there is no time for it."""
    if place.budget.left() < NEEDED:
        yield Row(check.__name__, "no time was left", verdict=LEFT_OUT)
        return
    try:
        for row in check(place):
            yield replace(row, verdict=TOLD) if place.quick and row.verdict == FALLS_SHORT else row
    except Exception as error:  # the others must still be carried out; this one fails, and with it the command
        traceback.print_exc()
        yield Row(check.__name__, f"{type(error).__name__}: {error}"[:150], verdict=FAILED)


def machine(device: torch.device) -> str:
    """The card, torch and Python."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return f"{card}, torch {torch.__version__}, Python {platform.python_version()}"


def show(rows: Iterable[Row]) -> None:
    """The table, as the last thing that is said."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("what", "found", "beside", "as it has to be"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(row.what, row.found, row.beside, row.verdict)
    Console(width=None if sys.stdout.isatty() else 170, markup=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
