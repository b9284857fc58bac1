"""The rules that a run's pictures and a sweep's figures share."""

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.figure import Figure

from taskshift.pictures.draw import (
    MOST_MARKERS,
    Curve,
    Panel,
    colour_of_text,
    figure_of,
    lost_in_words,
    mark_lost,
    marker,
    spans_decades,
)


@pytest.fixture
def axes():
    return Figure().add_subplot()


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [([1.0, 100.0], True), ([1.0, 99.0], False), ([0.0, 1e6], False), ([-1.0, 1e6], False), ([], False), ([5.0], False)],
)
def test_an_axis_is_logarithmic_where_positive_values_span_two_decades(values, logarithmic):
    assert spans_decades(values) == spans_decades(np.array(values)) == logarithmic


def test_points_are_marked_until_they_would_hide_the_curve():
    assert marker(range(MOST_MARKERS)) == "."
    assert marker(range(MOST_MARKERS + 1)) == ""


def test_crosses_stand_on_the_upper_edge_whatever_the_axis(axes):
    mark_lost(axes, np.array([2.0, 5.0]))
    axes.set_ylim(-7.0, 3.0)
    [crosses] = axes.lines
    at = crosses.get_transform().transform(crosses.get_xydata())
    edge = axes.transData.transform([(2.0, 3.0), (5.0, 3.0)])
    np.testing.assert_allclose(at, edge)


def test_nothing_lost_leaves_no_cross(axes):
    mark_lost(axes, np.zeros(0))
    assert not axes.lines
    assert lost_in_words(np.array([1.0, -2.0])) == []


def test_what_is_lost_is_counted():
    assert lost_in_words(np.array([[np.nan, 1.0], [np.inf, -np.inf]])) == ["not finite: 3"]


@pytest.mark.parametrize("bad", [None, "#D55E00"])
def test_text_on_a_heat_map_contrasts_with_its_cell(axes, bad):
    """The contrast ratio of the Web Content Accessibility Guidelines is never below 3, their least for large text."""
    colours = colormaps["viridis"] if bad is None else colormaps["viridis"].with_extremes(bad=bad)
    values = np.append(np.linspace(0.0, 1.0, 101), np.nan)
    mesh = axes.pcolormesh(np.ma.masked_invalid(values[None]), cmap=colours, vmin=0.0, vmax=1.0)
    for value, (*cell, opacity) in zip(values, colours(np.ma.masked_invalid(values)), strict=True):
        text = {"black": 0.0, "white": 1.0}[colour_of_text(mesh, value)]
        paper = opacity * _relative_luminance(cell) + (1 - opacity)
        assert (max(text, paper) + 0.05) / (min(text, paper) + 0.05) > 3.0


def _relative_luminance(colour):
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return np.dot([0.2126, 0.7152, 0.0722], linear)


@pytest.mark.parametrize(("panels", "shape"), [(1, (1, 1)), (2, (1, 2)), (3, (1, 3)), (4, (2, 2)), (5, (2, 3)), (8, (3, 3))])
def test_panels_without_a_value_are_left_out_and_the_others_fill_rows(panels, shape):
    some, none = Curve(np.arange(3), np.ones(3), "black"), Curve(np.zeros(0), np.zeros(0), "black")
    figure = figure_of([Panel("empty", [none]), *[Panel(f"{number}", [some, none]) for number in range(panels)]], "heading")
    assert [axes.get_title() for axes in figure.axes] == [f"{number}" for number in range(panels)]
    assert figure.axes[0].get_gridspec().get_geometry() == shape
    assert figure.get_suptitle() == "heading"


def test_no_panel_with_a_value_is_no_figure():
    assert figure_of([Panel("empty", [Curve(np.zeros(0), np.zeros(0), "black")])], "heading") is None
