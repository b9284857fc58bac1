"""Stage 1: all that can be known about a config without torch, in well under a second."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from taskshift.config.schema import LlaHead, Top
from taskshift.config.targets import find_plugins, judge_package
from taskshift.config.typed import from_mapping, typed
from taskshift.config.words import MISSING, no_such_key, no_value, shown
from taskshift.faults import Fault

BLOCKS = ("data", "net", "learner", "task_shift")
"""Top-level keys that hold one `_target_` block each."""


def check_quick(config: Mapping[str, Any]) -> tuple[Top, LlaHead]:
    """The checked top level and head of `lla`; raises one Fault with a sentence for everything that is wrong."""
    faults: list[str] = []
    top = from_mapping("", config, Top, faults)
    if top is not None:
        faults += _whole_in_disguise(config, top)
    head = _check_lla(_block(config, "lla"), faults)
    for name in BLOCKS:
        if isinstance(config.get(name), Mapping) and "_target_" not in config[name]:
            faults.append(no_value(f"{name}._target_"))
    plugins = tuple(map(str, config["plugins"])) if isinstance(config.get("plugins"), list) else ()
    faults += find_plugins(plugins)
    faults += _taken_names(_block(config, "watch"), _block(config, "lla"))
    for name in (*BLOCKS, "lla", "recorder", "watch"):
        faults += _targets(f"{name}.", _block(config, name), plugins)
    if faults:
        raise Fault(*faults)
    return top, head


def _whole_in_disguise(config: Mapping[str, Any], top: Top) -> Iterator[str]:
    """A sentence for each whole number written like 1e3: the run goes by the config, where it would stay what it was."""
    for field in dataclasses.fields(Top):
        value = config.get(field.name)
        if isinstance(value, float) and type(getattr(top, field.name)) is int:
            yield f"{field.name}={shown(value)}: expected a whole number, written without a point or an exponent"


def evaluator_blocks(lla: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The blocks under `lla` that are evaluators, switched on or off."""
    return {name: block for name, block in lla.items() if isinstance(block, Mapping) and "_target_" in block}


def enabled(lla: Mapping[str, Any], name: str) -> bool:
    """Whether an evaluator runs: unless its switch says no."""
    return bool(lla.get(f"enable_{name}", True))


def _check_lla(lla: Mapping[str, Any], faults: list[str]) -> LlaHead | None:
    evaluators = evaluator_blocks(lla)
    head = {field.name for field in dataclasses.fields(LlaHead)}
    switches = {f"enable_{name}" for name in lla if name not in head}
    for key, value in lla.items():
        if key in switches:
            typed(f"lla.{key}", value, bool, faults)
        elif key not in evaluators and f"enable_{key}" in lla:
            faults.append(f"lla.{key}={shown(value)}: expected a block with a _target_; lla.enable_{key}=false leaves it out")
        elif key not in head and key not in evaluators:
            faults.append(no_such_key("lla.", key, head | {f"enable_{name}" for name in evaluators} | set(evaluators)))
    checked = from_mapping("lla", {key: value for key, value in lla.items() if key in head}, LlaHead, faults)
    if checked is not None and checked.shards > 1:
        faults.append(
            f"lla.shards={checked.shards}: a run does not split its own analysis; let it keep its nets, and then "
            f"`taskshift measure FOLDER lla.shards={checked.shards}` does"
        )
    return checked


def _taken_names(watch: Mapping[str, Any], lla: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each watcher whose numbers would be called as an evaluator's."""
    for name in watch:
        if name in evaluator_blocks(lla) or name == "learner":
            yield f"watch.{name}: this name is taken, its numbers would be called {name}/… as others are; give it another"


def _block(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return config[name] if isinstance(config.get(name), Mapping) else {}


def _targets(at: str, block: Mapping[str, Any], plugins: tuple[str, ...]) -> Iterator[str]:
    """Values still to be given, and what is wrong with the `_target_`s of a block, however deep, as far as their words tell."""
    for key, value in block.items():
        if isinstance(value, str) and value == MISSING:
            yield no_value(f"{at}{key}")
        elif key == "_target_":
            try:
                judge_package(value, f"{at}_target_", plugins)
            except Fault as fault:
                yield from fault.sentences
        elif isinstance(value, Mapping):
            yield from _targets(f"{at}{key}.", value, plugins)
