from __future__ import annotations

import pytest
import torch
from nets import assert_leaves_net_untouched, mlp
from torch import Tensor, nn

from loss_landscape import (
    Directions,
    HessianOperator,
    LossSurface,
    custom_directions,
    eigenpairs,
    gradient_directions,
    hessian_directions,
    random_directions,
)

NORMALIZATIONS = ["filter", "layer", "weight", "model", "none"]


def data() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(16, 1, 6, 6, generator=draw), torch.randint(0, 3, (16,), generator=draw)


def conv_net(width: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(), nn.Linear(16 * width, 3))


@pytest.fixture
def surface(device: torch.device) -> LossSurface:
    inputs, targets = data()
    return LossSurface(conv_net().to(device), nn.CrossEntropyLoss(), [(inputs.to(device), targets.to(device))])


def parts(surface: LossSurface, vector: Tensor) -> dict[str, Tensor]:
    return surface.layout.unflatten(vector)


def cosine(first: Tensor, second: Tensor) -> float:
    return float(first.double() @ second.double() / (first.double().norm() * second.double().norm()))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("width", [4, 64])
def test_axes_are_orthogonal_after_normalisation(normalization, exclude, width):
    """The peers' are not: cosines of .24 to −.67 and up to .999."""
    surface = LossSurface(conv_net(width), nn.CrossEntropyLoss(), [data()])
    axes = random_directions(surface, 3, normalization, torch.Generator().manual_seed(1), exclude)
    for i in range(3):
        for j in range(i):
            assert abs(cosine(axes[i], axes[j])) < 1e-6
    assert abs(axes.meta["cosine"]) < 1e-6


def test_filter_normalisation_gives_each_unit_the_nets_norm(surface):
    """The absolute L2 norm of each output unit: neither signed, nor L1, nor one norm for the whole tensor."""
    (axis,) = random_directions(surface, 1, "filter", torch.Generator().manual_seed(1))
    for name, own in parts(surface, surface.origin).items():
        part = parts(surface, axis)[name]
        if own.dim() < 2:
            assert torch.equal(part, torch.zeros_like(own))
        else:
            torch.testing.assert_close(part.flatten(1).norm(dim=1), own.flatten(1).norm(dim=1))


def test_filters_keep_their_norm_nearly_after_the_axes_were_made_orthogonal():
    surface = LossSurface(conv_net(64), nn.CrossEntropyLoss(), [data()])
    axes = random_directions(surface, 2, "filter", torch.Generator().manual_seed(1))
    second = parts(surface, axes[1])["4.weight"]
    error = (second.norm(dim=1) / parts(surface, surface.origin)["4.weight"].norm(dim=1) - 1).abs().max()
    assert 0 < float(error) <= axes.meta["filter_norm_error"] < 0.1


def test_layer_weight_and_model_normalisation(surface):
    draws = [torch.Generator().manual_seed(1) for _ in range(4)]
    (raw,) = random_directions(surface, 1, "none", draws[0], exclude_bn_and_bias=False)
    (layer,) = random_directions(surface, 1, "layer", draws[1], exclude_bn_and_bias=False)
    (weight,) = random_directions(surface, 1, "weight", draws[2], exclude_bn_and_bias=False)
    (model,) = random_directions(surface, 1, "model", draws[3], exclude_bn_and_bias=False)
    for name, own in parts(surface, surface.origin).items():
        torch.testing.assert_close(parts(surface, layer)[name].norm(), own.norm())
    torch.testing.assert_close(weight, raw * surface.origin.abs())
    torch.testing.assert_close(model.norm(), surface.origin.norm())
    torch.testing.assert_close(model / model.norm(), raw / raw.norm())


def test_biases_and_norm_layers_are_excluded_or_one_unit_each(surface):
    excluded = ["0.bias", "1.weight", "1.bias", "4.bias"]
    axes = random_directions(surface, 1, "filter", torch.Generator().manual_seed(1))
    assert axes.meta["excluded"] == excluded
    both = random_directions(surface, 1, "filter", torch.Generator().manual_seed(1), exclude_bn_and_bias=False)
    assert both.meta["excluded"] == []
    for name in excluded:
        assert not parts(surface, axes[0])[name].any()
        own = parts(surface, surface.origin)[name]
        torch.testing.assert_close(parts(surface, both[0])[name].norm(), own.norm())
    torch.testing.assert_close(parts(surface, both[0])["4.weight"], parts(surface, axes[0])["4.weight"])


def test_a_transposed_convolutions_units_are_on_dimension_one():
    net = nn.Sequential(nn.ConvTranspose2d(1, 3, 2), nn.Flatten(), nn.Linear(147, 3))
    surface = LossSurface(net, nn.CrossEntropyLoss(), [data()])
    (axis,) = random_directions(surface, 1)
    own = net[0].weight.detach()
    moved = parts(surface, axis)["0.weight"]
    torch.testing.assert_close(torch.linalg.vector_norm(moved, dim=(0, 2, 3)), torch.linalg.vector_norm(own, dim=(0, 2, 3)))


def test_draws_are_gaussian_and_the_same_in_either_precision():
    surface = LossSurface(conv_net(64), nn.CrossEntropyLoss(), [data()])
    (axis,) = random_directions(surface, 1, "none", torch.Generator().manual_seed(0), exclude_bn_and_bias=False)
    assert abs(float(axis.mean())) < 4 / surface.size**0.5
    assert float(axis.std()) == pytest.approx(1, abs=0.1)
    exact = surface.in_dtype(torch.float64)
    (wide,) = random_directions(exact, 1, "none", torch.Generator().manual_seed(0), exclude_bn_and_bias=False)
    torch.testing.assert_close(wide.float(), axis)


def test_random_state_and_net_are_left_alone():
    net = conv_net()
    surface = LossSurface(net, nn.CrossEntropyLoss(), [data()])
    with assert_leaves_net_untouched(net):
        first, again = random_directions(surface), random_directions(surface)
    assert torch.equal(first[0], again[0])


def test_meta_tells_norms_and_distance(surface):
    axes = random_directions(surface, 2, generator=torch.Generator().manual_seed(1))
    assert isinstance(axes, Directions)
    assert axes.meta["kind"] == "random"
    assert axes.meta["direction_norms"] == pytest.approx([float(axis.norm()) for axis in axes])
    assert axes.meta["origin_norm"] == pytest.approx(float(surface.origin.norm()))


def test_a_filter_of_zeros_is_not_moved():
    net = conv_net()
    with torch.no_grad():
        net[0].weight[2].zero_()
    surface = LossSurface(net, nn.CrossEntropyLoss(), [data()])
    axes = random_directions(surface, 2)
    assert not parts(surface, axes[0])["0.weight"][2].any()
    assert all(torch.isfinite(axis).all() for axis in axes)


def test_hessian_axes_are_eigenvectors():
    inputs, targets = torch.randn(16, 6), torch.randint(0, 3, (16,))
    surface = LossSurface(mlp().double(), nn.CrossEntropyLoss(), [(inputs.double(), targets)])
    operator = HessianOperator(surface)
    pairs = eigenpairs(operator, 3, 2, 1e-9)
    for choice, index in (("top2", [0, 1]), ("extremes", [0, 3])):
        axes = hessian_directions(surface, pairs, choice)
        for axis, i in zip(axes, index, strict=True):
            assert float(axis.norm()) == pytest.approx(1)
            assert float(axis[axis.abs().argmax()]) > 0
            torch.testing.assert_close(operator @ axis, float(pairs.values[i]) * axis, rtol=0, atol=1e-7)
        assert axes.meta["eigenvalues"] == pairs.values[index].tolist()
    normalized = hessian_directions(surface, pairs, "top2", "filter")
    assert abs(cosine(*normalized)) < 1e-6
    with pytest.raises(ValueError, match="choice must be 'top2' or 'extremes'"):
        hessian_directions(surface, pairs, "top")
    with pytest.raises(ValueError, match="asked for 1 largest and 1 smallest"):
        hessian_directions(surface, pairs.select(2, 0), "extremes")


def test_the_first_gradient_axis_is_the_gradient(surface):
    axes = gradient_directions(surface, 3, torch.Generator().manual_seed(0))
    assert cosine(axes[0], surface.gradient()) == pytest.approx(1)
    assert abs(axes.meta["cosine"]) < 1e-6
    assert float(axes[0].norm()) == pytest.approx(float(surface.origin.norm()))
    assert gradient_directions(surface, 1).meta["direction_norms"] == pytest.approx([float(surface.origin.norm())])


def test_a_diverged_net_has_directions_of_nan():
    net = mlp()
    with torch.no_grad():
        net[0].weight.fill_(float("nan"))
    surface = LossSurface(net, nn.CrossEntropyLoss(), [(torch.randn(4, 6), torch.tensor([0, 1, 2, 0]))])
    assert random_directions(surface)[0].isnan().any()


def test_bad_options_are_refused(surface):
    with pytest.raises(ValueError, match="normalization must be one of filter, layer"):
        random_directions(surface, normalization="filters")
    with pytest.raises(ValueError, match="count must be 1, 2 or 3"):
        random_directions(surface, 4)
    one = LossSurface(nn.Linear(1, 1, bias=False), nn.MSELoss(), [(torch.ones(2, 1), torch.ones(2, 1))])
    with pytest.raises(ValueError, match="lies in the span of the others"):
        random_directions(one, 2)
    only = LossSurface(nn.LayerNorm(6), nn.MSELoss(), [(torch.randn(2, 6), torch.ones(2, 6))])
    with pytest.raises(ValueError, match="set exclude_bn_and_bias=False"):
        random_directions(only)
    with pytest.raises(ValueError, match="must be > 0"):
        custom_directions(surface, torch.zeros(surface.size, device=surface.device))
    with pytest.raises(ValueError, match="this surface moves"):
        custom_directions(surface, torch.ones(3, device=surface.device))
