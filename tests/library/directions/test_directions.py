from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nets import SharesWeights, assert_leaves_net_untouched, mlp
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
from loss_landscape.directions.directions import adam_directions, difference_directions, three_point_directions

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


def trained(net: nn.Module, steps: int = 3) -> torch.optim.Adam:
    """Adam after some steps with `net`."""
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    inputs, targets = data()
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), targets).backward()
        optimizer.step()
    return optimizer


def axes_of(kind: str, width: int, **options: object) -> Directions:
    """A plane or a volume of each kind that can be normalised."""
    net = conv_net(width)
    optimizer = trained(net)
    surface = LossSurface(net, nn.CrossEntropyLoss(), [data()])
    if kind == "random":
        return random_directions(surface, 3, generator=torch.Generator().manual_seed(1), **options)
    if kind == "gradient":
        return gradient_directions(surface, 3, generator=torch.Generator().manual_seed(1), **options)
    if kind == "adam":
        return adam_directions(surface, net, optimizer, **options)
    pairs = eigenpairs(HessianOperator(surface), 2, 1, tolerance=1e-3, max_products=40)
    return hessian_directions(surface, pairs, choice="extremes" if kind == "hessian_extremes" else "top2", **options)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("kind", ["random", "gradient", "adam", "hessian", "hessian_extremes"])
@pytest.mark.parametrize(("width", "exclude"), [(4, True), (4, False), (32, True)])
def test_axes_are_orthogonal_after_normalisation(kind, normalization, width, exclude):
    """The peers' are not: cosines of .24 to −.67 and up to .999."""
    axes = axes_of(kind, width, normalization=normalization, exclude_bn_and_bias=exclude)
    for i in range(len(axes)):
        for j in range(i):
            assert abs(cosine(axes[i], axes[j])) < 1e-6
    assert abs(axes.meta["cosine"]) < 1e-6
    assert (axes.meta["kind"], axes.meta["normalization"]) == (kind, normalization)
    assert axes.meta["excluded"] == (["0.bias", "1.weight", "1.bias", "4.bias"] if exclude else [])


@pytest.mark.parametrize("kind", ["random", "gradient", "adam", "hessian"])
def test_what_is_excluded_does_not_move_and_what_is_scaled_has_the_nets_norm(kind):
    net = conv_net()
    trained(net)
    surface = LossSurface(net, nn.CrossEntropyLoss(), [data()])
    first = axes_of(kind, 4, normalization="filter", exclude_bn_and_bias=True)[0]
    scaled = axes_of(kind, 4, normalization="filter", exclude_bn_and_bias=False)[0]
    for name, own in parts(surface, surface.origin).items():
        if own.dim() < 2:
            assert not parts(surface, first)[name].any()
            torch.testing.assert_close(parts(surface, scaled)[name].norm(), own.norm())
        else:
            torch.testing.assert_close(parts(surface, first)[name], parts(surface, scaled)[name])
            torch.testing.assert_close(parts(surface, first)[name].flatten(1).norm(dim=1), own.flatten(1).norm(dim=1))


def test_filter_normalisation_gives_each_unit_the_nets_norm(surface):
    """The absolute L2 norm of each output unit: neither signed, nor L1, nor one norm for the whole tensor."""
    (axis,) = random_directions(surface, 1, normalization="filter", generator=1)
    for name, own in parts(surface, surface.origin).items():
        part = parts(surface, axis)[name]
        if own.dim() < 2:
            assert torch.equal(part, torch.zeros_like(own))
        else:
            torch.testing.assert_close(part.flatten(1).norm(dim=1), own.flatten(1).norm(dim=1))


def test_filters_keep_their_norm_nearly_after_the_axes_were_made_orthogonal():
    surface = LossSurface(conv_net(64), nn.CrossEntropyLoss(), [data()])
    axes = random_directions(surface, 2, normalization="filter", generator=1)
    second = parts(surface, axes[1])["4.weight"]
    error = (second.norm(dim=1) / parts(surface, surface.origin)["4.weight"].norm(dim=1) - 1).abs().max()
    assert 0 < float(error) <= axes.meta["filter_norm_error"] < 0.1


def test_layer_weight_and_model_normalisation(surface):
    draws = [torch.Generator().manual_seed(1) for _ in range(4)]
    (raw,) = random_directions(surface, 1, normalization="none", generator=draws[0], exclude_bn_and_bias=False)
    (layer,) = random_directions(surface, 1, normalization="layer", generator=draws[1], exclude_bn_and_bias=False)
    (weight,) = random_directions(surface, 1, normalization="weight", generator=draws[2], exclude_bn_and_bias=False)
    (model,) = random_directions(surface, 1, normalization="model", generator=draws[3], exclude_bn_and_bias=False)
    for name, own in parts(surface, surface.origin).items():
        torch.testing.assert_close(parts(surface, layer)[name].norm(), own.norm())
    torch.testing.assert_close(weight, raw * surface.origin.abs())
    torch.testing.assert_close(model.norm(), surface.origin.norm())
    torch.testing.assert_close(model / model.norm(), raw / raw.norm())


def test_biases_and_norm_layers_are_excluded_or_one_unit_each(surface):
    excluded = ["0.bias", "1.weight", "1.bias", "4.bias"]
    axes = random_directions(surface, 1, normalization="filter", generator=1)
    assert axes.meta["excluded"] == excluded
    both = random_directions(surface, 1, normalization="filter", generator=1, exclude_bn_and_bias=False)
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


def test_an_embeddings_units_are_its_rows_and_a_tied_weight_is_one_axis():
    net = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(8, 3))
    words, labels = torch.randint(0, 7, (12, 2), generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
    surface = LossSurface(net, nn.CrossEntropyLoss(), [(words, labels)])
    (axis,) = random_directions(surface, 1)
    torch.testing.assert_close(parts(surface, axis)["0.weight"].norm(dim=1), net[0].weight.detach().norm(dim=1))
    tied = SharesWeights()
    surface = LossSurface(tied, nn.CrossEntropyLoss(), [(torch.randn(4, 6), torch.arange(4) % 3)])
    (axis,) = random_directions(surface, 1)
    assert list(parts(surface, axis)) == ["first.weight", "first.bias", "head.weight", "head.bias"]
    torch.testing.assert_close(parts(surface, axis)["first.weight"].norm(dim=1), tied.last.weight.detach().norm(dim=1))


def test_draws_are_gaussian_and_the_same_in_either_precision():
    surface = LossSurface(conv_net(64), nn.CrossEntropyLoss(), [data()])
    (axis,) = random_directions(surface, 1, normalization="none", generator=0, exclude_bn_and_bias=False)
    assert abs(float(axis.mean())) < 4 / surface.size**0.5
    assert float(axis.std()) == pytest.approx(1, abs=0.1)
    exact = surface.in_dtype(torch.float64)
    (wide,) = random_directions(exact, 1, normalization="none", generator=0, exclude_bn_and_bias=False)
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
    assert axes.meta["relative_norms"] == pytest.approx([float(axis.norm() / surface.origin.norm()) for axis in axes])


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
    pairs = eigenpairs(operator, 3, 2, tolerance=1e-9)
    for choice, index in (("top2", [0, 1]), ("extremes", [0, 3])):
        axes = hessian_directions(surface, pairs, choice=choice)
        for axis, i in zip(axes, index, strict=True):
            assert float(axis.norm()) == pytest.approx(1)
            assert float(axis[axis.abs().argmax()]) > 0
            torch.testing.assert_close(operator @ axis, float(pairs.values[i]) * axis, rtol=0, atol=1e-7)
        assert axes.meta["eigenvalues"] == pairs.values[index].tolist()
    normalized = hessian_directions(surface, pairs, normalization="filter")
    assert abs(cosine(*normalized)) < 1e-6
    with pytest.raises(ValueError, match="choice must be 'top2' or 'extremes'"):
        hessian_directions(surface, pairs, choice="top")
    with pytest.raises(ValueError, match="asked for 1 largest and 1 smallest"):
        hessian_directions(surface, pairs.select(2, 0), choice="extremes")


def test_the_first_gradient_axis_is_the_gradient(surface):
    axes = gradient_directions(surface, 3, generator=torch.Generator().manual_seed(0))
    assert cosine(axes[0], surface.gradient()) == pytest.approx(1)
    assert abs(axes.meta["cosine"]) < 1e-6
    assert axes.meta["direction_norms"] == pytest.approx([float(surface.origin.norm())] * 3)
    torch.testing.assert_close(gradient_directions(surface, 1, normalization="none")[0], surface.gradient())
    flat = LossSurface(nn.Linear(2, 1), batches=[0], batch_loss=lambda net, _: 0 * net(torch.ones(2)).sum())
    with pytest.raises(ValueError, match="the gradient at the origin is 0"):
        gradient_directions(flat)


def test_adams_axes_are_its_moments_in_the_surfaces_order():
    net = conv_net()
    net[1].weight.requires_grad_(False)
    parameters = [net[4].bias, net[4].weight, net[1].bias, net[0].weight, net[0].bias]  # not in the net's order
    optimizer = torch.optim.AdamW([{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.1}], betas=(0.5, 0.75))
    slopes, (inputs, targets) = [], data()
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), targets).backward()
        slopes.append(torch.cat([p.grad.reshape(-1) for p in net.parameters() if p.requires_grad]))
        optimizer.step()
    surface = LossSurface(net, nn.CrossEntropyLoss(), [data()])
    first = 0.25 * slopes[0] + 0.5 * slopes[1]
    second = 0.75 * 0.25 * slopes[0] ** 2 + 0.25 * slopes[1] ** 2
    axes = adam_directions(surface, net, optimizer, normalization="none")
    torch.testing.assert_close(axes[0], first)
    rest = second - (second @ first) / (first @ first) * first
    torch.testing.assert_close(axes[1], rest * second.norm() / rest.norm(), rtol=1e-4, atol=1e-8)
    assert adam_directions(surface, net, optimizer).meta["direction_norms"] == pytest.approx([float(surface.origin.norm())] * 2)


def test_an_optimizer_without_moments_is_refused(surface):
    net = conv_net()
    for optimizer in (torch.optim.Adam(net.parameters()), torch.optim.SGD(net.parameters(), 0.1)):
        with pytest.raises(ValueError, match="the optimizer has no exp_avg and exp_avg_sq for '0.weight'; give the net that"):
            adam_directions(surface, net, optimizer)
    with pytest.raises(ValueError, match="no exp_avg and exp_avg_sq for '0.weight'"):
        adam_directions(surface, conv_net(), trained(net))  # of another net


def as_module(net: nn.Module, folder: Path) -> nn.Module:
    return net


def as_state_dict(net: nn.Module, folder: Path) -> dict[str, Tensor]:
    return net.state_dict()


def as_file(net: nn.Module, folder: Path) -> Path:
    path = folder / f"{len(list(folder.iterdir()))}.pt"
    torch.save(net.state_dict(), path)
    return path


def as_vector(net: nn.Module, folder: Path) -> Tensor:
    return nn.utils.parameters_to_vector(net.parameters())


@pytest.mark.parametrize("given", [as_module, as_state_dict, as_file, as_vector])
def test_two_other_nets_lie_where_the_plane_says(given, tmp_path):
    nets = [conv_net().double() for _ in range(3)]
    for number, net in enumerate(nets):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter += 0.3 * number * torch.randn(parameter.shape, dtype=torch.float64)
    inputs, targets = data()
    batch = inputs.double(), targets
    surface = LossSurface(nets[0], nn.CrossEntropyLoss(), [batch])
    axes = three_point_directions(surface, given(nets[1], tmp_path), given(nets[2], tmp_path))
    assert abs(cosine(*axes)) < 1e-12
    line = difference_directions(surface, given(nets[2], tmp_path))
    places = torch.tensor([list(point.values()) for point in axes.meta["points"]], dtype=torch.float64)
    assert places[:2].tolist() == [[0.0, 0.0], [1.0, 0.0]]
    for net, place in zip(nets, places, strict=True):
        own = nn.utils.parameters_to_vector(net.parameters()).detach()
        torch.testing.assert_close(surface.origin + place @ torch.stack(tuple(axes)), own, rtol=0, atol=1e-14)
    torch.testing.assert_close(surface.origin + line[0], own, rtol=0, atol=1e-15)
    losses = surface.losses(displacements=places @ torch.stack(tuple(axes)))
    true = [nn.functional.cross_entropy(net.eval()(batch[0]), targets).item() for net in nets]
    assert losses.tolist() == pytest.approx(true, rel=1e-12)
    assert surface.losses(displacements=line[0][None]).item() == pytest.approx(true[2], rel=1e-12)
    assert [axes.meta["kind"], line.meta["kind"], len(line)] == ["three_points", "difference", 1]


def test_three_points_on_a_line_are_refused(surface):
    step = torch.ones_like(surface.origin)
    for second, third in [(step, 2 * step), (step, 0 * step), (0 * step, step)]:
        with pytest.raises(ValueError, match="the three points lie on a line"):
            three_point_directions(surface, surface.origin + second, surface.origin + third)
    with pytest.raises(ValueError, match="must be > 0"):
        difference_directions(surface, surface.origin)


def test_another_nets_state_dict_is_refused_by_name_and_shape(surface):
    state = conv_net().state_dict()
    wrapped = {f"trunk.{name}": tensor for name, tensor in state.items()}
    with pytest.raises(ValueError, match="without 0.weight, 0.bias, 1.weight, …; it has trunk.0.weight, trunk.0.bias"):
        difference_directions(surface, wrapped)
    with pytest.raises(ValueError, match="without 4.bias; it has 0.weight"):
        three_point_directions(surface, state, {name: tensor for name, tensor in state.items() if name != "4.bias"})
    with pytest.raises(ValueError, match=r"of other shapes: 0.weight \[5, 1, 3, 3\], not \[4, 1, 3, 3\], 0.bias \[5\]"):
        difference_directions(surface, conv_net(5))
    with pytest.raises(ValueError, match=r"expected a vector \[P\] with P = .* parameters, got \[3\]"):
        difference_directions(surface, torch.ones(3))
    with pytest.raises(ValueError, match=r"expected a vector \[P\] with P = .* parameters, got \[2,"):
        difference_directions(surface, torch.stack([surface.origin] * 2))


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
    with pytest.raises(ValueError, match=r"expected a direction \[P\] with P = \d+ parameters, or such in a list, got \[3\]"):
        custom_directions(surface, torch.ones(3, device=surface.device))
