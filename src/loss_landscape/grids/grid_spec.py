"""What all shards of a grid share: computed by the first of them, read by all."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loss_landscape.directions.directions import Directions
from loss_landscape.shards import shard_files
from loss_landscape.surface.strategy import EvaluationStrategy

ROUNDING = 1e-3  # of a direction's length, and of the loss at the origin, by which another machine's may differ


@dataclass(frozen=True, eq=False)
class Settled:
    """A grid's directions, axes, path and loss at the origin: their last bits may differ between machines."""

    origin: str  # a digest of it
    dtypes: str
    directions: Directions
    axes: tuple[np.ndarray, ...]
    path: EvaluationStrategy
    centre: float
    meta: Mapping[str, Any]

    @classmethod
    def read(cls, file: Path) -> Settled | None:
        """What was settled for the grid whose partial file is `file`, or None."""
        path = _place(file)
        if not path.exists():
            return None
        stored = torch.load(path, map_location="cpu", weights_only=True)
        about = json.loads(stored["about"])
        axes = tuple(np.array(axis, dtype=np.float64) for axis in about["axes"])
        directions = Directions(tuple(stored["directions"]), about["directions"])
        return cls(
            about["origin"],
            about["dtypes"],
            directions,
            axes,
            EvaluationStrategy(**about["strategy"]),
            float.fromhex(about["centre"]),
            about["meta"],
        )

    def published(self, file: Path) -> Settled:
        """What holds for the grid from now on: this, or what another process published first."""
        path = _place(file)
        about = {
            "origin": self.origin,
            "dtypes": self.dtypes,
            "directions": dict(self.directions.meta),
            "axes": [axis.tolist() for axis in self.axes],
            "strategy": asdict(self.path),
            "centre": self.centre.hex(),
            "meta": dict(self.meta),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".partial.{uuid.uuid4().hex}.{path.name}")
        torch.save({"directions": [d.cpu() for d in self.directions], "about": json.dumps(about)}, beside)
        try:
            os.link(beside, path)  # fails where the file is there already, unlike a rename
        except FileExistsError:
            pass
        except OSError:  # a file system without links: the last one holds, and what the other computes is not taken up
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        return Settled.read(file)

    def suits(self, other: Settled) -> bool:
        """Whether the two are of the same grid, but for rounding."""
        return (
            (self.origin, self.dtypes, len(self.directions), self.meta.keys())
            == (other.origin, other.dtypes, len(other.directions), other.meta.keys())
            and all(np.array_equal(own, its) for own, its in zip(self.axes, other.axes, strict=True))
            and _near(torch.tensor(self.centre), torch.tensor(other.centre))
            and all(_near(own, its) for own, its in zip(self.directions, other.directions, strict=True))
        )


def digest(tensor: Tensor) -> str:
    """The tensor's bits, in short."""
    return hashlib.blake2b(tensor.cpu().numpy().tobytes(), digest_size=16).hexdigest()


def forget(file: Path) -> None:
    """Remove `file`, in which a grid was kept that is whole now, with all that shards have put beside it."""
    for path in [*shard_files(file), file, _place(file)]:
        path.unlink(missing_ok=True)


def _place(file: Path) -> Path:
    return file.with_name(f"{file.stem}.settled.pt")


def _near(own: Tensor, other: Tensor) -> bool:
    own, other = own.double().cpu(), other.double().cpu()
    if not bool(own.isfinite().all() and other.isfinite().all()):
        return bool(torch.equal(own.nan_to_num(), other.nan_to_num()))
    return own.shape == other.shape and bool((own - other).norm() <= ROUNDING * own.norm())
