"""What a page shows, before it is a page: cards, moments with their pictures, curves over the moments, tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from loss_landscape.interpretation.hints import Answer
from loss_landscape.results.grid import Grid
from loss_landscape.results.info import PlanePoint
from loss_landscape.results.trajectory import Trajectory

Number = float | int | None
"""None where nothing was measured; NaN and the infinities are values like any other."""

Cell = str | Number


@dataclass(frozen=True)
class Card:
    """A question that is answered in the first five seconds.

    `headline` is the number that the `answer` rests on, with its error; `context` what it is to be compared with. `evidence` says
    how the answer came about, `limits` what it can't tell, `settled_by` what would. `worrying` is the answer that should worry,
    None where none should. `series` is drawn small beside the headline, on a logarithmic scale if `logarithmic`.
    """

    question: str
    answer: Answer
    headline: str
    context: str
    evidence: str
    limits: str
    settled_by: str = ""
    worrying: Literal["yes", "no"] | None = "yes"
    series: tuple[Number, ...] = ()
    logarithmic: bool = False


@dataclass(frozen=True)
class PathView:
    """A way of training on a plane: its `points`, first to last, each with its own loss beside the plane's where they are known.

    `explained_variance` is the share of the path's variance along each axis. `clock` says what a point's step counts.
    """

    name: str
    points: tuple[PlanePoint, ...]
    explained_variance: tuple[float, ...] = ()
    clock: str = "step"

    @classmethod
    def of(cls, path: Trajectory) -> PathView:
        """That of a path of checkpoints, whose steps are epochs."""
        points = tuple(PlanePoint(at.coordinates, at.epoch, at.residual, at.loss, at.plane_loss) for at in path.points)
        return cls(path.name, points, tuple(path.directions.explained_variance or ()), "epoch")

    @classmethod
    def along(cls, grid: Grid) -> tuple[PathView, ...]:
        """The path that a plane's directions were made from; none where they were made otherwise."""
        info = grid.info.directions
        return (cls("training", info.trajectory, tuple(info.explained_variance or ())),) if info.trajectory else ()


@dataclass(frozen=True, eq=False)
class PlaneView:
    """A plane of two axes, with the paths on it.

    Planes of one `kind` are the same picture at other moments and of other runs: they share a place in the page and a colour
    scale. `label` is what one chooses it by, `when` the part of the moment that it is of, such as its "start", if it is no whole.
    """

    kind: str
    label: str
    grid: Grid
    paths: tuple[PathView, ...] = ()
    when: str = ""


@dataclass(frozen=True, eq=False)
class LineView:
    """Losses along one direction, a `grid` of one axis; its `name` tells several apart."""

    name: str
    grid: Grid


@dataclass(frozen=True, eq=False)
class CurveView:
    """Losses [T] between two nets at `t` [T] from 0 to 1, along the straight line or a fitted curve, as its `name` says."""

    name: str
    t: np.ndarray
    losses: np.ndarray


@dataclass(frozen=True, eq=False)
class SpectrumView:
    """Eigenvalues of a Hessian, and their density.

    `eigenvalues` were found one by one, with `errors` (residuals, in units of λ) and whether each `converged`. `density` [N] at
    `x` [N] is that of all; both are empty where it was not estimated. `threshold` is the curvature above which the optimizer's
    steps overshoot, as `threshold_name` has it.
    """

    eigenvalues: tuple[float, ...] = ()
    errors: tuple[float, ...] = ()
    converged: tuple[bool, ...] = ()
    x: np.ndarray = field(default_factory=lambda: np.zeros(0))
    density: np.ndarray = field(default_factory=lambda: np.zeros(0))
    threshold: float | None = None
    threshold_name: str = "2/η"
    note: str = ""


@dataclass(frozen=True, eq=False)
class Moment:
    """What was measured of a net at one moment of a run, such as the end of a task.

    `number` is its place on the axis that the run's curves share, `caption` what the slider says of it in a few words. Only these
    two are read before one looks at it.
    """

    number: float
    caption: str = ""
    planes: tuple[PlaneView, ...] = ()
    lines: tuple[LineView, ...] = ()
    volume: Grid | None = None
    spectrum: SpectrumView | None = None
    connection: tuple[CurveView, ...] = ()


@dataclass(frozen=True)
class Series:
    """A quantity over the moments of a run: a value for each `x`, or for each moment where `x` is empty.

    `name` stands in the legend. `lower` and `upper` bound a band around the values, `members` are single curves that are drawn
    thin behind them, such as those of each seed.
    """

    name: str
    values: tuple[Number, ...]
    x: tuple[float, ...] = ()
    lower: tuple[Number, ...] = ()
    upper: tuple[Number, ...] = ()
    members: tuple[tuple[Number, ...], ...] = ()


@dataclass(frozen=True)
class Chart:
    """Series on one pair of axes; the charts of several runs that have one `title` are laid over each other.

    `unit` is written at the axis ("%" multiplies by 100). `logarithmic` scales hold where every value is above 0.
    """

    title: str
    series: tuple[Series, ...]
    unit: str = ""
    logarithmic: bool = False


@dataclass(frozen=True)
class Panel:
    """Charts under one heading, and what to `read` in them, and what they `cannot_tell`."""

    title: str
    charts: tuple[Chart, ...]
    read: str
    cannot_tell: str


@dataclass(frozen=True, eq=False)
class MatrixView:
    """Values [N, N] between the nets that `labels` name, such as the barriers between those of all tasks; NaN: not measured."""

    title: str
    labels: tuple[str, ...]
    values: np.ndarray
    read: str
    cannot_tell: str
    unit: str = "loss"


@dataclass(frozen=True)
class Table:
    """Rows of cells under `columns`, the first of which names the row; `folded` until it is opened, if `folded`."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    folded: bool = True


@dataclass(frozen=True, eq=False)
class RunView:
    """One run, or one net, or the seeds of one configuration.

    `name` and `facts` stand at its head. `moments` are what the slider goes through, `clock` what it counts ("task", "epoch").
    `over` are panels of curves over the moments that come before the pictures of a moment, `further` those after its spectrum.
    `settings` are what it was made with, in order: of several runs the differing ones are shown first.
    """

    name: str
    facts: str = ""
    clock: str = "task"
    cards: tuple[Card, ...] = ()
    moments: tuple[Moment, ...] = ()
    over: tuple[Panel, ...] = ()
    further: tuple[Panel, ...] = ()
    matrices: tuple[MatrixView, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True, eq=False)
class Page:
    """A whole page: `runs` side by side, with `cards` and `tables` of all of them together, such as a sweep's comparisons."""

    title: str
    runs: Sequence[RunView]
    subtitle: str = ""
    cards: tuple[Card, ...] = ()
    tables: tuple[Table, ...] = ()
