"""What a sweep consists of: its name, and a key and a label for each of its runs."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskshift.faults import Fault
from taskshift.identity import FREE, IDENTITY, identity
from taskshift.script import Config
from taskshift.sweeps.sweep_folder import SweepFolder

LAUNCHING = ("cluster", "resources", "hydra")
"""Keys that say how runs are carried out, and nothing of what they are."""

ONE_FOLDER = ("output_root", "output_project", "sweep_name")
"""Keys that say where all runs of a sweep lie."""

ELSEWHERE = (*LAUNCHING, *ONE_FOLDER)
"""Keys that say where a sweep runs or lies, not which sweep it is."""

TRAINING = ("train", "taskshift")
"""Programs that are the main command: a sweep begun by one goes on by the other."""

CHANGEABLE = ("num_tasks", "device", "objective", "recorder", "use_wandb", "wandb", "checkpoints", *FREE)
"""Keys that a later call of the same sweep may set otherwise."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep."""

    key: str  # names its folder
    label: str  # what tells it from the others, in words
    swept: Mapping[str, str]  # swept key → value, as text
    overrides: Sequence[str]  # those that its config was composed from
    config: Config  # resolved, with the sweep's and the run's names put in


@dataclass(frozen=True)
class Plan:
    """A sweep as a command asks for it."""

    name: str
    fixed: Sequence[str]
    swept: Sequence[str]
    runs: Sequence[PlannedRun]


def labels_of(typed: Sequence[str], job_overrides: Sequence[Sequence[str]]) -> list[str]:
    """What tells each run from the others."""
    return [_label(_swept(typed, words)) for words in job_overrides]


def planned(typed: Sequence[str], configs: Sequence[Config], job_overrides: Sequence[Sequence[str]]) -> Plan:
    """The sweep of these configs; `typed` are the command's overrides that have one value each.

    The name is a hash of those that a later call may not set otherwise, of the swept keys' names and of the script, unless that
    is train.py, so that the same command is the same sweep and a grid that grows stays in it; a run's key is one of its identity
    and of what else is swept. Raises Fault for a run that comes twice, for a run_name, as a sweep names its runs itself, and for
    several values of what says where all of them lie.
    """
    if given := [config["run_name"] for config in configs if config["run_name"] is not None]:
        raise Fault(f"run_name={given[0]}: a sweep names its runs itself, by what differs between them; leave run_name out")
    swept = [_swept(typed, words) for words in job_overrides]
    names = sorted({key for one in swept for key in one})
    if several := [key for key in names if key in ONE_FOLDER]:
        raise Fault(f"{several[0]}: all runs of a sweep lie in one folder; give {several[0]} one value")
    fixed = sorted(word for word in typed if not _is_under(key_of(word), ELSEWHERE))
    name = configs[0]["sweep_name"] or _default_name(_lasting(fixed), names)
    runs = [_run(name, *each) for each in zip(configs, job_overrides, swept, strict=True)]
    _refuse_repetition(runs)
    return Plan(name, fixed, names, runs)


def key_of(word: str) -> str:
    """The key that an override sets."""
    return word.partition("=")[0].lstrip("+~")


def refuse_another_sweep(plan: Plan, known: Mapping[str, Any], folder: SweepFolder) -> None:
    """Raise a Fault naming what differs where the folder holds a sweep of other settings under this name."""
    pairs = {"fixed": (_lasting(known["fixed"]), _lasting(plan.fixed)), "swept": (list(known["swept"]), list(plan.swept))}
    sentences = [
        f"{title}: the folder's sweep has {_listed(before)}, the command says {_listed(now)}"
        for title, (before, now) in pairs.items()
        if before != now
    ]
    if sentences:
        raise Fault(f"{folder.path} holds another sweep; give another sweep_name, or leave it out:", *sentences)


def _lasting(fixed: Sequence[str]) -> list[str]:
    return [word for word in fixed if not _is_under(key_of(word), CHANGEABLE)]


def _swept(typed: Sequence[str], words: Sequence[str]) -> dict[str, str]:
    """Key → value of those of a run's overrides that are not the command's own."""
    return {key_of(word): word.partition("=")[2] for word in words if word not in typed}


def _run(name: str, config: Config, overrides: Sequence[str], swept: Mapping[str, str]) -> PlannedRun:
    beside = {key: value for key, value in swept.items() if not _is_identity(key)}
    key, label = _hash([identity(config), beside]), _label(swept)
    wandb = {**config["wandb"], "name": config["wandb"]["name"] or label}
    named = {**config, "sweep_name": name, "run_name": key, "wandb": wandb}
    own = [word for word in overrides if not _is_under(key_of(word), LAUNCHING)]
    return PlannedRun(key, label, swept, own, named)


def _is_identity(key: str) -> bool:
    """Whether what the key sets is part of a run's identity."""
    return _is_under(key, IDENTITY) and not _is_under(key, FREE)


def _is_under(key: str, tops: Sequence[str]) -> bool:
    return any(key == top or key.startswith((f"{top}.", f"{top}/", f"{top}@")) for top in tops)


def _refuse_repetition(runs: Sequence[PlannedRun]) -> None:
    times = Counter(run.key for run in runs)
    repeated = {run.key: run.label for run in runs if times[run.key] > 1}
    if repeated:
        raise Fault(
            *(f"{label}: the sweep has this run {times[key]} times; give each value once" for key, label in repeated.items())
        )


def _label(swept: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in swept.items()) or "the only run"


def _default_name(fixed: Sequence[str], swept: Sequence[str]) -> str:
    words = "-".join(key.rpartition(".")[2].replace("/", ".") for key in swept)[:60]
    script = Path(sys.argv[0]).stem
    other = [] if script in TRAINING else [script]
    return "_".join(filter(None, (words, _hash([list(fixed), list(swept), *other]))))


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _listed(words: Sequence[str]) -> str:
    return " ".join(words) or "nothing"
