"""A sweep's figures hold the means and intervals of its runs' own numbers, say what is missing, and cover nothing."""

import math
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.image import imread
from scipy import stats
from sweep_runs import EPOCHS, task_rows, write_rows, write_sweep

from taskshift.faults import Fault
from taskshift.sweeps.plot import Wanted, draw, plot_sweep
from taskshift.sweeps.records import read_sweeps

METRIC = "task_last_epoch_accuracy"
SEEDS = ["0", "1", "2", "3"]
NOISE = np.random.default_rng(5).normal(size=(4, 3))


def noisy(overrides, task):
    """Seed and task decide; l2 is 2 above backprop, a wider net higher by its width."""
    above = 2.0 * (overrides.get("learner") == "l2") + float(overrides.get("net.width", 0))
    return NOISE[int(overrides["seed"]), task] + above


def drawn(folder, **wanted):
    wanted = {"metric": METRIC, "x": "task_idx"} | wanted
    return draw(read_sweeps([folder]), Wanted(**wanted), "heading")


def curve(figure, name):
    """x, y of the line that the legend calls `name`."""
    [line] = [line for line in figure.axes[0].lines if line.get_label() == name]
    return line.get_xdata(), line.get_ydata()


def band(figure, number):
    """Lower and upper edge of the shaded band of one curve."""
    vertices = figure.axes[0].collections[number].get_paths()[0].vertices
    places = np.unique(vertices[:, 0])
    return [[pick(vertices[vertices[:, 0] == x, 1]) for x in places] for pick in (np.min, np.max)]


def notes(figure):
    return figure.axes[0].get_title().replace("\n", " ")


def test_curves_are_means_over_seeds_with_a_band(tmp_path):
    figure = drawn(write_sweep(tmp_path / "sweep", {"learner": ["l2", "backprop"], "seed": SEEDS}, noisy), group="learner")
    for number, (name, above) in enumerate([("learner=backprop", 0.0), ("learner=l2", 2.0)]):
        x, y = curve(figure, name)
        np.testing.assert_array_equal(x, [0, 1, 2])
        np.testing.assert_allclose(y, NOISE.mean(axis=0) + above)
        low, high = band(figure, number)
        reach = stats.t.ppf(0.975, 3) * NOISE.std(axis=0, ddof=1) / 2
        np.testing.assert_allclose([low, high], [y - reach, y + reach])
    assert notes(figure) == "mean of 4 runs over seed · 95% interval of the mean (Student's t)"
    assert figure.axes[0].get_xlabel() == "task"
    assert figure.axes[0].get_ylabel() == f"{METRIC} [share]"


def test_a_metric_of_epochs_is_drawn_over_epochs_and_its_last_value_over_tasks(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", {"seed": SEEDS}, noisy)
    [over_epochs] = [line for line in drawn(sweep, metric="epoch_loss", x="global_epoch").axes[0].lines if len(line.get_xdata())]
    np.testing.assert_array_equal(over_epochs.get_xdata(), np.arange(3 * EPOCHS))
    np.testing.assert_allclose(over_epochs.get_ydata(), [1.0, 1 / 2, 1 / 3] * 3)
    over_tasks = drawn(sweep, metric="epoch_loss").axes[0].lines[0]
    np.testing.assert_allclose(over_tasks.get_ydata(), [1 / 3] * 3)
    assert drawn(sweep, metric="epoch_loss").axes[0].get_ylabel() == "epoch_loss [nats]"


def test_runs_that_are_shorter_count_as_far_as_they_go(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", {"seed": SEEDS}, lambda overrides, task: float(overrides["seed"]))
    write_rows(sweep / "00000003", task_rows(0, 3.0), torn='{"global_epoch": 3, "task_')
    figure = drawn(sweep)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [1.5, 1.0, 1.0])
    assert notes(figure).startswith("mean of 3 to 4 runs over seed")


def test_values_that_are_not_finite_are_in_no_mean_and_told(tmp_path):
    def diverging(overrides, task):
        return math.nan if task == 2 else math.inf if overrides["seed"] == "3" else 1.0

    figure = drawn(write_sweep(tmp_path / "sweep", {"seed": SEEDS}, diverging))
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [1.0, 1.0, np.nan])
    assert notes(figure).endswith("not finite and in no mean: 6 values")
    [cross] = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    np.testing.assert_array_equal(cross.get_xdata(), [2])


def test_two_runs_get_no_band(tmp_path):
    figure = drawn(write_sweep(tmp_path / "sweep", {"seed": ["0", "1"]}, noisy))
    assert notes(figure) == "mean of 2 runs over seed · no interval: it takes 3 runs"
    assert not np.isfinite(np.concatenate([p.vertices for c in figure.axes[0].collections for p in c.get_paths()] or [[]])).any()


def test_what_else_is_in_a_mean_is_told(tmp_path):
    grid = {"learner": ["l2", "backprop"], "net.width": ["1", "2"], "seed": SEEDS}
    figure = drawn(write_sweep(tmp_path / "sweep", grid, noisy), group="learner")
    assert notes(figure).startswith("mean of 8 runs over net.width and seed")


def test_numbers_over_decades_get_a_log_axis(tmp_path):
    grid = {"learner.lr": ["1e-4", "1e-1", "1e-2"], "seed": SEEDS}
    axes = drawn(write_sweep(tmp_path / "sweep", grid, noisy), x="learner.lr").axes[0]
    assert axes.get_xscale() == "log"
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [1e-4, 1e-2, 1e-1])
    narrow = drawn(write_sweep(tmp_path / "narrow", {"net.width": ["16", "64"], "seed": SEEDS}, noisy), x="net.width")
    assert narrow.axes[0].get_xscale() == "linear"


def test_words_get_bars_with_every_run_as_a_point(tmp_path):
    figure = drawn(write_sweep(tmp_path / "sweep", {"learner": ["l2", "backprop"], "seed": SEEDS}, noisy), x="learner")
    axes = figure.axes[0]
    bars = [line for line in axes.lines if line.get_marker() == "_" and line.get_markersize() > 20]
    np.testing.assert_allclose([bar.get_ydata() for bar in bars], [[NOISE[:, 2].mean(), NOISE[:, 2].mean() + 2]])
    points = [line.get_ydata() for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(points, [NOISE[:, 2], NOISE[:, 2] + 2])
    places = np.concatenate([line.get_xdata() for line in axes.lines if line.get_marker() == "o"])
    assert all(np.abs(places - bar).min() > 0.05 for bar in bars[0].get_xdata())  # an interval hides none
    assert [text.get_text() for text in axes.get_xticklabels()] == ["backprop", "l2"]
    assert notes(figure).endswith("at task 2")


def test_bars_stand_side_by_side_at_the_task_asked_for(tmp_path):
    grid = {"learner": ["l2", "backprop"], "net.width": ["1", "2"], "seed": SEEDS}
    figure = drawn(write_sweep(tmp_path / "sweep", grid, noisy), x="net.width", group="learner", kind="bars", at="0")
    bars = [line for line in figure.axes[0].lines if line.get_markersize() > 20]
    heights = {round(x, 6): y for bar in bars for x, y in zip(*bar.get_data(), strict=True)}
    mean = NOISE[:, 0].mean()
    assert heights == pytest.approx({-0.2: mean + 1, 0.2: mean + 3, 0.8: mean + 2, 1.2: mean + 4})
    assert notes(figure).endswith("at task 0")


def test_runs_that_have_not_got_there_are_counted(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", {"learner": ["l2", "backprop"], "seed": SEEDS}, noisy, skip=["learner=l2 seed=0"])
    write_rows(sweep / "00000001", task_rows(0, 1.0))
    assert notes(drawn(sweep, x="learner")).endswith("at task 2, where 2 of 8 runs have none")


def test_a_heat_map_names_mean_and_count_in_each_cell(tmp_path):
    grid = {"learner.lr": ["0.1", "0.01"], "net.width": ["10", "2"], "seed": SEEDS}

    def height(overrides, task):
        return float("nan") if overrides["learner.lr"] == "0.1" and overrides["net.width"] == "10" else noisy(overrides, task)

    skip = [f"learner.lr=0.01 net.width=2 seed={seed}" for seed in SEEDS] + ["learner.lr=0.1 net.width=2 seed=3"]
    sweep = write_sweep(tmp_path / "sweep", grid, height, skip=skip)
    axes = drawn(sweep, x="learner.lr", group="net.width", kind="heatmap").axes[0]
    [mesh] = [artist for artist in axes.collections if isinstance(artist, QuadMesh)]
    expected = [[np.nan, NOISE[:3, 2].mean() + 2], [NOISE[:, 2].mean() + 10, np.nan]]
    np.testing.assert_allclose(mesh.get_array().filled(np.nan), expected)
    words = {(text.get_position()): text.get_text() for text in axes.texts}
    assert words == {
        (1.5, 0.5): f"{expected[0][1]:.3g}\nn = 3",
        (0.5, 1.5): f"{expected[1][0]:.3g}\nn = 4",
        (1.5, 1.5): "not\nfinite",
    }
    assert [text.get_text() for text in axes.get_yticklabels()] == ["2", "10"]


@pytest.mark.parametrize("kind", ["curves", "bars", "heatmap"])
def test_nothing_is_clipped_and_the_legend_covers_nothing(tmp_path, kind):
    grid = {"net.width": ["1", "20", "300"], "learner.a_long_name": [f"value_{n}" for n in range(4)], "seed": ["0"]}
    sweep = write_sweep(tmp_path / "sweep", grid, noisy)
    figure = drawn(sweep, x="net.width", group="learner.a_long_name", kind=kind)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, (axes, *_) = canvas.get_renderer(), figure.axes
    for artist in [*figure.axes, *figure.legends, *figure.texts]:
        box = artist.get_tightbbox(renderer)
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    boxes = [axes.get_window_extent(renderer), axes.title.get_window_extent(renderer)]
    assert not any(legend.get_window_extent(renderer).overlaps(box) for legend in figure.legends for box in boxes)


def test_many_groups_of_numbers_are_shades_and_many_words_change_their_lines(tmp_path):
    def looks(grid, group):
        lines = drawn(write_sweep(tmp_path / group, grid, noisy, num_tasks=1), group=group).axes[0].lines
        return [(str(line.get_color()), line.get_linestyle()) for line in lines if not line.get_label().startswith("_")]

    widths = looks({"net.width": [str(n) for n in range(9)], "seed": ["0"]}, "net.width")
    names = looks({"learner": list("abcdefghi"), "seed": ["0"]}, "learner")
    assert len(set(widths)) == len(set(names)) == 9
    assert {style for _, style in widths} == {"-"}


def test_both_files_are_written_and_drawn_anew(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", {"seed": SEEDS}, noisy)
    wanted = Wanted("weights/norm", "task_idx")
    paths = plot_sweep(sweep, wanted, None, force=False)
    assert paths == [sweep / f"figures/weights-norm_over_task_idx.{ending}" for ending in ("png", "pdf")]
    assert imread(paths[0]).ndim == 3
    assert paths[1].read_bytes().startswith(b"%PDF")
    assert plot_sweep(sweep, wanted, None, force=False) == paths


def test_files_of_a_users_own_name_are_kept(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", {"seed": SEEDS}, noisy)
    (tmp_path / "mine.v2.png").write_text("mine")
    with pytest.raises(Fault, match="mine.v2.png exists; give another -o, or --force to write over it"):
        plot_sweep(sweep, Wanted(METRIC, "task_idx"), tmp_path / "mine.v2", force=False)
    assert (tmp_path / "mine.v2.png").read_text() == "mine"
    plot_sweep(sweep, Wanted(METRIC, "task_idx"), tmp_path / "mine.v2", force=True)
    assert imread(tmp_path / "mine.v2.png").ndim == 3
    with pytest.raises(Fault, match="cannot write .*; name another place by -o"):
        plot_sweep(sweep, Wanted(METRIC, "task_idx"), tmp_path / "mine.v2.png/figure", force=False)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"metric": "task_last_accuracy"}, "task_last_accuracy: no run has logged such a metric yet; did you mean task_last_e"),
        ({"metric": "rank"}, "they logged epoch_accuracy, epoch_loss, task/seconds, task_last_epoch_accuracy, weights/norm and "),
        ({"group": "lerner"}, "lerner: no override that this sweep varies; did you mean learner? it varies learner or seed"),
        ({"x": "epochs"}, "epochs: no override that this sweep varies; it varies learner or seed"),
        ({"x": "learner", "kind": "curves"}, "--kind curves: learner is no number; use --kind bars"),
        ({"x": "learner", "kind": "heatmap"}, "--kind heatmap: expected two overrides, --x one and --group the other"),
        ({"x": "global_epoch", "metric": "epoch_loss", "kind": "bars", "group": "seed"}, "--kind bars: 90 bars could"),
        ({"x": "learner", "at": "7"}, "--at 7: no run has logged task_last_epoch_accuracy at task 7; the furthest "),
        ({"metric": None}, "--y: expected a metric; these runs logged epoch_accuracy, "),
    ],
)
def test_what_the_runs_do_not_have_is_a_sentence(tmp_path, wanted, sentence):
    sweep = write_sweep(tmp_path / "sweep", {"learner": ["l2", "backprop"], "seed": [str(n) for n in range(10)]})
    with pytest.raises(Fault, match=re.escape(sentence)):
        plot_sweep(sweep, Wanted(**{"metric": METRIC, "x": "task_idx"} | wanted), None, force=False)
    assert not (sweep / "figures").exists()


def test_a_sweep_that_has_logged_nothing(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", {"seed": ["0"]}, skip=["seed=0"])
    with pytest.raises(Fault, match="no run of this sweep has logged anything yet; `taskshift status` says where they are"):
        drawn(sweep)


def test_bars_do_not_reach_down_to_zero(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", {"learner": ["l2", "backprop"], "seed": SEEDS}, lambda *at: 0.81 + 0.001 * noisy(*at))
    low, high = drawn(sweep, x="learner").axes[0].get_ylim()
    assert low > 0.8
    assert high < 0.83


def test_a_pdf_has_fonts_that_publishers_take(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", {"seed": SEEDS}, noisy)
    [pdf] = [path for path in plot_sweep(sweep, Wanted(METRIC, "task_idx"), None, False) if path.suffix == ".pdf"]
    content = pdf.read_bytes()
    assert b"/Type3" not in content
    assert b"/TrueType" in content or b"/CIDFontType2" in content
