"""Curves and the losses along them: saved, loaded, told in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from surfaces import quadratic

from loss_landscape import Curve, GridInfo, PathLosses, bezier, fit_curve, line, path_losses, polychain
from loss_landscape.paths.curves import bernstein

CONTROLS = torch.tensor([[-1.0, 1.0], [0.5, 1.0], [1.0, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize("make", [bezier, polychain, lambda controls: line(controls[0], controls[-1])])
def test_a_curve_is_saved_and_loaded(tmp_path, make):
    curve = make(CONTROLS)
    curve.save(tmp_path / "curve.npz")
    again = Curve.load(tmp_path / "curve.npz")
    assert (again.info, again.basis) == (curve.info, curve.basis)
    assert torch.equal(again.controls, curve.controls)
    assert torch.equal(again.point(0.3), curve.point(0.3))


def test_a_fitted_curve_keeps_what_its_fit_told(tmp_path):
    curve = fit_curve(quadratic([1.0, 2.0]), bezier(CONTROLS), steps=4)
    curve.save(tmp_path / "curve.npz")
    assert Curve.load(tmp_path / "curve.npz").info == curve.info
    assert repr(curve) == "Curve(bezier, 3 control points of 2 parameters, fitted by 4 steps)"


def test_a_curve_of_a_basis_of_ones_own_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="a curve of a basis of one's own can't be written: keep its controls"):
        Curve(CONTROLS, bernstein).save(tmp_path / "curve.npz")
    assert not (tmp_path / "curve.npz").exists()


def test_a_line_has_nothing_to_fit_and_what_is_no_curve_is_refused():
    surface = quadratic([1.0, 2.0])
    with pytest.raises(ValueError, match="a curve of two control points is the line between its ends"):
        fit_curve(surface, line(CONTROLS[0], CONTROLS[1]))
    with pytest.raises(TypeError, match="expected a Curve, got Tensor; bezier, polychain and line make one"):
        path_losses(surface, CONTROLS)


def test_losses_along_a_path_are_saved_and_loaded(tmp_path):
    found = path_losses(quadratic([1.0, 2.0]), polychain(CONTROLS), num_points=5)
    found.save(tmp_path / "path.npz")
    again = PathLosses.load(tmp_path / "path.npz")
    for name in ("t", "losses", "lengths"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    assert again.info == found.info
    assert repr(again) == repr(found)
    with pytest.raises(ValueError, match="holds PathLosses, not Curve"):
        Curve.load(tmp_path / "path.npz")


def test_the_highest_loss_is_told_with_its_place():
    t = np.linspace(0.0, 1.0, 3)
    path = PathLosses(t, [0.0, 3.0, 1.0], 2 * t)
    assert repr(path) == "PathLosses(custom, 3 points, length 2, highest 3 at t = 0.5, barrier 2.5)"
    assert path.info == GridInfo()
    with pytest.raises(ValueError, match="expected t, losses and lengths of one shape"):
        PathLosses(t, [0.0, 1.0], t)
