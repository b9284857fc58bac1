"""Where a run comes from: versions, code, machine, command."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from taskshift.run_folder import identity

PACKAGES = ("taskshift", "torch", "torchvision", "numpy", "scipy", "hydra-core", "omegaconf", "wandb")


CONFIG_FLAGS = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn")
"""Hydra's options that decide which configs a command sees."""


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


def resume_command(argv: Sequence[str], overrides: Sequence[str], run_name: str) -> str:
    """The command that goes on with a run: the program and config folders of `argv`, the run's own overrides and name."""
    start = ["taskshift", "train"] if Path(argv[0]).name == "taskshift" else ["python", argv[0]]
    words = [word for word in overrides if not word.startswith("run_name=")]
    return shlex.join([*start, *_config_folders(argv[1:]), *words, f"run_name={run_name}"])


def _config_folders(words: Sequence[str]) -> Iterator[str]:
    """What of a command line says where configs are found."""
    for place, word in enumerate(words):
        if word in CONFIG_FLAGS:
            yield from words[place : place + 2]
        elif word.startswith((*(f"{flag}=" for flag in CONFIG_FLAGS), "hydra.searchpath=")):
            yield word


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
