"""Lines and curves between nets hold the losses they are said to hold."""

import re

import numpy as np
import pytest
from drawn_results import path_of, plane, slanted

from loss_landscape import Grid, PathLosses, plot


def test_a_line_shows_its_losses_and_marks_the_holes(png):
    meta = plane(slanted).meta
    places, losses = np.linspace(-1, 1, 5), np.array([1.0, np.nan, 2.0, np.inf, 3.0])
    axes = plot.plot_line(png, Grid(losses, (places,), meta), title="t").axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [1.0, np.nan, 2.0, np.nan, 3.0])
    crosses = next(line for line in axes.lines if line.get_label() == "not finite")
    np.testing.assert_array_equal(crosses.get_xdata(), [-0.5, 0.5])
    assert "not finite: 2 of 5" in axes.get_title()


def test_a_line_says_how_much_of_it_was_evaluated(png):
    line = Grid(np.arange(4.0), (np.linspace(-1, 1, 4),), plane(slanted).meta, np.array([True, False, True, True]))
    assert "3 of 4 cells evaluated, the rest predicted" in plot.plot_line(png, line, title="t").axes[0].get_title()


def test_a_mode_curve_shows_both_ways_their_ends_and_barriers(png):
    straight, fitted = path_of([0.1, 2.1, 0.3]), path_of([0.1, 0.4, 0.2, 0.3], "bezier", 3, length=3.0)
    axes = plot.plot_mode_curve(png, straight, fitted=fitted, title="t").axes[0]
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    np.testing.assert_array_equal(
        lines["straight line: highest 2.1, barrier 1.9"], np.stack([straight.t, straight.losses], axis=1)
    )
    curve = lines["Bézier curve, 1 bend: highest 0.4, barrier 0.233"]
    np.testing.assert_array_equal(curve, np.stack([fitted.t, fitted.losses], axis=1))
    np.testing.assert_array_equal(lines["the two nets: 0.1 and 0.3"], [[0.0, 0.1], [1.0, 0.3]])
    assert axes.get_title() == "barrier 1.9 before, 0.233 after · the curve is 1.5 times as long"
    assert axes.get_xlabel() == "t, from one net to the other\n(the straight way is 0.5 ‖θ‖ long)"
    assert (axes.get_ylabel(), axes.get_yscale()) == ("loss", "linear")
    assert png.stat().st_size > 10_000


def test_a_mode_curve_over_decades_is_logarithmic_and_marks_what_is_not_finite(png):
    straight = path_of([0.01, np.inf, 5.0, np.nan, 0.01])
    axes = plot.plot_mode_curve(png, straight, fitted=path_of([0.01, 0.02, 0.01], "polychain", 5), title="t").axes[0]
    assert axes.get_yscale() == "log"
    (crosses,) = [line for line in axes.lines if line.get_label() == "not finite"]
    np.testing.assert_array_equal(crosses.get_xdata(), [0.25, 0.75])
    assert "not finite: 2 points" in axes.get_title()
    assert any(line.get_label().startswith("polychain, 3 bends") for line in axes.lines)


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (plot.plot_line, "plot_line draws a line, one axis, but this grid has 2, [11, 7] losses: plot_plane_contour"),
        (plot.plot_volume, "plot_volume draws a volume, three axes, but this grid has 2"),
    ],
)
def test_a_grid_of_other_axes_is_refused_and_told_its_own_picture(png, draw, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        draw(png, plane(slanted), title="t")
    assert not png.exists()


@pytest.mark.parametrize("draw", [plot.plot_plane_contour, plot.plot_plane_surface, plot.plot_sam_contour])
def test_a_plane_picture_of_a_line_is_refused(png, draw):
    with pytest.raises(ValueError, match="but this grid has 1.*plot_line draws a line"):
        draw(png, Grid(np.arange(4.0), (np.arange(4.0),)), title="t")


def test_arrays_and_other_results_are_refused(png):
    with pytest.raises(TypeError, match="expected a Grid to draw, got ndarray; evaluate_grid makes one"):
        plot.plot_line(png, np.arange(4.0), title="t")
    with pytest.raises(TypeError, match="expected a Density to draw, got Grid"):
        plot.plot_spectrum(png, plane(slanted), title="t")
    with pytest.raises(TypeError, match="expected a PathLosses to draw, got Grid"):
        plot.plot_mode_curve(png, plane(slanted), fitted=path_of([1.0, 2.0]), title="t")


def test_a_path_alone_is_drawn_and_named_where_a_line_is_wanted(png):
    axes = plot.plot_mode_curve(png, path_of([1.0, 3.0, 2.0]), title="t").axes[0]
    assert axes.lines[0].get_ydata().tolist() == [1.0, 3.0, 2.0]
    assert axes.get_title().startswith("straight line · highest 3 · barrier")
    with pytest.raises(TypeError, match="expected a Grid to draw, got PathLosses; plot_mode_curve draws losses along a path"):
        plot.plot_line(png, path_of([1.0, 2.0]), title="t")


def test_a_path_comes_first_and_has_an_ending(tmp_path):
    with pytest.raises(TypeError, match=r"expected a Grid to draw, got 'plane\.png'; the path comes first, then the result"):
        plot.plot_plane_contour(plane(slanted), "plane.png", title="t")
    with pytest.raises(ValueError, match=r"plane has no ending, which chooses the format; give .*plane\.png, or \.pdf, \.svg"):
        plot.plot_plane_contour(tmp_path / "plane", plane(slanted), title="t")
    assert list(tmp_path.iterdir()) == []


def test_a_line_built_by_hand_is_drawn_with_the_centre_that_it_holds(png):
    axes = plot.plot_line(png, Grid(np.array([3.0, 1.0, 2.0]), (np.array([-1.0, 0.0, 1.0]),)), title="t").axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["centre: 1"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("α along direction 1", "loss")
    beside = plot.plot_line(png, Grid(np.array([3.0, 1.0]), (np.array([0.5, 1.0]),)), title="t").axes[0]
    assert beside.get_legend() is None
    assert len(beside.lines) == 1


def test_a_path_built_by_hand_is_drawn(png):
    times = np.linspace(0.0, 1.0, 3)
    by_hand = PathLosses(times, np.array([1.0, 2.0, 1.0]), times)
    axes = plot.plot_mode_curve(png, by_hand, fitted=by_hand, title="t").axes[0]
    assert axes.get_xlabel() == "t, from one net to the other"
    assert [line.get_label() for line in axes.lines][1] == "curve: highest 2, barrier 1"
