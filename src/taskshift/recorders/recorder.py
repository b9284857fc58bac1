"""A mirror of the record. The record itself is `metrics.jsonl` in the run folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Opening:
    """What a recorder learns of the run when it opens."""

    folder: Path
    config: Mapping[str, Any]  # resolved, plain
    run_name: str
    rows: Sequence[Mapping[str, float]]  # the record so far; not empty where a run resumes
    num_tasks: int
    epochs: int


@dataclass(frozen=True)
class Moment:
    """Where a run is, for a display: counts only, nothing that would need a host sync."""

    task: int
    phase: str  # start, train, end
    epoch: int
    batch: int
    num_batches: int  # in an epoch of this task
    evaluator: str | None = None  # which one is at work, in the phases start and end


class Recorder(ABC):
    """Receives every row once, in order. A row holds numbers alone: `global_epoch`, `task_idx` and metrics."""

    is_display = False
    """Whether it shows the run on the terminal, of which there is one."""

    @abstractmethod
    def open(self, opening: Opening) -> None: ...

    @abstractmethod
    def record(self, row: Mapping[str, float]) -> None: ...

    def tick(self, moment: Moment) -> None:  # noqa: B027 (a mirror of rows alone has nothing to do here)
        """Called after every batch and before every evaluator; must return at once."""

    @abstractmethod
    def close(self, ok: bool) -> None: ...
