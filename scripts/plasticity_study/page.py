"""What was found, as the table and the picture of docs/LEARNERS.md."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from pathlib import Path

from loss_landscape.viewing.theme import save_figure
from plasticity_study import results
from plasticity_study.picture import draw
from plasticity_study.plan import Entry, Problem, Study
from plasticity_study.results import BASE, Line, Mean
from taskshift.faults import Fault
from taskshift.sweeps.intervals import p_value
from taskshift.sweeps.records import Record

BEGIN, END = "<!-- made by scripts/study.py -->", "<!-- up to here -->"
PICTURE = "plasticity.png"
EDGE = "\\*"
"""Behind a value that is the least or the largest of those tried: the best one may lie beyond."""

HEADER = (
    "learner", "value", "early", "late", "late − early", "against backprop", "p",
    "dead units", "effective rank", "stable rank", "seeds",
)  # fmt: skip


def save(study: Study, problems: Sequence[Problem], page: Path) -> None:
    """Write the tables between the page's marks and the picture beside it; raises Fault for a page without marks."""
    before, mark, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (mark and end):
        raise Fault(f"{page} has no place for the tables; put the lines {BEGIN} and {END} where they are to stand")
    tables = "\n\n".join(table(study, problem) for problem in problems)
    page.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}", encoding="utf-8")
    save_figure(page.with_name(PICTURE), draw(study, problems))


def table(study: Study, problem: Problem) -> str:
    """A problem's table in Markdown, the best learner first; a sentence where there are no runs."""
    entries = study.of(problem, None)
    records = results.records_of(study, problem, entries)
    if not any(record.overrides["learner"] == BASE for record in records):
        return f"### {problem.title}\n\nNo runs of {BASE} so far."
    lines = results.lines(study, problem, entries, records)
    rows = [HEADER, ("---",) * len(HEADER), *(_cells(problem, study, line) for line in lines)]
    body = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"### {problem.title}\n\n{_told(study, problem, lines, records)}\n\n{body}"


def _told(study: Study, problem: Problem, lines: Sequence[Line], records: Sequence[Record]) -> str:
    scale = "in %" if problem.percent else "the smaller the better"
    ends = f"early and late are the first and the last {problem.window} tasks"
    return f"{problem.axis.capitalize()}, {scale}; {ends}. {_missing(study, problem, lines, records)}"


def _missing(study: Study, problem: Problem, lines: Sequence[Line], records: Sequence[Record]) -> str:
    """Which of the study's learners have no line, and why."""
    names = [entry.name for entry in study.of(problem, None) if entry.name not in {line.name for line in lines}]
    trained = {record.overrides["learner"] for record in records}
    lost = [name for name in names if name in trained]
    never = [name for name in names if name not in trained]
    told = [f"Diverged at every seed: {', '.join(lost)}."] * bool(lost) + [f"Not computed: {', '.join(never)}."] * bool(never)
    return " ".join(told) or "All learners of the study."


def _cells(problem: Problem, study: Study, line: Line) -> tuple[str, ...]:
    unit = 100 if problem.percent else 1
    digits = 2
    against = "–" if line.against is None else _difference(line.against.mean, line.against.interval(), unit, digits)
    p = "–" if line.against is None else _p(p_value(line.against.differences))
    return (
        f"`{line.name}`" if study.entries[line.name].learner == line.name else line.name.replace("_", " "),
        "" if line.value is None else f"{line.value:g}{EDGE * (line.value in _edges(study.entries[line.name]))}",
        _plain(line.early, unit, digits),
        _plain(line.late, unit, digits),
        _signed(line.change, unit, digits),
        against,
        p,
        f"{line.features['dead']:.0%}",
        f"{line.features['effective']:.1f}",
        f"{line.features['stable']:.2f}",
        f"{line.num_seeds}" + (f" ({line.num_lost} diverged)" if line.num_lost else ""),
    )


def _edges(entry: Entry) -> tuple[float, float]:
    return min(entry.values), max(entry.values)


def _plain(mean: Mean, unit: int, digits: int) -> str:
    return f"{mean.value * unit:.{digits}f}"


def _signed(mean: Mean, unit: int, digits: int) -> str:
    reach = "" if isnan(mean.reach) else f" ± {mean.reach * unit:.{digits}f}"
    return f"{mean.value * unit:+.{digits}f}".replace("-", "−") + reach


def _difference(mean: float, interval: tuple[float, float] | None, unit: int, digits: int) -> str:
    reach = float("nan") if interval is None else (interval[1] - interval[0]) / 2
    return _signed(Mean(mean, reach), unit, digits)


def _p(value: float) -> str:
    if isnan(value):
        return "–"
    return f"{value:.2g}" if value >= 1e-4 else "< 0.0001"
