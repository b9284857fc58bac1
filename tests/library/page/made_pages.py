"""Pages made by hand: runs of several tasks, cells that are not finite, hostile names."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from loss_landscape.page.content import (
    Card,
    Chart,
    CurveView,
    LineView,
    MatrixView,
    Moment,
    Page,
    Panel,
    PathView,
    PlaneView,
    RunView,
    Series,
    SpectrumView,
    Table,
)
from loss_landscape.results.grid import Grid
from loss_landscape.results.info import DirectionInfo, FloatNoise, GridInfo, PlanePoint

HOSTILE = '</script><script>window.PWNED=1</script><img src=x onerror="window.PWNED=1"> <!-- {{7*7}} ${x} <b>b</b>'
KINDS = ("trajectory", "random", "hessian", "sam")


def noisy_plane(side: int = 41, *, seed: int = 0, kind: str = "random", rho: float | None = None) -> Grid:
    """A bowl over some decades, with the rounding of float32 on it, off its centre and of other curvatures for each seed."""
    draw = np.random.default_rng(seed)
    axis = np.linspace(-1.0, 1.0, side)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    along, across, bend = draw.uniform(0.5, 4.0, 3)
    losses = 0.02 + along * (x - 0.2) ** 2 + across * (y + 0.1 + 0.3 * x**2) ** 2 + 0.05 * np.sin(3 * bend * x) ** 2
    losses = losses * (1 + 6e-8 * draw.standard_normal(losses.shape))
    directions = DirectionInfo(kind, norms=(3.0, 3.0), origin_norm=10.0, normalization="filter")
    centre = float(losses[side // 2, side // 2])
    return Grid(losses, (axis, axis), GridInfo(directions, baseline_loss=centre, rho=rho, noise=FloatNoise(1e-7)))


def path_view(num_points: int = 10, name: str = "training") -> PathView:
    """A way into the middle, whose shadow's loss is a little below its own."""
    ways = np.linspace(0.9, 0.0, num_points)
    points = tuple(
        PlanePoint((-way, 0.3 * way**2 - 0.2 * way), 25.0 * i, 0.3 * way, 0.05 + way**2, 0.04 + 0.8 * way**2)
        for i, way in enumerate(ways)
    )
    return PathView(name, points, (0.84, 0.14))


def spectrum_view(seed: int = 0) -> SpectrumView:
    """A bulk at 0 and some eigenvalues apart from it."""
    x = np.linspace(-0.5, 7.0, 1500)
    places = (0.0, 1.5, 2.5, 4.0 + 0.1 * seed, 6.5)
    weights = (1.0, 1e-3, 1e-4, 1e-4, 1e-4)
    density = sum(weight * np.exp(-(((x - place) / 0.05) ** 2)) for place, weight in zip(places, weights, strict=True))
    values = (6.5, 4.0 + 0.1 * seed, 2.5, -0.2)
    return SpectrumView(values, (1e-4, 1e-3, 0.05, 1e-3), (True, True, False, True), x, density, 8.0, note="10 probes.")


def volume_grid(side: int = 15) -> Grid:
    """A bowl in three directions."""
    axis = np.linspace(-1.0, 1.0, side)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    return Grid(0.01 + x**2 + 2 * y**2 + 3 * (z - 0.2) ** 2, (axis, axis, axis), GridInfo(DirectionInfo("random")))


def line_grid(seed: int = 0) -> Grid:
    """A valley with walls."""
    axis = np.linspace(-1.0, 1.0, 51)
    return Grid(0.02 + (1 + seed) * axis**2 + 0.3 * axis**4, (axis,), GridInfo(DirectionInfo("random"), baseline_loss=0.02))


def moment(number: int, *, side: int = 41, kinds: tuple[str, ...] = KINDS, whole: bool = True) -> Moment:
    """A task's end, with everything if it is `whole`, else with planes alone."""
    planes = tuple(
        PlaneView(
            kind,
            f"{kind} plane",
            noisy_plane(side, seed=10 * number + at, kind=kind, rho=0.1 if kind == "sam" else None),
            (path_view(),) if kind == "trajectory" else (),
        )
        for at, kind in enumerate(kinds)
    )
    if not whole:
        return Moment(number, planes=planes)
    t = np.linspace(0.0, 1.0, 21)
    hump = 0.1 + 2.0 * t * (1 - t)
    return Moment(
        number,
        f"{97 - number / 10:.1f} % · λ₁ {6.5 + number:.3g}",
        planes,
        (LineView("random", line_grid()), LineView("gradient", line_grid(3))),
        volume_grid(),
        spectrum_view(number),
        (CurveView("straight line", t, hump), CurveView("fitted curve", t, 0.1 + 0.1 * hump)),
    )


def run_view(num_tasks: int = 4, *, name: str = "a run", whole: bool = True, lr: str = "0.1") -> RunView:
    """A run of some tasks; if it is not `whole`, one that measured planes alone."""
    moments = tuple(moment(number, whole=whole) for number in range(num_tasks))
    accuracy = tuple(0.97 - 0.002 * task for task in range(num_tasks))
    series = Series("test", accuracy, lower=tuple(a - 0.01 for a in accuracy), upper=tuple(a + 0.01 for a in accuracy))
    charts = (
        Chart("Accuracy", (series, Series("last epoch", tuple(a + 0.01 for a in accuracy))), unit="%"),
        Chart("λ₁", (Series("λ₁", tuple(6.5 * 1.3**task for task in range(num_tasks))),), logarithmic=True),
    )
    over = Panel("Over the tasks", charts, "A point is the end of a task.", "Why it moved: tasks differ.")
    ranks = Panel(
        "Ranks and units",
        (Chart("Effective rank", (Series("layer 1", tuple(20.0 + task for task in range(num_tasks))),)),),
        "A low rank means few features.",
        "Whether the task needs more.",
    )
    barriers = np.abs(np.subtract.outer(np.arange(num_tasks), np.arange(num_tasks))) * 0.3
    matrix = MatrixView("Barriers", tuple(f"task {i}" for i in range(num_tasks)), barriers, "Dark is no barrier.", "Other ways.")
    table = Table(
        "All numbers by task", ("task", "accuracy", "note"), tuple((i, a, "as it should") for i, a in enumerate(accuracy))
    )
    return RunView(
        name,
        "4 tasks · permuted",
        cards=cards(),
        moments=moments,
        over=(over,) if whole else (),
        further=(ranks,) if whole else (),
        matrices=(matrix,) if whole and num_tasks > 1 else (),
        settings=(("learner", "backprop"), ("lr", lr)),
        tables=(table,),
    )


def cards() -> tuple[Card, ...]:
    """One card of each answer."""
    falling = tuple(0.97 - 0.01 * task for task in range(6))
    return (
        Card(
            "Is it losing plasticity?", "no", "97.4 % ± 0.3 %", "first task 95.4 %", "The slope.", "Tasks differ.", series=falling
        ),
        Card("Is the curvature growing?", "yes", "λ₁ 6.5 ± 0.01", "first task 2.1", "The slope.", "Rescaling.", logarithmic=True),
        Card("Are features collapsing?", "cannot tell", "rank 23", "first task 20", "Too few.", "A need.", "More tasks."),
        Card("Can the pictures be trusted?", "yes", "over 1000 ×", "", "Noise.", "Sampling.", worrying="no"),
    )


def made_page(num_tasks: int = 4, *, runs: int = 1, whole: bool = True) -> Page:
    """A page of some runs."""
    views = tuple(run_view(num_tasks, name=f"run {i}", whole=whole, lr=f"0.{i + 1}") for i in range(runs))
    return Page("a page", views, "made by hand")


def long_page(num_tasks: int = 500) -> Page:
    """A run of many tasks with three planes of 101² each, and the curves of all its epochs."""
    moments = tuple(moment(number, side=101, kinds=KINDS[:3], whole=False) for number in range(num_tasks))
    [panel] = run_view(2).over
    charts = tuple(
        replace(chart, series=tuple(Series(each.name, each.values * (num_tasks // 2)) for each in chart.series))
        for chart in panel.charts
    )
    name = f"{num_tasks} tasks"
    run = run_view(num_tasks, name=name, whole=False)
    return Page(name, (replace(run, moments=moments, over=(replace(panel, charts=charts),)),))


def unequal_page() -> Page:
    """Two runs of different numbers of tasks, resolutions and evaluators."""
    short = tuple(moment(number, side=21, kinds=("random",), whole=False) for number in range(2))
    return Page("unequal", (run_view(4, name="long"), RunView("short", cards=cards(), moments=short)))


def unfinished_page() -> Page:
    """A page whose planes, lines and curves have NaN and infinite cells, one plane none that is finite."""
    grid = noisy_plane()
    losses = grid.losses.copy()
    losses[:6, :6], losses[20, 30:], losses[30:, 35:] = math.nan, math.inf, -math.inf
    broken = Grid(losses, grid.coordinates, grid.info)
    lost = Grid(np.full((41, 41), math.inf), grid.coordinates, GridInfo(DirectionInfo("hessian"), baseline_loss=math.nan))
    line = line_grid()
    torn = Grid(np.where(np.arange(51) > 40, math.nan, line.losses), line.coordinates, line.info)
    values = (0.9, math.nan, 0.7, math.inf, None)
    chart = Chart("Loss", (Series("loss", values, lower=values, upper=values),))
    moments = tuple(
        Moment(
            i, planes=(PlaneView("random", "random", broken), PlaneView("hessian", "Hessian", lost)), lines=(LineView("r", torn),)
        )
        for i in range(5)
    )
    spectrum = SpectrumView((math.nan, 2.0), (math.nan, math.inf), (False, False))
    last = Moment(
        5, planes=moments[0].planes, spectrum=spectrum, volume=Grid(np.full((3, 3, 3), math.nan), (np.arange(3.0),) * 3)
    )
    return Page("not finite", (RunView("run", moments=(*moments, last), over=(Panel("Over", (chart,), "read", "not"),)),))


def hostile_page() -> Page:
    """A page in which everything that a user can name is hostile."""
    x = HOSTILE
    plane = PlaneView(x, x, noisy_plane(9), (path_view(3, x), path_view(4, x)))
    one = Moment(0, x, (plane,), (LineView(x, line_grid()), LineView(x, line_grid(1))), None, spectrum_view())
    chart = Chart(x, (Series(x, (1.0, 2.0)), Series(x, (2.0, 1.0))), unit=x)
    card = Card(x, "yes", x, x, x, x, x, series=(1.0, 2.0))
    run = RunView(
        x,
        x,
        cards=(card,),
        moments=(one, Moment(1, x, (plane,), connection=(CurveView(x, np.arange(3.0), np.ones(3)),) * 2)),
        over=(Panel(x, (chart,), x, x),),
        matrices=(MatrixView(x, (x, x), np.ones((2, 2)), x, x, x),),
        settings=((x, x),),
        tables=(Table(x, (x, x), ((x, x),), x, folded=False),),
    )
    return Page(x, (run, run), x, (card,), (Table(x, (x,), ((x,),)),))
