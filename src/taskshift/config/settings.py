"""Which keys of a config are hyper-parameters that runs which train as one program may differ in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.optim import Optimizer

from taskshift.config.construct import construct
from taskshift.config.targets import import_plugins, resolve
from taskshift.faults import Fault
from taskshift.learners.part import Part
from taskshift.learners.rules.torch_rules import pure_rule

CLIP = "learner.gradient_clip"


def setting_keys(config: Mapping[str, Any]) -> frozenset[str]:
    """The dotted keys below `learner` that its parts declare as settings by the same name, with the same value.

    Where a part is not built from its block alone, none of its keys counts.
    """
    import_plugins(config["plugins"])
    own = {CLIP} if _is_number(config["learner"].get("gradient_clip")) else set()
    return frozenset(own | set(_declared("learner", config["learner"], config["plugins"])))


def _declared(where: str, block: Mapping[str, Any], plugins: list[str]) -> Iterator[str]:
    if "_target_" in block:
        declared = _settings(where, block, plugins)
        yield from (f"{where}.{key}" for key, value in declared.items() if _is_number(block.get(key)) and block[key] == value)
    for key, inner in block.items():
        if isinstance(inner, Mapping):
            yield from _declared(f"{where}.{key}", inner, plugins)


def _settings(where: str, block: Mapping[str, Any], plugins: list[str]) -> Mapping[str, float]:
    """What the part that the block describes declares."""
    try:
        target = resolve(block["_target_"], object, where, plugins)
        if isinstance(target, type) and issubclass(target, Optimizer):
            written = {key: value for key, value in block.items() if key != "_target_"}
            rule = pure_rule(target([torch.zeros(1, requires_grad=True)], **written))
            return rule.settings() if rule is not None else {}
        if isinstance(target, type) and issubclass(target, Part):
            return construct(block, Part, where=where, plugins=plugins).settings()
    except (Fault, ValueError, TypeError):  # it wants what only a run has, such as the net
        pass
    return {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
