"""What all shards of a grid share: computed by the first of them, read by all."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from loss_landscape.files import read_arrays, write_arrays, write_first
from loss_landscape.results.directions import Directions
from loss_landscape.results.info import DirectionInfo, SpanSearch
from loss_landscape.shards import shard_files
from loss_landscape.surface.strategy import EvaluationStrategy

TOLERANCE = 1e-3  # of a direction's length, of ρ and of the two losses, by which another machine's may differ


@dataclass(frozen=True, eq=False)
class GridSpec:
    """A grid's directions, axes, ρ, strategy, losses at the origin and a corner: their last bits may differ between machines."""

    origin: str  # a digest of it
    dtypes: str
    directions: Directions
    axes: tuple[np.ndarray, ...]
    rho: float | None
    strategy: EvaluationStrategy
    baseline: float
    corner: float
    span_found: SpanSearch | None

    @classmethod
    def load(cls, file: Path) -> GridSpec | None:
        """The spec of the grid whose partial file is `file`, or None where there is none yet."""
        place = _place(file)
        if not place.exists():
            return None
        arrays, facts = read_arrays(place)
        vectors = tuple(torch.from_numpy(arrays[f"direction_{d}"]) for d in range(facts["num_directions"]))
        search = facts["span_found"]
        return cls(
            facts["origin"],
            facts["dtypes"],
            Directions(vectors, DirectionInfo.from_json(facts["directions"])),
            tuple(arrays[f"axis_{d}"] for d in range(facts["num_axes"])),
            None if facts["rho"] is None else float.fromhex(facts["rho"]),
            EvaluationStrategy(**facts["strategy"]),
            float.fromhex(facts["baseline"]),
            float.fromhex(facts["corner"]),
            None if search is None else SpanSearch.from_json(search),
        )

    def save_first(self, file: Path) -> GridSpec:
        """What holds for the grid from now on: this, or what another process has saved before."""
        facts = {
            "origin": self.origin,
            "dtypes": self.dtypes,
            "directions": self.directions.info.to_json(),
            "rho": None if self.rho is None else self.rho.hex(),
            "strategy": asdict(self.strategy),
            "baseline": self.baseline.hex(),
            "corner": self.corner.hex(),
            "span_found": None if self.span_found is None else self.span_found.to_json(),
            "num_directions": len(self.directions),
            "num_axes": len(self.axes),
        }
        arrays = {f"axis_{d}": axis for d, axis in enumerate(self.axes)}
        arrays |= {f"direction_{d}": vector.cpu().numpy() for d, vector in enumerate(self.directions)}
        write_first(_place(file), partial(write_arrays, arrays=arrays, facts=facts))
        held = GridSpec.load(file)
        assert held is not None, "a spec was just saved"
        return held

    def matches(self, other: GridSpec) -> bool:
        """Whether the two are of the same grid, but for rounding."""
        return (
            (self.origin, self.dtypes, len(self.directions), len(self.axes), self.span_found is None, self.rho is None)
            == (other.origin, other.dtypes, len(other.directions), len(other.axes), other.span_found is None, other.rho is None)
            and all(np.array_equal(own, its) for own, its in zip(self.axes, other.axes, strict=True))
            and _near(torch.tensor(self.baseline), torch.tensor(other.baseline))
            and _near(torch.tensor(self.corner), torch.tensor(other.corner))
            and _near(torch.tensor(self.rho or 0.0), torch.tensor(other.rho or 0.0))
            and all(_near(own, its) for own, its in zip(self.directions, other.directions, strict=True))
        )


def delete_partial_files(file: Path) -> None:
    """Remove `file`, in which a grid was kept that is whole now, with all that shards have put beside it."""
    for path in [*shard_files(file), file, _place(file)]:
        path.unlink(missing_ok=True)


def _place(file: Path) -> Path:
    return file.with_name(f"{file.stem}.spec.npz")


def _near(own: Tensor, other: Tensor) -> bool:
    own, other = own.double().cpu(), other.double().cpu()
    if not bool(own.isfinite().all() and other.isfinite().all()):
        return bool(torch.equal(own.nan_to_num(), other.nan_to_num()))
    return own.shape == other.shape and bool((own - other).norm() <= TOLERANCE * own.norm())
