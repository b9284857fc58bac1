"""All runs of a sweep are checked before the first begins."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from taskshift.config.check import check_quick
from taskshift.faults import Fault
from taskshift.script import Config

ONE_NAME = {"seed": 0, "run_name": None, "wandb": None}
"""Values in place of those by which runs may differ though their objects are alike."""


def check_words(configs: Sequence[Config], labels: Sequence[str]) -> None:
    """The quick checks of every run; a Fault lists all that is wrong, each sentence with the runs it is true of."""
    _refuse(_faults(configs, labels, check_quick))


def check_objects(configs: Sequence[Config], labels: Sequence[str]) -> None:
    """Construct every run's objects, once for all runs that differ in seed and names alone; a Fault lists all that is wrong."""
    from taskshift.config.build import PartsInTurn  # torch is first needed here

    alike = {_text(dict(config) | ONE_NAME): number for number, config in enumerate(configs)}
    chosen = sorted(alike.values())
    _refuse(_faults([configs[number] for number in chosen], [labels[number] for number in chosen], PartsInTurn()))


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


def _text(config: Config) -> str:
    return json.dumps(config, sort_keys=True)


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        raise Fault(*faults)
