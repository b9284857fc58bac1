"""A picture's colours run where most of its losses are."""

import numpy as np
import pytest

from loss_landscape.viewing.colour_scale import ColourScale


class TestColourScale:
    def test_several_decades_are_logarithmic(self):
        alpha, beta = np.meshgrid(np.linspace(-1, 1, 11), np.linspace(-0.5, 0.5, 7))
        scale = ColourScale.of(1e-4 + alpha**2 + beta**2)
        assert scale.logarithmic
        assert scale.low == pytest.approx(1e-4)

    def test_less_is_linear(self):
        scale = ColourScale.of(np.linspace(1.0, 50.0, 100))
        assert scale == ColourScale(1.0, 50.0)

    def test_losses_of_both_signs_are_linear(self):
        assert not ColourScale.of(np.linspace(-1.0, 5000.0, 100)).logarithmic

    def test_a_few_huge_cells_do_not_stretch_it(self):
        losses = np.append(np.linspace(-1.0, 1.0, 999), 1e9)
        scale = ColourScale.of(losses)
        assert scale.high < 1.0
        assert scale.clipped

    def test_a_bowl_is_not_clipped(self):
        alpha, beta = np.meshgrid(np.linspace(-1, 1, 41), np.linspace(-1, 1, 41))
        assert ColourScale.of(1.0 + alpha**2 + beta**2) == ColourScale(1.0, 3.0)

    def test_zeros_leave_a_logarithmic_scale_finite(self):
        scale = ColourScale.of(np.array([0.0, 1e-3, 1.0]))
        assert scale.logarithmic
        assert scale.low == pytest.approx(1e-3)

    def test_one_scale_covers_several_arrays_without_their_holes(self):
        scale = ColourScale.of(np.array([1.0, np.nan]), np.array([4.0, np.inf]))
        assert scale == ColourScale(1.0, 4.0)

    def test_nothing_finite_still_gives_a_scale(self):
        assert ColourScale.of(np.array([np.nan])) == ColourScale(0.0, 1.0)
