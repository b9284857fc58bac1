"""Where a run comes from: versions, code, machine, command."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from taskshift.run_folder import identity

PACKAGES = ("taskshift", "torch", "torchvision", "numpy", "scipy", "hydra-core", "omegaconf", "wandb")


def describe_run(config: Mapping[str, Any], command: str, device: torch.device) -> dict[str, Any]:
    """What `run.json` says of a new run."""
    return {
        "run_name": config["run_name"],
        "seed": config["seed"],
        "config_hash": config_hash(config),
        "command": command,
        "device": str(device),
        "cpu": cpu_model(),
        "git": git_state(Path(__file__).parent),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "config": dict(config),
    }


def config_hash(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits of what makes a run what it is."""
    return hashlib.sha256(json.dumps(identity(config), sort_keys=True, default=str).encode()).hexdigest()[:8]


def default_run_name(config: Mapping[str, Any], now: datetime) -> str:
    """Date and time to the second, the config's hash, the seed."""
    return f"{now:%Y-%m-%d_%H-%M-%S}_{config_hash(config)}_seed{config['seed']}"


def cpu_model() -> str:
    """The processor's name: another one may give other last bits."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the code and whether it was changed since, or None outside a repository."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
