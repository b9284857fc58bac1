"""Two programs that do the same work: checked, then timed alternately in one process."""

from __future__ import annotations

import gc
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

Program = Callable[[int], Any]
"""Work as it is timed; it is given the round's number, which chooses the data's seed where there are several."""


@dataclass(frozen=True)
class Peer:
    """Whom we are compared with; `module` is what has to be importable, None where nothing has."""

    name: str
    module: str | None = None

    @property
    def is_installed(self) -> bool:
        """Whether its module can be found."""
        return self.module is None or importlib.util.find_spec(self.module) is not None


@dataclass(frozen=True)
class Agreement:
    """How far apart the numbers of two programs are, how far they may be, and what else came to light."""

    difference: float
    tolerance: float
    unit: str
    remark: str = ""

    @property
    def holds(self) -> bool:
        """Whether the numbers are the same, NaN being no agreement."""
        return self.difference <= self.tolerance


@dataclass(frozen=True)
class Arithmetic:
    """The floating-point operations of ours and of theirs, and the dtype of ours."""

    ours: float
    theirs: float
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True, eq=False)
class Line:
    """One line of the table. `check` runs both programs before they are timed; `remark` is told what all rounds gave."""

    work: str
    peer: Peer
    ours: Program
    theirs: Program
    check: Callable[[], Agreement]
    arithmetic: Callable[[], Arithmetic]
    wanted: float | None = None  # the least ratio that was asked for
    remark: Callable[[list[Any], list[Any]], str] = lambda ours, theirs: ""


@dataclass(frozen=True, eq=False)
class Case:
    """Lines that are timed together: a program in several lines runs once a round."""

    lines: Sequence[Line]
    num_rounds: int


@dataclass(frozen=True, eq=False)
class Measured:
    """A line with what came out, in seconds for each round."""

    line: Line
    agreement: Agreement
    arithmetic: Arithmetic
    ours: list[float]
    theirs: list[float]
    remark: str = ""

    @property
    def ratios(self) -> list[float]:
        """Theirs over ours, round by round."""
        return [theirs / ours for theirs, ours in zip(self.theirs, self.ours, strict=True)]

    @property
    def limit_by_operations(self) -> float:
        """The ratio of two programs that compute equally fast."""
        return self.arithmetic.theirs / self.arithmetic.ours

    def limit_by_rate(self, rates: dict[torch.dtype, float]) -> float:
        """The ratio if ours computed as fast as the machine multiplies matrices; more is a measuring error."""
        return statistics.median(self.theirs) * rates[self.arithmetic.dtype] / self.arithmetic.ours

    def shares(self, rates: dict[torch.dtype, float]) -> tuple[float, float]:
        """Which part of the machine's matmul rate ours and theirs reach."""
        ours = self.arithmetic.ours / statistics.median(self.ours) / rates[self.arithmetic.dtype]
        return ours, self.arithmetic.theirs / statistics.median(self.theirs) / rates[torch.float32]


@dataclass(frozen=True)
class Table:
    """Something else than a comparison of seconds, as rows of text."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    remark: str = ""


@dataclass
class Findings:
    """All that was measured, and sentences about what was not."""

    measured: list[Measured] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def measure(case: Case, device: torch.device) -> tuple[list[Measured], list[str]]:
    """The lines whose peer is installed, measured, and a sentence for each other one."""
    lines = [line for line in case.lines if line.peer.is_installed]
    missing = [f"{line.work}: {line.peer.name} is not installed (extra `bench`)." for line in case.lines if line not in lines]
    agreements = [line.check() for line in lines]
    arithmetic = [line.arithmetic() for line in lines]
    programs = list(dict.fromkeys(program for line in lines for program in (line.theirs, line.ours)))
    seconds: dict[Program, list[float]] = {program: [] for program in programs}
    results: dict[Program, list[Any]] = {program: [] for program in programs}
    for number in range(case.num_rounds):
        for program in programs:
            took, result = timed(program, number, device)
            seconds[program].append(took)
            results[program].append(result)
    found = []
    for line, same, sums in zip(lines, agreements, arithmetic, strict=True):
        remark = line.remark(results[line.ours], results[line.theirs])
        found.append(Measured(line, same, sums, seconds[line.ours], seconds[line.theirs], remark))
    return found, missing


def timed(program: Program, number: int, device: torch.device) -> tuple[float, Any]:
    """Seconds of one round, the accelerator's work included, and what came out."""
    gc.collect()  # what the program before left in cycles is not this one's to clear away
    finish(device)
    begin = time.perf_counter()
    result = program(number)
    finish(device)
    return time.perf_counter() - begin, result


def finish(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def same_losses(ours: np.ndarray, theirs: np.ndarray, tolerance: float, remark: str = "") -> Agreement:
    """The largest difference of two arrays of losses, relative to 1 + |loss|."""
    return Agreement(largest_difference(ours, theirs), tolerance, "of 1 + |loss|", remark)


def largest_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """max |ours − theirs| / (1 + |theirs|)."""
    return float(np.max(np.abs(ours - theirs) / (1 + np.abs(theirs))))
