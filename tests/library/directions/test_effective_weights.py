"""Filter norms of pruned and reparametrised layers are those of the weight that the layer computes with."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from loss_landscape import LossSurface, random_directions

INPUTS, LABELS = torch.randn(20, 2, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3


def old(norm):
    def wrap(layer: nn.Module, **options) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return norm(layer, **options)

    return wrap


WRAPS = {
    "pruned by size": lambda layer: prune.l1_unstructured(layer, "weight", amount=0.6),
    "pruned by unit": lambda layer: prune.ln_structured(layer, "weight", amount=0.5, n=2, dim=0),
    "weight norm": parametrizations.weight_norm,
    "weight norm by hook": old(nn.utils.weight_norm),
}
LAYERS = {
    "linear": lambda: nn.Linear(72, 8),
    "convolution": lambda: nn.Conv2d(2, 4, 3),
    "transposed": lambda: nn.ConvTranspose2d(2, 4, 3),
}


def net_with(wrap, layer: str) -> nn.Module:
    torch.manual_seed(0)
    made = LAYERS[layer]()
    first = [nn.Flatten(), wrap(made)] if layer == "linear" else [wrap(made), nn.Flatten()]
    size = {"linear": 8, "convolution": 64, "transposed": 256}[layer]
    return nn.Sequential(*first, nn.Tanh(), nn.Linear(size, 3))


def displaced(net: nn.Module, surface: LossSurface, step: Tensor) -> nn.Module:
    twin = copy.deepcopy(net).double()
    for name, part in surface.layout.unflatten(step.double()).items():
        twin.get_parameter(name).data.add_(part)
    return twin


UNIT_BY_UNIT = [(wrap, layer) for wrap in WRAPS for layer in LAYERS if layer != "transposed" or "norm" not in wrap]


@pytest.mark.parametrize(("wrap", "layer"), UNIT_BY_UNIT)
def test_each_unit_of_the_weight_moves_by_its_own_norm(wrap, layer):
    net = net_with(WRAPS[wrap], layer).double()
    index, dim = int(layer == "linear"), int(layer == "transposed")
    inputs = INPUTS.double()
    surface = LossSurface(net, nn.CrossEntropyLoss(), [(inputs, LABELS)])
    direction = random_directions(surface, 1)[0]
    own = weight_of(net, index, inputs)
    moved = (weight_of(displaced(net, surface, 1e-6 * direction), index, inputs) - own) / 1e-6
    others = [d for d in range(own.dim()) if d != dim]
    wanted, found = (tensor.pow(2).sum(dim=others).sqrt() for tensor in (own, moved))
    assert found == pytest.approx(wanted, rel=1e-4, abs=1e-9)


def weight_of(net: nn.Module, index: int, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        net(inputs)
    return net[index].weight.detach().clone()


def test_layer_norms_are_those_of_the_weight_as_well_and_plain_layers_are_as_they_were():
    inputs = INPUTS.double()
    net = net_with(WRAPS["pruned by size"], "linear").double()
    surface = LossSurface(net, nn.CrossEntropyLoss(), [(inputs, LABELS)])
    direction = random_directions(surface, 1, normalization="layer")[0]
    moved = surface.layout.unflatten(direction)["1.weight_orig"] * net[1].weight_mask
    assert float(moved.norm()) == pytest.approx(float(weight_of(net, 1, inputs).norm()), rel=1e-6)
    plain = net_with(lambda layer: layer, "linear").double()
    surface = LossSurface(plain, nn.CrossEntropyLoss(), [(inputs, LABELS)])
    part = surface.layout.unflatten(random_directions(surface, 1)[0])["1.weight"]
    assert part.norm(dim=1).tolist() == pytest.approx(plain[1].weight.norm(dim=1).tolist(), rel=1e-12)
    assert random_directions(surface, 2).info.filter_norm_error is not None


@pytest.mark.parametrize("wrap", [parametrizations.spectral_norm, parametrizations.orthogonal, old(nn.utils.spectral_norm)])
def test_parametrisations_that_couple_units_move_by_about_their_norm(wrap):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), wrap(nn.Linear(72, 8)), nn.Tanh(), nn.Linear(8, 3)).double()
    inputs = INPUTS.double()
    net.train()
    with torch.no_grad():
        [net(inputs) for _ in range(5)]
    net.eval()
    surface = LossSurface(net, nn.CrossEntropyLoss(), [(inputs, LABELS)])
    direction = random_directions(surface, 1, normalization="layer")[0]
    own = weight_of(net, 1, inputs)
    if wrap is parametrizations.orthogonal:  # it rounds the diagonal, so that differences are none; its axis has a size
        assert 0.3 < float(direction.norm() / surface.origin.norm()) < 3
        return
    moved = (weight_of(displaced(net, surface, 1e-6 * direction), 1, inputs) - own) / 1e-6
    assert float(moved.norm()) == pytest.approx(float(own.norm()), rel=1e-3)
