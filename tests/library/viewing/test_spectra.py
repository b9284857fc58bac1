"""A spectrum's picture: where its density is, how its two signs weigh, what was found one by one."""

import itertools

import numpy as np
import pytest
import torch
from drawn_results import density_of

from loss_landscape import plot


class TestSpectrum:
    density = density_of([[-1.0, 0.0, 2.0, 10.0], [-2.0, 0.0, 3.0, 10.0]], [[0.2, 0.3, 0.4, 0.1], [0.4, 0.3, 0.2, 0.1]])

    def test_the_density_is_drawn_where_its_nodes_are(self, png):
        left = plot.plot_spectrum(png, self.density, title="t").axes[0]
        x, y = left.lines[0].get_data()
        area = (np.diff(x) * (y[1:] + y[:-1]) / 2).sum()  # np.trapezoid needs NumPy 2
        assert area == pytest.approx(1.0, abs=1e-3)
        assert x[0] < -2.0
        assert x[-1] > 10.0

    def test_the_two_signs_are_weighed_apart(self, png):
        right = plot.plot_spectrum(png, self.density, title="t").axes[1]
        assert [text.get_text() for text in right.get_legend().get_texts()] == ["λ > 0: 0.4 of all", "λ < 0: 0.3 of all"]
        assert "share below 0: 0.3 ± 0.1 · 0.3 within 1e-06 of 0" in right.get_title().replace("\n", " ")
        totals = [patch.get_data().values.sum() for patch in right.patches]
        assert totals == pytest.approx([0.4, 0.4, 0.3, 0.3])

    def test_eigenvalues_found_one_by_one_are_marked_and_fit_into_the_picture(self, png):
        left = plot.plot_spectrum(png, self.density, title="t", eigenvalues=[40.0, float("nan")]).axes[0]
        marks = next(line for line in left.lines if line.get_label() == "found by the eigensolver")
        np.testing.assert_array_equal(marks.get_xdata(), [40.0])
        assert left.lines[0].get_xdata()[-1] > 40.0

    @pytest.mark.parametrize("nodes", [[[0.0, 0.0]], [[3.0, 3.0]]])
    def test_a_flat_spectrum_is_drawn(self, png, nodes):
        plot.plot_spectrum(png, density_of(nodes, [[0.5, 0.5]]), title="t")
        assert png.exists()

    def test_curvature_that_is_not_finite_is_said(self, png):
        figure = plot.plot_spectrum(png, density_of([[float("nan"), 1.0]], [[0.5, 0.5]]), title="t")
        assert "the curvature is not finite" in [text.get_text() for text in figure.texts]

    def test_eigenvalues_may_be_a_tensor(self, png):
        left = plot.plot_spectrum(png, self.density, title="t", eigenvalues=torch.tensor([40.0, 2.0])).axes[0]
        marks = next(line for line in left.lines if line.get_label() == "found by the eigensolver")
        np.testing.assert_array_equal(marks.get_xdata(), [40.0, 2.0])

    @pytest.mark.parametrize("scale", [1e-9, 1e-4, 1.0, 3e6])
    def test_ticks_lie_apart_and_the_title_above_the_notes(self, png, scale):
        nodes = (scale * self.density.nodes).tolist()
        figure = plot.plot_spectrum(png, density_of(nodes, self.density.weights.tolist()), title="t")
        labels = [text.get_window_extent() for text in figure.axes[0].get_xticklabels() if text.get_text()]
        assert len(labels) >= 3
        assert all(one.x1 < other.x0 for one, other in itertools.pairwise(labels))
        notes = [axes.title.get_window_extent() for axes in figure.axes]
        assert figure._suptitle.get_window_extent().y0 > max(box.y1 for box in notes)
        assert figure._suptitle.get_window_extent().y1 < figure.bbox.y1
        assert notes[0].x1 < notes[1].x0
        assert not any("σ =\n" in axes.get_title() for axes in figure.axes)

    def test_the_fonts_of_a_pdf_are_truetype(self, tmp_path):
        plot.plot_spectrum(tmp_path / "density.pdf", self.density, title="t")
        written = (tmp_path / "density.pdf").read_bytes()
        assert b"/CIDFontType2" in written
        assert b"/Type3" not in written
