"""What was measured, as lines to print and as docs/benchmarks.md."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from lla_benchmarks.lines import Findings, Measured, Table

Rates = Mapping[torch.dtype, float]

TRAINING = "\n## Steps of training\n"
"""The heading of the section that scripts/bench_train.py writes; it is the last."""

HEADER = ("work", "against", "ours", "theirs", "times faster", "asked", "limit", "of the matmul rate")
READING = """\
Seconds are medians, with the smallest and the largest of all rounds. *Times faster* is the median of the rounds' own ratios. The
*limit* is what the ratio could be: by the floating-point operations of matrix products and convolutions that the two programs
need (of the peer by torch's counter, of ours by its algorithm), if both computed equally fast; and, in brackets, if ours computed
at the rate at which this machine multiplies matrices. A ratio above the second would be a measuring error. The last column tells
which part of that rate ours and theirs reach. Before anything is timed, both have to give the same numbers: the second table has
the largest difference, and what else is to be known."""


def printed(measured: Measured, rates: Rates) -> str:
    """One comparison in a few lines."""
    work, peer, ours, theirs, ratio, asked, limit, shares = comparison(measured, rates)
    lines = [
        f"{work}, against {peer}: {ratio} times faster, {ours} against {theirs}",
        f"asked {asked}; limit {limit}; of the matmul rate {shares}",
        f"same numbers: {agreement(measured)}",
        *([measured.remark] if measured.remark else []),
    ]
    return "\n    ".join(lines)


def document(findings: Findings, facts: Mapping[str, str], rates: Rates, command: str, date: str) -> str:
    """The page that is saved."""
    parts = [
        "# Benchmarks of `loss_landscape`",
        f"Written by `{command}` on {date}.",
        markdown(("machine", ""), [*facts.items(), ("matrix products", _rates_told(rates))]),
    ]
    if findings.measured:
        rows = [comparison(one, rates) for one in findings.measured]
        told = [(one.line.work, one.line.peer.name, agreement(one), one.remark) for one in findings.measured]
        parts += ["## Against other programs", READING, markdown(HEADER, rows)]
        parts += [markdown(("work", "against", "the same numbers", "to be known"), told)]
    for table in findings.tables:
        parts += [f"## {table.title}", markdown(table.header, table.rows), table.remark]
    if findings.left_out:
        parts += ["## Left out", "\n".join(f"- {sentence}" for sentence in findings.left_out)]
    return "\n\n".join(part for part in parts if part) + "\n"


def training_section(page: Path) -> str:
    """What the page says of training, from its heading to the end; nothing where it does not."""
    _, heading, section = page.read_text().partition(TRAINING) if page.exists() else ("", "", "")
    return heading + section


def put_training_section(page: Path, section: str) -> None:
    """Let the page end with this section, in the place of the one that it has."""
    before = page.read_text().partition(TRAINING)[0] if page.exists() else "# Benchmarks\n"
    page.write_text(f"{before.rstrip()}\n{TRAINING}\n{section.rstrip()}\n")


def comparison(measured: Measured, rates: Rates) -> tuple[str, ...]:
    """The cells of HEADER."""
    ratio = statistics.median(measured.ratios)
    limit = measured.limit_by_rate(rates)
    above = " **above its limit**" if ratio > limit else ""
    ours, theirs = measured.shares(rates)
    return (
        measured.line.work,
        measured.line.peer.name,
        spread(measured.ours),
        spread(measured.theirs),
        f"{ratio:.2f} ({min(measured.ratios):.2f} – {max(measured.ratios):.2f}){above}",
        _asked(measured, ratio),
        f"{measured.limit_by_operations:.1f} [{limit:.1f}]",
        f"{ours:.0%}, {theirs:.0%}",
    )


def agreement(measured: Measured) -> str:
    """Whether the numbers are the same, by how much they differ, and what the check found out."""
    found = measured.agreement
    verdict = "yes" if found.holds else "**no**"
    remark = f"; {found.remark}" if found.remark else ""
    return f"{verdict}: {found.difference:.2g} {found.unit}, {found.tolerance:.2g} allowed{remark}"


def spread(seconds: Sequence[float]) -> str:
    """The median with the smallest and the largest, such as "0.121 s (0.118 – 0.130)"."""
    middle = statistics.median(seconds)
    digits = 3 if middle < 10 else 1
    return f"{middle:.{digits}f} s ({min(seconds):.{digits}f} – {max(seconds):.{digits}f})"


def _asked(measured: Measured, ratio: float) -> str:
    wanted = measured.line.wanted
    return "–" if wanted is None else f"{wanted:g}{'' if ratio >= wanted else ', missed'}"


def printed_table(table: Table) -> str:
    """A table for the terminal."""
    rows = [table.header, *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n    ".join([table.title, *lines, table.remark])


def _rates_told(rates: Rates) -> str:
    return ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {str(dtype).removeprefix('torch.')}" for dtype, rate in rates.items())


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ([cell.replace("|", "\\|") for cell in row] for row in (header, ("---",) * len(header), *rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
