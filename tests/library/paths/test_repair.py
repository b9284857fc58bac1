"""Repaired mixtures of two nets have the mixture of their statistics, layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from nets import assert_leaves_net_untouched
from torch import Tensor, nn
from trained_nets import classes, trained_mlp
from unit_nets import Residual, UnitNet, made

from loss_landscape import LossSurface, align, barrier, line, repair, repaired_line


def surface_of(case: UnitNet, sizes: Sequence[int] = (3, 2), **options) -> LossSurface:
    targets = torch.arange(sum(sizes)) % 3
    batches = list(zip(case.inputs.split(list(sizes)), targets.split(list(sizes)), strict=True))
    return LossSurface(case.net, nn.CrossEntropyLoss(), batches, **options)


def statistics(surface: LossSurface, point: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each unit of `layer` over all the data in one pass, by a hook of our own on a copy of the net."""
    net, seen = copy.deepcopy(surface.objective.net.module), []
    net.load_state_dict({**net.state_dict(), **surface.layout.unflatten(point)})
    net.get_submodule(layer).register_forward_hook(lambda module, inputs, outputs: seen.append(outputs))
    with torch.no_grad():
        net(torch.cat([inputs for inputs, _ in surface.objective.batches]))
    units = seen[0].movedim(1, 0).flatten(1)
    return units.mean(dim=1), units.std(dim=1, correction=0)


HIDDEN = {
    "mlp": ["0", "2"],
    "residual-none": ["stem", "conv1", "conv2", "conv3"],
    "residual-group": ["stem", "conv1", "conv2", "conv3"],
    "depthwise": ["0", "2", "4"],
}


@pytest.mark.parametrize("t", [0.5, 0.2])
@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_units_have_the_mixture_of_both_nets_statistics(name, t):
    case, other = made(name, 0), made(name, 1)
    surface = surface_of(case, (3, len(case.inputs) - 3))
    ends = [surface.layout.flatten(dict(net.named_parameters())).detach() for net in (case.net, other.net)]
    repaired = repair(surface, case.net, other.net, t=t)
    for layer in HIDDEN[name]:
        found, first, second = (statistics(surface, point, layer) for point in (repaired, *ends))
        for value, one, two in zip(found, first, second, strict=True):
            torch.testing.assert_close(value, (1 - t) * one + t * two, rtol=1e-9, atol=1e-10)
    plain = line(*ends).point(t)
    assert not torch.allclose(statistics(surface, plain, HIDDEN[name][-1])[1], found[1], rtol=1e-2)


def test_the_layer_that_gives_the_outputs_is_the_plain_mixture():
    case, other = made("mlp", 0), made("mlp", 1)
    surface = surface_of(case, (5, 4))
    parameters = surface.layout.unflatten(repair(surface, case.net, other.net))
    for name in ("4.weight", "4.bias"):
        mixture = (case.net.get_parameter(name) + other.net.get_parameter(name)) / 2
        torch.testing.assert_close(parameters[name], mixture.detach(), rtol=1e-13, atol=0)


def test_logits_that_go_through_a_softmax_are_outputs_all_the_same():
    case, other = made("mlp", 0), made("mlp", 1)
    nets = [nn.Sequential(*net, nn.LogSoftmax(dim=1)) for net in (case.net, other.net)]
    surface = LossSurface(nets[0], nn.NLLLoss(), [(case.inputs, torch.arange(9) % 3)])
    plain = surface_of(case, (9,))
    assert torch.equal(repair(surface, *nets), repair(plain, case.net, other.net))


@pytest.mark.parametrize("name", ["mlp", "residual-batch"])
def test_the_ends_are_the_nets_themselves(name):
    case, other = made(name, 0), made(name, 1)
    surface = surface_of(case, (3, len(case.inputs) - 3), batch_norm="recompute")
    for t, net in ((0.0, case.net), (1.0, other.net)):
        assert torch.equal(repair(surface, case.net, other.net, t=t), surface.layout.flatten(dict(net.named_parameters())))


def test_what_goes_into_a_batch_norm_is_left_to_it():
    case, other = made("residual-batch", 0), made("residual-batch", 1)
    surface = surface_of(case, batch_norm="recompute")
    way = surface.layout.unflatten(repair(surface, case.net, other.net))
    for name, parameter in case.net.named_parameters():
        mixture = ((parameter + other.net.get_parameter(name)) / 2).detach()
        changed = not torch.allclose(way[name], mixture, rtol=1e-12, atol=0)
        assert changed == (name == "way.weight"), name  # the only convolution without a norm


def test_a_layer_without_a_bias_gets_its_deviation_alone():
    case, other = made("residual-none", 0), made("residual-none", 1)
    surface = surface_of(case)
    ends = [surface.layout.flatten(dict(net.named_parameters())).detach() for net in (case.net, other.net)]
    found, first, second = (statistics(surface, p, "way")[1] for p in (repair(surface, *ends), *ends))
    torch.testing.assert_close(found, (first + second) / 2, rtol=1e-9, atol=0)


def test_a_dead_layer_is_shifted_and_nothing_is_divided_by_zero():
    case, other = made("mlp", 0), made("mlp", 1)
    with torch.no_grad():
        for net in (case.net, other.net):
            net[2].weight[1] = 0.0
    point = repair(surface_of(case, (5, 4)), case.net, other.net)
    assert torch.isfinite(point).all()


def test_tied_and_frozen_layers_are_the_plain_mixture():
    case, other = made("tied", 0), made("tied", 1)
    case.net.first.weight.requires_grad_(False)
    surface = surface_of(case, (5, 4))
    parameters = surface.layout.unflatten(repair(surface, case.net, other.net))
    assert "first.weight" not in parameters
    for name, parameter in parameters.items():
        mixture = ((case.net.get_parameter(name) + other.net.get_parameter(name)) / 2).detach()
        torch.testing.assert_close(parameter, mixture, rtol=1e-13, atol=0)


def test_repair_lowers_the_barrier_that_alignment_leaves_in_deep_nets():
    inputs, targets = classes()
    barriers = []
    for seed in (0, 2):
        net, other = (trained_mlp(seed + number, inputs, targets, depth=5, width=64) for number in (0, 1))
        surface = LossSurface(net, nn.CrossEntropyLoss(), [(inputs, targets)])
        aligned = align(other, net, inputs=inputs).state
        before, repaired = barrier(surface, net, aligned, num_points=9), repaired_line(surface, net, aligned, num_points=9)
        barriers.append((before.barrier, repaired.barrier))
        assert (repaired.losses[0], repaired.losses[-1]) == (before.losses[0], before.losses[-1])
        assert repaired.lengths[-1] >= before.lengths[-1] * (1 - 1e-6)
        assert repaired.losses[2] == surface.moved_to(repair(surface, net, aligned, t=0.25)).loss()
    plain, repaired = np.mean(barriers, axis=0)
    assert repaired < 0.75 * plain


def test_with_recomputed_norms_everywhere_the_repaired_line_is_the_straight_one():
    torch.manual_seed(0)
    layers = [(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)), (nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5))]
    nets = [nn.Sequential(*(module for pair in layers for module in (*copy.deepcopy(pair), nn.ReLU()))) for _ in range(2)]
    nets = [nn.Sequential(net, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)).double() for net in nets]
    with torch.no_grad():
        for parameter in nets[1].parameters():
            parameter.normal_(std=0.3)
    surface = surface_of(UnitNet(nets[0], made("flattened").inputs, []), batch_norm="recompute")
    np.testing.assert_allclose(
        repaired_line(surface, *nets, num_points=5).losses, barrier(surface, *nets, num_points=5).losses, rtol=1e-12
    )


def test_repairing_leaves_both_nets_alone():
    torch.manual_seed(0)
    net, other = Residual().double(), Residual().double()
    case = UnitNet(net, made("residual-batch").inputs, [])
    with assert_leaves_net_untouched(net), assert_leaves_net_untouched(other):
        repair(surface_of(case, batch_norm="recompute"), net, other)


def test_a_surface_that_does_not_know_a_batchs_inputs_is_refused():
    case = made("mlp")
    surface = LossSurface(case.net, batches=[case.inputs], batch_loss=lambda net, inputs: net(inputs).square().mean())
    with pytest.raises(ValueError, match="repair needs to know a batch's inputs: give the surface a loss_fn"):
        repair(surface, case.net, case.net)
    with pytest.raises(ValueError, match="num_points must be ≥ 2, got 1"):
        repaired_line(surface_of(case, (9,)), case.net, case.net, num_points=1)
