"""Initial weights: the distribution that was asked for, in every layer of every net."""

from __future__ import annotations

from math import sqrt
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import nn

from taskshift.nets.activations import ActivationName, activation_module, activation_of
from taskshift.nets.convnet import ConvNet
from taskshift.nets.deep_linear import DeepLinear
from taskshift.nets.initialisation import InitializationName, initialise
from taskshift.nets.layer_kinds import LayerName
from taskshift.nets.layers import NormName
from taskshift.nets.mlp import MLP
from taskshift.nets.resnet18 import ResNet18
from taskshift.nets.vgg16 import VGG16

SCHEMES = [name for name in get_args(InitializationName) if name not in ("default", "orthogonal")]
NETS = {
    "mlp": lambda **options: MLP((1, 12, 12), 10, width=60, **options),
    "convnet": lambda **options: ConvNet((3, 24, 24), 10, channels=(16, 16, 16), width=60, **options),
    "resnet18": lambda **options: ResNet18((3, 8, 8), 10, width=8, **options),
    "vgg16": lambda **options: VGG16((3, 32, 32), 10, width=8, classifier_width=32, **options),
    "deep_linear": lambda **options: DeepLinear((1, 12, 12), 10, width=60, **options),
}


def layers(net: nn.Module) -> list[nn.Module]:
    return [module for module in net.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]


def expected_deviation(scheme: str, weight: torch.Tensor, gain: float) -> float:
    area = weight[0, 0].numel() if weight.ndim == 4 else 1
    fan_in, fan_out = weight.shape[1] * area, weight.shape[0] * area
    if scheme == "lecun_normal":
        return 1 / sqrt(fan_in)
    return gain * sqrt(2 / (fan_in + fan_out)) if scheme.startswith("xavier") else gain / sqrt(fan_in)


def assert_drawn(scheme: str, weight: torch.Tensor, gain: float) -> None:
    """Mean 0 and the deviation of the scheme, each within five standard errors; uniform ones within their bound."""
    deviation, count = expected_deviation(scheme, weight, gain), weight.numel()
    assert abs(weight.mean().item()) < 5 * deviation / sqrt(count)
    assert abs(weight.std().item() / deviation - 1) < 5 / sqrt(2 * count)
    largest = weight.abs().max().item() / deviation
    assert largest <= sqrt(3) * (1 + 1e-5) if scheme.endswith("uniform") else largest > sqrt(3)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", NETS)
def test_every_layer_of_every_net_obeys(name, scheme):
    torch.manual_seed(0)
    net = NETS[name](initialization=scheme)
    for layer in layers(net)[:-1]:
        assert_drawn(scheme, layer.weight.detach(), 1.0 if name == "deep_linear" else sqrt(2))
    assert_drawn(scheme, layers(net)[-1].weight.detach(), 1.0)
    assert all((layer.bias == 0).all() for layer in layers(net) if layer.bias is not None)


@pytest.mark.parametrize("activation", get_args(ActivationName))
@pytest.mark.parametrize("seed", range(2))
def test_gains_follow_the_activation(activation, seed):
    torch.manual_seed(seed)
    net = MLP((64,), 10, depth=1, width=500, activation=activation, initialization="kaiming_normal")
    assert_drawn("kaiming_normal", net.hidden.linear_1.weight.detach(), activation_of(activation).gain)
    assert_drawn("kaiming_normal", net.head.weight.detach(), 1.0)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "sigmoid", "identity"])
def test_gains_are_torchs_where_torch_has_them(activation):
    if activation == "leaky_relu":
        assert activation_of(activation).gain == pytest.approx(nn.init.calculate_gain("leaky_relu", 0.01))
    else:
        assert activation_of(activation).gain == pytest.approx(
            nn.init.calculate_gain("linear" if activation == "identity" else activation)
        )


@pytest.mark.parametrize("activation", sorted(set(get_args(ActivationName)) - {"tanh", "sigmoid", "selu"}))
def test_gains_keep_the_second_moment(activation):
    if activation == "maxout":  # of two independent inputs; E max² = (E a² + E b²)/2 by symmetry
        pair = torch.randn(2_000_000, 2, generator=torch.Generator().manual_seed(0))
        moment = activation_module(activation, 2)(pair).square().mean().item()
        assert activation_of(activation).gain == pytest.approx(1 / np.sqrt(moment), rel=5e-3)
        return
    function = activation_module(activation, 1).double()

    def integrand(z):
        return function(torch.tensor([[z]], dtype=torch.float64)).square().mean().item() * norm.pdf(z)

    moment = quad(integrand, -10, 0)[0] + quad(integrand, 0, 10)[0]
    assert activation_of(activation).gain == pytest.approx(1 / np.sqrt(moment), rel=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_orthogonal_layers_are_orthogonal(name):
    net = NETS[name](initialization="orthogonal")
    for layer in layers(net):
        gain = 1.0 if layer is layers(net)[-1] or name == "deep_linear" else sqrt(2)
        matrix = layer.weight.detach().flatten(1) / gain
        gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
        torch.testing.assert_close(gram, torch.eye(len(gram)), atol=1e-4, rtol=0)


def test_default_is_torchs_own():
    torch.manual_seed(0)
    net = MLP((30,), 10, depth=1, width=500)
    torch.manual_seed(0)
    linear, head = nn.Linear(30, 500), nn.Linear(500, 10)
    assert torch.equal(net.hidden.linear_1.weight, linear.weight)
    assert torch.equal(net.hidden.linear_1.bias, linear.bias)
    assert torch.equal(net.head.weight, head.weight)


def test_torchs_seed_decides():
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([parameter.flatten() for parameter in NETS["convnet"](initialization="xavier_uniform").parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_signals_neither_die_nor_explode_in_a_deep_relu_net():
    torch.manual_seed(0)
    net = MLP((400,), 10, depth=30, width=400, initialization="kaiming_normal")
    features = net.hidden(torch.randn(50, 400))
    assert 0.2 < features.square().mean() < 5  # torch's default leaves 1e-20


@pytest.mark.parametrize("layer", sorted(set(get_args(LayerName)) - {"linear", "tracked_norm"}))
@pytest.mark.parametrize("name", NETS)
def test_layers_written_by_other_parameters_have_the_weights_that_were_drawn(name, layer):
    torch.manual_seed(0)
    net = NETS[name](initialization="kaiming_normal", layer=layer)
    torch.manual_seed(0)
    fresh = NETS[name](layer=layer)
    for one, first in zip(layers(net), layers(fresh), strict=True):
        assert not torch.allclose(one.weight, first.weight, rtol=1e-2)
    for one in layers(net)[:-1]:
        assert_drawn("kaiming_normal", one.weight.detach(), 1.0 if name == "deep_linear" else sqrt(2))
    assert_drawn("kaiming_normal", layers(net)[-1].weight.detach(), 1.0)


@pytest.mark.parametrize("layer", get_args(LayerName))
def test_every_kind_of_layer_keeps_the_second_moment(layer):
    """Through thirty layers of relu units, whatever the inputs' size where that is tracked."""
    torch.manual_seed(0)
    net = MLP((300,), 10, depth=30, width=300, initialization="kaiming_normal", layer=layer)
    inputs = torch.randn(64, 300)
    if layer == "tracked_norm":
        assert 0.35 < net.hidden(5 * inputs).square().mean() < 0.65  # relu of a unit variance
    else:
        assert 0.2 < net.hidden(inputs).square().mean() < 5


@pytest.mark.parametrize("norm", get_args(NormName))
def test_every_norm_keeps_the_second_moment(norm):
    """Of relu of a unit variance, layer after layer; whatever the inputs' size where there is a norm."""
    torch.manual_seed(0)
    net = MLP((300,), 10, depth=30, width=300, initialization="kaiming_normal", norm=norm)
    inputs = torch.randn(64, 300)
    moment = net.hidden(inputs if norm == "none" else 5 * inputs).square().mean()
    assert 0.2 < moment < 5 if norm == "none" else 0.35 < moment < 0.65


@pytest.mark.parametrize("normed", [nn.utils.parametrizations.orthogonal, nn.utils.parametrizations.spectral_norm])
def test_a_weight_that_its_parametrisation_cannot_take_is_refused(normed):
    """What is drawn into it would be another weight at its next use."""
    net = nn.Sequential(normed(nn.Linear(4, 4)), nn.Linear(4, 2))
    with pytest.raises(
        ValueError, match="cannot draw the weight of a ParametrizedLinear that is computed from other parameters; draw"
    ):
        initialise(net, "orthogonal", "relu", head=net[1])


def test_the_older_weight_norm_is_refused_too():
    with pytest.warns(FutureWarning):
        net = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="cannot draw the weight of a Linear"):
        initialise(net, "orthogonal", "relu", head=net[1])
