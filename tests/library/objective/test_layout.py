from __future__ import annotations

import pytest
import torch
from nets import Remembers, SharesWeights, mlp
from torch import nn

from loss_landscape import LossSurface

DATA = [(torch.randn(4, 6), torch.tensor([0, 1, 2, 0]))]


def test_a_vector_holds_the_parameters_in_the_order_of_the_model():
    model = mlp()
    surface = LossSurface(model, nn.CrossEntropyLoss(), DATA)
    assert surface.layout.names == tuple(name for name, _ in model.named_parameters())
    assert torch.equal(surface.origin, nn.utils.parameters_to_vector(model.parameters()).detach())
    for name, part in surface.layout.unflatten(surface.origin).items():
        assert torch.equal(part, model.get_parameter(name))


def test_flatten_takes_a_state_dict_or_a_list():
    model = mlp()
    layout = LossSurface(model, nn.CrossEntropyLoss(), DATA).layout
    vector = torch.arange(float(layout.size))
    assert torch.equal(layout.flatten(layout.unflatten(vector)), vector)
    assert torch.equal(layout.flatten(list(layout.unflatten(vector).values())), vector)
    assert torch.equal(layout.flatten(model.state_dict()), nn.utils.parameters_to_vector(model.parameters()))


def test_a_batch_of_vectors_unflattens_to_a_batch_of_parameters():
    layout = LossSurface(mlp(), nn.CrossEntropyLoss(), DATA).layout
    assert layout.unflatten(torch.zeros(7, layout.size))["0.weight"].shape == (7, 5, 6)


def test_frozen_and_unused_parameters_are_no_directions():
    surface = LossSurface(Remembers(), nn.CrossEntropyLoss(), DATA)
    assert surface.layout.names == ("first.weight", "first.bias", "norm.weight", "norm.bias", "head.weight", "head.bias")
    assert surface.layout.in_norm_layer == (False, False, True, True, False, False)


def test_a_tied_parameter_counts_once():
    surface = LossSurface(SharesWeights(), nn.CrossEntropyLoss(), DATA)
    assert surface.layout.names == ("first.weight", "first.bias", "head.weight", "head.bias")
    assert surface.size == 36 + 6 + 18 + 3


def test_the_units_of_a_transposed_convolution_are_on_its_second_dimension():
    model = nn.Sequential(nn.ConvTranspose1d(6, 4, 1), nn.Flatten(), nn.Linear(4, 3))
    surface = LossSurface(model, nn.CrossEntropyLoss(), [(torch.randn(4, 6, 1), torch.tensor([0, 1, 2, 0]))])
    assert surface.layout.unit_dims == (1, 0, 0, 0)


def test_a_vector_of_the_wrong_length_is_refused():
    surface = LossSurface(mlp(), nn.CrossEntropyLoss(), DATA)
    with pytest.raises(ValueError, match=r"the vector has 3 entries but this surface moves 53 parameters"):
        surface.layout.unflatten(torch.zeros(3))
    with pytest.raises(ValueError, match=r"expected a tensor \[K, P\] with P = 53 parameters, got \[1, 3\]"):
        surface.losses(displacements=torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"'0.weight' is missing"):
        surface.layout.flatten({})
    with pytest.raises(ValueError, match="in the order of model.parameters"):
        surface.layout.flatten([torch.zeros(3)])


@pytest.mark.parametrize(
    ("layer", "inputs", "has_convolution"),
    [(nn.Linear(6, 3), (4, 6), False), (nn.Conv1d(2, 3, 1), (4, 2, 1), True), (nn.Conv2d(2, 3, 1), (4, 2, 1, 1), True)],
)
def test_a_weight_of_three_dimensions_or_more_is_a_convolutions(layer, inputs, has_convolution):
    surface = LossSurface(nn.Sequential(layer, nn.Flatten()), nn.CrossEntropyLoss(), [(torch.zeros(inputs), DATA[0][1])])
    assert surface.layout.has_convolution is has_convolution
