"""A notebook shows each result by its numbers and its picture; importing the library draws nothing."""

import base64
import io
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from drawn_results import density_of, path_of, plane, slanted, volume
from matplotlib.image import imread

from loss_landscape import (
    Alignment,
    Curve,
    DiagonalEstimate,
    Directions,
    Eigenpairs,
    Estimate,
    Grid,
    LayerCurvature,
    LayerCurvatures,
    UnitGroups,
    bezier,
    merge_tree,
)
from loss_landscape.viewing.curves import seen_from_the_chord
from loss_landscape.viewing.trees import merge_tree_figure

NAN, INF = float("nan"), float("inf")


def shown(result) -> tuple[str, list[np.ndarray]]:
    """The words of a result's HTML, and its pictures."""
    text = result._repr_html_()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    return re.sub(r"<[^>]*>", " ", text), [imread(io.BytesIO(base64.b64decode(one)), format="png") for one in pictures]


def pairs_of(values, converged=True):
    values = torch.tensor(values, dtype=torch.float64)
    flags = torch.full((len(values),), converged)
    return Eigenpairs(values, torch.eye(5)[:, : len(values)], torch.full((len(values),), 1e-4), flags, len(values), 9)


def by_hand(losses):
    losses = np.asarray(losses, dtype=np.float64)
    return Grid(losses, tuple(np.linspace(-1, 1, size) for size in losses.shape))


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (plane(slanted), ["Grid, 11 × 7 cells", "1 … 13", "at the centre  2"]),
        (volume(lambda alpha, beta, gamma: alpha), ["Grid, 5 × 5 × 5 cells", "-1 … 1"]),
        (by_hand([3.0, 1.25, 2.0]), ["Grid, 3 cells", "at the centre  1.25"]),
        (by_hand(np.full((4, 3), NAN)), ["none is finite", "not finite: 12 of 12 cells"]),
        (by_hand([[INF, 1.0], [2.0, -INF]]), ["1 … 2", "not finite: 2 of 4"]),
        (by_hand([[1.0, 2.0, 3.0, 4.0]]), ["Grid, 1 × 4 cells"]),
        (density_of([[-1.0, 2.0], [-2.0, 3.0]], [[0.5, 0.5], [0.25, 0.75]]), ["Density of 100", "share below 0  0.375 ± 0.12"]),
        (density_of([[NAN, 1.0]], [[0.5, 0.5]]), ["trace  nan"]),
        (pairs_of([31.0, 4.0]), ["2 largest and 0 smallest", "λ1  31, residual 1.0e-04", "λ2  4,"]),
        (pairs_of([31.0, NAN], converged=False), ["λ2  nan", "not converged"]),
        (path_of([0.1, 2.1, 0.3]), ["PathLosses at 3 points", "barrier  1.9", "highest loss  2.1"]),
        (path_of([0.1, INF, NAN, 0.3]), ["barrier  nan"]),
        (bezier(torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]])), ["control points  3", "parameters  2", "bezier"]),
        (bezier(torch.tensor([[0.0, 0.0], [NAN, INF], [2.0, 0.0]])), ["control points  3"]),
        (Curve(torch.zeros(2, 3), bezier(torch.zeros(2, 3)).basis), ["parameters  3"]),
        (merge_tree(np.array([3.0, 0.0, 2.0, 1.0, 4.0])), ["MergeTree of 2 minima", "at [3]  1 … 2", "total persistence  1"]),
        (merge_tree(np.full((3, 3), NAN)), ["MergeTree of 0 minima"]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_result_is_shown_by_its_numbers_and_one_picture(result, words):
    text, pictures = shown(result)
    for said in words:
        assert said in text
    assert [picture.ndim for picture in pictures] == [3]
    assert pictures[0].std() > 0.01, "the picture is empty"


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (Estimate(2.5, 0.125, 16), ["2.5 ± 0.12", "samples  16"]),
        (Estimate(NAN, NAN, 1, note="out of <memory>"), ["nan ± nan", "out of &lt;memory&gt;"]),
        (DiagonalEstimate(torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.25]), 7), ["-2 … 1", "0.5", "samples  7"]),
        (LayerCurvature("0", 12, 3.0, 1e-4, True, Estimate(4.0, 0.5, 8)), ["LayerCurvature of 0", "4 ± 0.5"]),
        (
            LayerCurvatures([LayerCurvature("0", 12, 3.0, 1e-4, False, Estimate(4.0, 0.5, 8))]),
            ["LayerCurvatures, 1 layers", "top eigenvalue 3, residual 1.0e-04, not converged; trace 4 ± 0.5"],
        ),
        (Directions((torch.tensor([3.0, 4.0]),)), ["Directions, 1", "parameters  2", "norms  5", "kind  custom"]),
        (Alignment({}, (), UnitGroups((16,), {}, {"w": "frozen"}), 5.0, 2.0), ["distance before  5", "16", "w stays  frozen"]),
        (by_hand(np.zeros((2, 2, 2, 2))), ["Grid, 2 × 2 × 2 × 2 cells"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_picture_is_shown_by_its_numbers(result, words):
    text, pictures = shown(result)
    for said in words:
        assert said in text
    assert not pictures


def test_a_long_table_is_cut_and_says_so():
    text, _ = shown(merge_tree(np.tile([1.0, 0.0], 20) + np.linspace(0, 0.1, 40)))
    assert "MergeTree of 20 minima" in text
    assert "and  8 more" in text


def test_a_curve_is_seen_from_the_straight_line_between_its_ends():
    curve = bezier(torch.tensor([[1.0, 0.0], [3.0, 4.0], [5.0, 0.0]]))
    along, apart = seen_from_the_chord(curve, torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64))
    np.testing.assert_allclose(along, [0.0, 0.25, 0.5, 1.0], atol=1e-12)
    np.testing.assert_allclose(apart, [0.0, 1.5 / 4, 2.0 / 4, 0.0], atol=1e-7)  # the height 2·4·t·(1 − t), in chords of 4


def test_a_merge_tree_stands_on_its_minima_and_joins_at_its_saddles():
    tree = merge_tree(np.array([3.0, 0.0, 2.0, 1.0, 4.0]))
    axes = merge_tree_figure(tree, title="t").axes[0]
    segments = [segment.tolist() for lines in axes.collections for segment in lines.get_segments()]
    younger, elder = tree.places[1], tree.places[0]
    assert [[younger, 1.0], [younger, 2.0]] in segments
    assert [[younger, 2.0], [elder, 2.0]] in segments
    assert axes.get_ylim()[1] > 2.0


def test_importing_the_library_imports_no_matplotlib_and_showing_does():
    program = (
        "import sys, loss_landscape as l\n"
        "assert 'matplotlib' not in sys.modules, 'imported'\n"
        "l.Estimate(1.0, 0.5, 2)._repr_html_()\n"
        "import numpy as np\n"
        "l.merge_tree(np.arange(4.0))._repr_html_()\n"
        "assert 'matplotlib.figure' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
