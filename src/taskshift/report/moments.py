"""The moments of a run's page: what was measured at each task's end, read from the evaluators' folders."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from loss_landscape.files import DAMAGED, UnreadableFileError
from loss_landscape.page.content import CurveView, Moment, PathView, PlaneView, SpectrumView
from loss_landscape.results.grid import Grid
from taskshift.faults import Fault
from taskshift.intact import damaged, read_any_json
from taskshift.report.curvature import LARGEST, bears
from taskshift.report.trend import Row
from taskshift.report.trust import Place
from taskshift.report.words import number, share
from taskshift.run_folder import task_of
from taskshift.summary import plane_folders

LABELS = {
    "trajectory": "the path of training",
    "random": "random directions",
    "hessian": "the Hessian's eigenvectors",
    "sam": "SAM: the loss one ascent step away",
}
"""Kind of plane → what one chooses it by, in this order."""

GONE = "measure it again, or take its folder away"


START = "start/"
"""Before the kind of a plane that was measured at a task's start."""


def planes_of(folder: Path) -> dict[Place, Grid]:
    """(kind, task) → that grid, those at the tasks' starts too; raises Fault for one that is damaged."""
    places = plane_folders(folder) | {
        (f"{START}{kind}", task): path for (kind, task), path in plane_folders(folder, "start").items()
    }
    found = {}
    for place, path in places.items():
        try:
            found[place] = Grid.load(path)
        except UnreadableFileError as error:
            raise Fault(f"{error}; {GONE}") from error
    return found


def moment_of(task: int, row: Row, *, folder: Path | None, planes: Mapping[Place, Grid], threshold_name: str) -> Moment:
    """The moment at the end of `task`, whose evaluators wrote into `folder`; None: they wrote nothing."""
    own = {kind: grid for (kind, at), grid in planes.items() if at == task}
    views = [_plane(kind, own[kind]) for kind in sorted(own, key=_order)]
    spectrum = None if folder is None else _spectrum(folder / "spectrum", row, threshold_name)
    connection = () if folder is None else _connection(folder / "mode_connectivity" / "metrics.json")
    return Moment(task, " · ".join([f"task {task}", *_captions(row)]), tuple(views), spectrum=spectrum, connection=connection)


def _plane(kind: str, grid: Grid) -> PlaneView:
    plain, paths = kind.removeprefix(START), PathView.along(grid)
    label = LABELS.get(plain, plain)
    if plain == kind:
        return PlaneView(kind, label, grid, paths)
    return PlaneView(kind, f"{label}, at the task’s start", grid, paths, "start")


def _order(kind: str) -> tuple[bool, int, str]:
    """Ends before starts, and in each those that are known before others."""
    known, plain = list(LABELS), kind.removeprefix(START)
    return kind.startswith(START), known.index(plain) if plain in known else len(known), plain


def analyses_of(folder: Path) -> dict[int, Path]:
    """Task → the folder of its evaluators at its end."""
    return {task_of(path): path for path in sorted(folder.glob("task_[0-9]*_*")) if path.is_dir()}


def _captions(row: Row) -> list[str]:
    accuracy = row.get("plasticity/test_accuracy", row.get("test_accuracy", row.get("task_last_epoch_accuracy")))
    facts = [] if accuracy is None else [share(accuracy)]
    facts += [f"loss {number(row['task_last_epoch_loss'])}"] if accuracy is None and "task_last_epoch_loss" in row else []
    facts += [f"λ₁ {number(row[LARGEST.name])}"] if LARGEST.name in row else []
    return facts


def _spectrum(folder: Path, row: Row, threshold_name: str) -> SpectrumView | None:
    """Eigenvalues and density as the evaluator wrote them; None where it did not."""
    if not (folder / "metrics.json").exists():
        return None
    said = read_any_json(folder / "metrics.json", GONE)
    values, residuals = _floats(said.get("eigenvalues")), _floats(said.get("residuals"))
    radius = max((abs(value) for value in values if math.isfinite(value)), default=math.nan)
    errors = tuple(residual * radius for residual in residuals)
    x, density = _density(folder / "quadrature.npz")
    threshold = bears(row)
    scaled = threshold is None and math.isfinite(row.get("spectrum/stability_threshold", math.nan))
    note = "The optimizer scales each direction, so that its threshold is on no scale of these λ." if scaled else ""
    return SpectrumView(values, errors, tuple(said.get("converged", ())), x, density, threshold, threshold_name, note)


def _density(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if not path.exists():
        return np.zeros(0), np.zeros(0)
    try:
        with np.load(path) as arrays:
            return arrays["x"], arrays["density"]
    except DAMAGED as error:
        raise damaged(path, str(error), GONE) from error


def _connection(path: Path) -> tuple[CurveView, ...]:
    if not path.exists():
        return ()
    said: Mapping[str, Any] = read_any_json(path, GONE)
    t = np.array(said.get("t", ()), dtype=float)
    return tuple(CurveView(name, t, np.array(losses, dtype=float)) for name, losses in said.get("losses", {}).items())


def _floats(values: list[float] | None) -> tuple[float, ...]:
    return tuple(float(value) for value in values or ())
