"""Groups of units found by tracing: permuted, every net computes what it did before."""

from __future__ import annotations

import copy

import pytest
import torch
from nets import assert_leaves_net_untouched
from torch import Tensor, nn
from unit_nets import MAKERS, OUTPUT, made

from loss_landscape import UnitGroups, unit_groups
from loss_landscape.graphs.tracing import UntraceableError
from loss_landscape.units.axes import Factor, merge, regrouped, resolved
from loss_landscape.units.graph import CHANGES_OUTPUTS
from loss_landscape.units.rules import RULES


def drawn_permutations(groups: UnitGroups, seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randperm(size, generator=draw) for size in groups.sizes]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", MAKERS)
def test_a_permuted_net_computes_the_same(name, seed):
    case = made(name, seed)
    groups = unit_groups(case.net, case.inputs)
    twin = copy.deepcopy(case.net)
    twin.load_state_dict(groups.permuted(case.net.state_dict(), drawn_permutations(groups, seed)))
    with torch.no_grad():
        torch.testing.assert_close(twin(case.inputs), case.net(case.inputs), rtol=1e-11, atol=1e-12)
    if case.sizes:
        assert any(not torch.equal(p, q) for p, q in zip(twin.parameters(), case.net.parameters(), strict=True))


@pytest.mark.parametrize("name", MAKERS)
def test_the_groups_are_those_a_reader_of_the_net_would_name(name):
    case = made(name)
    groups = unit_groups(case.net, case.inputs)
    assert sorted(groups.sizes) == sorted(case.sizes)
    last_bias = [key for key in case.net.state_dict() if key.endswith("bias")][-1]
    assert groups.fixed == {**case.fixed, last_bias: OUTPUT}


def test_a_residual_connection_makes_one_group_of_all_it_adds_up():
    case = made("residual-batch")
    groups = unit_groups(case.net, case.inputs)
    stream = next(g for g in range(3) if ("stem.weight", 0) in groups.members(g))
    names = ["stem.weight", "stem.bias", "norm0.weight", "norm0.bias", "conv2.weight", "conv2.bias", "norm2.weight", "norm2.bias"]
    statistics = [f"norm{number}.running_{what}" for number in (0, 2) for what in ("mean", "var")]
    readers = [("conv1.weight", 1), ("conv3.weight", 1), ("way.weight", 1)]
    assert sorted(groups.members(stream)) == sorted([(name, 0) for name in [*names, *statistics]] + readers)


def test_a_flattened_maps_channels_are_blocks_of_the_next_layers_inputs():
    case = made("flattened")
    groups = unit_groups(case.net, case.inputs)
    assert [part.size for part in groups.parts["9.weight"]] == [7, 5, 2, 2]  # 20 inputs: 5 channels of 2×2 places
    permutations = [order.roll(1) if size == 5 else order for size, order in zip(groups.sizes, groups.identity(), strict=True)]
    weight = case.net.state_dict()["9.weight"]
    expected = weight.view(7, 5, 4).roll(1, dims=1).reshape(7, 20)
    assert torch.equal(groups.permuted({"9.weight": weight}, permutations)["9.weight"], expected)


def test_attention_permutes_its_heads_and_what_is_in_them_alike_for_queries_keys_and_values():
    case = made("attention")
    groups = unit_groups(case.net, case.inputs)
    packed, stream = groups.parts["layer.self_attn.in_proj_weight"][:3], groups.parts["head.weight"][1].group
    assert [part.size for part in packed] == [3, 2, 4]
    assert packed[0].group is None
    assert groups.parts["layer.self_attn.out_proj.weight"][1:] == packed[1:]
    assert groups.parts["table.weight"][1].group == groups.parts["layer.linear1.weight"][1].group == stream


def test_a_tied_weight_has_its_units_on_both_sides_under_both_names():
    case = made("tied")
    groups = unit_groups(case.net, case.inputs)
    assert [part.group for part in groups.parts["other.weight"]] == [0, 0]
    permuted = groups.permuted(case.net.state_dict(), drawn_permutations(groups))
    assert torch.equal(permuted["one.weight"], permuted["other.weight"])


def test_a_frozen_layers_units_stay():
    case = made("mlp")
    case.net[2].requires_grad_(False)
    groups = unit_groups(case.net, case.inputs)
    assert groups.sizes == ()
    assert set(groups.fixed) == set(case.net.state_dict())
    assert groups.fixed["2.weight"] == "frozen"


def test_a_group_whose_reversal_changes_the_outputs_is_left_out(monkeypatch):
    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.second(self.first(x).cumsum(dim=1))))

    torch.manual_seed(0)
    net, inputs = Sums().double(), torch.randn(9, 4, dtype=torch.float64)
    assert unit_groups(net, inputs).fixed["first.bias"] == "the operation cumsum"
    monkeypatch.setitem(RULES, torch.ops.aten.cumsum, RULES[torch.ops.aten.clone])  # a wrong rule
    groups = unit_groups(net, inputs)
    assert groups.sizes == (6,)
    assert groups.fixed["first.bias"] == CHANGES_OUTPUTS


def test_a_constant_keeps_the_units_it_meets_in_order():
    class Weighs(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head, self.scale = nn.Linear(4, 5), nn.Linear(5, 3), torch.arange(5.0, dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.first(x) * self.scale)

    groups = unit_groups(Weighs().double(), torch.randn(9, 4, dtype=torch.float64))
    assert groups.sizes == ()
    assert groups.fixed["first.bias"] == "a constant"


def test_nets_of_several_inputs_and_outputs():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(4, 5), nn.Linear(3, 5)
            self.head, self.second = nn.Linear(5, 2), nn.Linear(5, 6)

        def forward(self, x: Tensor, shift: Tensor) -> dict[str, Tensor]:
            hidden = torch.relu(self.one(x) + self.other(shift))
            return {"logits": self.head(hidden), "features": self.second(hidden)}

    net = Both()
    for inputs in ((torch.randn(9, 4), torch.randn(9, 3)), {"x": torch.randn(9, 4), "shift": torch.randn(9, 3)}):
        groups = unit_groups(net, inputs)
        assert groups.sizes == (5,)
        assert groups.fixed == {"head.bias": OUTPUT, "second.bias": OUTPUT}


def test_a_net_that_branches_on_values_can_not_be_traced():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if x.sum() > 0 else -self.layer(x)

    with pytest.raises(UntraceableError):
        unit_groups(Branches(), torch.randn(9, 4))


@pytest.mark.parametrize("name", ["residual-batch", "buffered"])
def test_tracing_leaves_the_net_alone(name):
    case = made(name)
    case.net.train()
    with assert_leaves_net_untouched(case.net):
        unit_groups(case.net, case.inputs)


# Dimensions as products


def sizes(axis: tuple[Factor, ...]) -> list[int]:
    return [factor.size for factor in resolved(axis)]


def test_dimensions_that_meet_are_parted_as_far_as_both_are():
    whole, parted = (Factor(12),), (Factor(2), Factor(6))
    merge(whole, parted)
    assert sizes(whole) == sizes(parted) == [2, 6]
    merge(whole, (Factor(4), Factor(3)))
    assert sizes(whole) == sizes(parted) == [2, 2, 3]
    assert resolved(whole) == resolved(parted)


def test_dimensions_that_do_not_fit_together_stay():
    first, second = (Factor(4), Factor(3)), (Factor(3), Factor(4))
    merge(first, second)
    assert all(factor.fixed for factor in resolved(first) + resolved(second))


def test_what_is_fixed_stays_fixed_when_it_meets_or_is_parted():
    fixed, free = (Factor(6, "why"),), (Factor(2), Factor(3))
    merge(free, fixed)
    assert [factor.fixed for factor in resolved(free)] == ["why", "why"]


def test_a_reshape_regroups_or_gives_up():
    axes = ((Factor(5),), (Factor(4),), (Factor(3),))
    assert [sizes(axis) for axis in regrouped(axes, (5, 12))] == [[5], [4, 3]]
    assert [sizes(axis) for axis in regrouped(axes, (5, 2, 6, 1))] == [[5], [2], [2, 3], []]
    assert all(factor.fixed for axis in regrouped(axes, (6, 10)) for factor in resolved(axis))
    assert all(factor.fixed for axis in axes for factor in resolved(axis))


@pytest.mark.parametrize(
    ("inputs", "given"), [(None, "None"), ("text", "str without a tensor"), ([], "list without a tensor")], ids=repr
)
def test_a_net_is_not_traced_on_nothing(inputs, given):
    expected = f"expected a batch of inputs to trace the net on, got {given}; give what the net is called with: a tensor, a tuple"
    with pytest.raises(TypeError, match=expected):
        unit_groups(made("mlp").net, inputs)


def test_a_state_dict_is_no_net_to_trace():
    case = made("mlp")
    with pytest.raises(TypeError, match=r"expected the net itself, a torch.nn.Module, to trace, got OrderedDict"):
        unit_groups(case.net.state_dict(), case.inputs)
