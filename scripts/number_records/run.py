"""A whole run's record: its rows, and every number in the files that its evaluators wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from number_records.record import Record

ROOT = Path(__file__).parents[2]
OVERRIDES = (
    *("task_shift_mode=permuted", "lla.enable_sam=true", "lla.enable_mode_connectivity=true", "num_tasks=2", "epochs=2"),
    *("use_wandb=false", "run_name=record", "num_threads=1", "device=cpu", "lla.logging.save_plots=false"),
    *("lla.planes.grid_resolution=7", "lla.mode_connectivity.opt_steps=3", "lla.mode_connectivity.curve_points=5"),
)
TIMED = ("seconds", "memory_mb", "opt_seconds")  # the last part of a name; listed here, not imported, to outlive moved modules
OF_THE_ATTEMPT = ("run.json", "measure.json", "latest.pt")


def run(record: Record) -> None:
    """Train as the main command does, in a temporary folder, and keep what came out."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, str(ROOT / "train.py"), *OVERRIDES]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=place, env=environment, check=True, stdout=subprocess.DEVNULL)
        (folder,) = {path.parent for path in Path(place).rglob("metrics.jsonl")}
        record.take("rows", lambda: rows(folder / "metrics.jsonl"))
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name not in OF_THE_ATTEMPT and "jobs" not in path.parts:
                contents(path, str(path.relative_to(folder)), record)


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of the record, what no two runs share left out."""
    return [untimed(json.loads(line)) for line in path.read_text().splitlines()]


def contents(path: Path, name: str, record: Record) -> None:
    """Keep what a file of arrays, numbers or tensors holds; logs and pictures are left out."""
    if path.suffix == ".npy":
        record.take(name, lambda: np.load(path))
    elif path.suffix == ".npz":
        with np.load(path) as arrays:
            record.take(name, lambda: dict(arrays))
    elif path.suffix == ".json":
        record.take(name, lambda: untimed(json.loads(path.read_text())))
    elif path.suffix == ".csv":
        record.take(name, lambda: np.frombuffer(path.read_bytes(), dtype=np.uint8))
    elif path.suffix == ".pt":
        record.take(name, lambda: untimed(torch.load(path, weights_only=True)))


def untimed(node: Any) -> Any:
    """The same without what tells of time, memory and versions."""
    if isinstance(node, Mapping):
        return {k: untimed(value) for k, value in node.items() if k.rpartition("/")[2] not in (*TIMED, "versions")}
    return [untimed(value) for value in node] if isinstance(node, list) else node
