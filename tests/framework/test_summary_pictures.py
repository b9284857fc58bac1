"""The summary pictures hold the record's numbers, leave out what is missing, and stand a run that is not finished."""

import re

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.image import imread
from summary_runs import EPOCHS, NOT_FINITE, write_plane, write_run

from taskshift.pictures import summary
from taskshift.pictures.summary import draw_summary

ALWAYS = ["learning.png", "plasticity.png", "curvature.png", "ranks_and_units.png", "weights.png"]


@pytest.fixture
def figures(monkeypatch):
    """Name → figure of every picture that is drawn; nothing is rendered, which takes the time."""
    drawn = {}
    monkeypatch.setattr(summary, "save_figure", lambda path, figure: drawn.setdefault(path.name, figure))
    return drawn


def panel(figure, title):
    return next(axes for axes in figure.axes if axes.get_title().startswith(title))


def line(axes, label):
    """x and y of the line that the legend calls `label`."""
    handles, labels = axes.get_legend_handles_labels()
    handle = handles[labels.index(label)]
    return (handle[0] if isinstance(handle, tuple) else handle).get_data()


def error_bars(axes, label):
    """Half the length of each error bar of a line."""
    handles, labels = axes.get_legend_handles_labels()
    segments = handles[labels.index(label)][2][0].get_segments()
    return [(top[1] - bottom[1]) / 2 for bottom, top in segments]


def test_every_picture_is_written_and_returned(tmp_path):
    run = write_run(tmp_path / "run")
    write_plane(run, 0)
    drawn = draw_summary(run)
    assert drawn == [run / "summary" / name for name in [*ALWAYS, "planes.png"]]
    assert sorted(path.name for path in (run / "summary").iterdir()) == sorted([*ALWAYS, "planes.png"])
    assert all(imread(path).ndim == 3 for path in drawn)


def test_learning_shows_every_epoch_and_the_borders_of_the_tasks(tmp_path, figures):
    draw_summary(write_run(tmp_path / "run"))
    axes = panel(figures["learning.png"], "loss")
    x, y = line(axes, "train, as the examples came")
    np.testing.assert_array_equal(x, np.arange(1, 3 * EPOCHS + 1))
    np.testing.assert_allclose(y, [1.0 / (1 + epoch) + task for task in range(3) for epoch in range(EPOCHS)])
    borders = [drawn.get_xdata()[0] for drawn in axes.lines if len(drawn.get_xdata()) == 2]
    assert borders == [EPOCHS, 2 * EPOCHS]
    np.testing.assert_array_equal(line(panel(figures["learning.png"], "accuracy"), "test")[1], [0.4] * 9)


def test_learning_shows_the_validation_split_where_there_is_one(tmp_path, figures):
    run = write_run(tmp_path / "run")
    record = run / "metrics.jsonl"
    record.write_text(record.read_text().replace('"test_loss"', '"val_loss": 0.25, "test_loss"', 2))
    draw_summary(run)
    np.testing.assert_array_equal(line(panel(figures["learning.png"], "loss"), "validation"), [[1, 2], [0.25, 0.25]])
    assert "validation" not in panel(figures["learning.png"], "accuracy").get_legend_handles_labels()[1]


def test_the_heading_says_what_the_run_was(tmp_path, figures):
    draw_summary(write_run(tmp_path / "run"))
    assert {figure.get_suptitle() for figure in figures.values()} == {"run · permuted · mlp"}


def test_a_residual_becomes_an_error_of_the_eigenvalues_unit(tmp_path, figures):
    draw_summary(write_run(tmp_path / "run"))
    axes = panel(figures["curvature.png"], "largest eigenvalues")
    np.testing.assert_array_equal(line(axes, "no. 2")[1], [20.0] * 3)
    assert error_bars(axes, "no. 2") == pytest.approx([2e-3 * 40.0] * 3)  # −40 is the spectrum's radius


def test_the_trace_has_its_standard_error(tmp_path, figures):
    draw_summary(write_run(tmp_path / "run"))
    axes = panel(figures["curvature.png"], "trace")
    np.testing.assert_array_equal(line(axes, "at a task's end")[1], [800.0, 801.0, 802.0])
    assert error_bars(axes, "at a task's end") == pytest.approx([25.0] * 3)


def test_what_is_measured_at_a_tasks_start_stands_beside(tmp_path, figures):
    draw_summary(write_run(tmp_path / "run", **{"start/spectrum/trace": 5.0, "start/spectrum/trace_standard_error": 2.0}))
    axes = panel(figures["curvature.png"], "trace")
    x, y = line(axes, "at its start")
    assert (list(x), list(y)) == ([1], [5.0])
    assert error_bars(axes, "at its start") == pytest.approx([2.0])


def test_values_that_are_not_finite_are_counted_and_marked(tmp_path, figures):
    draw_summary(write_run(tmp_path / "run", **NOT_FINITE))
    axes = panel(figures["curvature.png"], "trace")
    assert axes.get_title().endswith("not finite: 1")
    np.testing.assert_array_equal(line(axes, "at a task's end")[1], [800.0, np.nan, 802.0])
    crosses = [drawn for drawn in axes.lines if drawn.get_marker() == "x"]
    np.testing.assert_array_equal(crosses[0].get_xdata(), [1])


def test_a_run_of_nothing_but_nan_is_drawn(tmp_path):
    run = write_run(tmp_path / "run", drop="test_")
    rows = [line for line in (run / "metrics.jsonl").read_text().splitlines() if '"epoch_loss"' in line]
    nothing = [re.sub(r'"(epoch_loss|epoch_accuracy)": [^,}]+', r'"\1": NaN', line) for line in rows]
    (run / "metrics.jsonl").write_text("\n".join(nothing) + "\n")
    assert draw_summary(run) == [run / "summary" / "learning.png"]


def test_layers_are_named_and_the_mean_stands_out(tmp_path, figures):
    draw_summary(write_run(tmp_path / "run"))
    axes = panel(figures["ranks_and_units.png"], "approximate rank")
    np.testing.assert_array_equal(line(axes, "layers.1")[1], [40.0] * 3)
    np.testing.assert_array_equal(line(axes, "mean of the layers")[1], [30.0] * 3)


def test_the_gap_to_a_new_net_has_its_own_panel(tmp_path, figures):
    control = {"plasticity/control_test_accuracy": 0.9, "plasticity/gap_test_accuracy": -0.1}
    draw_summary(write_run(tmp_path / "run", **control))
    assert list(line(panel(figures["plasticity.png"], "accuracy: this net less a new net"), "test")[1]) == [-0.1]
    assert "dashed: a new net" in panel(figures["plasticity.png"], "accuracy on each task").get_title()


@pytest.mark.parametrize(
    ("drop", "gone"), [("plasticity/", "plasticity.png"), ("weights/", "weights.png"), ("sam/", None), ("epoch_accuracy", None)]
)
def test_what_was_not_measured_leaves_no_empty_panel(tmp_path, figures, drop, gone):
    draw_summary(write_run(tmp_path / "run", drop=drop))
    assert set(ALWAYS) - set(figures) == ({gone} if gone else set())
    assert all(axes.has_data() for figure in figures.values() for axes in figure.axes)
    assert not any("SAM" in axes.get_title() for axes in figures["curvature.png"].axes) or drop != "sam/"


def test_a_run_that_is_being_written_is_drawn(tmp_path, figures):
    run = write_run(tmp_path / "run")
    write_plane(run, 0)
    write_plane(run, 1)
    (run / "task_0001_mlp/planes/random/grid.npy").unlink()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"global_epoch": 9, "task_idx": 3, "epoch_lo')
    draw_summary(run)
    planes = [axes for axes in figures["planes.png"].axes if axes.get_title()]
    assert [axes.get_title() for axes in planes] == ["1 · 0.5 × 0.75"]


def mesh_of(axes):
    return next((artist for artist in axes.collections if isinstance(artist, QuadMesh)), None)


def planes_of(figure, rows, columns):
    return np.array(figure.axes[: rows * columns], dtype=object).reshape(rows, columns)


def test_planes_stand_in_a_row_a_kind_and_a_column_a_task_on_one_scale(tmp_path, figures):
    run = write_run(tmp_path / "run")
    grids = {
        (row, column): write_plane(run, task, place, scale=1.0 + row + column)
        for row, place in enumerate(("planes/hessian", "planes/random", "sam"))
        for column, task in enumerate((0, 2))
    }
    draw_summary(run)
    panels = planes_of(figures["planes.png"], 3, 2)
    for place, grid in grids.items():
        np.testing.assert_array_equal(mesh_of(panels[place]).get_array(), grid.losses.T)
    low, high = 0.25, 4.0 * 1.75
    assert {mesh_of(axes).get_clim() for axes in panels.flat} == {(low, high)}
    assert [axes.texts[0].get_text() for axes in panels[:, 0]] == ["hessian", "random", "sam"]
    assert [axes.texts[-1].get_text() for axes in panels[0]] == ["task 0", "task 2"]


@pytest.mark.parametrize("reach", [0.25, 0.5])
def test_each_plane_has_its_own_ticks_where_one_reaches_farther(tmp_path, figures, reach):
    run = write_run(tmp_path / "run")
    for row, place in enumerate(("planes/hessian", "planes/random")):
        for task in (0, 1):
            write_plane(run, task, place, reach=0.25 if row else reach)
    draw_summary(run)
    panels = planes_of(figures["planes.png"], 2, 2)
    labelled = [[axes.xaxis.get_tick_params()["labelbottom"], axes.yaxis.get_tick_params()["labelleft"]] for axes in panels.flat]
    alone = [[False, True], [False, False], [True, True], [True, False]]
    assert labelled == ([[True, True]] * 4 if reach > 0.25 else alone)


def test_a_plane_that_is_missing_leaves_its_place_empty(tmp_path, figures):
    run = write_run(tmp_path / "run")
    write_plane(run, 0)
    write_plane(run, 1, "planes/trajectory")
    draw_summary(run)
    panels = planes_of(figures["planes.png"], 2, 2)
    assert [[axes.axison for axes in row] for row in panels] == [[True, False], [False, True]]


def test_of_many_tasks_twelve_are_shown_and_said(tmp_path, figures):
    run = write_run(tmp_path / "run", num_tasks=2)
    for task in range(34):
        write_plane(run, task)
    draw_summary(run)
    figure = figures["planes.png"]
    shown = [axes.texts[-1].get_text() for axes in planes_of(figure, 1, 12)[0]]
    assert shown == [f"task {task}" for task in range(0, 34, 3)]
    assert "planes of 12 of 34 tasks, spread evenly" in " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
