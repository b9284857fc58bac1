"""Nets: shapes, parameters, activations, traces, initial weights and checkpoints."""

from __future__ import annotations

from functools import partial
from typing import get_args

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from taskshift.nets.activations import ACTIVATIONS, ActivationName, CReLU, FourierFeatures, MaxOut, activation_module
from taskshift.nets.convnet import ConvNet
from taskshift.nets.deep_linear import DeepLinear
from taskshift.nets.layer_kinds import LayerName, convolution, linear
from taskshift.nets.layers import ChannelRMSNorm, NormName, channel_norm, feature_norm
from taskshift.nets.mlp import MLP
from taskshift.nets.online_norm import OnlineNorm
from taskshift.nets.resnet18 import ResNet18
from taskshift.nets.transformer import Attention, Transformer
from taskshift.nets.vgg16 import VGG16

NAMES = get_args(ActivationName)
SMALL = {
    "mlp": partial(MLP, depth=2, width=6),
    "convnet": partial(ConvNet, channels=(2, 4, 6), width=8),
    "resnet18": partial(ResNet18, width=4),
    "resnet18_imagenet": partial(ResNet18, width=4, stem="imagenet"),
    "vgg16": partial(VGG16, width=2, classifier_width=8),
    "deep_linear": partial(DeepLinear, depth=3, width=7),
    "transformer": partial(Transformer, depth=2, width=8, heads=2, mlp_width=6),
}
WITH_NORM = ("mlp", "convnet", "resnet18", "transformer")
IMAGE_NETS = (ConvNet, ResNet18, VGG16)


def sides(make) -> list[int]:
    return [side for side in sorted({make.func.smallest_side, 8, 28, 32}) if side >= make.func.smallest_side]


def images(side: int, channels: int = 1, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(side))


def assert_learns_from(net: nn.Module, inputs: torch.Tensor, num_outputs: int) -> None:
    """The right shape, finite, and a gradient for every parameter."""
    outputs = net(inputs)
    assert outputs.shape == (len(inputs), num_outputs)
    assert outputs.isfinite().all()
    outputs.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def assert_each_module_runs_once(net: nn.Module, inputs: torch.Tensor) -> None:
    """A module that ran twice would give two meanings to one hook."""
    runs: dict[str, int] = {}
    for name, module in net.named_modules():
        module.register_forward_hook(lambda *_, name=name: runs.__setitem__(name, runs.get(name, 0) + 1))
    net(inputs)
    assert {name: count for name, count in runs.items() if count != 1} == {}
    assert not any(getattr(module, "inplace", False) for module in net.modules())


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_net_takes_every_side_from_its_smallest_on(name, channels):
    for side in sides(SMALL[name]):
        net = SMALL[name](input_shape=(channels, side, side), num_outputs=5)
        assert_learns_from(net, images(side, channels), 5)


@pytest.mark.parametrize("activation", NAMES)
@pytest.mark.parametrize("name", [name for name in SMALL if name != "deep_linear"])
def test_every_net_has_the_activation_it_was_asked_for(name, activation):
    side = SMALL[name].func.smallest_side
    net = SMALL[name](input_shape=(1, max(side, 8), max(side, 8)), num_outputs=3, activation=activation)
    assert_each_module_runs_once(net, images(max(side, 8)))
    asked = type(activation_module(activation, 4))
    others = {type(activation_module(other, 4)) for other in NAMES} - {asked, nn.Identity}
    assert any(isinstance(module, asked) for module in net.modules())
    assert not any(type(module) in others for module in net.modules())


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        (name, norm)
        for name in WITH_NORM
        for norm in get_args(NormName)
        if name != "transformer" or norm not in ("batch", "group", "online")
    ],
)
def test_every_norm_is_in_its_net(name, norm):
    make = partial(SMALL[name], norm=norm)
    side = max(make.func.smallest_side, 8)
    net = make(input_shape=(1, side, side), num_outputs=3)
    assert_learns_from(net, images(side), 3)
    kinds = {"none": (), "batch": (nn.BatchNorm1d, nn.BatchNorm2d), "layer": (nn.LayerNorm, nn.GroupNorm)}
    kinds |= {"group": (nn.GroupNorm,), "rms": (nn.RMSNorm, ChannelRMSNorm), "online": (OnlineNorm,)}
    norms = [module for module in net.modules() if isinstance(module, sum(kinds.values(), ()))]
    assert bool(norms) == (norm != "none")
    assert all(isinstance(module, kinds[norm]) for module in norms)


@pytest.mark.parametrize("layer", sorted(set(get_args(LayerName)) - {"linear"}))
@pytest.mark.parametrize("name", SMALL)
def test_every_net_has_the_layers_it_was_asked_for(name, layer):
    make, side = SMALL[name], max(SMALL[name].func.smallest_side, 8)
    net = make(input_shape=(1, side, side), num_outputs=3, layer=layer)
    weighted = [module for module in net.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    plain = make(input_shape=(1, side, side), num_outputs=3)
    assert all(is_parametrized(module, "weight") for module in weighted)
    assert len(weighted) == sum(isinstance(module, (nn.Linear, nn.Conv2d)) for module in plain.modules())
    assert_learns_from(net, images(side), 3)


@pytest.mark.parametrize("layer", ["weight_norm", "weight_norm_per_layer", "fixed_norm", "svd"])
def test_layers_written_by_other_parameters_are_the_same_function_at_first(layer):
    nets = []
    for kind in ("linear", layer):
        torch.manual_seed(0)
        nets.append(SMALL["resnet18"](input_shape=(1, 8, 8), num_outputs=3, layer=kind).eval())
    torch.testing.assert_close(nets[1](images(8)), nets[0](images(8)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("activation", "kind"), [("crelu", CReLU), ("fourier", FourierFeatures), ("maxout", MaxOut)])
@pytest.mark.parametrize("name", [name for name in SMALL if name != "deep_linear"])
def test_an_activation_that_widens_feeds_the_next_layer(name, activation, kind):
    side = max(SMALL[name].func.smallest_side, 8)
    net = SMALL[name](input_shape=(1, side, side), num_outputs=3, activation=activation)
    assert any(isinstance(module, kind) for module in net.modules())
    assert_learns_from(net, images(side), 3)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_vgg16_with_and_without_batch_norm(batch_norm):
    net = SMALL["vgg16"](input_shape=(1, 32, 32), num_outputs=3, batch_norm=batch_norm)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in net.modules()) == (13 if batch_norm else 0)
    assert_learns_from(net, images(32), 3)


@pytest.mark.parametrize(("channels", "groups"), [(64, 4), (512, 32), (100, 5), (16, 1), (6, 1), (17, 1), (1, 1), (34, 2)])
@pytest.mark.parametrize("shape", [(), (3, 2)])
def test_group_norm_is_over_sixteen_channels_or_the_next_that_divide_them(channels, groups, shape):
    """Written out in float64, for features and maps."""
    [norm] = (channel_norm if shape else feature_norm)("group", channels)
    inputs = 2 + torch.randn(5, channels, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.empty_like(inputs)
    for example in range(5):
        for at in range(0, channels, channels // groups):
            own = inputs[example, at : at + channels // groups]
            expected[example, at : at + channels // groups] = (own - own.mean()) / (own.var(correction=0) + 1e-5) ** 0.5
    torch.testing.assert_close(norm.double()(inputs), expected, rtol=1e-10, atol=1e-10)


def test_group_norm_has_more_groups_where_a_resnet_has_more_channels():
    net = SMALL["resnet18"](input_shape=(1, 8, 8), num_outputs=3, norm="group", width=32)
    assert [net.get_submodule(f"layer{number}.0.bn1").num_groups for number in (1, 2, 3, 4)] == [2, 4, 8, 16]


@pytest.mark.parametrize("norm", ["layer", "group"])
@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_norms_of_single_examples_do_not_mix_them(name, norm):
    net = SMALL[name](input_shape=(1, 28, 28), num_outputs=3, norm=norm)
    inputs = images(28, batch=4)
    torch.testing.assert_close(net(inputs)[:1], net(inputs[:1]))


@pytest.mark.parametrize("name", SMALL)
def test_every_net_can_be_traced(name):
    side = max(SMALL[name].func.smallest_side, 8)
    net = SMALL[name](input_shape=(1, side, side), num_outputs=3).eval()
    traced = torch.fx.symbolic_trace(net)
    assert torch.equal(traced(images(side)), net(images(side)))


@pytest.mark.parametrize(
    ("net", "input_shape", "options", "count"),
    [
        (ConvNet, (3, 28, 28), {}, 129_098),
        (ConvNet, (3, 32, 32), {}, 178_250),
        (ConvNet, (3, 28, 28), {"norm": "batch"}, 130_058),
        (ConvNet, (3, 32, 32), {"norm": "batch"}, 179_210),
        (ResNet18, (3, 224, 224), {}, 11_181_642),
        (MLP, (1, 28, 28), {"depth": 2, "width": 2000}, 784 * 2000 + 2000 + 2000 * 2000 + 2000 + 20_010),
        (MLP, (5,), {"depth": 1, "width": 4, "bias": False}, 5 * 4 + 4 * 10),
        (DeepLinear, (5,), {"depth": 3, "width": 4}, 5 * 4 + 4 * 4 * 2 + 4 * 10),
        (VGG16, (3, 32, 32), {"batch_norm": False}, 14_714_688 + 2 * (512 * 512 + 512) + 5130),
    ],
)
def test_numbers_of_parameters(net, input_shape, options, count):
    with torch.device("meta"):
        made = net(input_shape, 10, **options)
    assert sum(parameter.numel() for parameter in made.parameters()) == count


def test_resnet18_is_torchvisions():
    oracle = torchvision.models.resnet18(num_classes=10).eval()
    net = ResNet18((3, 64, 64), 10).eval()
    net.load_state_dict(oracle.state_dict())
    inputs = images(64, channels=3, batch=2)
    torch.testing.assert_close(net(inputs), oracle(inputs))


@pytest.mark.parametrize("batch_norm", [True, False])
def test_vgg16s_features_are_torchvisions(batch_norm):
    oracle = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"], batch_norm=batch_norm).eval()
    net = VGG16((3, 32, 32), 10, batch_norm=batch_norm).eval()
    net.features.load_state_dict(oracle.state_dict())
    inputs = images(32, channels=3, batch=2)
    torch.testing.assert_close(net.features(inputs), oracle(inputs))


@pytest.mark.parametrize(
    ("side", "stem", "stride"), [(32, "auto", 1), (63, "auto", 1), (64, "auto", 2), (64, "cifar", 1), (32, "imagenet", 2)]
)
def test_resnet18s_stem_follows_the_size_or_the_option(side, stem, stride):
    net = ResNet18((3, side, side), 2, stem=stem, width=2)
    assert net.conv1.stride == (stride, stride)
    assert isinstance(net.maxpool, nn.MaxPool2d) == (stride == 2)


def test_oblong_images_fit():
    for net in (SMALL["convnet"], SMALL["vgg16"], SMALL["resnet18"], SMALL["mlp"]):
        assert net(input_shape=(2, 32, 40), num_outputs=3)(torch.zeros(2, 2, 32, 40)).shape == (2, 3)


def test_mlps_take_vectors():
    for net in (SMALL["mlp"], SMALL["deep_linear"]):
        assert net(input_shape=(12,), num_outputs=3)(torch.zeros(2, 12)).shape == (2, 3)


def test_deep_linear_is_linear():
    net = SMALL["deep_linear"](input_shape=(1, 5, 5), num_outputs=4).double()
    one, other = images(5, batch=2).double(), images(6, batch=2)[..., :5, :5].double()
    torch.testing.assert_close(net(2 * one - 3 * other), 2 * net(one) - 3 * net(other))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_the_smallest_side_of_convnet_and_vgg16_is_the_smallest(monkeypatch):
    for net in (ConvNet, VGG16):
        side = net.smallest_side - 1
        monkeypatch.setattr(net, "smallest_side", 1)
        with pytest.raises(RuntimeError, match="Output size is too small"):
            net((1, side, side), 2).features(images(side))


@pytest.mark.parametrize("net", IMAGE_NETS)
def test_a_smaller_image_is_refused(net):
    side = net.smallest_side - 1
    name = net.__name__.lower()
    with pytest.raises(
        ValueError, match=rf"{name} takes images of at least {side + 1}×{side + 1}, but an example is {side}×40; enlarge"
    ):
        net((1, side, 40), 10)


@pytest.mark.parametrize("net", IMAGE_NETS)
def test_vectors_are_refused_by_image_nets(net):
    with pytest.raises(ValueError, match=r"takes images \[C, H, W\], but an example has the shape \[784\]; choose net=mlp"):
        net((784,), 10)


@pytest.mark.parametrize(
    ("net", "options", "sentence"),
    [
        (MLP, {"activation": "rleu"}, r"activation='rleu' is not known; choose one of relu, leaky_relu"),
        (MLP, {"norm": "power"}, r"norm='power' is not known; choose one of none, batch, layer, group, rms, online"),
        (MLP, {"initialization": "he"}, r"initialization='he' is not known; choose one of default, kaiming_uniform"),
        (MLP, {"depth": 0}, r"depth=0 was asked for; give a whole number, 1 or more"),
        (DeepLinear, {"width": -1}, r"width=-1 was asked for"),
        (ConvNet, {"channels": (8, 0, 8)}, r"channels\[1\]=0 was asked for"),
        (ResNet18, {"stem": "tiny"}, r"stem='tiny' is not known; choose one of auto, cifar, imagenet"),
        (
            MLP,
            {"activation": "maxout", "width": 7},
            "activation='maxout' takes 2 units or channels for each one, but a layer has 7",
        ),
        (Transformer, {"patch": 5}, "patch=5 does not divide the images' 32×32 pixels; give a divisor of both sides"),
        (Transformer, {"heads": 3}, "width=64 is no multiple of heads=3"),
        (Transformer, {"norm": "batch"}, "norm='batch' is for features .* a transformer takes layer, rms or none"),
        (Transformer, {"norm": "group"}, "norm='group' is for features .* a transformer takes layer, rms or none"),
        (Transformer, {"norm": "online"}, "norm='online' is for features .* a transformer takes layer, rms or none"),
        (MLP, {"layer": "sdv"}, r"layer='sdv' is not known; choose one of linear, weight_norm"),
        (VGG16, {"classifier_width": 0}, r"classifier_width=0 was asked for"),
    ],
)
def test_a_wrong_option_is_one_sentence(net, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        net((1, 32, 32), 10, **options)


def test_activations_compute_what_their_names_say():
    z = torch.linspace(-3, 3, 60, dtype=torch.float64).reshape(15, 4)
    normal = torch.distributions.Normal(0.0, 1.0)
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    expected = {
        "relu": z.clamp(min=0),
        "leaky_relu": torch.where(z > 0, z, 0.01 * z),
        "prelu": torch.where(z > 0, z, 0.25 * z),
        "crelu": torch.cat([z.clamp(min=0), (-z).clamp(min=0)], dim=1),
        "maxout": torch.stack([torch.maximum(z[:, 0], z[:, 1]), torch.maximum(z[:, 2], z[:, 3])], dim=1),
        "fourier": torch.cat([z.mul(1j).exp().imag, z.mul(1j).exp().real], dim=1),
        "tanh": (z.exp() - (-z).exp()) / (z.exp() + (-z).exp()),
        "sigmoid": 1 / (1 + (-z).exp()),
        "elu": torch.where(z > 0, z, z.exp() - 1),
        "selu": scale * torch.where(z > 0, z, alpha * (z.exp() - 1)),
        "gelu": z * normal.cdf(z),
        "silu": z / (1 + (-z).exp()),
        "identity": z,
    }
    assert set(expected) == set(NAMES) == set(ACTIVATIONS)
    for name, values in expected.items():
        before = z.clone()
        torch.testing.assert_close(activation_module(name, 4).double()(z), values)
        assert torch.equal(z, before), f"{name} works in place"


# -- kinds of layers ----------------------------------------------------------------------------------------------


def made(layer: str, kind: str) -> nn.Module:
    torch.manual_seed(0)
    made = linear(layer, 7, 4) if kind == "linear" else convolution(layer, 5, 4, 3, bias=False)
    return made.double()


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_a_fixed_norm_stays_whatever_is_learnt(kind):
    layer = made("fixed_norm", kind)
    norms = layer.weight.detach().flatten(1).norm(dim=1)
    free = layer.parametrizations.weight.original
    with torch.no_grad():
        free.mul_(3).add_(torch.randn_like(free))
    torch.testing.assert_close(layer.weight.flatten(1).norm(dim=1), norms)
    torch.testing.assert_close(
        layer.weight.flatten(1), norms[:, None] * free.flatten(1) / free.flatten(1).norm(dim=1, keepdim=True)
    )


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_one_norm_a_layer_scales_all_units_together(kind):
    layer, before = made("weight_norm_per_layer", kind), made("weight_norm_per_layer", kind).weight.detach()
    with torch.no_grad():
        layer.parametrizations.weight.original0.mul_(2)
        layer.parametrizations.weight.original1.mul_(5)
    torch.testing.assert_close(layer.weight, 2 * before)
    assert layer.parametrizations.weight.original0.numel() == 1


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_an_svd_layer_begins_with_the_decomposition_of_what_was_drawn(kind):
    layer = made("svd", kind)
    left, values, right = (getattr(layer.parametrizations.weight, f"original{number}") for number in range(3))
    matrix = layer.weight.detach().flatten(1)
    torch.testing.assert_close(values.detach(), torch.linalg.svdvals(matrix), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close((left * values) @ right, matrix)
    torch.testing.assert_close(left.T @ left, torch.eye(4).double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("between", ["relu", "tanh"])
@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_a_sandwich_has_a_nonlinearity_between_its_factors(kind, between):
    layer, plain = made(f"svd_{between}", kind), made("svd", kind)
    torch.testing.assert_close(layer.weight, plain.weight)
    u, s, vh = torch.linalg.svd(plain.weight.detach().flatten(1), full_matrices=False)
    inputs = torch.randn((9, 7) if kind == "linear" else (2, 5, 6, 6), generator=torch.Generator().manual_seed(1)).double()
    patches = inputs if kind == "linear" else nn.functional.unfold(inputs, 3).mT.flatten(0, 1)  # [B · places, fan-in]
    hidden = patches @ vh.T * s
    hidden = 2**0.5 * hidden.relu() if between == "relu" else 5 / 3 * hidden.tanh()
    expected = hidden @ u.T + (layer.bias if kind == "linear" else 0)
    expected = expected if kind == "linear" else expected.reshape(2, 16, 4).mT.reshape(2, 4, 4, 4)
    torch.testing.assert_close(layer(inputs), expected, rtol=1e-5, atol=1e-6)


def test_what_is_learnt_of_a_sandwich_is_its_factors():
    layer = made("svd_relu", "convolution")
    with torch.no_grad():
        layer.parametrizations.weight.original0.zero_()
    assert not layer(torch.ones(1, 5, 6, 6).double()).any()
    assert {name for name, _ in layer.named_parameters()} == {f"parametrizations.weight.original{n}" for n in range(3)}


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_a_full_rank_projection_maps_to_as_many_dimensions_and_projects(kind):
    layer = made("full_rank_projection", kind)
    full, projection = layer.parametrizations.weight.original, layer.parametrizations.weight[0].projection
    assert full.shape[0] == full.shape[1] == (7 if kind == "linear" else 5)
    assert torch.linalg.matrix_rank(full.detach().flatten(1)) == len(full)
    torch.testing.assert_close(projection @ projection.T, torch.eye(4).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(layer.weight.flatten(1), projection @ full.flatten(1))
    assert not any(projection is parameter for parameter in layer.parameters())
    wider = linear("full_rank_projection", 3, 5)
    torch.testing.assert_close(wider.weight, wider.parametrizations.weight.original)


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_a_tracked_layer_knows_no_size_in_training_and_remembers_it_for_eval_mode(kind):
    layer, shape = made("tracked_norm", kind), (64, 7) if kind == "linear" else (64, 5, 6, 6)
    inputs = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plain = made("linear", kind)
    scaled = inputs / (inputs.square().mean() + 1e-5).sqrt()
    torch.testing.assert_close(layer(inputs), plain(scaled))
    torch.testing.assert_close(layer(1000 * inputs), layer(inputs), rtol=1e-4, atol=1e-5)
    expected = torch.ones(())
    layer = made("tracked_norm", kind)
    for size in (2.0, 3.0, 3.0):
        layer(size * inputs)
        expected = 0.9 * expected + 0.1 * size**2 * inputs.square().mean()
    layer.eval()
    torch.testing.assert_close(layer(inputs), plain(inputs / (expected + 1e-5).sqrt()))
    torch.testing.assert_close(layer.mean_square, expected.double())  # eval mode leaves it alone


# -- the transformer, and RMS norm --------------------------------------------------------------------------------


def test_attention_is_torchs():
    own = Attention(8, 2, "linear").double()
    oracle = nn.MultiheadAttention(8, 2, batch_first=True).double()
    with torch.no_grad():
        oracle.in_proj_weight.copy_(torch.cat([own.query.weight, own.key.weight, own.value.weight]))
        oracle.in_proj_bias.copy_(torch.cat([own.query.bias, own.key.bias, own.value.bias]))
        oracle.out_proj.load_state_dict(own.output.state_dict())
    tokens = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(own(tokens), oracle(tokens, tokens, tokens)[0])


def test_a_transformers_patches_are_told_apart_by_their_positions_alone():
    torch.manual_seed(0)
    net = SMALL["transformer"](input_shape=(1, 8, 8), num_outputs=3).double()
    inputs = images(8).double()
    swapped = torch.cat([inputs[..., 4:, :], inputs[..., :4, :]], dim=2)
    assert not torch.allclose(net(inputs), net(swapped))
    with torch.no_grad():
        net.positions.zero_()
    torch.testing.assert_close(net(inputs), net(swapped))


def test_a_transformers_blocks_are_gone_round():
    torch.manual_seed(0)
    net = SMALL["transformer"](input_shape=(1, 8, 8), num_outputs=3).double()
    with torch.no_grad():
        for block in net.blocks:
            for last in (block.attention.output, block.linear_2):
                last.weight.zero_()
                last.bias.zero_()
    tokens = net.patches(images(8).double()).flatten(2).mT + net.positions
    torch.testing.assert_close(net(images(8).double()), net.head(net.norm(tokens).mean(dim=1)))


def test_rms_norm_of_maps():
    maps = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layer = ChannelRMSNorm(4).double()
    with torch.no_grad():
        layer.weight.copy_(torch.arange(1.0, 5.0))
    for one, normed in zip(maps, layer(maps), strict=True):
        expected = one / (one.square().sum() / 100 + 1e-5).sqrt() * torch.arange(1.0, 5.0)[:, None, None]
        torch.testing.assert_close(normed, expected.double())
