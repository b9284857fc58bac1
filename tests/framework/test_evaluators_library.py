"""What evaluators take from the library's newer parts: predicted planes, topology, stability, layers, other sharpnesses."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from loss_landscape import Grid
from taskshift.evaluators.axes import BatchNormOptions
from taskshift.evaluators.planes import Planes, topology_of
from taskshift.evaluators.sam import Sam
from taskshift.evaluators.spectrum import DensityOptions, Spectrum
from taskshift.faults import Fault
from taskshift.learners.learner import Learner
from taskshift.training import Training
from tests.framework.measuring import measuring, mlp, trained, written
from tests.framework.test_evaluators import hessian_of

RANDOM = {"include_hessian": False, "include_trajectory": False, "save_plots": False}
SMALL_SPECTRUM = {"top_k": 1, "bottom_k": 0, "hutchinson_probes": 4, "esd": DensityOptions(2, 6, 20), "save_plots": False}


def gradient_of(measurement) -> torch.Tensor:
    """The gradient by autograd, in the order of `net.parameters()`."""
    net, task = measurement.training.net, measurement.task
    inputs, targets = (torch.cat(part) for part in zip(*measurement.batches, strict=True))
    slopes = torch.autograd.grad(task.loss(net(inputs), targets), list(net.parameters()))
    return torch.cat([slope.reshape(-1) for slope in slopes])


def parameters_of(measurement) -> torch.Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in measurement.training.net.parameters()])


# -- planes ------------------------------------------------------------------------------------------------------


def test_with_a_tolerance_most_cells_are_predicted_and_the_error_is_told(tmp_path):
    evaluator = Planes(grid_resolution=41, span=(-0.1, 0.1), **RANDOM)
    findings = evaluator(measuring(evaluator, tmp_path / "scratch", tolerance=0.01))
    files = written(findings, tmp_path / "files")
    grid = Grid.load(tmp_path / "files" / "random")
    assert findings.scalars["random/num_evaluated"] == grid.evaluated.sum() == np.load(files["random/evaluated.npy"]).sum()
    assert 0 < findings.scalars["random/num_evaluated"] < 41 * 41
    exact = evaluator(measuring(evaluator, tmp_path / "exact"))
    written(exact, tmp_path / "exact")
    truth = Grid.load(tmp_path / "exact" / "random").losses
    assert (abs(grid.losses - truth) / truth).max() < 0.01
    assert 0 < findings.scalars["random/held_out_error"] < 0.01
    assert exact.scalars["random/num_evaluated"] == 41 * 41
    assert "random/held_out_error" not in exact.scalars
    assert "random/evaluated.npy" not in exact.artifacts


def test_the_path_of_a_plane_is_in_its_meta(tmp_path):
    evaluator = Planes(grid_resolution=5, **RANDOM)
    files = written(evaluator(measuring(evaluator, tmp_path / "scratch")), tmp_path / "files")
    meta = json.loads(files["random/meta.json"].read_text())
    assert meta["strategy"] in ("vectorized", "traced", "eager")
    assert isinstance(meta["strategy_note"], str)


def test_the_loss_at_a_planes_centre_has_the_error_of_its_examples(tmp_path):
    evaluator = Planes(grid_resolution=5, **RANDOM)
    measurement = measuring(evaluator, tmp_path / "scratch")
    findings = evaluator(measurement)
    files = written(findings, tmp_path / "files")
    inputs, targets = (torch.cat(each) for each in zip(*measurement.batches, strict=True))
    losses = nn.functional.cross_entropy(measurement.training.net(inputs), targets, reduction="none").detach().numpy()
    expected = losses.std(ddof=1) / np.sqrt(len(losses))
    assert findings.scalars["random/baseline_loss_standard_error"] == pytest.approx(expected, rel=1e-12)
    assert json.loads(files["random/meta.json"].read_text())["baseline_loss_standard_error"] == pytest.approx(expected, rel=1e-12)


def test_with_a_batchs_own_statistics_an_example_has_no_loss_and_no_error(tmp_path):
    evaluator = Planes(grid_resolution=5, bn=BatchNormOptions(eval_mode_only=False), **RANDOM)
    assert "random/baseline_loss_standard_error" not in evaluator(measuring(evaluator, tmp_path)).scalars


def test_a_plane_that_takes_too_long_is_a_fault(tmp_path):
    evaluator = Planes(grid_resolution=11, chunk_size=1, **RANDOM)
    with pytest.raises(Fault, match="would take about .* hours, more than abort_if_estimated_hours_over = 1e-12"):
        evaluator(measuring(evaluator, tmp_path, abort_if_estimated_hours_over=1e-12))


def test_the_chunk_of_a_sam_surface_is_the_configs(tmp_path):
    evaluator = Sam(grid_resolution=5, chunk_size=3, subsample_stride=1, save_plots=False)
    files = written(evaluator(measuring(evaluator, tmp_path / "scratch")), tmp_path / "files")
    assert json.loads(files["meta.json"].read_text())["chunk"] == 3


def test_the_span_is_found_and_sam_has_that_of_the_plain_plane(tmp_path):
    planes = Planes(grid_resolution=5, span="auto", include_random=False, save_plots=False)
    sam = Sam(grid_resolution=5, span="auto", subsample_stride=1, save_plots=False)
    measurement = measuring(planes, tmp_path / "scratch")
    written(planes(measurement.for_evaluator("planes")), tmp_path / "planes")
    written(sam(measurement.for_evaluator("sam")), tmp_path / "sam")
    plain, ascended = Grid.load(tmp_path / "planes" / "hessian"), Grid.load(tmp_path / "sam")
    half = plain.coordinates[0][-1]
    assert half != 1
    assert math.log2(half).is_integer()
    assert plain.meta["span_found"]["median_rises"]
    assert ascended.meta["span"] == plain.meta["span"] == [[-half, half]] * 2


def test_minima_are_counted_where_they_persist():
    axis = np.linspace(-1, 1, 5)
    losses = np.array([[9, 9, 9, 9, 9], [9, 0, 5, 1, 9], [9, 9, 9, 9, 9], [9, 8, 9, 9, 9], [9, 9, 9, 9, 9]], dtype=float)
    grid = Grid(losses, (axis, axis), {})  # minima 0, 1 (to saddle 5, persistence 4) and 8 (to saddle 9, persistence 1); range 9
    assert topology_of(grid, 0.0) == {"num_minima": 3, "total_persistence": 5}
    assert topology_of(grid, 0.2) == {"num_minima": 2, "total_persistence": 5}
    assert topology_of(grid, 0.5) == {"num_minima": 1, "total_persistence": 5}
    nothing = topology_of(Grid(losses * math.nan, (axis, axis), {}), 0.1)
    assert all(math.isnan(value) for value in nothing.values())


def test_an_impossible_threshold_is_refused():
    with pytest.raises(ValueError, match="persistence_threshold is 1.0; it is a share"):
        Planes(persistence_threshold=1.0)


# -- spectrum ----------------------------------------------------------------------------------------------------


def measured_with(optimizer, tmp_path, epochs: int, **options):
    """A net trained by `optimizer` and its spectrum."""
    evaluator = Spectrum(tolerance=1e-8, **SMALL_SPECTRUM, **options)
    measurement = measuring(evaluator, tmp_path / "scratch")
    example = measurement.stream.gather(measurement.task, measurement.task.train[:2])
    object.__setattr__(measurement, "training", Training(Learner(measurement.training.net, optimizer), example))
    trained(measurement, epochs)
    return measurement, evaluator(measurement)


def test_the_edge_of_stability_of_sgd_with_momentum(tmp_path):
    measurement, findings = measured_with(lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9), tmp_path, 2)
    top = torch.linalg.eigvalsh(hessian_of(measurement))[-1].item()
    assert findings.scalars["stability_threshold"] == pytest.approx(3.8 / 0.05)
    assert findings.scalars["sharpness_to_threshold"] == pytest.approx(top * 0.05 / 3.8, rel=1e-6)


def test_the_edge_of_stability_of_adam_is_of_the_preconditioned_hessian(tmp_path):
    measurement, findings = measured_with(lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.95)), tmp_path, 2)
    states = [measurement.training.torch_optimizer.state[parameter] for parameter in measurement.training.net.parameters()]
    step = int(states[0]["step"])
    second = torch.cat([state["exp_avg_sq"].reshape(-1) for state in states]) / (1 - 0.95**step)
    scale = ((1 - 0.8**step) * (second.sqrt() + 1e-8)).rsqrt()
    top = torch.linalg.eigvalsh(scale[:, None] * hessian_of(measurement) * scale)[-1].item()
    assert findings.scalars["stability_threshold"] == pytest.approx(2 * 1.8 / (0.2 * 0.01))
    assert findings.scalars["sharpness_to_threshold"] == pytest.approx(top / 1800, rel=1e-6)


def test_before_adams_first_step_there_is_only_a_threshold(tmp_path):
    _, findings = measured_with(lambda p: torch.optim.Adam(p, lr=0.01), tmp_path, 0)
    assert findings.scalars["stability_threshold"] == pytest.approx(3800)
    assert "sharpness_to_threshold" not in findings.scalars


def test_other_optimizers_have_no_threshold(tmp_path):
    _, findings = measured_with(lambda p: torch.optim.RMSprop(p, lr=0.01), tmp_path, 1)
    assert not {"stability_threshold", "sharpness_to_threshold"} & findings.scalars.keys()


def test_parameter_groups_that_differ_have_no_single_threshold(tmp_path):
    def groups(parameters):
        return torch.optim.SGD([{"params": parameters[:1], "lr": 0.1}, {"params": parameters[1:], "lr": 0.2}])

    assert "stability_threshold" not in measured_with(groups, tmp_path, 1)[1].scalars


def test_the_frobenius_norm_is_within_its_error(tmp_path):
    evaluator = Spectrum(**{**SMALL_SPECTRUM, "esd": DensityOptions(40, 4, 20)})
    measurement = measuring(evaluator, tmp_path)
    found, exact = evaluator(measurement).scalars, hessian_of(measurement).norm().item()
    assert 0 < found["frobenius_norm_standard_error"] < 0.2 * exact
    assert found["frobenius_norm"] == pytest.approx(exact, abs=5 * found["frobenius_norm_standard_error"])


def test_layers_have_the_curvature_of_their_own_blocks(tmp_path):
    evaluator = Spectrum(**{**SMALL_SPECTRUM, "hutchinson_probes": 200}, tolerance=1e-8, per_layer=True)
    measurement = measuring(evaluator, tmp_path)
    found, hessian, first = evaluator(measurement).scalars, hessian_of(measurement), 0
    for name, size in (("0.1", 16 * 5 + 5), ("0.3", 5 * 5 + 5), ("1", 5 * 3 + 3)):
        block = hessian[first : first + size, first : first + size]
        first += size
        assert found[f"{name}/top_eigenvalue"] == pytest.approx(torch.linalg.eigvalsh(block)[-1].item(), rel=1e-7)
        assert found[f"{name}/top_residual"] < 1e-7
        assert found[f"{name}/trace"] == pytest.approx(block.trace().item(), rel=1e-9)  # 200 products suffice for all columns
        assert found[f"{name}/trace_standard_error"] == 0
    assert first == len(hessian)


def test_how_the_hessian_was_multiplied_is_in_the_file_not_in_the_numbers(tmp_path):
    measurement, findings = measured_with(lambda p: torch.optim.SGD(p, lr=0.1), tmp_path, 1)
    kept = json.loads(written(findings, tmp_path / "files")["metrics.json"].read_text())
    assert (kept["hessian_method"], kept["hessian_note"]) == ("retained", "")
    assert not [name for name in findings.scalars if name.startswith("hessian")]


# -- sam ---------------------------------------------------------------------------------------------------------


def test_other_sharpnesses_are_their_expansions_for_small_steps(tmp_path):
    steps = {"rho": 1e-3, "rho_relative": False, "asam_rho": 1e-5, "keskar_epsilon": 1e-6, "expected_samples": 200}
    evaluator = Sam(grid_resolution=5, save_plots=False, **steps)
    measurement = measuring(evaluator, tmp_path, mlp())
    found, slope, at = evaluator(measurement).scalars, gradient_of(measurement), parameters_of(measurement)
    assert found["asam_sharpness"] == pytest.approx(1e-5 * ((at.abs() + 0.01) * slope).norm().item(), rel=1e-3)
    box = 1e-6 * (at.abs() + 1)
    assert found["keskar_sharpness"] == pytest.approx(
        100 * (box * slope.abs()).sum().item() / (1 + measurement.surface.loss()), rel=1e-3
    )
    half_trace = 0.5 * 1e-6 / len(at) * hessian_of(measurement).trace().item()
    error = found["expected_sharpness_standard_error"]
    assert 0 < error < half_trace
    assert found["expected_sharpness"] == pytest.approx(half_trace, abs=5 * error)


def test_each_of_the_others_can_be_left_out(tmp_path):
    evaluator = Sam(grid_resolution=5, asam_rho=None, keskar_steps=0, expected_samples=0, save_plots=False)
    found = evaluator(measuring(evaluator, tmp_path)).scalars
    assert not [name for name in found if name.startswith(("asam", "keskar", "expected"))]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"asam_rho": 0.0}, "asam_rho is 0.0; give a length above 0, or null"),
        ({"asam_eta": -1.0}, "asam_eta is -1.0"),
        ({"keskar_epsilon": 0.0}, "keskar_epsilon is 0.0"),
        ({"keskar_steps": -1}, "keskar_steps is -1; give at least 1, or 0"),
        ({"expected_samples": 1}, "expected_samples is 1; give at least 2, or 0"),
    ],
)
def test_impossible_sharpnesses_are_refused_at_once(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Sam(**arguments)
