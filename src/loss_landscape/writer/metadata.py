"""What a landscape file says of its making."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from loss_landscape.results.grid import Grid
from loss_landscape.storage.database import LandscapeStorage
from loss_landscape.storage.records import Checkpoint, LandscapeRecord

FACTS = ("loss", "model_mode", "regularizer", "regularizer_weight", "seed", "max_batches", "num_batches")


def system_facts() -> dict[str, str]:
    """The versions of what computes, and where."""
    versions = {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}
    return {**versions, "platform": platform.platform()}


def landscape_facts(grids: Mapping[str, Grid]) -> dict[str, Any]:
    """What the last grid says of the model, the data and its own making; nothing where there is none."""
    if not grids:
        return {}
    extra = list(grids.values())[-1].info.extra
    model = {"name": extra.get("model"), "total_params": extra.get("num_parameters")}
    data = {name: extra.get(name) for name in ("num_batches", "max_batches")}
    making = {mode: {name: grid.info.extra.get(name) for name in (*FACTS, "range_scale")} for mode, grid in grids.items()}
    return {"model": model, "dataset": data, "landscape": making}


def full_record(storage: LandscapeStorage) -> LandscapeRecord:
    """All that a storage holds, with the facts about its making; its folder's name is the experiment's."""
    record, checkpoints = storage.record(), storage.checkpoints()
    facts = {"experiment": storage.path.resolve().parent.name, **landscape_facts(record.grids), "system": system_facts()}
    training = {"training": {"num_checkpoints": len(checkpoints)}, "training_statistics": training_statistics(checkpoints)}
    return replace(record, metadata={**facts, **training, **record.metadata})


def training_statistics(checkpoints: Sequence[Checkpoint]) -> dict[str, Any]:
    """The recorded training losses in four numbers, and the learning rates."""
    losses = [(point.train_loss, point.epoch) for point in checkpoints if point.train_loss is not None]
    if not losses:
        return {}
    lowest, epoch = min(losses, key=lambda recorded: (math.isnan(recorded[0]), recorded))  # NaN is below no number
    return {
        "initial_loss": losses[0][0],
        "final_loss": losses[-1][0],
        "min_loss": lowest,
        "min_loss_epoch": epoch,
        "learning_rate_history": [point.learning_rate for point in checkpoints],
    }
