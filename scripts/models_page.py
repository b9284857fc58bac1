"""Write docs/models.md: each model of the zoo, how its cells are evaluated, and how fast beside a plain loop.

python scripts/models_page.py                  all of them, an hour
python scripts/models_page.py --only NAME …    these anew; the other rows of the page stay
python scripts/models_page.py --missing        those that have no row yet, as after a break
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import torch  # noqa: E402
from zoo.catalogue import ENTRIES  # noqa: E402
from zoo.checks import Specimen, ratio  # noqa: E402
from zoo.entry import Entry  # noqa: E402

from loss_landscape import HessianOperator  # noqa: E402

PAGE = ROOT / "docs" / "models.md"
HEAD = """# Models that were tried

Written by `python scripts/models_page.py`. Each is built from a config, at a small size, and all its numbers are checked by
`tests/zoo` against plain loops in float32 and float64: the cells of a plane, gradients, products with the Hessian and the
Gauss–Newton matrix. The ratio says how many times as fast a cell is as in a loop that copies the net, moves it and runs it,
set-up left out, on one thread, three rounds in turn; on nets of this size it differs by a third from run to run.

| model | from | parameters | cells | times as fast | Hessian | what is not supported, and why |
|---|---|---:|---|---:|---|---|
"""


def main() -> None:
    """Measure what the command's words name, and write the page after each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[entry.name for entry in ENTRIES])
    parser.add_argument("--missing", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = kept_rows() if given.only or given.missing else {}
    wanted = given.only or [entry.name for entry in ENTRIES if entry.name not in rows]
    for entry in ENTRIES:
        if entry.name in wanted:
            rows[entry.name] = row(entry)
            print(rows[entry.name], flush=True)
            PAGE.write_text(HEAD + "\n".join(in_order(rows)) + "\n", encoding="utf-8")


def row(entry: Entry) -> str:
    """A model's line of the table."""
    specimen = Specimen(entry)
    evaluation = specimen.grid.info.evaluation
    hessian = HessianOperator(specimen.surface)
    limits = [f"cells one by one through the net: {entry.eager}"] if entry.eager else []
    limits += [f"Hessian: {shortened(hessian.note)}"] if hessian.note else []
    cells = [
        entry.name,
        entry.origin,
        f"{specimen.surface.size:,}",
        evaluation.strategy,
        f"{ratio(specimen):.1f}",
        hessian.method,
    ]
    return "| " + " | ".join([*cells, "; ".join(limits).replace("|", "\\|")]) + " |"


def shortened(note: str) -> str:
    """What a note begins with, without what stands in brackets."""
    plain = re.sub(r" \([^()]*\)", "", note)
    return plain if len(plain) < 160 else f"{plain[:160].rpartition(' ')[0]} …"


def kept_rows() -> dict[str, str]:
    """The page's rows by name."""
    lines = PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []
    names = {entry.name for entry in ENTRIES}
    return {name: line for line in lines if (name := line[2:].partition(" | ")[0]) in names}


def in_order(rows: dict[str, str]) -> Iterable[str]:
    """The rows as the catalogue has them."""
    return (rows[entry.name] for entry in ENTRIES if entry.name in rows)


if __name__ == "__main__":
    main()
