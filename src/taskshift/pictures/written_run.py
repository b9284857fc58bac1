"""What a run's pictures are drawn from: its folder, its record, and curves of what the record calls by a name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from taskshift.intact import damaged
from taskshift.pictures.draw import Curve
from taskshift.quantities import Quantities, Quantity
from taskshift.run_folder import read_quantities
from taskshift.summary import Row, by_task, ended_tasks, read_rows


@dataclass(frozen=True)
class WrittenRun:
    """A run as far as it has come, read from its folder."""

    folder: Path
    heading: str
    rows: Sequence[Row]
    quantities: Quantities  # what its numbers are

    @classmethod
    def read(cls, folder: Path) -> WrittenRun:
        """The run in `folder`; raises Fault where there is no record."""
        return cls(folder, _heading(folder), read_rows(folder), read_quantities(folder))

    @cached_property
    def tasks(self) -> Mapping[int, Row]:
        """Task → everything that was said of it, the first task first."""
        return dict(sorted(by_task(self.rows).items()))

    @cached_property
    def epochs(self) -> Sequence[Row]:
        """The rows of epochs."""
        return [row for row in self.rows if "epoch_loss" in row]

    def is_of_epochs(self, name: str) -> bool:
        """Whether the record has `name` after epochs, not at tasks' ends."""
        return name in self._names_of_epochs

    @cached_property
    def _names_of_epochs(self) -> frozenset[str]:
        return frozenset(name for row in self.epochs for name in row)

    def is_of_steps(self, name: str) -> bool:
        """Whether the record has `name` within tasks, after single steps."""
        return name in self._names_of_steps

    @cached_property
    def _names_of_steps(self) -> frozenset[str]:
        """The names in rows that are no epoch's, no task's start and no task's end."""
        others = ("epoch_", "task_last_epoch_", "start/")
        within = (row for row in self.rows if not any(name.startswith(others) for name in row))
        return frozenset(name for row in within for name in row)

    @property
    def step_axis(self) -> dict[str, Any]:
        """The x axis of a panel over steps: its name, and the borders between tasks."""
        ends = {int(row["task_idx"]): row["global_step"] for row in self.epochs}
        return {"x_name": f"step (tasks {min(ends)}–{max(ends)})", "borders": sorted(ends.values())[:-1]}

    @property
    def epoch_axis(self) -> dict[str, Any]:
        """The x axis of a panel over epochs: its name, and the borders between tasks."""
        starts = {int(row["task_idx"]): row["global_epoch"] for row in reversed(self.epochs)}
        return {"x_name": f"epoch (tasks {min(starts)}–{max(starts)})", "borders": sorted(starts.values())[1:]}

    def on_the_axis_of_tasks(self, places: np.ndarray, x_name: str) -> np.ndarray:
        """Places on the axis over epochs or over steps, as places among the tasks: a task's end at its number."""
        clock, later = ("global_epoch", 1) if x_name.startswith("epoch") else ("global_step", 0)
        ends = {int(row["task_idx"]): row[clock] + later for row in self.epochs}
        borders = [0, *ends.values()]
        if max(ends) not in ended_tasks(self.rows) and len(ends) > 1:  # it will be about as long as the one before
            borders[-1] = max(borders[-1], 2 * borders[-2] - borders[-3])
        return np.interp(places, borders, [min(ends) - 1, *ends])

    def names(self, pattern: str) -> list[str]:
        """The record's names that match, in the order in which they appeared."""
        names = dict.fromkeys(name for row in self.tasks.values() for name in row)
        return [name for name in names if re.fullmatch(pattern, name)]

    def named(self, quantity: Quantity) -> list[str]:
        """What the record calls names of this quantity, at tasks' ends or after epochs."""
        return self._named.get(quantity, [])

    @cached_property
    def _named(self) -> Mapping[Quantity, list[str]]:
        named: dict[Quantity, list[str]] = {}
        for name in self.names("(?!start/).+"):
            if (quantity := self.quantities.of(name)) is not None:
                named.setdefault(quantity, []).append(name)
        return named

    def curve(self, name: str, colour: object, label: str | None = None, **look: Any) -> Curve:
        """What the record calls `name`, over tasks, epochs or steps, wherever it is."""
        if self.is_of_steps(name):
            return self.over_steps(name, colour, label, **look)
        return (self.over_epochs if self.is_of_epochs(name) else self.over_tasks)(name, colour, label, **look)

    def over_tasks(self, name: str, colour: object, label: str | None = None, *, error: str | None = None, **look: Any) -> Curve:
        """What the record calls `name`, at the tasks that have it; `error` is the name of its error."""
        found = {task: row for task, row in self.tasks.items() if name in row}
        y, errors = _values(found.values(), name, error)
        return Curve(np.array(list(found)), y, colour, label, error=errors, **look)

    def over_epochs(self, name: str, colour: object, label: str | None = None, *, error: str | None = None, **look: Any) -> Curve:
        """What the record calls `name`, after each epoch that has it."""
        return self._over("global_epoch", 1, name, colour, label, error=error, **look)

    def over_steps(self, name: str, colour: object, label: str | None = None, *, error: str | None = None, **look: Any) -> Curve:
        """What the record calls `name`, after each step that has it."""
        return self._over("global_step", 0, name, colour, label, error=error, **look)

    def _over(
        self, clock: str, later: int, name: str, colour: object, label: str | None, *, error: str | None, **look: Any
    ) -> Curve:
        found = [row for row in self.rows if name in row]
        y, errors = _values(found, name, error)
        x = np.array([row[clock] + later for row in found])
        return Curve(x, y, colour, label, error=errors, **{"width": 1.3} | look)


def _values(rows: Collection[Row], name: str, error: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    """What rows call `name`, and its errors where it has some."""
    errors = np.array([row.get(error, np.nan) for row in rows]) if error else None
    return np.array([row[name] for row in rows]), errors


def _heading(folder: Path) -> str:
    """The run's name, and what it is where its config is at hand."""
    import yaml

    path = folder / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text()) if path.exists() else {}
    except yaml.YAMLError as error:
        raise damaged(path, " ".join(str(error).split())) from error
    facts = [str(config[key]) for key in ("task_shift_mode", "arch") if key in config]
    return " · ".join([folder.resolve().name, *facts])
