"""Curves between nets: their losses, barriers and bends, against closed forms, dense autograd and torch's own Adam."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from nets import Case, assert_leaves_net_untouched, cases, dense_loss, mlp
from surfaces import batch, held_surface, quadratic, surface_of
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from loss_landscape import (
    Curve,
    LossSurface,
    PathLosses,
    barrier,
    bezier,
    checkpointing,
    fit_bezier,
    fit_curve,
    fit_polychain,
    line,
    path_losses,
    polychain,
)
from loss_landscape.checkpointing import Checkpointing
from loss_landscape.paths.curve_fitting import AdamState, lr_factor

KINDS: dict[str, Callable[[Tensor], Curve]] = {"bezier": bezier, "polychain": polychain}
FITS = {"bezier": fit_bezier, "polychain": fit_polychain}


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def case_named(name: str) -> Case:
    case = next(case for case in cases() if case.name == name)
    case.model.eval()
    return case


def surface_for(case: Case, **options) -> LossSurface:
    return LossSurface(case.model, case.loss_fn, case.batches, **options)


def normed_net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        net[1].running_mean.normal_()
        net[1].weight.uniform_(0.5, 2.0)
    return net


def trained_net(seed: int, inputs: Tensor, targets: Tensor) -> nn.Sequential:
    torch.manual_seed(seed)
    net = mlp(width=24, activation=nn.ReLU)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(net(inputs), targets).backward()
        optimizer.step()
    return net


# Curves


def bernstein_by_casteljau(controls: Tensor, t: float) -> Tensor:
    """De Casteljau's construction: the straight lines' points at t, again and again."""
    while len(controls) > 1:
        controls = (1 - t) * controls[:-1] + t * controls[1:]
    return controls[0]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_bezier_curve_is_de_casteljaus(count):
    controls = drawn(count, 7)
    for t in (0.0, 0.1, 0.5, 0.93, 1.0):
        torch.testing.assert_close(bezier(controls).point(t), bernstein_by_casteljau(controls, t), rtol=1e-13, atol=1e-14)


def test_a_polychain_goes_straight_from_control_to_control():
    controls = drawn(4, 7)
    chain = polychain(controls)
    for number in range(4):
        torch.testing.assert_close(chain.point(number / 3), controls[number], rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(chain.point(0.5), (controls[1] + controls[2]) / 2, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(chain.point(0.25), 0.25 * controls[0] + 0.75 * controls[1], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 3, 6])
def test_the_ends_are_the_nets_bit_for_bit(kind, count):
    controls = drawn(count, 50, dtype=torch.float32) * torch.logspace(-20, 20, 50)
    controls[0, :2], controls[-1, :2] = torch.tensor([-0.0, math.inf]), torch.tensor([-0.0, -math.inf])
    curve = KINDS[kind](controls)
    for t, end in ((0.0, controls[0]), (1.0, controls[-1])):
        assert torch.equal(curve.point(t).view(torch.int32), end.view(torch.int32))


def test_shares_are_those_of_an_array_of_places_in_any_order():
    curve, places = bezier(drawn(4, 7)), np.linspace(0, 1, 5)
    assert torch.equal(curve.weights(places[::-1]), curve.weights(torch.from_numpy(places)).flip(0))


def test_places_outside_the_curve_and_misshapen_controls_are_refused():
    with pytest.raises(ValueError, match=r"t must be from 0 to 1, got \[1.5\]"):
        line(torch.zeros(3), torch.ones(3)).point(1.5)
    with pytest.raises(ValueError, match=r"expected control points \[K, P\], K ≥ 2, got \[1, 3\]"):
        bezier(torch.zeros(1, 3))


# Losses along a curve


@pytest.mark.parametrize("sign", [1, -1])
def test_on_a_quadratic_the_straight_line_is_the_closed_form(sign):
    curvatures = [3.0 * sign, 0.5 * sign, 2.0 * sign]
    surface = quadratic(curvatures)
    start, end = drawn(3, seed=1), drawn(3, seed=2)
    found = barrier(surface, start, end, num_points=25)
    bulge = float((torch.tensor(curvatures) * (end - start) ** 2).sum())
    chord = (1 - found.t) * found.losses[0] + found.t * found.losses[-1]
    np.testing.assert_allclose(found.losses - chord, -0.5 * found.t * (1 - found.t) * bulge, rtol=1e-9, atol=1e-12)
    assert found.barrier == pytest.approx(0.0 if sign > 0 else abs(bulge) / 8, rel=1e-9, abs=1e-14)
    thirds = (found.losses[0] + found.losses[-1]) / 2 - bulge / 12  # ∫ of the same parabola
    assert barrier(surface, start, end, num_points=1001).mean == pytest.approx(thirds, rel=1e-5)
    assert found.lengths[-1] == pytest.approx(float((end - start).norm()), rel=1e-12)


@pytest.mark.parametrize("name", ["cross_entropy", "class_weights", "conv", "dict_inputs", "tied"])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_along_a_curve_are_those_of_the_net_put_there(name, kind):
    case = case_named(name)
    surface = surface_for(case)
    curve = KINDS[kind](surface.origin + 0.5 * drawn(4, surface.size))  # does not pass through the origin
    found = path_losses(surface, curve, num_points=7)
    expected = [float(dense_loss(case, surface.layout.names, curve.point(t))) for t in found.t]
    np.testing.assert_allclose(found.losses, expected, rtol=1e-10)


def test_lengths_are_measured_along_the_curve():
    surface = quadratic([1.0, 1.0, 1.0])
    controls = torch.tensor([[0.0, 0, 0], [3, 0, 0], [3, 4, 0]], dtype=torch.float64)
    found = path_losses(surface, polychain(controls), num_points=5)
    np.testing.assert_allclose(found.lengths, [0, 1.5, 3, 5, 7], rtol=1e-12)
    halves = [float(((point - 1) ** 2).sum() / 2) for point in map(polychain(controls).point, found.t)]
    by_hand = sum(step * (a + b) / 2 for step, (a, b) in zip([1.5, 1.5, 2, 2], itertools.pairwise(halves), strict=True)) / 7
    assert found.mean == pytest.approx(by_hand, rel=1e-12)


MODES = ["running", "batch", "recompute"]


@pytest.mark.parametrize("mode", MODES)
def test_the_ends_losses_are_the_surfaces_own_bit_for_bit(mode):
    first, second = normed_net(0), normed_net(1)
    second.load_state_dict({**second.state_dict(), **{k: v for k, v in first.state_dict().items() if "running" in k}})
    surfaces = [LossSurface(net, nn.CrossEntropyLoss(), [batch(20), batch(12)], batch_norm=mode) for net in (first, second)]
    curve = bezier(torch.stack([surfaces[0].origin, drawn(surfaces[0].size, dtype=torch.float32), surfaces[1].origin]))
    for surface in surfaces:  # whichever net it was made with
        losses = path_losses(surface, curve, num_points=5).losses
        assert [losses[0], losses[-1]] == [s.loss() for s in surfaces]


def test_statistics_are_recomputed_at_every_point():
    first, second = normed_net(0), normed_net(1)
    batches = [batch(16), tuple(part[16:] for part in batch(32))]
    surface = LossSurface(first, nn.CrossEntropyLoss(), batches, batch_norm="recompute")
    found = barrier(surface, first, second, num_points=5)
    for t, loss in zip(found.t, found.losses, strict=True):
        net = copy.deepcopy(first)
        mixed = [(1 - t) * a + t * b for a, b in zip(first.parameters(), second.parameters(), strict=True)]
        nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(mixed), net.parameters())
        torch.optim.swa_utils.update_bn([inputs for inputs, _ in batches], net)
        net.eval()
        assert float(loss) == pytest.approx(sum(F.cross_entropy(net(x), y).item() for x, y in batches) / 2, rel=1e-5)


def test_another_surface_gives_another_measure_along_the_same_curve():
    inputs, targets = batch(64)
    first, second = (trained_net(seed, inputs, targets) for seed in (0, 1))

    def error_rate(outputs: Tensor, wanted: Tensor) -> Tensor:
        return (outputs.argmax(dim=1) != wanted).double().mean() + 0 * outputs.sum()

    errors = barrier(LossSurface(first, error_rate, [(inputs, targets)], batch_weight=lambda _: 1.0), first, second, num_points=5)
    for t, rate in zip(errors.t, errors.losses, strict=True):
        mixed = {name: (1 - t) * p + t * q for (name, p), q in zip(first.named_parameters(), second.parameters(), strict=True)}
        guesses = functional_call(first, mixed, (inputs,)).argmax(dim=1)
        assert rate == pytest.approx(float((guesses != targets).double().mean()), abs=1 / 64)


def test_a_point_may_be_a_net_its_state_dict_its_file_or_a_vector(tmp_path: Path):
    first, second = mlp(), mlp()
    surface = LossSurface(first, nn.CrossEntropyLoss(), [batch()])
    torch.save(second.state_dict(), tmp_path / "net.pt")
    points = [second, second.state_dict(), tmp_path / "net.pt", surface.layout.flatten(dict(second.named_parameters()))]
    found = [barrier(surface, first, point, num_points=5).losses for point in points]
    assert all((losses == found[0]).all() for losses in found)


def test_a_net_and_itself_have_no_barrier():
    surface = surface_of()
    found = barrier(surface, surface.origin, surface.origin, num_points=5)
    assert (found.barrier, found.mean, found.lengths[-1]) == (0.0, surface.loss(), 0.0)
    assert found.highest == found.losses[0] == surface.loss()


def test_a_loop_has_length_but_no_way_between_its_ends():
    surface = surface_of()
    bend = surface.origin + drawn(surface.size, dtype=torch.float32)
    found = path_losses(surface, bezier(torch.stack([surface.origin, bend, surface.origin])), num_points=5)
    assert found.lengths[-1] > 0
    assert found.losses[0] == found.losses[-1] == surface.loss()
    assert found.losses[1] == pytest.approx(found.losses[3], rel=1e-6)


def test_losses_that_are_not_finite_are_kept():
    t = np.linspace(0, 1, 3)
    assert PathLosses(t, np.array([1.0, np.inf, 2.0]), t).barrier == np.inf
    assert math.isnan(PathLosses(t, np.array([1.0, np.nan, 2.0]), t).barrier)
    assert math.isnan(PathLosses(t, np.array([np.inf, 1.0, np.inf]), t).barrier)


def test_a_flat_or_evenly_rising_path_has_a_barrier_of_nothing():
    t = np.linspace(0, 1, 25)
    for first, last in ((0.1, 0.1), (0.1, 0.3), (1e-9, 7.0)):
        assert PathLosses(t, np.full(25, first), t).barrier == 0.0
        assert PathLosses(t, np.linspace(first, last, 25), t).barrier == pytest.approx(0.0, abs=1e-15)


def test_too_few_points_are_refused():
    surface = surface_of()
    with pytest.raises(ValueError, match="num_points must be ≥ 2, got 1"):
        barrier(surface, surface.origin, surface.origin, num_points=1)


@pytest.mark.parametrize("mode", MODES)
def test_a_path_of_nets_rescaled_alike_has_the_same_losses(mode):
    first, second = normed_net(0).double(), normed_net(1).double()
    for net in (first, second):
        net[1].eps = 1e-14
    batches = [(batch()[0].double(), batch()[1])]
    scales = torch.rand(8, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 5 + 0.2

    def losses(*nets: nn.Sequential) -> np.ndarray:
        return barrier(LossSurface(nets[0], nn.CrossEntropyLoss(), batches, batch_norm=mode), *nets, num_points=7).losses

    def rescaled(net: nn.Sequential) -> nn.Sequential:
        net = copy.deepcopy(net)
        with torch.no_grad():
            for tensor in (net[0].weight.T, net[0].bias, net[1].running_mean):
                tensor *= scales
            net[1].running_var *= scales**2
        return net

    np.testing.assert_allclose(losses(rescaled(first), rescaled(second)), losses(first, second), rtol=1e-9)


# Bends


def reference_bends(kind: str, case: Case, ends: Tensor, times: Tensor, lr: float, count: int, penalty: float = 0.0) -> Tensor:
    """The bends after torch's own Adam on losses differentiated through the whole curve, batch by batch in turn."""
    places = torch.linspace(0, 1, count + 2, dtype=torch.float64)[1:-1, None]
    bends = ((1 - places) * ends[0] + places * ends[1]).requires_grad_()
    optimizer = torch.optim.Adam([bends], lr=lr)
    total = sum(len(targets) for _, targets in case.batches)
    names = tuple(name for name, _ in case.model.named_parameters())
    for step, t in enumerate(times.tolist()):
        controls = torch.cat([ends[:1], bends, ends[1:]])
        if kind == "bezier":
            point = bernstein_by_casteljau(controls, t)
        else:
            piece = min(int(t * (count + 1)), count)
            point = torch.lerp(controls[piece], controls[piece + 1], t * (count + 1) - piece)
        one = case.batches[step % len(case.batches)]
        loss = dense_loss(Case("", case.model, case.loss_fn, [one]), names, point)
        loss = loss * len(one[1]) / total * len(case.batches) + penalty * point.square().sum()
        for group in optimizer.param_groups:
            group["lr"] = lr * lr_factor(step / len(times))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return bends.detach()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", ["cross_entropy", "conv"])
def test_bends_go_where_dense_autograd_and_torchs_adam_take_them(kind, count, name):
    case = case_named(name)
    surface = surface_for(case)
    ends = torch.stack([surface.origin, surface.origin + drawn(surface.size)])
    curve = FITS[kind](
        surface, *ends, steps=20, lr=0.05, num_control_points=count + 2, generator=torch.Generator().manual_seed(3)
    )
    times = torch.rand(20, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(curve.controls[1:-1], reference_bends(kind, case, ends, times, 0.05, count), rtol=1e-8, atol=1e-10)
    assert curve.info.fell_back is None
    assert (curve.num_control_points, curve.info.steps, len(curve.info.training_losses)) == (count + 2, 20, 20)


def test_a_regulariser_bends_the_curve_once_a_step():
    case = case_named("mse")
    surface = surface_for(case, regularizer=lambda net: 0.3 * sum(p.square().sum() for p in net.parameters()))
    ends = torch.stack([surface.origin, surface.origin + drawn(surface.size)])
    curve = fit_bezier(surface, *ends, steps=9)
    times = torch.rand(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = reference_bends("bezier", case, ends, times, 0.01, 1, penalty=0.3)
    torch.testing.assert_close(curve.controls[1:-1], expected, rtol=1e-8, atol=1e-10)


def test_the_learning_rate_is_held_then_falls_to_a_hundredth():
    assert [lr_factor(p) for p in (0.0, 0.3, 0.5)] == [1.0, 1.0, 1.0]
    assert lr_factor(0.7) == pytest.approx(0.505)
    assert [lr_factor(p) for p in (0.9, 1.0)] == pytest.approx([0.01, 0.01])


def test_a_surface_that_recomputes_statistics_is_trained_on_each_batchs_own():
    first, second = normed_net(0).double(), normed_net(1).double()
    data = [(x.double(), y) for x, y in (batch(20), batch(12))]
    surfaces = {mode: LossSurface(first, nn.CrossEntropyLoss(), data, batch_norm=mode) for mode in MODES}
    curves = {mode: fit_bezier(surface, first, second, steps=10) for mode, surface in surfaces.items()}
    assert torch.equal(curves["recompute"].controls, curves["batch"].controls)
    assert not torch.allclose(curves["running"].controls, curves["batch"].controls)

    net = copy.deepcopy(first).train()
    t = float(torch.rand(1, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    mixed = {k: (1 - t) * p + t * q for (k, p), q in zip(first.named_parameters(), second.parameters(), strict=True)}
    loss = F.cross_entropy(functional_call(net, mixed, (data[0][0],)), data[0][1]) * 20 / 32 * 2
    assert curves["recompute"].info.training_losses[0] == pytest.approx(loss.item(), rel=1e-10)


def test_another_surface_may_hold_the_batches_to_train_on():
    inputs, targets = batch(64)
    first, second = (trained_net(seed, inputs, targets) for seed in (0, 1))
    shown, hidden = (
        LossSurface(first, nn.CrossEntropyLoss(), [(inputs[part], targets[part])]) for part in (slice(0, 32), slice(32, 64))
    )
    curve = fit_bezier(hidden, first, second, steps=5)
    assert not torch.equal(curve.controls, fit_bezier(shown, first, second, steps=5).controls)
    assert path_losses(shown, curve, num_points=3).losses[0] == shown.loss()
    with pytest.raises(
        ValueError, match=f"expected a curve in the surface's layout, with P = 24 moving parameters, got {shown.size}"
    ):
        fit_curve(shown.restricted("0.bias"), curve)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_a_fitted_curve_is_far_below_the_straight_line(kind, seed):
    inputs, targets = batch(64)
    first, second = (trained_net(10 * seed + number, inputs, targets) for number in (1, 2))
    surface = LossSurface(first, nn.CrossEntropyLoss(), [(inputs, targets)])
    before = barrier(surface, first, second)
    after = path_losses(surface, FITS[kind](surface, first, second, steps=200, lr=0.03))
    assert before.barrier > 0.2
    assert after.highest < before.barrier / 5
    assert after.losses[0] == before.losses[0]
    assert after.losses[-1] == before.losses[-1]


def test_fitting_and_measuring_leave_the_net_alone():
    first, second = normed_net(0), normed_net(1)
    with assert_leaves_net_untouched(first), assert_leaves_net_untouched(second):
        surface = LossSurface(first, nn.CrossEntropyLoss(), [batch()], batch_norm="recompute")
        path_losses(surface, fit_bezier(surface, first, second, steps=3), num_points=5)


def test_the_generator_gives_one_t_a_step_and_nothing_else_is_drawn():
    surface = surface_of()
    generator = torch.Generator().manual_seed(8)
    fit_bezier(surface, surface.origin, -surface.origin, steps=6, generator=generator)
    other = torch.Generator().manual_seed(8)
    torch.rand(6, generator=other, dtype=torch.float64)
    assert torch.equal(generator.get_state(), other.get_state())


def test_progress_is_told_up_to_the_end():
    told: list[float] = []
    surface, watched = surface_of(), Checkpointing(progress=lambda fraction, _: told.append(fraction))
    fit_bezier(surface, surface.origin, -surface.origin, steps=6, checkpointing=watched)
    assert told == pytest.approx([2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"steps": 0}, "steps must be ≥ 1"),
        ({"num_control_points": 2}, "must be ≥ 3, the two ends and at least one to train, got 2"),
    ],
)
def test_nothing_to_fit_is_refused(options, complaint):
    surface = surface_of()
    with pytest.raises(ValueError, match=complaint):
        fit_bezier(surface, surface.origin, -surface.origin, **options)


# Out of time, cut off, diverged


@pytest.fixture
def clock(monkeypatch):
    """Seconds that go by with every step of a fit alone."""

    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock, moved = Clock(), AdamState.updated

    def slowly(state: AdamState, *arguments) -> AdamState:
        clock.now += 1.0
        return moved(state, *arguments)

    monkeypatch.setattr(checkpointing, "time", clock)
    monkeypatch.setattr(AdamState, "updated", slowly)
    return clock


def fitted(surface: LossSurface, **options) -> Curve:
    straight = bezier(torch.stack([surface.origin, torch.zeros_like(surface.origin), -surface.origin]))
    return fit_curve(surface, straight, steps=30, generator=torch.Generator().manual_seed(1), **options)


def test_out_of_time_the_straight_line_comes_back_and_says_so(clock):
    surface = surface_of()
    curve = fitted(surface, max_seconds=12.5)
    assert curve.info.fell_back == "max_seconds=12.5 were over after 13 of 30 steps, so the curve stays as it was given"
    assert (curve.info.steps, curve.info.seconds) == (13, 13.0)
    torch.testing.assert_close(curve.controls[1], torch.zeros_like(surface.origin), rtol=0, atol=0)
    assert fitted(surface, max_seconds=30.5).info.fell_back is None


def test_what_was_done_before_time_ran_out_is_not_done_again(clock, tmp_path: Path):
    surface, file = surface_of(), tmp_path / "fit.partial"
    whole = fitted(surface)
    assert fitted(surface, max_seconds=12.5, checkpointing=Checkpointing(file)).info.fell_back
    began = clock.now
    assert fitted(surface, max_seconds=12.5, checkpointing=Checkpointing(file)).info.steps == 13  # spent already
    curve = fitted(surface, max_seconds=40, checkpointing=Checkpointing(file))
    assert clock.now - began == 17
    assert curve.info.seconds == 30
    assert torch.equal(curve.controls, whole.controls)
    assert curve.info.training_losses == whole.info.training_losses
    assert not file.exists()


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("seed", range(4))
def test_a_fit_cut_off_anywhere_goes_on_with_the_same_bits(monkeypatch, tmp_path: Path, seed):
    torch.manual_seed(0)
    surface = LossSurface(normed_net(0), nn.CrossEntropyLoss(), [batch(20), batch(12), batch(7)], batch_norm="recompute")
    whole = fitted(surface)
    file, moved = tmp_path / "fit.partial", AdamState.updated
    left = iter(torch.randint(1, 12, (2,), generator=torch.Generator().manual_seed(seed)).tolist() + [99])
    for allowed in left:
        count = itertools.count()

        def stops(state: AdamState, *arguments, count=count, allowed=allowed) -> AdamState:
            if next(count) == allowed:
                raise Interrupted
            return moved(state, *arguments)

        monkeypatch.setattr(AdamState, "updated", stops)
        if allowed < 99:
            with pytest.raises(Interrupted):
                fitted(surface, checkpointing=Checkpointing(file))
            assert file.exists()
    curve = fitted(surface, checkpointing=Checkpointing(file))
    assert torch.equal(curve.controls, whole.controls)
    assert curve.info.training_losses == whole.info.training_losses
    assert not file.exists()


def test_another_fits_file_is_not_taken_up(clock, tmp_path: Path):
    surface, file = surface_of(), tmp_path / "fit.partial"
    fitted(surface, max_seconds=3.5, checkpointing=Checkpointing(file))
    began = clock.now
    curve = fitted(surface, lr=0.02, checkpointing=Checkpointing(file))
    assert clock.now - began == 30
    assert torch.equal(curve.controls, fitted(surface, lr=0.02).controls)


def test_a_fit_with_a_penalty_that_is_0_at_the_start_is_another_one(clock, tmp_path: Path):
    torch.manual_seed(0)
    net, file = mlp(width=12), tmp_path / "fit.partial"
    plain, held = surface_of(net), held_surface(net)
    assert held.loss() == plain.loss()
    fitted(plain, max_seconds=3.5, checkpointing=Checkpointing(file))
    assert torch.equal(fitted(held, checkpointing=Checkpointing(file)).controls, fitted(held).controls)


def test_bends_that_diverge_fall_back_and_say_so():
    surface = surface_of()
    curve = fit_bezier(surface, surface.origin, -surface.origin, steps=20, lr=1e38)
    assert curve.info.fell_back == (
        "control points left the finite numbers, with lr=1e+38, so the curve stays as it was given; take a lower lr"
    )
    assert torch.isfinite(curve.controls).all()
