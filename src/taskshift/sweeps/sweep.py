"""Many runs by one command: all of them are checked before the first begins."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from taskshift.config.check import check_quick
from taskshift.config.words import shown
from taskshift.faults import Fault

Config = Mapping[str, Any]


def check_all(configs: Sequence[Config], labels: Sequence[str]) -> None:
    """Both stages of the checks for every job, and that no two write to one folder; a Fault lists all that is wrong.

    Objects are constructed once for all jobs that differ in seed and name alone.
    """
    _refuse(_faults(configs, labels, check_quick))
    _refuse(_shared_folders(configs, labels))
    from taskshift.config.build import build_parts  # torch is first needed here

    alike = {_text(dict(config) | {"seed": 0, "run_name": None}): number for number, config in enumerate(configs)}
    chosen = sorted(alike.values())
    _refuse(_faults([configs[number] for number in chosen], [labels[number] for number in chosen], build_parts))


def labels_of(job_overrides: Sequence[Sequence[str]]) -> list[str]:
    """What tells each job from the others: its overrides without those that all jobs have."""
    common = set.intersection(*map(set, job_overrides))
    return [" ".join([word for word in words if word not in common] or words) for words in job_overrides]


def _faults(configs: Sequence[Config], labels: Sequence[str], check: Callable[[Config], Any]) -> list[str]:
    """Each sentence once, with the jobs it is true of."""
    found: dict[str, list[str]] = {}
    for config, label in zip(configs, labels, strict=True):
        try:
            check(config)
        except Fault as fault:
            for sentence in fault.sentences:
                found.setdefault(sentence, []).append(label)
    several = len(configs) > 1
    return [f"{sentence} (in {'; '.join(where)})" if several else sentence for sentence, where in found.items()]


def _shared_folders(configs: Sequence[Config], labels: Sequence[str]) -> list[str]:
    """A sentence for each folder that more than one job would write to: one of a name, or of no name and the same content."""
    places: dict[str, list[int]] = {}
    for number, config in enumerate(configs):
        named = {key: config[key] for key in ("output_project", "arch", "run_name")}
        places.setdefault(_text(named if config["run_name"] is not None else config), []).append(number)
    return [
        _shared(configs[numbers[0]]["run_name"], [labels[n] for n in numbers]) for numbers in places.values() if len(numbers) > 1
    ]


def _shared(run_name: str | None, labels: Sequence[str]) -> str:
    if run_name is None:
        return f"{labels[0]}: the sweep has this run {len(labels)} times; give each value once"
    return f"run_name={shown(run_name)}: {len(labels)} runs would write to one folder ({'; '.join(labels)}); leave run_name out"


def _text(config: Config) -> str:
    return json.dumps(config, sort_keys=True)


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        raise Fault(*faults)
