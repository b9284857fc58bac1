"""The keys of the top level and of the head of `lla`. Torch is not imported here: they are checked before it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator

Count = Annotated[int, Ge(1)]
CountOrNone = Annotated[int, Ge(0)]
Fraction = Annotated[float, Gt(0), Le(1)]
Share = Annotated[float, Gt(0), Lt(1)]
Seconds = Annotated[float, Ge(0)]
Seed = Annotated[int, Ge(0), Le(2**63 - 1)]  # as large as torch takes it


def _path_component(text: str) -> str:
    if text.lower() in ("none", "nan"):
        raise ValueError("expected a name; null stands for none")
    if not text.strip() or text in (".", "..") or "/" in text or "\0" in text or len(text.encode()) > 200:
        raise ValueError("expected one folder name: not empty, no slash, at most 200 bytes")  # file systems take 255
    return text


def _folder(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise ValueError("expected a folder, such as outputs or /scratch/me")
    return text


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise ValueError("expected auto, cpu, cuda, or cuda:N for GPU number N")
    return text


FolderName = Annotated[str, AfterValidator(_path_component)]
Folder = Annotated[str, AfterValidator(_folder)]
Device = Annotated[str, AfterValidator(_device)]


@dataclass(frozen=True)
class Wandb:
    """W&B's own words for where a run goes."""

    project: str
    entity: str | None
    notes: str
    mode: Literal["offline", "online", "disabled"]
    group: str | None
    name: str | None


@dataclass(frozen=True)
class Checkpoints:
    """How often a run is saved, and how much of it stays."""

    every_seconds: Seconds
    keep: CountOrNone | None


@dataclass(frozen=True)
class Validation:
    """Which of the data's training examples are set aside."""

    size: Share | Count | None
    seed: Seed


@dataclass(frozen=True)
class Top:
    """The top level; its blocks are checked against what their `_target_` takes."""

    seed: Seed
    num_tasks: Count
    epochs: Count
    batch_size: Count
    evaluate_every: Count
    log_every: Count | None
    device: Device
    execution: Literal["auto", "eager", "replay", "compiled"]
    num_threads: Count | None
    use_wandb: bool
    output_root: Folder
    output_project: FolderName
    run_name: FolderName | None
    sweep_name: FolderName | None
    objective: str | None
    plugins: tuple[str, ...]
    wandb: Wandb
    checkpoints: Checkpoints
    validation: Validation
    arch: FolderName
    task_shift_mode: str
    task_shift: dict[str, Any]
    data: dict[str, Any] | None
    net: dict[str, Any]
    learner: dict[str, Any]
    lla: dict[str, Any]
    recorder: dict[str, Any]
    watch: dict[str, Any]


@dataclass(frozen=True)
class EvaluationData:
    """Which training examples of a task every evaluator sees."""

    eval_batch_size: Count
    num_batches: Count | None
    dataset_fraction_for_landscape: Fraction
    fixed_eval_seed: Seed


@dataclass(frozen=True)
class Training:
    """What is kept of the way through a task."""

    max_checkpoints: Annotated[int, Ge(0)]


@dataclass(frozen=True)
class Logging:
    """What evaluators write beside their numbers; their blocks take these values up."""

    save_numpy: bool
    save_csv: bool
    save_plots: bool


@dataclass(frozen=True)
class Runtime:
    """What may change when a run is resumed: no number depends on it."""

    abort_if_estimated_hours_over: Annotated[float, Gt(0)] | None


@dataclass(frozen=True)
class LlaHead:
    """The keys of `lla` that are no evaluator's; a switch `enable_<name>` goes with each evaluator."""

    at: tuple[Literal["start", "end"], ...]
    every: Count
    on_error: Literal["stop", "mark"]
    dtype: Literal["float32", "float64"]
    tolerance: Share | None
    compile: bool | Literal["auto"]
    memory_budget_mb: Count
    runtime: Runtime
    evaluation_data: EvaluationData
    training: Training
    logging: Logging
    shards: Count = 1
