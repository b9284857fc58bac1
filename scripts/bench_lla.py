"""How fast are planes, spectra and products with the Hessian, by ours and by the programs that exist?

    python scripts/bench_lla.py --save docs/benchmarks.md
    python scripts/bench_lla.py --only plane_mlp,density --quick

Ours and theirs run alternately in one process on the same net, batch and grid, in float32; that they give the same numbers is
checked first. The other programs are the extra `bench`; one that is not installed is left out. In full it takes about a quarter
of an hour on two cores.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from lla_benchmarks import costs, curvature, planes, report
from lla_benchmarks.lines import Case, Findings, Table, measure
from lla_benchmarks.machine import machine, matmul_rates
from lla_benchmarks.sizes import Sizes, full, quick

CASES: dict[str, Callable[[Sizes], Case | Table]] = {
    "plane_mlp": planes.plane_mlp,
    "plane_convnet": planes.plane_convnet,
    "plane_resnet": planes.plane_resnet,
    "tolerance": planes.tolerance,
    "sam": planes.sam,
    "products": curvature.products,
    "eigenvalues": curvature.eigenvalues,
    "warm_start": curvature.warm_start,
    "density": curvature.density,
    "memory": costs.memory,
    "growth": costs.growth,
}


def main(words: list[str] | None = None) -> int:
    """Measure, print and save; 1 where two programs don't give the same numbers."""
    options = parse(words)
    device = torch.device(options.device)
    sizes = (quick if options.quick else full)(device, options.repeats)
    facts, rates = machine(device), matmul_rates(device, sizes.matmul_side)
    print("\n".join(f"{name}: {fact}" for name, fact in facts.items()), flush=True)
    command = shlex.join(["python", "scripts/bench_lla.py", *(sys.argv[1:] if words is None else words)])
    findings = Findings()
    for name in options.only:
        found = CASES[name](sizes)
        for dtype, rate in matmul_rates(device, sizes.matmul_side).items():  # the best of all: a single moment may be slow
            rates[dtype] = max(rates[dtype], rate)
        print(f"\n{add(findings, found, device, rates)}", flush=True)
        if options.save:  # after each case, so that what is measured is kept whatever comes next
            page = report.document(findings, facts, rates, command, f"{datetime.date.today():%Y-%m-%d}")
            options.save.write_text(page + report.training_section(options.save))
    return 0 if all(one.agreement.holds for one in findings.measured) else 1


def parse(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=names, default=list(CASES), help=f"some of {','.join(CASES)}")
    parser.add_argument("--repeats", type=at_least_one, default=5, help="rounds of what is timed; data seeds have their own")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try whether all of it runs")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--save", type=Path, help="the page to write, such as docs/benchmarks.md")
    return parser.parse_args(words)


def names(text: str) -> list[str]:
    """The cases of a list with commas."""
    chosen = text.split(",")
    unknown = [name for name in chosen if name not in CASES]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    return chosen


def at_least_one(text: str) -> int:
    """A count."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return int(text)


def add(findings: Findings, found: Case | Table, device: torch.device, rates: report.Rates) -> str:
    """Measure a case, or take a table as it is, into the findings; what to print of it."""
    if isinstance(found, Table):
        findings.tables.append(found)
        return report.printed_table(found)
    measured, left_out = measure(found, device)
    findings.measured += measured
    findings.left_out += left_out
    return "\n".join([*(report.printed(one, rates) for one in measured), *left_out])


if __name__ == "__main__":
    sys.exit(main())
