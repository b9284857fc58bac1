"""Write docs/METRICS.md's tables anew, from what a run, its evaluators, its watchers and the parts of its learner declare.

    python scripts/metrics_page.py

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; the text around it is written by hand.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from taskshift.config.check import evaluator_blocks
from taskshift.config.command import compose, conf_folder
from taskshift.config.construct import construct
from taskshift.config.targets import resolve
from taskshift.config.words import MISSING
from taskshift.evaluators.evaluator import Evaluator
from taskshift.evaluators.watcher import Watcher
from taskshift.learners.learner import CLIPPED
from taskshift.learners.part import Part
from taskshift.quantities import Quantity
from taskshift.run_quantities import COST, TRAINING
from taskshift.shifts.source import Source

PAGE = Path(__file__).parents[1] / "docs" / "METRICS.md"
TABLE = re.compile(r"<!-- table: (\w+) -->\n.*?<!-- end -->", re.DOTALL)
PARTS = ("optimizer", "gradient", "regularizers", "interventions")
"""The groups below conf/learner."""


def main() -> None:
    """Write the page."""
    PAGE.write_text(with_tables(PAGE.read_text(), declared()))


def with_tables(page: str, tables: Mapping[str, Iterable[Quantity]]) -> str:
    """The page with every table as it is declared; raises ValueError where the two do not have the same tables."""
    places = [match[1] for match in TABLE.finditer(page)]
    if sorted(places) != sorted(tables):
        odd = set(places) ^ set(tables)
        raise ValueError(f"{PAGE.name} has the tables {places}, declared are {list(tables)}; only one of them has {sorted(odd)}")
    return TABLE.sub(lambda match: f"<!-- table: {match[1]} -->\n\n{_table(tables[match[1]])}\n<!-- end -->", page)


def declared() -> dict[str, list[Quantity]]:
    """Table → its quantities, as the record calls them; an evaluator's table has its name, and a watcher's."""
    blocks = evaluator_blocks(compose()["lla"])
    evaluators = {name: construct(block, Evaluator, where=f"lla.{name}", seed=0) for name, block in blocks.items()}
    of_evaluators = {name: [one.below(name) for one in evaluator.quantities] for name, evaluator in evaluators.items()}
    of_evaluators |= {name: [one.below(name) for one in watcher.quantities] for name, watcher in _watchers()}
    learner = [one.below("learner") for one in (CLIPPED, *_of_parts())]
    return {"training": [*TRAINING, *of_sources(conf_folder())], "learner": learner, "cost": [*COST], **of_evaluators}


def of_sources(conf: Path) -> Iterator[Quantity]:
    """What the sources among the modes judge nets by, as the record calls it."""
    for path in sorted((conf / "task_shift_mode").glob("*.yaml")):
        target = yaml.safe_load(path.read_text())["task_shift"]["_target_"]
        found = None if target == MISSING else resolve(target, object, "_target_")
        if inspect.isclass(found) and issubclass(found, Source):
            yield from (one.after("test_") for one in found.quantities)


def _watchers() -> Iterator[tuple[str, Watcher]]:
    for path in sorted((conf_folder() / "watch").glob("*.yaml")):
        for name, block in yaml.safe_load(path.read_text()).items():
            if block["_target_"] != MISSING:
                yield name, construct(block, Watcher, where=f"watch.{name}", seed=0)


def _of_parts() -> Iterator[Quantity]:
    for group in PARTS:
        for path in sorted((conf_folder() / "learner" / group).glob("*.yaml")):
            content = yaml.safe_load(path.read_text())
            blocks: Mapping[str, Any] = {group: content} if "_target_" in content else content
            for name, block in blocks.items():
                yield from (one.below(name) for one in _of_part(block["_target_"]))


def _of_part(target: str) -> Sequence[Quantity]:
    """What a class of ours declares; an optimizer of torch tells nothing, and `own` is no class yet."""
    found = None if target == MISSING else resolve(target, object, "_target_")
    return found.quantities if inspect.isclass(found) and issubclass(found, Part) else ()


def _table(quantities: Iterable[Quantity]) -> str:
    rows = [_line(f"`{one.pattern}`", one.meaning, one.unit, one.source) for one in dict.fromkeys(quantities)]
    return "".join([_line("name", "formula", "unit", "source"), "|---|---|---|---|\n", *rows])


def _line(*cells: str) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return "".join(f"| {cell} " if cell else "| " for cell in escaped) + "|\n"


if __name__ == "__main__":
    main()
