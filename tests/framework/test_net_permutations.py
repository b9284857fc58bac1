"""Every net of ours in another order of its units computes the same, and is brought back; its units can be followed."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from flowing import assert_units_can_be_permuted, assert_units_can_be_scaled, assert_units_can_be_silenced
from torch import nn

from loss_landscape import align, unit_flow, unit_groups
from taskshift.nets.convnet import ConvNet
from taskshift.nets.mlp import MLP
from taskshift.nets.resnet18 import ResNet18
from taskshift.nets.transformer import Transformer
from taskshift.nets.vgg16 import VGG16

NORMS = ("none", "batch", "layer")
NETS: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    **{f"mlp-{norm}": ((1, 4, 4), lambda norm=norm: MLP((1, 4, 4), 5, width=20, norm=norm)) for norm in NORMS},
    **{
        f"convnet-{norm}": ((1, 28, 28), lambda norm=norm: ConvNet((1, 28, 28), 5, channels=(6, 8, 10), width=12, norm=norm))
        for norm in NORMS
    },
    **{f"resnet18-{norm}": ((3, 8, 8), lambda norm=norm: ResNet18((3, 8, 8), 5, width=4, norm=norm)) for norm in NORMS},
    **{
        f"vgg16-{norm}": ((1, 32, 32), lambda norm=norm: VGG16((1, 32, 32), 5, batch_norm=norm, width=4, classifier_width=12))
        for norm in (True, False)
    },
}
GROUPED = {"resnet18-group": ((3, 8, 8), lambda: ResNet18((3, 8, 8), 5, width=4, norm="group"))}
"""Two groups in each of the last stage's three sums: whole groups change places, and channels within them."""

GROUPS = {"mlp": 2, "convnet": 5, "resnet18": 12, "vgg16": 15}


def with_statistics(net: nn.Module) -> nn.Module:
    """In float64, with batch norms that do something."""
    net = net.double().eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                for tensor in (module.weight, module.running_var):
                    tensor.uniform_(0.5, 2.0)
                module.running_mean.normal_()
                module.bias.normal_()
    return net


@pytest.mark.parametrize("name", [*NETS, *GROUPED])
def test_a_permuted_net_computes_the_same_and_is_brought_back(name):
    torch.manual_seed(0)
    shape, make = {**NETS, **GROUPED}[name]
    net, inputs = with_statistics(make()), torch.randn(3, *shape, dtype=torch.float64)
    groups = unit_groups(net, inputs)
    assert len(groups.sizes) == GROUPS[name.split("-")[0]] + 3 * (name in GROUPED)
    assert len(groups.fixed) == 1  # the head's bias
    draw = torch.Generator().manual_seed(1)
    orders = [torch.randperm(size, generator=draw) for size in groups.sizes]
    twin = copy.deepcopy(net)
    twin.load_state_dict(groups.permuted(net.state_dict(), orders))
    with torch.no_grad():
        torch.testing.assert_close(twin(inputs), net(inputs), rtol=1e-10, atol=1e-12)
    found = align(twin, net, inputs=inputs)
    assert found.distance_before > 0
    assert found.distance == 0.0
    assert all(torch.equal(found.state[key], tensor) for key, tensor in net.state_dict().items())


FLOWS = {
    **NETS,
    "mlp-crelu": ((1, 4, 4), lambda: MLP((1, 4, 4), 5, width=20, activation="crelu")),
    "mlp-fourier": ((1, 4, 4), lambda: MLP((1, 4, 4), 5, width=20, activation="fourier")),
    "convnet-rms": ((1, 28, 28), lambda: ConvNet((1, 28, 28), 5, channels=(6, 8, 10), width=12, norm="rms")),
}
LAYERS = {"mlp": 2, "convnet": 5, "resnet18": 20, "vgg16": 15}
"""How many layers of units a reader of the net would count, the shortcuts' among them."""


@pytest.mark.parametrize("name", FLOWS)
def test_the_units_of_every_net_are_followed_from_what_makes_them_to_all_that_reads_them(name):
    torch.manual_seed(0)
    shape, make = FLOWS[name]
    net, inputs = with_statistics(make()), (torch.randn(3, *shape, dtype=torch.float64),)
    flow = unit_flow(net, inputs)
    kind, norm = name.split("-")
    assert flow.left_out == {}
    assert (len(flow.layers), len(flow.groups)) == (LAYERS[kind], GROUPS[kind])
    assert all(consumer.reading is not None for layer in flow.layers for consumer in layer.consumers)
    assert {layer.activation for layer in flow.layers} == {"sin" if norm == "fourier" else "relu"}
    assert_units_can_be_permuted(net, inputs, flow)
    if norm not in ("rms", "fourier"):  # there each unit's size matters to all others
        assert_units_can_be_silenced(net, inputs, flow)
        assert_units_can_be_scaled(net, inputs, flow, groups=0 if norm == "layer" else GROUPS[kind])


@pytest.mark.parametrize("norm", ["none", "layer", "rms"])
def test_the_units_of_a_transformer_are_followed(norm):
    torch.manual_seed(0)
    net = Transformer((1, 8, 8), 5, depth=2, width=8, heads=2, mlp_width=12, norm=norm).double().eval()
    inputs = (torch.randn(3, 1, 8, 8, dtype=torch.float64),)
    flow = unit_flow(net, inputs)
    block = ["attention.value", "attention.output", "linear_1", "linear_2"]
    assert [layer.name for layer in flow.layers] == [
        "patches",
        *(f"blocks.{number}.{name}" for number in (0, 1) for name in block),
    ]
    assert flow.left_out == {
        f"blocks.{number}.attention.{name}": "a product of units with units" for number in (0, 1) for name in ("query", "key")
    }
    assert sorted(len(group) for group in flow.groups) == [1, 1, 1, 1, 5]
    if norm == "none":
        assert_units_can_be_silenced(net, inputs, flow)
