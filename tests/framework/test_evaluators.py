"""Evaluators on nets small enough to know the answer."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

from loss_landscape import Density
from loss_landscape.grids.span import axes_over
from loss_landscape.results.grid import Grid
from loss_landscape.results.info import CheckedCell, FloatNoise
from taskshift import checkpoint
from taskshift.evaluators.axes import BatchNormOptions, cells_a_side
from taskshift.evaluators.evaluator import Evaluator, Request
from taskshift.evaluators.planes import Planes, centre_of, low_noise
from taskshift.evaluators.plasticity import Plasticity
from taskshift.evaluators.rank import Rank
from taskshift.evaluators.sam import Sam, subsampled
from taskshift.evaluators.spectrum import DensityOptions, Spectrum
from taskshift.evaluators.units import Units
from taskshift.evaluators.weights import Weights
from taskshift.learners.interventions import AtSwitch
from taskshift.metrics.signed_spectrum import SignedSpectrum
from taskshift.recorders.numeric_rows import scalar
from tests.framework.measuring import measuring, mlp, small_data, snapshots, trained, training_of, written
from tests.metric_names import undocumented, unused

QUIET = {"save_plots": False}
SMALL = {"grid_resolution": 5, **QUIET}


def hessian_of(measurement) -> torch.Tensor:
    """The dense Hessian by autograd, parameters in the order of `net.parameters()`."""
    net, task = measurement.training.net, measurement.task
    inputs = torch.cat([batch.inputs for batch in measurement.batches])
    targets = torch.cat([batch.targets for batch in measurement.batches])
    names, shapes = zip(*((name, p.shape) for name, p in net.named_parameters()), strict=True)
    start = torch.cat([p.detach().reshape(-1) for p in net.parameters()])

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([shape.numel() for shape in shapes])
        state = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return task.loss(torch.func.functional_call(net, state, (inputs,)), targets)

    return torch.autograd.functional.hessian(loss, start)


ALL: dict[str, Evaluator] = {
    "planes": Planes(**SMALL),
    "spectrum": Spectrum(top_k=2, hutchinson_probes=4, esd=DensityOptions(2, 6, 20), per_layer=True, **QUIET),
    "sam": Sam(**SMALL),
    "rank": Rank(measures=("approximate", "effective", "l1", "numerical", "stable")),
    "units": Units(),
    "weights": Weights(),
    "plasticity": Plasticity(control=True),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("phase", ["start", "end"])
def test_every_evaluator_gives_numbers_twice_the_same_and_leaves_the_learner_alone(name, phase, tmp_path):
    evaluator = ALL[name]
    first = measuring(evaluator, tmp_path / "a")
    rows = trained(first)
    before = checkpoint.cloned(first.training.state_dict())
    rows = rows if phase == "end" else []
    found = []
    for scratch in ("a", "b"):
        measurement = measuring(evaluator, tmp_path / scratch, first.training.net, phase=phase, rows=rows)
        findings = evaluator(measurement)
        found.append({key: scalar(key, value) for key, value in findings.scalars.items() if not key.endswith("seconds")})
        written(findings, tmp_path / scratch / "files")
    assert found[0]
    assert checkpoint.first_difference(*found) is None
    assert checkpoint.first_difference(before, first.training.state_dict()) is None


@pytest.mark.parametrize("name", ALL)
def test_a_net_that_diverged_is_measured_all_the_same(name, tmp_path):
    net = mlp(activation=nn.ReLU)
    with torch.no_grad():
        net[0][1].weight.fill_(math.nan)
    evaluator = ALL[name]
    initial = checkpoint.cloned(mlp(activation=nn.ReLU).state_dict())
    findings = evaluator(measuring(evaluator, tmp_path, net, initial=initial))
    written(findings, tmp_path / "files")
    if name in ("planes", "sam"):
        assert not findings.scalars
        assert "The loss at the net's parameters is nan" in next((tmp_path / "files").rglob("LEFT_OUT.txt")).read_text()
    else:
        assert any(math.isnan(value) for value in findings.scalars.values())


def everything(folder) -> set[str]:
    """The full names of all that the evaluators give at a task's end, in float32."""
    names, data = set(), small_data(dtype=torch.float32)
    for name, evaluator in ALL.items():
        first = measuring(evaluator, folder / name, mlp().float(), data=data, dtype=torch.float32)
        paths = snapshots(first, folder / name / "trajectory")
        rows = [{**row, "test_loss": 1.0, "test_accuracy": 0.5} for row in trained(first)]
        given = {"data": data, "dtype": torch.float32, "rows": rows, "trajectory": paths}
        given["make_training"] = lambda seed: training_of(mlp().float())
        measurement = measuring(evaluator, folder / name, first.training.net, **given)
        names |= {f"{name}/{key}" for key in evaluator(measurement).scalars}
    predicted = Planes(grid_resolution=41, span=(-0.1, 0.1), include_hessian=False, **QUIET)
    measurement = measuring(predicted, folder / "predicted", mlp(), tolerance=0.01)
    return names | {f"planes/{key}" for key in predicted(measurement).scalars}


def test_every_number_is_documented_and_every_documented_one_exists(tmp_path):
    names = everything(tmp_path)
    assert undocumented(names) == []
    of_evaluators = [listed for listed in unused(names) if listed.split("/")[0] in ALL]
    assert of_evaluators == []


# -- planes ------------------------------------------------------------------------------------------------------


def plane(kind: str, folder) -> Grid:
    return Grid.load(folder / kind)


def test_planes_are_centred_on_the_loss_of_the_net(tmp_path):
    evaluator = Planes(grid_resolution=7, span=(-0.5, 0.5), **QUIET)
    measurement = measuring(evaluator, tmp_path / "scratch")
    paths = snapshots(measurement, tmp_path / "trajectory")
    measurement = measuring(evaluator, tmp_path / "scratch", measurement.training.net, trajectory=paths)
    findings = evaluator(measurement)
    files = written(findings, tmp_path / "planes")
    net, task = measurement.training.net, measurement.task
    inputs, targets = (torch.cat(part) for part in zip(*measurement.batches, strict=True))
    loss = task.loss(net(inputs), targets).item()
    for kind in ("hessian", "random", "trajectory"):
        assert {f"{kind}/{name}" for name in ("grid.npy", "grid.csv", "meta.json")} <= files.keys()
        grid = plane(kind, tmp_path / "planes")
        assert grid.losses.shape == (7, 7)
        assert grid.losses[3, 3] == findings.scalars[f"{kind}/baseline_loss"] == pytest.approx(loss, rel=1e-12)
        assert abs(findings.scalars[f"{kind}/centre_difference"]) < 1e-10
        assert grid.meta["coordinates"][0][3] == grid.meta["coordinates"][1][3] == 0
        assert grid.meta["batch_norm"] == "running statistics"


def test_a_hessian_axis_curves_as_its_eigenvalue_says(tmp_path):
    evaluator = Planes(grid_resolution=3, span=(-1e-3, 1e-3), hessian_normalization="none", include_random=False, **QUIET)
    measurement = measuring(evaluator, tmp_path)
    top = torch.linalg.eigvalsh(hessian_of(measurement)).flip(0)
    written(evaluator(measurement), tmp_path / "planes")
    losses = plane("hessian", tmp_path / "planes").losses
    for axis, eigenvalue in ((losses[:, 1], top[0]), (losses[1, :], top[1])):
        assert (axis[0] - 2 * axis[1] + axis[2]) / 1e-6 == pytest.approx(eigenvalue.item(), rel=2e-3)


def test_signed_axes_are_the_two_ends(tmp_path):
    evaluator = Planes(hessian_axes="signed", include_random=False, **SMALL)
    assert evaluator.request == Request(top=1, bottom=1)
    measurement = measuring(evaluator, tmp_path)
    values = torch.linalg.eigvalsh(hessian_of(measurement))
    written(evaluator(measurement), tmp_path / "planes")
    found = plane("hessian", tmp_path / "planes").meta["eigenvalues"]
    assert found == pytest.approx([values[-1].item(), values[0].item()], rel=1e-3)


def test_by_default_hessian_axes_are_as_long_as_the_random_ones_would_be(tmp_path):
    evaluator = Planes(normalization="model", **SMALL)
    measurement = measuring(evaluator, tmp_path)
    written(evaluator(measurement), tmp_path / "planes")
    norm = measurement.surface.origin.norm().item()
    for kind in ("hessian", "random"):
        assert plane(kind, tmp_path / "planes").meta["direction_norms"] == pytest.approx([norm, norm], rel=1e-6)


def test_tasks_share_the_random_draw_but_not_its_normalisation(tmp_path):
    evaluator = Planes(include_hessian=False, normalization="none", **SMALL)
    net = mlp()
    grids = []
    for task in (0, 3):
        measurement = measuring(evaluator, tmp_path / str(task), net, task=task)
        written(evaluator(measurement), tmp_path / str(task) / "planes")
        grids.append(plane("random", tmp_path / str(task) / "planes").losses)
    assert np.array_equal(*grids)


class Once(Exception):
    """Stands for a kill."""


def raising(error: type[Exception]):
    def function(*_, **__):
        raise error

    return function


def test_a_plane_that_is_finished_is_not_evaluated_again(tmp_path, monkeypatch):
    evaluator = Planes(include_hessian=False, **SMALL)
    measurement = measuring(evaluator, tmp_path)
    paths = snapshots(measurement, tmp_path / "trajectory")
    measurement = measuring(evaluator, tmp_path, measurement.training.net, trajectory=paths)
    with monkeypatch.context() as patch:
        patch.setattr("taskshift.evaluators.planes.trajectory_directions", raising(Once))
        with pytest.raises(Once):
            evaluator(measurement)
    monkeypatch.setattr("taskshift.evaluators.planes.random_directions", lambda *_, **__: pytest.fail("evaluated again"))
    resumed = evaluator(measurement).scalars
    monkeypatch.undo()
    whole = evaluator(measuring(evaluator, tmp_path / "other", measurement.training.net, trajectory=paths)).scalars
    assert {k: v for k, v in resumed.items() if "seconds" not in k} == {k: v for k, v in whole.items() if "seconds" not in k}


def test_too_short_a_trajectory_is_left_out_and_said(tmp_path):
    evaluator = Planes(include_random=False, include_hessian=False, **SMALL)
    measurement = measuring(evaluator, tmp_path)
    paths = snapshots(measurement, tmp_path / "trajectory", epochs=1)
    findings = evaluator(measuring(evaluator, tmp_path, measurement.training.net, trajectory=paths))
    assert findings.scalars == {}
    text = written(findings, tmp_path / "planes")["trajectory/LEFT_OUT.txt"].read_text()
    assert "takes 3 snapshots and this task has 2" in text


def test_a_trajectory_that_stands_still_is_left_out_and_said(tmp_path):
    evaluator = Planes(include_random=False, include_hessian=False, **SMALL)
    measurement = measuring(evaluator, tmp_path)
    paths = [tmp_path / f"step_{number:09d}.pt" for number in range(4)]
    for path in paths:
        checkpoint.save(path, measurement.training.net.state_dict())
    findings = evaluator(measuring(evaluator, tmp_path, measurement.training.net, trajectory=paths))
    assert "give no plane" in written(findings, tmp_path / "planes")["trajectory/LEFT_OUT.txt"].read_text()


def test_trajectory_points_have_their_own_and_their_projected_loss(tmp_path):
    evaluator = Planes(include_random=False, include_hessian=False, **SMALL)
    measurement = measuring(evaluator, tmp_path)
    paths = snapshots(measurement, tmp_path / "trajectory")
    net = measurement.training.net
    inputs, targets = (torch.cat(part) for part in zip(*measurement.batches, strict=True))
    written(evaluator(measuring(evaluator, tmp_path, net, trajectory=paths)), tmp_path / "planes")
    points = plane("trajectory", tmp_path / "planes").meta["trajectory"]
    assert [point["step"] for point in points] == [0, 3, 6, 9, 12, 15]
    for path, point in zip(paths, points, strict=True):
        net.load_state_dict(checkpoint.load(path))
        assert point["loss"] == pytest.approx(measurement.task.loss(net(inputs), targets).item(), rel=1e-9)
    last = points[-1]
    assert (last["alpha"], last["beta"]) == pytest.approx((0, 0), abs=1e-9)
    assert last["plane_loss"] == pytest.approx(last["loss"], rel=1e-9)


def bowl(centre: float) -> nn.Module:
    """A net whose loss on the small data does not matter: it has a batch norm."""
    torch.manual_seed(2)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)).double()


def test_batch_statistics_are_used_where_they_are_asked_for(tmp_path):
    net = bowl(0.0).eval()
    with torch.no_grad():
        net[2].running_mean.fill_(3.0)
    for only_eval, said in ((True, "running statistics"), (False, "batch statistics")):
        evaluator = Planes(include_hessian=False, bn=BatchNormOptions(eval_mode_only=only_eval), **SMALL)
        measurement = measuring(evaluator, tmp_path / said, net)
        written(evaluator(measurement), tmp_path / said)
        net.train(not only_eval)
        expected = sum(measurement.task.loss(net(b.inputs), b.targets).item() * len(b.targets) for b in measurement.batches) / 40
        net.eval()
        net[2].running_mean.fill_(3.0)
        grid = plane("random", tmp_path / said)
        assert grid.meta["batch_norm"] == said
        assert grid.meta["baseline_loss"] == pytest.approx(expected, rel=1e-9)


def test_norm_layers_and_biases_stay_where_they_are_if_asked(tmp_path):
    for exclude in (False, True):
        evaluator = Planes(include_hessian=False, bn=BatchNormOptions(exclude_bn_and_bias=exclude), **SMALL)
        written(evaluator(measuring(evaluator, tmp_path / str(exclude), bowl(0.0).eval())), tmp_path / str(exclude))
        assert bool(plane("random", tmp_path / str(exclude)).meta["excluded"]) == exclude


def test_even_grids_say_that_they_have_no_centre(tmp_path):
    evaluator = Planes(grid_resolution=4, include_hessian=False, **QUIET)
    findings = evaluator(measuring(evaluator, tmp_path))
    assert "random/centre_difference" not in findings.scalars
    assert "random/centre_is_minimum" not in findings.scalars
    written(findings, tmp_path / "planes")
    assert plane("random", tmp_path / "planes").meta["centre"].startswith("between cells: the resolution is even")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"grid_resolution": 65}, "resolution is 65, 4225 cells, more than max_eval_points_cap = 4096; .*fits is 63"),
        ({"grid_resolution": 21, "max_eval_points_cap": 400}, "fits is 19"),
        ({"span": (0.1, 0.1)}, "span is .0.1, 0.1.; give its lower end, then its upper end"),
        ({"span": (1.0, -1.0)}, "span is"),
        ({"grid_resolution": 1}, "grid_resolution is 1; give at least 2"),
        ({"chunk_size": 0}, "chunk_size is 0"),
    ],
)
def test_impossible_grids_are_refused_at_once(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Planes(**arguments)


def test_a_cell_is_lower_than_the_centre_only_by_more_than_noise():
    axis = np.array([-1.0, 0.0, 1.0])
    losses = np.array([[9.0, 3.0, 9.0], [2.0, 1.0, 0.999], [9.0, math.nan, 9.0]])
    grid = Grid(losses, (axis, axis), {})
    assert centre_of(grid, noise=1e-2) == {"centre_is_minimum": 1, "minimum_offset_alpha": 0, "minimum_offset_beta": 0}
    assert centre_of(grid, noise=1e-6) == {"centre_is_minimum": 0, "minimum_offset_alpha": 0, "minimum_offset_beta": 1}


def test_noise_far_up_does_not_hide_a_low_cell():
    errors = {"random": 5.0, "lowest": 1e-7, "centre": 2e-7}
    checked = tuple(CheckedCell((0, 0), why, 1.0, 1.0, error, error) for why, error in errors.items())
    assert low_noise(FloatNoise(checked=checked)) == 2e-7
    assert low_noise(FloatNoise()) == 0


@pytest.mark.parametrize(("resolution", "stride"), [(41, 1), (41, 2), (41, 4), (33, 8), (11, 5), (51, 25)])
@pytest.mark.parametrize("span", [(-1.0, 1.0), (-0.3, 0.7), (-64.0, 64.0), (-0.1, 0.1)])
def test_a_stride_that_divides_the_steps_keeps_the_bits_of_the_planes_coordinates(resolution, stride, span):
    (whole,) = axes_over(span, resolution, 1)
    kept = subsampled(whole, stride)
    (own,) = axes_over((kept[0], kept[-1]), len(kept), 1)
    assert own.tobytes() == kept.tobytes()


@pytest.mark.parametrize(("resolution", "stride", "side"), [(9, 2, 5), (9, 3, 3), (11, 2, 5), (8, 3, 3), (51, 2, 25)])
def test_any_stride_keeps_cells_of_the_plane_the_centre_among_them(resolution, stride, side):
    (whole,) = axes_over((-1.0, 1.0), resolution, 1)
    kept = subsampled(whole, stride)
    assert len(kept) == side
    assert (0.0 in kept) == (resolution % 2 == 1)
    (own,) = axes_over((kept[0], kept[-1]), side, 1)
    np.testing.assert_allclose(own, kept, rtol=0, atol=3e-16)
    assert (0.0 in own) == (0.0 in kept)


@pytest.mark.parametrize(("cap", "fits"), [(400, 19), (441, 21), (440, 19), (9, 3), (15, 3), (16, 3)])
def test_a_plane_above_the_cap_is_refused_with_what_fits(cap, fits):
    with pytest.raises(ValueError, match=rf"the largest odd resolution that fits is {fits}, or set high_res=True"):
        cells_a_side(41, cap=cap, high_res=False)
    assert fits**2 <= cap < (fits + 2) ** 2
    assert cells_a_side(fits, cap=cap, high_res=False) == fits
    with pytest.raises(ValueError, match="max_eval_points_cap is 8; give at least 9, for 3 cells a side"):
        cells_a_side(2, cap=8, high_res=False)


def test_high_res_is_51_a_side_whatever_the_cap():
    assert Planes(high_res=True).options.resolution == 51
    assert Planes(high_res=True, grid_resolution=99).options.resolution == 99


def test_pictures_are_drawn(tmp_path):
    evaluator = Planes(grid_resolution=3, include_random=False)
    measurement = measuring(evaluator, tmp_path)
    files = written(evaluator(measurement), tmp_path / "planes")
    for name in ("hessian/contour.png", "hessian/surface.png"):
        assert files[name].read_bytes().startswith(b"\x89PNG")


# -- spectrum ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spectrum(tmp_path_factory):
    # as many Lanczos steps as parameters: the quadrature is exact, and the probes are all that is random
    evaluator = Spectrum(top_k=3, bottom_k=2, tolerance=1e-8, hutchinson_probes=40, esd=DensityOptions(12, 49, 400))
    measurement = measuring(evaluator, tmp_path_factory.mktemp("spectrum"), mlp(width=2))
    findings = evaluator(measurement)
    files = written(findings, tmp_path_factory.mktemp("files"))
    return findings.scalars, files, torch.linalg.eigvalsh(hessian_of(measurement))


def test_eigenvalues_are_autograds(spectrum):
    found, _, exact = spectrum
    assert [found[f"top_eigenvalue_{k}"] for k in (1, 2, 3)] == pytest.approx(exact.flip(0)[:3].tolist(), rel=1e-7)
    assert [found[f"bottom_eigenvalue_{k}"] for k in (1, 2)] == pytest.approx(exact[:2].tolist(), rel=1e-7)
    assert max(found[f"{end}_residual_{k}"] for end in ("top", "bottom") for k in (1, 2)) < 1e-8
    assert found["num_unconverged"] == 0
    assert found["partial_topk_sum"] == pytest.approx(exact[-3:].sum().item(), rel=1e-7)


def test_estimates_are_within_their_errors(spectrum):
    found, _, exact = spectrum
    size, zero = len(exact), 1e-12 * exact.abs().max()
    truth = {
        "trace": exact.sum(),
        "negative_mass": (exact < -zero).double().mean(),
        "positive_mass": (exact > zero).double().mean(),
        "zero_mass": (exact.abs() <= zero).double().mean(),
        "epsilon_rank": (exact.abs() > 1e-3 * exact.abs().max()).double().sum(),
    }
    for name, value in truth.items():
        error = found[f"{name}_standard_error"]
        assert 0 < error < 0.2 * size
        assert found[name] == pytest.approx(value.item(), abs=5 * error), name
    assert found["trace_fraction_topk"] == pytest.approx(found["partial_topk_sum"] / found["trace"])


def test_the_masses_share_out_the_whole_spectrum(spectrum):
    found, _, exact = spectrum
    assert found["negative_mass"] + found["zero_mass"] + found["positive_mass"] == pytest.approx(1, abs=1e-9)
    assert found["signed_balance"] == pytest.approx(found["positive_mass"] - found["negative_mass"])
    assert found["max_ritz_value"] <= exact[-1] * (1 + 1e-9)
    assert found["min_ritz_value"] >= exact[0] - 1e-9 * exact[-1]
    assert found["negative_density_integral"] + found["positive_density_integral"] == pytest.approx(1, abs=0.02)


def test_the_quadrature_is_kept_and_the_density_drawn(spectrum):
    found, files, _ = spectrum
    with np.load(files["quadrature.npz"]) as arrays:
        assert arrays["nodes"].shape == arrays["weights"].shape == (12, 49)
        np.testing.assert_allclose(arrays["weights"].sum(axis=1), 1, rtol=1e-9)
        assert arrays["x"].shape == arrays["density"].shape == (400,)
    kept = json.loads(files["metrics.json"].read_text())
    assert kept["converged"] == [True] * 5
    assert kept["trace"] == found["trace"]
    assert files["esd.png"].read_bytes().startswith(b"\x89PNG")


def test_each_task_has_probes_of_its_own(tmp_path):
    evaluator, net, found = ALL["spectrum"], mlp(), []
    for task in (0, 3):
        found.append(evaluator(measuring(evaluator, tmp_path / str(task), net, task=task)).scalars)
    assert found[0]["top_eigenvalue_1"] == pytest.approx(found[1]["top_eigenvalue_1"], rel=1e-3)
    assert found[0]["trace"] != found[1]["trace"]
    assert found[0]["negative_mass"] != found[1]["negative_mass"]


NODES = torch.tensor([[-2.0, 0.0, 1.0, 4.0], [-1.0, 1e-9, 2.0, 4.0]], dtype=torch.float64)
SHARES = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.2, 0.2, 0.2, 0.4]], dtype=torch.float64)


def test_signed_statistics_by_hand():
    signed = SignedSpectrum(NODES, SHARES, zero=1e-6)
    assert signed.negative_mass().tolist() == pytest.approx([0.1, 0.2])
    assert signed.positive_mass().tolist() == pytest.approx([0.7, 0.6])
    assert signed.zero_mass().tolist() == pytest.approx([0.2, 0.2])
    assert signed.negative_fraction().tolist() == pytest.approx([0.125, 0.25])
    assert signed.signed_balance().tolist() == pytest.approx([0.6, 0.4])
    assert signed.extreme_ratio().tolist() == pytest.approx([0.5, 0.25])
    by_hand = math.sqrt(0.2) / (math.sqrt(0.3) + math.sqrt(1.6))
    assert signed.weighted_ratio(0.5)[0].item() == pytest.approx(by_hand)


def test_a_value_that_lanczos_gives_twice_counts_once():
    doubled = SignedSpectrum(torch.cat([NODES, NODES], 1), torch.cat([SHARES, SHARES], 1) / 2, zero=1e-6)
    once = SignedSpectrum(NODES, SHARES, zero=1e-6)
    for name in ("negative_mass", "positive_mass", "negative_fraction", "extreme_ratio"):
        torch.testing.assert_close(getattr(doubled, name)(), getattr(once, name)())


def test_unused_places_of_a_quadrature_say_nothing():
    nodes = torch.tensor([[2.0, 5.0, 0.0]], dtype=torch.float64)  # a probe that broke down after two steps, all positive
    weights = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64)
    signed = SignedSpectrum(nodes, weights, zero=1e-6)
    assert signed.extreme_ratio().item() == pytest.approx(0.4)
    assert signed.zero_mass().item() == 0
    assert Density(nodes, weights, 10, 1e-6).negative_mass.value == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"top_k": 0}, "top_k is 0"),
        ({"hutchinson_probes": 1}, "hutchinson_probes is 1"),
        ({"tolerance": 0.0}, "tolerance is 0"),
        ({"zero_epsilon": 1.0}, "zero_epsilon is 1"),
    ],
)
def test_impossible_spectra_are_refused_at_once(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Spectrum(**arguments)
    with pytest.raises(ValueError, match="esd.lanczos_steps is 0"):
        DensityOptions(lanczos_steps=0)


# -- sam ---------------------------------------------------------------------------------------------------------


def ascended(measurement, rho: float) -> float:
    """L(θ + ρ g/‖g‖) by plain autograd on a copy of the net."""
    net = mlp()
    net.load_state_dict(measurement.training.net.state_dict())
    inputs, targets = (torch.cat(part) for part in zip(*measurement.batches, strict=True))
    slopes = torch.autograd.grad(measurement.task.loss(net(inputs), targets), list(net.parameters()))
    length = torch.cat([slope.reshape(-1) for slope in slopes]).norm()
    with torch.no_grad():
        for parameter, slope in zip(net.parameters(), slopes, strict=True):
            parameter += rho * slope / length
    return measurement.task.loss(net(inputs), targets).item()


@pytest.mark.parametrize("relative", [True, False])
def test_sharpness_is_the_rise_after_one_step_uphill(relative, tmp_path):
    evaluator = Sam(rho=0.3, rho_relative=relative, grid_resolution=5, subsample_stride=2, **QUIET)
    measurement = measuring(evaluator, tmp_path)
    norm = measurement.surface.origin.norm().item()
    rho = 0.3 * norm if relative else 0.3
    findings = evaluator(measurement)
    assert findings.scalars["rho_absolute"] == pytest.approx(rho)
    assert findings.scalars["rho_relative"] == pytest.approx(rho / norm)
    assert findings.scalars["sharpness"] == pytest.approx(ascended(measurement, rho) - measurement.surface.loss(), rel=1e-9)
    written(findings, tmp_path / "sam")
    grid = Grid.load(tmp_path / "sam")
    assert grid.losses.shape == (3, 3)
    assert grid.losses[1, 1] == pytest.approx(ascended(measurement, rho), rel=1e-9)
    assert grid.meta["rho_absolute"] == pytest.approx(rho)


def test_planes_and_sam_share_one_hessian_plane(tmp_path, monkeypatch):
    planes, sam = Planes(include_random=False, **SMALL), Sam(grid_resolution=5)
    measurement = measuring(planes, tmp_path)
    planes(measurement.for_evaluator("planes"))
    monkeypatch.setattr("taskshift.evaluators.axes.evaluate_grid", lambda *_, **__: pytest.fail("evaluated twice"))
    files = written(sam(measurement.for_evaluator("sam")), tmp_path / "files")
    assert files["comparison.png"].exists()
    assert files["sam_surface.png"].exists()


def test_a_stride_that_leaves_no_cells_is_refused():
    with pytest.raises(ValueError, match="subsample_stride is 3; 1 takes every cell, 2 every other, and"):
        Sam(grid_resolution=5, subsample_stride=3)


# -- rank, units, weights ----------------------------------------------------------------------------------------


def test_ranks_of_each_layer_on_the_probe_batch(tmp_path):
    evaluator = Rank(measures=("approximate", "stable"), batch_size=20)
    measurement = measuring(evaluator, tmp_path)
    found = evaluator(measurement).scalars
    inputs = torch.cat([batch.inputs for batch in measurement.batches])[:20]
    net = measurement.training.net
    features = {"0.2": net[0][:3](inputs), "0.4": net[0](inputs)}
    for layer, matrix in features.items():
        sigma = np.linalg.svd(matrix.detach().numpy(), compute_uv=False)
        assert found[f"{layer}/stable_rank"] == pytest.approx((sigma**2).sum() / sigma[0] ** 2, rel=1e-9)
        enough = np.cumsum(sigma**2) >= 0.99 * (sigma**2).sum()
        assert found[f"{layer}/approximate_rank"] == 1 + enough.argmax()
    assert found["num_examples"] == 20
    assert found["stable_rank"] == pytest.approx(np.mean([found["0.2/stable_rank"], found["0.4/stable_rank"]]))
    ratio = found["0.4/stable_rank"] / found["0.2/stable_rank"]
    assert found["stable_rank_aurc"] == pytest.approx((1 + ratio) / 2)


def test_convolutions_have_their_maps_flattened(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).double()
    evaluator = Rank()
    findings = evaluator(measuring(evaluator, tmp_path, net))
    kept = json.loads(written(findings, tmp_path / "rank")["metrics.json"].read_text())
    assert kept["layers"]["1"]["num_columns"] == 4 * 2 * 2
    assert findings.scalars["num_examples"] == 40


def test_layers_are_chosen_by_glob_and_a_wrong_one_is_told(tmp_path):
    assert set(Rank(layers="0.4", compute_gini=False)(measuring(Rank(), tmp_path)).scalars) == {
        "0.4/approximate_rank",
        "approximate_rank",
        "approximate_rank_drop_gini",
        "approximate_rank_drop_centroid",
        "approximate_rank_aurc",
        "num_examples",
    }
    with pytest.raises(ValueError, match=r"layers='conv\*' matches no layer of this net; it has 0.2, 0.4"):
        Rank(layers="conv*")(measuring(Rank(), tmp_path))


def test_dead_channels_are_counted_as_channels(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    with torch.no_grad():
        net[0].bias[:1] = -1e6
        net[3].bias[:2] = -1e6
    found = Units()(measuring(Units(), tmp_path, net)).scalars
    assert found["1/dead_fraction"] == 1 / 4
    assert found["4/dead_fraction"] == pytest.approx(2 / 8)
    assert found["dead_fraction"] == pytest.approx(3 / 12)
    assert found["num_units"] == 12
    assert found["dormant_fraction"] >= found["dead_fraction"]
    assert "saturated_fraction" not in found


def test_saturated_units_of_tanh(tmp_path):
    net = mlp()
    with torch.no_grad():
        net[0][1].bias[:2] = 1e3
    found = Units()(measuring(Units(), tmp_path, net)).scalars
    assert found["0.2/saturated_fraction"] == pytest.approx(2 / 5)
    assert found["saturated_fraction"] == pytest.approx(2 / 10)
    assert found["dead_fraction"] == 0


def test_weights_and_their_way_from_the_start(tmp_path):
    net, initial = mlp(), checkpoint.cloned(mlp().state_dict())
    with torch.no_grad():
        net[1].weight += 2.0
        net[1].bias += 1.0
    found = Weights()(measuring(Weights(), tmp_path, net, initial=initial)).scalars
    assert found["1/distance_from_init"] == pytest.approx(2 * math.sqrt(15))
    assert found["distance_from_init"] == pytest.approx(math.sqrt(4 * 15 + 3))
    assert found["0.1/distance_from_init"] == 0
    start = torch.cat([tensor.reshape(-1) for tensor in initial.values()]).norm().item()
    assert found["relative_distance_from_init"] == pytest.approx(found["distance_from_init"] / start)
    matrices = torch.cat([p.detach().reshape(-1) for p in net.parameters() if p.dim() > 1])
    assert found["mean_abs"] == pytest.approx(matrices.abs().mean().item())
    assert found["norm"] == pytest.approx(torch.cat([p.detach().reshape(-1) for p in net.parameters()]).norm().item())


# -- plasticity --------------------------------------------------------------------------------------------------


def test_the_learning_curve_and_where_the_net_stands(tmp_path):
    evaluator = Plasticity(batch_size=5)
    measurement = measuring(evaluator, tmp_path)
    rows = [{"epoch_loss": 2.0, "epoch_accuracy": 0.25, "test_accuracy": 0.5}, {"epoch_loss": 1.0, "epoch_accuracy": 0.75}]
    measurement = measuring(evaluator, tmp_path, measurement.training.net, rows=rows)
    found = evaluator(measurement).scalars
    assert found["first_epoch_loss"] == 2.0
    assert found["first_epoch_accuracy"] == 0.25
    assert found["first_epoch_test_accuracy"] == 0.5
    assert found["area_under_loss"] == 1.5
    assert found["area_under_accuracy"] == 0.5
    net, data, task = measurement.training.net, measurement.stream.data, measurement.task
    for split, indices in (("test", task.test), ("train", task.train)):
        outputs = net(data.inputs[indices])
        assert found[f"{split}_loss"] == pytest.approx(task.loss(outputs, data.targets[indices]).item(), rel=1e-12)
        accuracy = (outputs.argmax(1) == data.targets[indices]).double().mean().item()
        assert found[f"{split}_accuracy"] == pytest.approx(accuracy)


def test_at_a_tasks_start_there_is_no_curve(tmp_path):
    evaluator = Plasticity(control=True)
    found = evaluator(measuring(evaluator, tmp_path, phase="start")).scalars
    errors = {"test_loss_standard_error", "test_accuracy_standard_error"}
    assert set(found) == {"test_loss", "test_accuracy", "train_loss", "train_accuracy", "num_test_examples"} | errors


def test_the_error_of_a_test_is_that_of_its_examples(tmp_path):
    evaluator = Plasticity(control=True, batch_size=5)
    first = measuring(evaluator, tmp_path, mlp())
    rows = trained(first, epochs=2)
    control = training_of(mlp())
    measurement = measuring(evaluator, tmp_path, first.training.net, rows=rows, make_training=lambda seed: control, task=1)
    found = evaluator(measurement).scalars
    count, share = found["num_test_examples"], found["test_accuracy"]
    assert (count, 0 < share < 1) == (12, True)
    assert found["test_accuracy_standard_error"] == pytest.approx(math.sqrt(share * (1 - share) / (count - 1)))
    data, test = measurement.stream.data, measurement.task.test
    own, its = (
        -np.log(softmax(net(data.inputs[test]).detach().numpy(), axis=1))[np.arange(12), data.targets[test]]
        for net in (measurement.training.net, control.net)
    )
    assert found["test_loss_standard_error"] == pytest.approx(own.std(ddof=1) / math.sqrt(12))
    assert found["gap_test_loss_standard_error"] == pytest.approx((own - its).std(ddof=1) / math.sqrt(12))


def test_a_loss_without_a_value_an_example_has_no_error(tmp_path):
    class Whole(nn.CrossEntropyLoss):
        def forward(self, outputs, targets):
            return nn.functional.cross_entropy(outputs, targets)

    measurement = measuring(Plasticity(), tmp_path)
    object.__setattr__(measurement, "task", replace(measurement.task, loss=Whole()))
    found = Plasticity()(measurement).scalars
    assert "test_accuracy_standard_error" in found
    assert "test_loss_standard_error" not in found
    assert measurement.loss_error is None


def test_the_control_of_a_net_that_was_new_itself_leaves_no_gap(tmp_path):
    evaluator = Plasticity(control=True)
    first = measuring(evaluator, tmp_path, mlp())
    rows = trained(first, epochs=3)
    measurement = measuring(evaluator, tmp_path, first.training.net, rows=rows, make_training=lambda seed: training_of(mlp()))
    found = evaluator(measurement).scalars
    gaps = {name: value for name, value in found.items() if name.startswith("gap_")}
    errors = {"gap_test_loss_standard_error", "gap_test_accuracy_standard_error"}
    assert set(gaps) == {f"gap_{name}" for name in found if f"control_{name}" in found} | errors
    assert {gaps[name] for name in errors} == {0.0}
    assert gaps["gap_area_under_accuracy"] == gaps["gap_test_loss"] == gaps["gap_first_epoch_loss"] == 0


def test_a_worn_net_shows_a_gap_to_its_control(tmp_path):
    worn = mlp()
    with torch.no_grad():
        worn[0][1].weight.zero_()  # tanh units without input: the gradient can't tell them apart
        worn[0][1].bias.fill_(50.0)
    evaluator = Plasticity(control=True)
    first = measuring(evaluator, tmp_path, worn)
    rows = trained(first, epochs=5)
    found = evaluator(measuring(evaluator, tmp_path, worn, rows=rows)).scalars
    assert found["gap_train_accuracy"] < -0.1
    assert found["gap_area_under_accuracy"] == pytest.approx(found["area_under_accuracy"] - found["control_area_under_accuracy"])


class Switched(AtSwitch):
    def at_switch(self, subject, context):
        pytest.fail("the control has no task behind it")


def test_the_control_has_no_switch_behind_it(tmp_path):
    evaluator = Plasticity(control=True)
    first = measuring(evaluator, tmp_path)
    fresh = training_of(mlp(), interventions={"switch": Switched()})
    rows = trained(first, epochs=1)
    found = evaluator(measuring(evaluator, tmp_path, rows=rows, task=3, make_training=lambda seed: fresh)).scalars
    assert "control_test_loss" in found


def test_large_training_sets_are_sampled(tmp_path):
    evaluator = Plasticity(max_train_examples=10)
    measurement = measuring(evaluator, tmp_path, data=small_data(num_train=40))
    chosen = evaluator._train_examples(measurement)
    assert len(chosen) == len(set(chosen.tolist())) == 10
    assert torch.equal(chosen, evaluator._train_examples(measurement))
