"""What a run's pictures are drawn from: its folder, its record, and curves of what the record calls by a name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from loss_landscape.viewing.theme import INK
from taskshift.pictures.draw import Curve, shades
from taskshift.summary import Row, by_task, read_rows


@dataclass(frozen=True)
class WrittenRun:
    """A run as far as it has come, read from its folder."""

    folder: Path
    heading: str
    rows: Sequence[Row]

    @classmethod
    def read(cls, folder: Path) -> WrittenRun:
        """The run in `folder`; raises Fault where there is no record."""
        return cls(folder, _heading(folder), read_rows(folder))

    @cached_property
    def tasks(self) -> Mapping[int, Row]:
        """Task → everything that was said of it, the first task first."""
        return dict(sorted(by_task(self.rows).items()))

    def names(self, pattern: str) -> list[str]:
        """The record's names that match, in the order in which they appeared."""
        names = dict.fromkeys(name for row in self.tasks.values() for name in row)
        return [name for name in names if re.fullmatch(pattern, name)]

    def over_tasks(self, name: str, colour: object, label: str | None = None, *, error: str | None = None, **look: Any) -> Curve:
        """What the record calls `name`, at the tasks that have it; `error` is the name of its error."""
        found = {task: row for task, row in self.tasks.items() if name in row}
        errors = np.array([row.get(error, np.nan) for row in found.values()]) if error else None
        y = np.array([row[name] for row in found.values()])
        return Curve(np.array(list(found)), y, colour, label, error=errors, **look)

    def over_epochs(self, name: str, colour: object, label: str) -> Curve:
        """What the record calls `name`, after each epoch that has it."""
        found = [row for row in self.rows if name in row]
        x = np.array([row["global_epoch"] + 1 for row in found])
        return Curve(x, np.array([row[name] for row in found]), colour, label, width=1.3)

    def of_layers(self, evaluator: str, name: str, label: str) -> list[Curve]:
        """A thin curve for each layer in order of depth, a thick one, `label`, for all of them."""
        pattern = rf"{evaluator}/(.+)/{name}"
        layers = [re.fullmatch(pattern, key)[1] for key in self.names(pattern)]
        curves = [
            self.over_tasks(f"{evaluator}/{layer}/{name}", colour, layer, width=1.0)
            for layer, colour in zip(layers, shades(len(layers)), strict=True)
        ]
        return [*curves, self.over_tasks(f"{evaluator}/{name}", INK, label, width=2.4)]


def _heading(folder: Path) -> str:
    """The run's name, and what it is where its config is at hand."""
    import yaml

    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text()) if path.exists() else {}
    facts = [str(config[key]) for key in ("task_shift_mode", "arch") if key in config]
    return " · ".join([folder.resolve().name, *facts])
