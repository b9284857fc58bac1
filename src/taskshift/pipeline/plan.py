"""The pipeline's config: what it may hold, and the run that it describes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from annotated_types import Ge, Gt

from taskshift.config.check import check_quick, evaluator_blocks
from taskshift.config.command import composed, conf_folder
from taskshift.config.schema import CountOrNone, Device, LlaHead, Top
from taskshift.config.typed import from_mapping
from taskshift.config.words import either, no_such_key, shown
from taskshift.faults import Fault

TASKS = {
    "planes": ("planes",),
    "spectrum": ("spectrum",),
    "sam": ("sam",),
    "mode": ("mode_connectivity",),
    "rank": ("rank", "coupling"),
}
"""A task of the pipeline → its evaluators."""


@dataclass(frozen=True)
class Training:
    """How the net is trained before it is looked at."""

    epochs_short: CountOrNone  # 0: it is looked at untrained
    optimizer: str  # a file of conf/learner/optimizer
    lr: Annotated[float, Gt(0)]
    weight_decay: Annotated[float, Ge(0)]
    save_checkpoints: bool  # false: no snapshots, and so no trajectory's plane and no coupling
    max_checkpoints: CountOrNone
    second_run_seed: Annotated[int, Ge(0)]


@dataclass(frozen=True)
class Runtime:
    """Where and how it computes."""

    device: Device
    fp16: bool  # planes by a net in bfloat16
    workers: CountOrNone  # threads; 0: as many as torch takes by itself
    pbar: bool
    abort_if_estimated_hours_over: Annotated[float, Gt(0)] | None  # for one plane


@dataclass(frozen=True)
class Logging:
    """What is written beside the numbers, and where to."""

    out_root: str  # the folder, unless the command names one
    save_numpy: bool
    save_csv: bool
    save_plots: bool
    wandb: bool


SECTIONS = {"training": Training, "runtime": Runtime, "logging": Logging}
"""Blocks of `lla` that are not handed to a run as they stand."""

ALIASES = ("rank_tracking",)
"""Blocks of `lla` that only lend their values to others, by interpolation."""

SHARED = {"seed", "batch_size", "plugins", "wandb", "recorder", "data", "net", "learner", "task_shift", "task_shift_mode", "arch"}
"""Keys of the top level that a run takes as they stand."""

OWN = {"lla", "use_wandb"}
"""The others."""


@dataclass(frozen=True)
class Plan:
    """A pipeline's config, resolved; checked as far as it is not a run's."""

    config: Mapping[str, Any]
    training: Training
    runtime: Runtime
    logging: Logging

    @property
    def use_second_run(self) -> bool:
        """Whether mode connectivity takes a net trained alike from another seed."""
        return bool(self.config["lla"].get("mode_connectivity", {}).get("use_second_run", True))

    def evaluators(self, task: str) -> tuple[str, ...]:
        """The evaluators of a task, or of `all`; raises Fault for one that is unknown or switched off."""
        if task != "all" and task not in TASKS:
            raise Fault(f"--task {task}: there is no such task; give {either([*TASKS, 'all'])}")
        blocks = evaluator_blocks(self.config["lla"])
        if task == "all":
            return tuple(name for names in TASKS.values() for name in names if name in blocks and _is_on(name, blocks[name]))
        for name in TASKS[task]:
            if name not in blocks:
                raise Fault(f"--task {task}: the config has no lla.{name}; take it up in its defaults list")
            if not _is_on(name, blocks[name]):
                raise Fault(f"--task {task}: lla.{name}.enable is false; give lla.{name}.enable=true")
        return TASKS[task]

    def as_run(self) -> dict[str, Any]:
        """The config of the run behind it, every evaluator switched on: `evaluators` says which of them a task runs.

        The one place where the plan's names meet a run's. What a plan does not say is as in conf/config.yaml.
        """
        runtime, training = self.runtime, self.training
        return {
            **_defaults("config", Top),
            **{key: self.config[key] for key in SHARED},
            "recorder": {name: block for name, block in self.config["recorder"].items() if name != "console" or runtime.pbar},
            "num_tasks": 1,
            "epochs": training.epochs_short,
            "device": runtime.device,
            "num_threads": runtime.workers or None,
            "use_wandb": self.logging.wandb,
            "run_name": "run",
            "lla": self._lla(),
        }

    def _lla(self) -> dict[str, Any]:
        own, head, logging = self.config["lla"], _defaults("lla/default", LlaHead), dataclasses.asdict(self.logging)
        blocks = {name: _without_switch(block) for name, block in evaluator_blocks(own).items()}
        if self.runtime.fp16:
            blocks |= {name: blocks[name] | {"precision": "bfloat16"} for name in ("planes", "sam") if name in blocks}
        return {
            **head,
            **{key: value for key, value in own.items() if key not in {*blocks, *SECTIONS, *ALIASES}},
            **blocks,
            "training": {"max_checkpoints": self.training.max_checkpoints if self.training.save_checkpoints else 0},
            "logging": {key: logging[key] for key in head["logging"]},
            "runtime": {"abort_if_estimated_hours_over": self.runtime.abort_if_estimated_hours_over},
        }


def _defaults(name: str, kind: type) -> dict[str, Any]:
    """What a yaml of conf/ says of the fields of `kind`."""
    content = yaml.safe_load((conf_folder() / f"{name}.yaml").read_text(encoding="utf-8"))
    return {field.name: content[field.name] for field in dataclasses.fields(kind) if field.name in content}


def read_plan(file: Path, overrides: Sequence[str] = ()) -> Plan:
    """The plan that `file` describes, changed by `overrides` in Hydra's words; raises Fault for what a user can mend."""
    _refuse_no_plan(file)
    _refuse_another_optimizer(overrides)
    config = _composed(file, overrides)
    sections = _sections(file, config)
    chosen = sections["training"].optimizer
    if _target_of(chosen) != config["learner"]["optimizer"]["_target_"]:
        config = _composed(file, (*overrides, f"learner/optimizer={chosen}"))
    plan = Plan(config, **sections)
    check_quick(plan.as_run() | {"epochs": 1})  # 0 is no fault here
    return plan


def _composed(file: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The yaml with its groups taken from beside it and from conf/."""
    place = json.dumps(f"file://{conf_folder()}")
    return composed(*overrides, f"hydra.searchpath=[{place}]", conf=file.parent, config_name=file.stem)


def _target_of(optimizer: str) -> str | None:
    path = conf_folder() / "learner" / "optimizer" / f"{optimizer}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))["_target_"] if path.exists() else None


def _sections(file: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    missing = [key for key in (*sorted(SHARED | OWN), *_wanted()) if not _has(config, key)]
    if missing:
        raise Fault(f"{file} is no config of this pipeline: it lacks {', '.join(missing[:3])}{_and_more(missing, 3)}")
    faults = [no_such_key("", key, SHARED | OWN) for key in config if key not in SHARED | OWN]
    found = {name: from_mapping(f"lla.{name}", config["lla"][name], kind, faults) for name, kind in SECTIONS.items()}
    if faults:
        raise Fault(*faults)
    return found


def _wanted() -> Iterator[str]:
    return (f"lla.{name}.{field.name}" for name, kind in SECTIONS.items() for field in dataclasses.fields(kind))


def _has(block: Any, dotted: str) -> bool:
    for key in dotted.split("."):
        if not isinstance(block, Mapping) or key not in block:
            return False
        block = block[key]
    return True


def _refuse_no_plan(file: Path) -> None:
    """A yaml that Hydra would not take, told before it tries."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Fault(
            f"{file} cannot be read as a config ({' '.join(str(error).split())}); give a yaml as cfg/config.yaml is"
        ) from error
    if not isinstance(content, Mapping) or "defaults" not in content:
        raise Fault(f"{file} is no config of this pipeline: it has no defaults list, as cfg/config.yaml has; copy that one")


def _refuse_another_optimizer(overrides: Sequence[str]) -> None:
    for word in overrides:
        if word.lstrip("+").startswith("learner/optimizer="):
            raise Fault(f"{word}: here the optimizer is lla.training.optimizer={word.partition('=')[2]}")


def _is_on(name: str, block: Mapping[str, Any]) -> bool:
    if not isinstance(block.get("enable", True), bool):
        raise Fault(f"lla.{name}.enable={shown(block['enable'])}: expected true or false")
    return block.get("enable", True)


def _without_switch(block: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in block.items() if key != "enable"}


def _and_more(names: Sequence[str], shown_first: int) -> str:
    return f" and {len(names) - shown_first} more" if len(names) > shown_first else ""
