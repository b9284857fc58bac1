"""landscape.json: one landscape as a text that any program reads.

Its documented keys hold the last line, plane and volume, paths and curvature; there a number that is not finite is null, and
`nonfinite` says which it was. Beside them are the file's version, units, and by mode what is known of each landscape.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loss_landscape.files import UnreadableFileError, write_whole
from loss_landscape.results.grid import Grid
from loss_landscape.results.hessian_metrics import HessianMetrics
from loss_landscape.results.info import GridInfo
from loss_landscape.results.landscape import LOSS_KEYS, MODES, Landscape
from loss_landscape.results.trajectory import Trajectory
from loss_landscape.storage import strict_json
from loss_landscape.storage.records import LandscapeRecord

FORMAT, VERSION = "loss_landscape", 1

UNITS = {
    "X": "units of the first direction; one unit is landscapes.<mode>.relative_norms[0] lengths of the parameters",
    "Y": "units of the second direction",
    "Z": "units of the third direction",
    "loss": "the mean over the data, by what the loss itself divides by, plus the regulariser",
    "trajectory_data": "traj_1, traj_2, traj_3 in units of the trajectory's own directions, residuals in parameter space",
    "hessian": "eigenvalues and trace of the second derivative of the loss by the parameters",
}


def write_landscape(path: Path, record: LandscapeRecord) -> None:
    """Write a record, whole or not at all."""
    text = json.dumps(landscape_json(record), allow_nan=False)
    write_whole(path, lambda beside: beside.write_text(text + "\n", encoding="utf-8"))


def read_landscape(path: Path) -> LandscapeRecord:
    """A record that `write_landscape` wrote, or the program that these keys are from.

    Raises FileNotFoundError, and UnreadableFileError for what is damaged, something else, or of a newer version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    try:
        entries = strict_json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnreadableFileError(f"{path} is no JSON, or was cut off ({error}); export it again") from error
    if not isinstance(entries, dict) or not entries.keys() & {*LOSS_KEYS, "trajectory_data", "hessian", "format"}:
        raise UnreadableFileError(f"{path} is no landscape: it has none of the keys {', '.join(LOSS_KEYS)}")
    version = entries.get("version", VERSION)
    if isinstance(version, int) and version > VERSION:
        raise UnreadableFileError(
            f"{path} is of version {version}, newer than {VERSION}, which this loss_landscape reads: pip install "
            "--upgrade taskshift"
        )
    try:
        return _record(entries)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnreadableFileError(f"{path} is a damaged landscape ({type(error).__name__}: {error}); export it again") from error


def landscape_json(record: LandscapeRecord) -> dict[str, Any]:
    """What the file holds, as JSON can hold it."""
    nonfinite: dict[str, list[Any]] = {}
    entries = {"format": FORMAT, "version": VERSION, **_documented(record)}
    told = {key: _with_nulls(value, key, nonfinite) for key, value in entries.items()}
    landscapes = {mode: {**grid.meta, "predicted": _predicted(grid)} for mode, grid in record.grids.items()}
    return {
        **told,
        "units": UNITS,
        "nonfinite": nonfinite,
        "landscapes": strict_json.encoded(landscapes),
        "trajectories": [strict_json.encoded(path.to_json()) for path in record.trajectories],
        "hessians": [strict_json.encoded(metrics.to_json()) for metrics in record.hessians],
        "metadata": strict_json.encoded(record.metadata),
    }


def _documented(record: LandscapeRecord) -> dict[str, Any]:
    """The documented keys: those of a plane, else of a line, then a line's own, a volume's, the path and the curvature."""
    shown = {mode: Landscape(grid).documented() for mode, grid in record.grids.items()}
    line, plane, volume = (shown.get(mode, {}) for mode in MODES)
    entries: dict[str, Any] = {}
    if line:
        own = {"X": "X_1d", "baseline_loss": "baseline_loss_1d", "grid_size": "grid_size_1d"}
        entries |= {own.get(key, key): value for key, value in line.items() if key not in ("range_scale", "mode")}
    flat = plane or line
    entries |= {key: flat[key] for key in flat if key not in ("mode", "range_scale")}
    if flat:
        entries["mode"] = "+".join(mode for mode in MODES[:2] if mode in shown)
    if volume:
        places = dict(zip(("volume_x", "volume_y", "volume_z"), record.grids["3d"].coordinates, strict=True))
        entries |= {
            "Z": volume["Z"],
            "loss_grid_3d": volume["loss_grid_3d"],
            **places,
            "baseline_loss_3d": volume["baseline_loss"],
        }
    if record.trajectories:
        entries["trajectory_data"] = record.trajectories[-1].documented()
    if record.hessians:
        columns = [metrics.documented() for metrics in record.hessians]
        entries["hessian"] = {key: [one for column in columns for one in column[key]] for key in columns[0]}
    return entries


def _with_nulls(value: Any, key: str, nonfinite: dict[str, list[Any]]) -> Any:
    """`value` as nested lists, null in the place of numbers that are not finite, which go into `nonfinite` by place."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {name: _with_nulls(one, f"{key}.{name}", nonfinite) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_with_nulls(one, f"{key}[{at}]", nonfinite) for at, one in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        top, _, place = key.partition("[")
        nonfinite.setdefault(top, []).append([f"[{place}" if place else "", repr(value)])
        return None
    return value


def _predicted(grid: Grid) -> list[int]:
    """The cells that were predicted, in the order of the flattened array."""
    return np.flatnonzero(~grid.evaluated).tolist()


def _record(entries: Mapping[str, Any]) -> LandscapeRecord:
    known = entries.get("landscapes", {})
    grids = {
        mode: _grid(entries, mode, known.get(mode, {})) for mode, key in zip(MODES, LOSS_KEYS, strict=True) if key in entries
    }
    trajectories = tuple(Trajectory.from_json(path) for path in entries.get("trajectories", ()))
    hessians = tuple(HessianMetrics.from_json(metrics) for metrics in entries.get("hessians", ()))
    if not all(path.points for path in trajectories) or not all(metrics.eigenvalues for metrics in hessians):
        raise ValueError("a path without points, or curvature without eigenvalues")
    return LandscapeRecord(grids, trajectories, hessians, dict(entries.get("metadata", {})))


def _grid(entries: Mapping[str, Any], mode: str, meta: Mapping[str, Any]) -> Grid:
    key = LOSS_KEYS[MODES.index(mode)]
    losses = np.array(entries[key], dtype=np.float64)  # null becomes NaN
    for place, value in entries.get("nonfinite", {}).get(key, ()):
        losses[tuple(int(at) for at in place.strip("[]").split("]["))] = float(value)
    coordinates = [np.array(axis, dtype=np.float64) for axis in meta["coordinates"]] if meta else _axes(entries, mode)
    evaluated = np.ones(losses.size, dtype=bool)
    evaluated[list(meta.get("predicted", ()))] = False
    info = {name: entry for name, entry in meta.items() if name != "predicted"} or {"baseline_loss": _baseline(entries, mode)}
    return Grid(losses, tuple(coordinates), GridInfo.from_json(info), evaluated.reshape(losses.shape))


def _axes(entries: Mapping[str, Any], mode: str) -> Sequence[np.ndarray]:
    """The coordinates of a file that has the documented keys alone."""
    if mode == "1d":
        return [np.array(entries.get("X_1d", entries.get("X")), dtype=np.float64)]
    if mode == "2d":
        first, second = (np.array(entries[key], dtype=np.float64) for key in ("X", "Y"))
        return [first[:, 0], second[0]]
    return [np.array(entries[key], dtype=np.float64) for key in ("volume_x", "volume_y", "volume_z")]


def _baseline(entries: Mapping[str, Any], mode: str) -> float | None:
    found: float | None = entries.get({"1d": "baseline_loss_1d", "2d": "baseline_loss", "3d": "baseline_loss_3d"}[mode])
    return found
