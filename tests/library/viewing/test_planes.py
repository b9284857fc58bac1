"""Pictures hold the data they are said to hold: which axis is which, what is masked, what the titles say."""

import gc
import itertools
import weakref
from dataclasses import replace

import numpy as np
import pytest
from drawn_results import plane, slanted, volume
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.image import imread
from mpl_toolkits.mplot3d import Axes3D

from loss_landscape import Grid, plot
from loss_landscape.results.info import FloatNoise


def mesh_of(axes) -> QuadMesh:
    return next(artist for artist in axes.collections if isinstance(artist, QuadMesh))


def test_the_first_direction_runs_to_the_right_and_the_second_upwards(png):
    grid = plane(slanted)
    axes = plot.plot_plane_contour(png, grid, title="t").axes[0]
    mesh = mesh_of(axes)
    assert mesh.get_array().shape == (len(grid.coordinates[1]), len(grid.coordinates[0]))
    np.testing.assert_array_equal(mesh.get_array(), grid.losses.T)
    centres = mesh.get_coordinates()[:-1, :-1] + np.diff(mesh.get_coordinates(), axis=0)[:, :-1] / 2
    centres += np.diff(mesh.get_coordinates(), axis=1)[:-1] / 2
    np.testing.assert_allclose(centres[0, :, 0], grid.coordinates[0], atol=1e-12)
    np.testing.assert_allclose(centres[:, 0, 1], grid.coordinates[1], atol=1e-12)


def test_a_loss_that_rises_along_the_first_direction_gets_brighter_to_the_right(png):
    plot.plot_plane_contour(png, plane(lambda alpha, beta: alpha + 0 * beta), title="t")
    pixels = imread(png)[..., :3].mean(axis=2)
    height, width = pixels.shape
    middle = pixels[int(0.3 * height) : int(0.4 * height)]
    left, right = middle[:, int(0.2 * width) : int(0.3 * width)], middle[:, int(0.68 * width) : int(0.78 * width)]
    assert right.mean() > left.mean() + 0.2


def test_axes_are_labelled_in_applied_units_and_relative_to_the_parameters_norm(png):
    axes = plot.plot_plane_contour(png, plane(slanted, kind="hessian", eigenvalues=[31.0, 4.0]), title="t").axes[0]
    assert axes.get_xlabel() == "α along Hessian eigenvector 1\n(λ = 31, one unit is 0.2 ‖θ‖)"
    assert axes.get_ylabel() == "β along Hessian eigenvector 2\n(λ = 4, one unit is 0.5 ‖θ‖)"


def test_numbers_of_a_short_span_are_short(png):
    axes = plot.plot_plane_contour(png, plane(slanted, low=-3e-5, high=3e-5), title="t").axes[0]
    labels = {text.get_text(): text.get_window_extent() for text in axes.get_xticklabels()}
    assert {"−2e−5", "0", "2e−5"} <= labels.keys()
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(labels.values()))
    assert axes.yaxis.get_offset_text().get_text() == ""  # it would stand in the notes


def test_a_net_of_zeros_has_no_relative_distance(png):
    axes = plot.plot_plane_contour(png, plane(slanted, origin_norm=0.0), title="t").axes[0]
    assert axes.get_xlabel() == "α along random direction 1"


def with_holes(alpha, beta):
    loss = slanted(alpha, beta) + 0.0 * alpha
    loss = np.where(np.asarray(alpha) > 0.7, np.nan, loss)
    return np.where(np.asarray(alpha) < -0.9, np.inf, loss)


@pytest.mark.parametrize("draw", [plot.plot_plane_contour, plot.plot_plane_surface])
def test_cells_that_are_not_finite_are_counted_in_the_title(png, draw):
    grid = plane(with_holes)
    count = int((~np.isfinite(grid.losses)).sum())
    assert count == 3 * 7
    assert f"not finite: {count} of {grid.losses.size} cells" in draw(png, grid, title="t").axes[0].get_title()


def test_cells_that_are_not_finite_are_masked_and_drawn_in_their_own_colour(png):
    grid = plane(with_holes)
    mesh = mesh_of(plot.plot_plane_contour(png, grid, title="t").axes[0])
    np.testing.assert_array_equal(np.ma.getmaskarray(mesh.get_array()), ~np.isfinite(grid.losses.T))
    vermilion = np.array([0xD5, 0x5E, 0x00]) / 255
    share = (np.abs(imread(png)[..., :3] - vermilion).max(axis=2) < 0.01).mean()
    assert 0.25 * 0.44 < share < 0.35 * 0.44  # 3 of 11 columns of axes that fill 44 % of the picture


def test_the_centre_is_marked_with_its_own_loss(png):
    figure = plot.plot_plane_contour(png, plane(slanted, baseline_loss=0.12345), title="t")
    assert "centre: 0.1235" in [text.get_text() for text in figure.legends[0].get_texts()]
    marks = [line for line in figure.axes[0].lines if line.get_label().startswith("centre")]
    np.testing.assert_array_equal(marks[0].get_xydata(), [[0.0, 0.0]])


@pytest.mark.parametrize("draw", [plot.plot_plane_contour, plot.plot_plane_surface])
@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda alpha, beta: 2.0 + 0 * alpha, "constant"),
        (lambda alpha, beta: 0 * alpha, "constant"),
        (lambda alpha, beta: alpha * np.nan, "not finite: 77 of 77"),
        (lambda alpha, beta: 1e-7 + 5e-8 * np.abs(alpha), "mostly rounding: the range 5e-08"),
        (lambda alpha, beta: -1.0 + 1e9 * (alpha > 0.99) * (beta > 0.4) + alpha, "the highest cell is 1e+09"),
        (lambda alpha, beta: np.where(np.abs(alpha) > 0.9, 1e300, alpha), ""),
    ],
    ids=["flat", "zero", "nothing finite", "rounding", "spike", "huge"],
)  # fmt: skip
def test_odd_planes_are_drawn_and_said_to_be_odd(png, draw, loss, said):
    figure = draw(png, plane(loss), title="t")
    assert said in figure.axes[0].get_title().replace("\n", " ")
    assert imread(png).shape[2] == 4


def test_a_range_beyond_ten_times_the_noise_is_not_called_rounding(png):
    grid = plane(lambda alpha, beta: 1e-7 + 1.1e-7 * np.abs(alpha))
    assert "rounding" not in plot.plot_plane_contour(png, grid, title="t").axes[0].get_title()


def test_an_unknown_noise_floor_says_nothing(png):
    grid = plane(lambda alpha, beta: 1e-7 + 1e-9 * alpha, noise_floor=None)
    assert "rounding" not in plot.plot_plane_contour(png, grid, title="t").axes[0].get_title()


def test_the_trajectory_of_the_meta_is_laid_over_the_plane(png):
    points = [(0.9, 0.3, 4.0), (0.5, 2.0, 1.0), (0.0, 0.0, 0.0)]
    path = [{"step": step, "alpha": a, "beta": b, "residual": r} for step, (a, b, r) in enumerate(points)]
    grid = plane(slanted, kind="trajectory", trajectory=path, explained_variance=[0.8, 0.15])
    figure = plot.plot_plane_contour(png, grid, title="t")
    axes = figure.axes[0]
    assert any(np.array_equal(line.get_xydata(), [[0.9, 0.3], [0.5, 2.0], [0, 0]]) for line in axes.lines)
    assert [text.get_text() for text in figure.legends[0].get_texts()][-2:] == ["start of the path", "its end"]
    title = axes.get_title().replace("\n", " ")
    assert "the axes hold 80.0% and 15.0% of the path's variance" in title
    assert "1 of the path's 3 points are outside" in title
    assert "the path leaves the plane by up to 0.4 ‖θ‖" in title
    assert axes.get_ylim()[1] < 0.7  # the point outside does not stretch the picture
    assert plot.plot_plane_contour(png, grid, title="t", trajectory=[]).axes[0].get_title().count("outside") == 0


def test_the_nets_that_a_plane_was_laid_through_are_numbered(png):
    points = [{"alpha": 0.0, "beta": 0.0}, {"alpha": 1.0, "beta": 0.0}, {"alpha": 0.4, "beta": 0.9}]
    axes = plot.plot_plane_contour(png, plane(slanted, kind="three_points", points=points), title="t").axes[0]
    assert [(text.get_text(), *text.get_position()) for text in axes.texts] == [("1", 0, 0), ("2", 1, 0), ("3", 0.4, 0.9)]
    assert axes.get_ylim()[1] < 0.7  # the net outside does not stretch the picture


@pytest.mark.parametrize("draw", [plot.plot_plane_contour, plot.plot_plane_surface])
def test_a_title_says_how_many_cells_were_evaluated_where_some_were_not(png, draw):
    whole = plane(slanted)
    evaluated = np.arange(77).reshape(11, 7) % 3 == 0
    some = Grid(whole.losses, whole.coordinates, {**whole.meta, "largest_held_out_error": 0.00213}, evaluated)
    said = draw(png, some, title="t").axes[0].get_title().replace("\n", " ")
    assert "26 of 77 cells evaluated, the rest predicted (to 0.21 % where checked)" in said
    assert "evaluated" not in draw(png, whole, title="t").axes[0].get_title()
    asked = Grid(whole.losses, whole.coordinates, {**whole.meta, "tolerance": 0.01})
    said = draw(png, asked, title="t").axes[0].get_title().replace("\n", " ")
    assert "every cell evaluated: none could be predicted within the tolerance" in said


@pytest.fixture
def surfaces(monkeypatch):
    """The (x, y, z) of every surface that is drawn."""
    drawn, draw = [], Axes3D.plot_surface

    def keep(axes, x, y, z, **options):
        drawn.append((x, y, z))
        return draw(axes, x, y, z, **options)

    monkeypatch.setattr(Axes3D, "plot_surface", keep)
    return drawn


def test_the_surface_stands_on_the_coordinates_it_was_measured_at(png, surfaces):
    axes = plot.plot_plane_surface(png, plane(lambda alpha, beta: 3.0 * alpha - beta), title="t").axes[0]
    ((x, y, z),) = surfaces
    np.testing.assert_allclose(z, 3.0 * x - y, atol=1e-12)
    assert (axes.get_xlabel()[0], axes.get_ylabel()[0], axes.get_zlabel()) == ("α", "β", "loss")


def test_the_surface_of_several_decades_is_drawn_in_logarithms(png, surfaces):
    axes = plot.plot_plane_surface(png, plane(lambda alpha, beta: 10.0 ** (4 * alpha - beta)), title="t").axes[0]
    ((x, y, z),) = surfaces
    np.testing.assert_allclose(z, 4 * x - y, atol=1e-9)
    assert axes.get_zlabel() == "log₁₀ of the loss"


def test_the_surface_has_holes_where_cells_are_not_finite(png, surfaces):
    grid = plane(with_holes)
    axes = plot.plot_plane_surface(png, grid, title="t").axes[0]
    np.testing.assert_array_equal(np.isnan(surfaces[0][2]), ~np.isfinite(grid.losses))
    crosses = next(artist for artist in axes.collections if artist.get_label() == "not finite")
    assert len(crosses.get_offsets()) == 21
    surface = next(artist for artist in axes.collections if artist is not crosses)
    assert crosses.get_zorder() < surface.get_zorder(), "the crosses on the floor lie over the surface above it"


def test_several_decades_have_a_logarithmic_scale(png):
    grid = plane(lambda alpha, beta: 1e-4 + alpha**2 + beta**2)
    assert isinstance(mesh_of(plot.plot_plane_contour(png, grid, title="t").axes[0]).norm, LogNorm)


def sam_of(plain, rise, stride=2):
    coordinates = tuple(axis[::stride] for axis in plain.coordinates)
    losses = plain.losses[::stride, ::stride] + rise
    return Grid(losses, coordinates, plain.meta | {"rho_absolute": 0.5, "baseline_loss": plain.meta["baseline_loss"] + rise})


def test_the_sam_contour_says_its_ascent(png):
    figure = plot.plot_sam_contour(png, sam_of(plane(slanted), 0.25), title="t")
    assert figure.axes[1].get_ylabel() == "loss after an ascent of ρ = 0.5"


def test_plain_and_sam_share_a_scale_and_their_difference_stands_beside(png):
    plain = plane(slanted)
    sam = sam_of(plain, 0.25)
    figure = plot.plot_sam_comparison(png, plain, sam=sam, title="t")
    meshes = [mesh_of(axes) for axes in figure.axes[:3]]
    np.testing.assert_array_equal(meshes[0].get_array(), plain.losses.T)
    np.testing.assert_array_equal(meshes[1].get_array(), sam.losses.T)
    np.testing.assert_allclose(meshes[2].get_array(), 0.25)
    assert meshes[0].get_clim() == meshes[1].get_clim() == pytest.approx((plain.losses.min(), sam.losses.max()))
    assert "centre: 0.25" in figure.axes[2].get_title()


def test_grids_without_common_cells_are_compared_side_by_side_alone(png):
    plain = plane(slanted)
    elsewhere = Grid(plain.losses, tuple(axis + 0.03 for axis in plain.coordinates), plain.meta)
    assert len([axes for axes in plot.plot_sam_comparison(png, plain, sam=elsewhere, title="t").axes if axes.get_xlabel()]) == 2


def test_a_difference_has_the_noise_of_both_and_the_cells_that_both_evaluated(png):
    plain = plane(slanted)
    plain = Grid(plain.losses, plain.coordinates, plain.meta, np.arange(77).reshape(11, 7) % 3 == 0)
    sam = sam_of(plain, 0.0)
    sam = Grid(sam.losses + np.linspace(0, 1e-3, 24).reshape(6, 4), sam.coordinates, sam.meta)
    assert "rounding" not in plot.plot_sam_comparison(png, plain, sam=sam, title="t").axes[2].get_title()
    noisy = FloatNoise(floor=0.6e-4)
    plain, sam = (replace(grid, info=replace(grid.info, noise=noisy)) for grid in (plain, sam))
    title = plot.plot_sam_comparison(png, plain, sam=sam, title="t").axes[2].get_title().replace("\n", " ")
    assert "mostly rounding: the range 0.001 is within 10 times of the float noise 0.00012" in title
    assert f"{plain.evaluated[::2, ::2].sum()} of 24 cells evaluated, the rest predicted" in title


class TestVolume:
    @pytest.mark.parametrize(
        ("resolution", "shown"),
        [(2, [0, 1]), (3, [0, 1, 2]), (5, [0, 1, 2, 3, 4]), (11, [0, 2, 5, 8, 10]), (41, [0, 10, 20, 30, 40])],
    )
    def test_its_slices_are_those_that_stand_above_them(self, png, resolution, shown):
        grid = volume(lambda alpha, beta, gamma: 1 + alpha + 2 * beta + 4 * gamma, resolution=resolution)
        *panels, _ = plot.plot_volume(png, grid, title="t").axes
        assert [axes.get_title() for axes in panels] == [f"γ = {grid.coordinates[2][index]:.3g}" for index in shown]
        for axes, index in zip(panels, shown, strict=True):
            np.testing.assert_array_equal(mesh_of(axes).get_array(), grid.losses[:, :, index].T)
            assert mesh_of(axes).get_clim() == (grid.losses.min(), grid.losses.max())

    def test_the_centre_is_marked_in_its_own_slice(self, png):
        *panels, _ = plot.plot_volume(png, volume(lambda alpha, beta, gamma: alpha), title="t").axes
        assert [len(axes.lines) for axes in panels] == [0, 0, 2, 0, 0]

    def test_its_three_axes_and_what_must_be_known_of_it_stand_below(self, png):
        grid = volume(lambda alpha, beta, gamma: np.where(alpha > 0.9, np.inf, alpha))
        figure = plot.plot_volume(png, grid, title="t")
        assert figure.get_supxlabel().splitlines() == [
            "α along random direction 1 (one unit is 0.2 ‖θ‖)",
            "γ along random direction 3 (one unit is 0.4 ‖θ‖)",
            "centre: 0.5 · not finite: 25 of 125 cells",
        ]
        assert figure.axes[0].get_ylabel() == "β along random direction 2\n(one unit is 0.5 ‖θ‖)"
        np.testing.assert_array_equal(
            np.ma.getmaskarray(mesh_of(figure.axes[0]).get_array()), ~np.isfinite(grid.losses[:, :, 0].T)
        )

    def test_nothing_finite_is_drawn_too(self, png):
        plot.plot_volume(png, volume(lambda alpha, beta, gamma: alpha * np.nan), title="t")
        assert png.exists()


def test_no_figure_outlives_its_caller(png):
    figures = [weakref.ref(plot.plot_plane_contour(png, plane(slanted), title="t")) for _ in range(2)]
    gc.collect()
    assert [figure() for figure in figures] == [None, None]
    import matplotlib.pyplot as pyplot

    assert pyplot.get_fignums() == []


def test_a_picture_replaces_the_old_one_whole(png):
    png.write_text("old")
    plot.plot_plane_contour(png, plane(slanted), title="t")
    assert [path.name for path in png.parent.iterdir()] == ["picture.png"]
    assert imread(png).ndim == 3


@pytest.mark.parametrize("draw", [plot.plot_plane_contour, plot.plot_plane_surface, plot.plot_sam_contour])
def test_a_plane_built_by_hand_is_drawn(png, draw):
    alpha, beta = np.linspace(-1, 1, 5), np.linspace(-1, 1, 3)
    figure = draw(png, Grid(np.add.outer(alpha**2, beta**2), (alpha, beta)), title="t")
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("α along direction 1", "β along direction 2")
    assert "centre: 0" in figure.axes[0].get_title() + "".join(t.get_text() for one in figure.legends for t in one.get_texts())


def test_a_plane_built_by_hand_beside_the_origin_has_no_centre(png):
    grid = Grid(np.add.outer(np.arange(1.0, 4.0), np.arange(1.0, 5.0)), (np.arange(1.0, 4.0), np.arange(1.0, 5.0)))
    figure = plot.plot_plane_contour(png, grid, title="t")
    assert not figure.axes[0].lines
    assert figure.axes[0].get_xlim()[0] > 0.0


def test_planes_and_volumes_built_by_hand_are_compared_and_cut(png):
    alpha = np.linspace(-1, 1, 5)
    grid = Grid(np.add.outer(alpha**2, alpha**2), (alpha, alpha))
    figure = plot.plot_sam_comparison(png, grid, sam=Grid(grid.losses + 0.5, grid.coordinates), title="t")
    np.testing.assert_allclose(mesh_of(figure.axes[2]).get_array(), 0.5)
    whole = Grid(np.add.outer(grid.losses, alpha), (alpha, alpha, alpha))
    assert plot.plot_volume(png, whole, title="t").get_supxlabel().splitlines()[0] == "α along direction 1"
