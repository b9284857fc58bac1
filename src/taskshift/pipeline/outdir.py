"""The folder that a pipeline writes to: where it is, whose it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from taskshift.config.words import shown
from taskshift.faults import Fault
from taskshift.identity import flattened
from taskshift.intact import write_text
from taskshift.run_folder import disk_faults, held

FREE = ("use_wandb", "wandb", "recorder", "data.root", "data.download", "lla.logging.out_root", "lla.logging.wandb")
"""Keys on which no number depends, with all that is below them."""

FREE_RUNTIME = ("device", "workers", "pbar", "abort_if_estimated_hours_over")
"""Keys of `lla.runtime` that may change from one command to the next; `fp16` may not."""

CONFIG, LOCK = "config.yaml", ".lock"


def looked_up(path: str | Path, root: Path) -> Path:
    """Where an existing file or folder is: below the working directory, else below `root`."""
    for place in (Path(path), root / path):
        if place.exists():
            return place
    raise Fault(f"{path}: there is no such file in {Path.cwd()}, nor in {root}")


def place_for(path: str | Path, root: Path) -> Path:
    """Where a folder that may not exist yet is to be: below the working directory or `root`, where it or its parent is there."""
    places = (Path(path), root / path)
    there = [place for place in places if place.exists()] or [place for place in places if place.parent.exists()]
    return there[0] if there else places[0]


@contextmanager
def taken(outdir: Path, config: Mapping[str, Any]) -> Iterator[None]:
    """Hold `outdir` for this config; raises Fault where it is another's, is at work, or cannot be written."""
    with disk_faults(outdir):
        _refuse_a_stranger(outdir)
        _make(outdir)
        with held(outdir, "give another --outdir"):
            known = outdir / CONFIG
            if known.exists():
                _refuse_another(yaml.safe_load(known.read_text(encoding="utf-8")), config, outdir)
            else:
                write_text(known, yaml.safe_dump(dict(config), sort_keys=False))
            yield


def _make(outdir: Path) -> None:
    try:
        outdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Fault(f"--outdir {outdir}: this folder cannot be made ({error.strerror}); give one that can be written") from error


def _refuse_a_stranger(outdir: Path) -> None:
    if not outdir.exists() or (outdir / CONFIG).exists():
        return
    if not outdir.is_dir() or any(entry.name != LOCK and not entry.name.startswith(".partial.") for entry in outdir.iterdir()):
        raise Fault(f"{outdir} exists and is no folder of this pipeline; give another --outdir, or move it away")


def _refuse_another(old: Mapping[str, Any], new: Mapping[str, Any], outdir: Path) -> None:
    before, after = identity(old), identity(new)
    sentences = [
        f"{key}: it was begun with {_said(before, key)}, this command says {_said(after, key)}"
        for key in sorted(before.keys() | after.keys())
        if _said(before, key) != _said(after, key)
    ]
    if sentences:
        raise Fault(f"{outdir} holds another analysis; give another --outdir, or the settings it has:", *sentences)


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the numbers of an outdir depend on, as dotted keys; which evaluators are switched on is none of it."""
    free = (*FREE, *(f"lla.runtime.{name}" for name in FREE_RUNTIME))
    flat = dict(flattened(config))
    return {key: value for key, value in flat.items() if not key.endswith(".enable") and not _below(key, free)}


def _below(key: str, tops: Sequence[str]) -> bool:
    return any(key == top or key.startswith(f"{top}.") for top in tops)


def _said(flat: Mapping[str, Any], key: str) -> str:
    return shown(flat[key]) if key in flat else "no such key"
