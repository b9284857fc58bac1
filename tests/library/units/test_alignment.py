"""Units put into another net's order: copies are recovered, functions kept, distances and barriers smaller."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from nets import assert_leaves_net_untouched
from torch import Tensor, nn
from trained_nets import classes, trained_mlp
from unit_nets import MAKERS, made

from loss_landscape import Alignment, LossSurface, align, barrier, fit_bezier, path_losses, unit_groups

METHODS = ["weights", "activations"]
WITH_UNITS = sorted(name for name, make in MAKERS.items() if make().sizes)


def shuffled(net: nn.Module, inputs: Tensor, seed: int) -> nn.Module:
    """A copy of the net with its units in another order."""
    draw, groups, twin = torch.Generator().manual_seed(seed), unit_groups(net, inputs), copy.deepcopy(net)
    twin.load_state_dict(groups.permuted(net.state_dict(), [torch.randperm(size, generator=draw) for size in groups.sizes]))
    return twin


def loaded(net: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    twin = copy.deepcopy(net)
    twin.load_state_dict(state)
    return twin


@pytest.mark.parametrize("seed", range(3))
def test_a_permuted_copy_of_an_mlp_is_recovered_in_one_sweep(seed):
    inputs, targets = classes()
    net = trained_mlp(seed, inputs, targets)
    copied = shuffled(net, inputs, seed)
    surface = LossSurface(net, nn.CrossEntropyLoss(), [(inputs, targets)])
    assert barrier(surface, net, copied).barrier > 0.05
    found = align(copied, net, inputs=inputs)
    assert found.info.sweeps == 1
    assert found.distance == 0.0
    assert all(torch.equal(found.state[name], tensor) for name, tensor in net.state_dict().items())
    assert barrier(surface, net, found.state).barrier == 0.0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [name for name in WITH_UNITS if name not in ("attention", "residual-group", "tied")])
def test_a_permuted_copy_of_any_net_is_recovered(name, method):
    case = made(name)
    copied = shuffled(case.net, case.inputs, 1)
    found = align(copied, case.net, inputs=case.inputs, method=method)
    assert found.distance_before > 0
    assert found.distance == 0.0
    assert found.meta.get("converged", True)
    assert found.state.keys() == case.net.state_dict().keys()
    assert all(torch.equal(found.state[name], tensor) for name, tensor in case.net.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", WITH_UNITS)
def test_an_aligned_net_computes_the_same_and_is_no_farther_away(name, method):
    case, other = made(name, 0), made(name, 1)
    found = align(case.net, other.net, inputs=case.inputs, method=method)
    with torch.no_grad():
        expected, outputs = case.net(case.inputs), loaded(case.net, found.state)(case.inputs)
    torch.testing.assert_close(outputs, expected, rtol=1e-11, atol=1e-12)
    pairs = zip(loaded(case.net, found.state).parameters(), other.net.parameters(), strict=True)
    assert found.distance == pytest.approx(sum((p - q).square().sum() for p, q in pairs).sqrt().item(), rel=1e-12)
    if method == "weights":
        assert found.distance <= found.distance_before


def test_units_on_both_sides_of_a_weight_never_go_to_a_worse_order():
    for seed in range(12):
        case, other = made("tied", 2 * seed), made("tied", 2 * seed + 1)
        found = align(case.net, other.net, inputs=case.inputs)
        assert found.distance <= found.distance_before
        assert found.info.converged


def test_with_one_hidden_layer_no_order_is_nearer():
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).double() for _ in range(2)]
    found = align(*nets, inputs=torch.randn(4, 3, dtype=torch.float64))
    first, second = ([net[0].weight.T, net[0].bias[None], net[2].weight] for net in nets)

    def distance(order: tuple[int, ...]) -> float:
        return float(sum((p[:, list(order)] - q).square().sum().item() for p, q in zip(first, second, strict=True)))

    best = min(itertools.permutations(range(6)), key=distance)
    assert found.permutations[0].tolist() == list(best)
    last = (nets[0][2].bias - nets[1][2].bias).square().sum().item()
    assert found.distance == pytest.approx((distance(best) + last) ** 0.5, rel=1e-12)


def test_activations_recover_units_that_were_also_rescaled():
    case = made("mlp")
    copied = shuffled(case.net, case.inputs, 3)
    with torch.no_grad():
        scales = torch.logspace(-2, 2, 14, dtype=torch.float64)
        copied[0].weight *= scales[:, None]
        copied[0].bias *= scales
        copied[2].weight /= scales
    found = align(copied, case.net, inputs=case.inputs, method="activations")
    assert found.distance < found.distance_before
    hidden = [torch.relu(net[0](case.inputs)) for net in (loaded(copied, found.state), case.net)]
    live = hidden[1].std(dim=0) > 0
    correlation = torch.corrcoef(torch.cat([part[:, live] for part in hidden], dim=1).T)
    count = int(live.sum())
    torch.testing.assert_close(correlation[:count, count:].diagonal(), torch.ones(count, dtype=torch.float64))


def test_a_dead_unit_does_not_hinder_the_others():
    case = made("mlp")
    with torch.no_grad():
        case.net[0].bias[2] = -100.0
    copied = shuffled(case.net, case.inputs, 1)
    found = align(copied, case.net, inputs=case.inputs, method="activations")
    assert all(torch.isfinite(tensor).all() for tensor in found.state.values())
    assert found.distance == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_aligned_nets_have_a_lower_barrier(method):
    inputs, targets = classes()
    net, other = (trained_mlp(seed, inputs, targets, depth=2) for seed in (0, 1))
    surface = LossSurface(net, nn.CrossEntropyLoss(), [(inputs, targets)])
    found = align(other, net, inputs=inputs, method=method)
    assert barrier(surface, net, found.state).barrier < 0.5 * barrier(surface, net, other).barrier


def test_both_nets_permuted_alike_have_the_same_path():
    inputs, targets = (part.double() if part.is_floating_point() else part for part in classes(64))
    nets = [trained_mlp(seed, inputs.float(), targets, depth=2, width=8).double() for seed in (0, 1)]
    groups = unit_groups(nets[0], inputs)
    draw = torch.Generator().manual_seed(4)
    orders = [torch.randperm(size, generator=draw) for size in groups.sizes]
    twins = [loaded(net, groups.permuted(net.state_dict(), orders)) for net in nets]
    results = []
    for pair in (nets, twins):
        surface = LossSurface(pair[0], nn.CrossEntropyLoss(), [(inputs, targets)])
        curve = fit_bezier(surface, *pair, steps=10)
        paths = barrier(surface, *pair, num_points=7), path_losses(surface, curve, num_points=7)
        results.append([torch.from_numpy(path.losses) for path in paths])
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=0)


def test_a_reference_may_be_a_state_dict_and_the_order_is_the_generators():
    case, other = made("flattened", 0), made("flattened", 1)
    plain = align(case.net, other.net, inputs=case.inputs)
    by_state = align(case.net, other.net.state_dict(), inputs=case.inputs, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(p, q) for p, q in zip(plain.permutations, by_state.permutations, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_aligning_leaves_both_nets_alone(method):
    case, other = made("residual-batch", 0), made("residual-batch", 1)
    with assert_leaves_net_untouched(case.net), assert_leaves_net_untouched(other.net):
        align(case.net, other.net, inputs=case.inputs, method=method)


def test_what_can_not_be_aligned_is_refused():
    case, deeper = made("mlp"), nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    with pytest.raises(
        ValueError, match=r"expected two nets of one architecture, but they differ in 0.weight, 0.bias, 2.weight …"
    ):
        align(case.net, deeper, inputs=case.inputs)
    gated = made("gated")
    with pytest.raises(ValueError, match=r"no units of this net can be permuted: both.weight: a cut through its units"):
        align(gated.net, gated.net, inputs=gated.inputs)
    with pytest.raises(ValueError, match="method must be 'weights' or 'activations', got 'both'"):
        align(case.net, case.net, inputs=case.inputs, method="both")


def test_an_alignment_is_saved_and_loaded(tmp_path):
    case, other = made("residual-batch", 0), made("residual-batch", 1)
    found = align(case.net, other.net, inputs=case.inputs)
    found.save(tmp_path / "alignment.npz")
    again = Alignment.load(tmp_path / "alignment.npz")
    assert all(torch.equal(again.state[name], tensor) for name, tensor in found.state.items())
    assert all(torch.equal(one, two) for one, two in zip(again.permutations, found.permutations, strict=True))
    assert (again.groups, again.distance, again.info) == (found.groups, found.distance, found.info)
    assert repr(again) == repr(found)
    loaded(case.net, again.state)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda net: torch.compile(net, backend="eager")], ids=["parallel", "compiled"])
def test_a_wrapped_reference_is_the_net_inside(wrap):
    case, other = made("mlp", 0), made("mlp", 1)
    plain, wrapped = (align(case.net, net, inputs=case.inputs) for net in (other.net, wrap(other.net)))
    assert wrapped.distance == plain.distance
    assert wrapped.state.keys() == plain.state.keys()


def test_what_is_no_net_to_align_with_is_refused():
    case = made("mlp")
    with pytest.raises(TypeError, match="expected a net of the same architecture or its state dict as reference, got str"):
        align(case.net, "net.pt", inputs=case.inputs)
    with pytest.raises(TypeError, match=r"expected the net itself, a torch.nn.Module, to trace, got OrderedDict"):
        align(case.net.state_dict(), case.net, inputs=case.inputs)
