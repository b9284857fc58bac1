"""Where a run comes from: versions, code, machine, command."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from taskshift.identity import identity
from taskshift.plugin_code import plugin_files

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
        "source_hash": source_hash(tuple(config["plugins"])),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "config": dict(config),
    }


def config_hash(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits of what makes a run what it is."""
    return hashlib.sha256(json.dumps(identity(config), sort_keys=True, default=str).encode()).hexdigest()[:8]


@functools.cache
def source_hash(plugins: tuple[str, ...] = ()) -> str:
    """Eight hexadecimal digits of all code and configs that a run is made from, as they were when this was first asked.

    The files of `plugins`, modules by name, are part of it.
    """
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for top in (package, package.parent / "loss_landscape", package.parent / "hydra_plugins" / "taskshift_sweeps"):
        for path in sorted(path for path in top.rglob("*") if path.suffix in (".py", ".yaml")):
            digest.update(str(path.relative_to(package.parent)).encode() + path.read_bytes())
    for place, path in plugin_files(plugins).items():
        digest.update(str(place).encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def default_run_name(config: Mapping[str, Any], now: datetime) -> str:
    """Date and time to the second, the config's hash, the seed."""
    return f"{now:%Y-%m-%d_%H-%M-%S}_{config_hash(config)}_seed{config['seed']}"


def resume_command(argv: Sequence[str], overrides: Sequence[str], config: Mapping[str, Any]) -> str:
    """The command that goes on with a run, from wherever: the program and config folders of `argv`, the run's own words."""
    names = {key: config[key] for key in ("sweep_name", "run_name") if config[key] is not None}
    words = [word for word in overrides if word.partition("=")[0] not in ("sweep_name", "run_name")]
    own = [*_program(argv), *_config_folders(argv[1:]), *words, *(f"{key}={name}" for key, name in names.items())]
    return f"{shlex.join(['cd', os.getcwd()])} && {shlex.join(own)}"  # outputs and plugins are found from there


def _program(argv: Sequence[str]) -> list[str]:
    """What a command begins with: the program, and of `taskshift rerun` the saved run that it begins from."""
    if Path(argv[0]).name != "taskshift":
        return ["python", argv[0]]
    return ["taskshift", *argv[1:3]] if argv[1:2] == ["rerun"] else ["taskshift", "train"]


def _config_folders(words: Sequence[str]) -> Iterator[str]:
    """What of a command line says where configs are found."""
    for place, word in enumerate(words):
        if word in CONFIG_FLAGS:
            yield from words[place : place + 2]
        elif word.startswith((*(f"{flag}=" for flag in CONFIG_FLAGS), "hydra.searchpath=")):
            yield word


@functools.cache
def cpu_model() -> str:
    """The processor's name: another one may give other last bits."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


@functools.cache
def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the code and whether it was changed since, or None outside a repository; as it was when this was first asked."""
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


@functools.cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
