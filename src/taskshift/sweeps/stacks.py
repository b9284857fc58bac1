"""Which runs of a sweep train as one program: those equal but for the seed and the hyper-parameters that parts declare."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from math import ceil
from typing import Any, Literal

from taskshift.faults import Fault
from taskshift.script import Config
from taskshift.sweeps.open_files import most_members
from taskshift.sweeps.plan import PlannedRun

log = logging.getLogger("taskshift.sweeps")

Stack = Sequence[PlannedRun]
"""Runs that one process carries out together, often a single one."""

StackSize = Literal["auto", False] | int
"""`hydra.launcher.stack`."""

Fitting = Callable[[int, int], int]
"""(all runs, how many of a group a program steps at a time) → how many of the group a process had better take at most."""

MOST = 256
"""Runs of a stack that nobody gave a size for: each holds its lock and its log open, and often a process may open 1024 files."""

NAMES = ("seed", "run_name", "wandb")
"""Keys by which all runs of a sweep may differ."""


def read_size(value: Any) -> StackSize:
    """What `hydra.launcher.stack` says; raises Fault for what is no size."""
    if value == "auto" or value is False or (type(value) is int and value >= 1):
        return value
    raise Fault(f"hydra.launcher.stack={value}: expected auto, false, or a whole number, at least 1: the most runs of a stack")


def groups(runs: Sequence[PlannedRun], setting_keys: Callable[[Config], Collection[str]]) -> list[list[PlannedRun]]:
    """The runs in groups, in their order: equal but for the seed, names, and the numbers under the keys of `setting_keys`.

    A number that is 0 and one that is not are apart: what is multiplied by 0 is often left out of a step.
    """
    found: dict[str, list[PlannedRun]] = {}
    for run in runs:
        found.setdefault(_structure(run.config, setting_keys(run.config)), []).append(run)
    return list(found.values())


def cut(group: Stack, most: int) -> list[Stack]:
    """The group in pieces of `most` runs at most, of nearly the same size."""
    number = ceil(len(group) / most)
    borders = [ceil(len(group) * piece / number) for piece in range(number + 1)]
    return [group[begin:end] for begin, end in zip(borders, borders[1:], strict=False)]


def stacked(runs: Sequence[PlannedRun], size: StackSize, fitting: Fitting) -> list[Stack]:
    """The runs as they are carried out: `size` of a group together, or with `auto` as many as pay and as are `fitting`.

    Raises Fault where a size is given and the runs can't train as one program.
    """
    from taskshift.config.build import PartsInTurn  # torch is first needed here
    from taskshift.config.settings import setting_keys
    from taskshift.sweeps.worth import worth_of

    if size is False or size == 1 or len(runs) < 2:
        return [[run] for run in runs]
    found: list[Stack] = []
    build = PartsInTurn()
    for group in groups(runs, setting_keys):
        if len(group) == 1:
            found.append(group)
            continue
        worth = worth_of(group[0].config, build, number=len(group), asked=size != "auto")
        if worth.why_alone is not None and size != "auto":
            raise Fault(f"hydra.launcher.stack={size}: {worth.why_alone} (in {group[0].label}); give auto or false")
        wanted = 1 if worth.why_alone is not None else min(MOST, fitting(len(runs), worth.block))
        found += cut(group, _openable(wanted if size == "auto" else size))
    return found


def _openable(size: int) -> int:
    """As many of them as a process may hold the files of; fewer are said."""
    most = most_members()
    if most is None or size <= most:
        return size
    log.warning("a process may not hold the files of %d runs open (ulimit -Hn): stacks are of %d runs at most", size, most)
    return most


def _structure(config: Config, settings: Collection[str]) -> str:
    own = {key: value for key, value in config.items() if key not in NAMES}
    return json.dumps(_masked(own, "", settings), sort_keys=True, default=str)


def _masked(node: Any, at: str, settings: Collection[str]) -> Any:
    """The same with `True` in the place of every setting that is not 0."""
    if isinstance(node, Mapping):
        return {key: _masked(value, f"{at}.{key}" if at else str(key), settings) for key, value in node.items()}
    return bool(node) if at in settings else node
