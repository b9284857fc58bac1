"""Units followed through any net: silenced, scaled and permuted by what the flow says, every net does what it must."""

from __future__ import annotations

import pytest
import torch
from flowing import assert_units_can_be_permuted, assert_units_can_be_scaled, assert_units_can_be_silenced
from nets import assert_leaves_net_untouched
from torch import Tensor, nn
from torch.nn import functional as F
from unit_nets import made

from loss_landscape import Consumer, Slot, UnitLayer, unit_flow
from loss_landscape.graphs.tracing import UntraceableError


class Dense(nn.Module):
    """Each layer reads all that came before, side by side, through a norm (DenseNet)."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1)
        self.norm1, self.conv1 = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1)
        self.norm2, self.conv2 = nn.BatchNorm2d(7), nn.Conv2d(7, 5, 3, padding=1)
        self.norm3, self.head = nn.BatchNorm2d(12), nn.Linear(12 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.conv1(F.relu(self.norm1(x), inplace=True))], dim=1)
        x = torch.cat([x, self.conv2(F.relu(self.norm2(x), inplace=True))], dim=1)
        return self.head(F.adaptive_avg_pool2d(F.relu(self.norm3(x)), 2).flatten(1))


class BothSigns(nn.Module):
    """[relu(z), relu(-z)] after a convolution, flattened, and after a linear layer (CReLU)."""

    def __init__(self):
        super().__init__()
        self.conv, self.hidden, self.head = nn.Conv2d(2, 3, 3), nn.Linear(6 * 9, 5), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.conv(x)
        z = self.hidden(F.max_pool2d(torch.cat([z.relu(), (-z).relu()], dim=1), 2).flatten(1))
        return self.head(torch.cat([z.relu(), (-z).relu()], dim=1))


class Inverted(nn.Module):
    """Wide, depthwise with two outputs a channel, narrow; twice, the second time around a residual connection (MobileNetV2)."""

    def __init__(self):
        super().__init__()
        self.wide, self.norm1 = nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4)
        self.each, self.norm2 = nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8)
        self.narrow, self.each2 = nn.Conv2d(8, 3, 1), nn.Conv2d(3, 3, 3, padding=1, groups=3)
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm2(self.each(F.relu(self.norm1(self.wide(x))))))
        x = F.relu(self.narrow(x))
        return self.head((x + F.relu(self.each2(x))).mean(dim=(2, 3)))


class Transformer(nn.Module):
    """A patch embedding and one block: heads of attention, queries, keys and values from one weight, layer norms, an MLP."""

    def __init__(self):
        super().__init__()
        self.embed, self.places = nn.Conv2d(2, 8, 2, stride=2), nn.Parameter(torch.randn(16, 8))
        self.norm1, self.attend, self.project = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.norm2, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 10), nn.Linear(10, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2) + self.places
        q, k, v = self.attend(self.norm1(x)).reshape(len(x), 16, 3, 2, 4).permute(2, 0, 3, 1, 4)
        x = x + self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(len(x), 16, 8))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(dim=1))


def ready(net: nn.Module) -> nn.Module:
    """In float64 and eval mode, every tensor drawn anew, norms and biases not as they begin."""
    net = net.double().eval()
    with torch.no_grad():
        for tensor in [*net.parameters(), *net.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5 if tensor.dim() < 2 else torch.randn_like(tensor) * 0.5)
    return net


def images(side=8):
    return (torch.randn(5, 2, side, side, dtype=torch.float64),)


OWN = {"dense": Dense, "both signs": BothSigns, "inverted": Inverted, "transformer": Transformer}
SHARED = ("mlp", "linear", "flattened", "residual-batch", "residual-none", "upwards", "depthwise", "joined", "gated", "buffered")
SHARED += ("tied", "attention")
RELU_GROUPS = {"dense": 3, "both signs": 2, "inverted": 3, "residual-none": 2}
HEADS = {"transformer": "attend[16:24]", "attention": "layer.self_attn.in_proj_weight[16:24]"}
"""Values of attention."""


def case(name):
    torch.manual_seed(0)
    if name in OWN:
        return ready(OWN[name]()), images()
    found = made(name)
    return found.net, (found.inputs,)


@pytest.mark.parametrize("name", [*OWN, *SHARED])
def test_a_unit_whose_consumers_are_zero_is_silent(name):
    net, inputs = case(name)
    assert_units_can_be_silenced(net, inputs, unit_flow(net, inputs))


@pytest.mark.parametrize("name", RELU_GROUPS)
def test_relu_units_can_be_scaled(name):
    net, inputs = case(name)
    assert_units_can_be_scaled(net, inputs, unit_flow(net, inputs), groups=RELU_GROUPS[name])


@pytest.mark.parametrize("name", [*OWN, *SHARED])
def test_units_can_be_permuted(name):
    net, inputs = case(name)
    assert_units_can_be_permuted(net, inputs, unit_flow(net, inputs), but=HEADS.get(name, ""))


def test_what_makes_and_what_reads_a_unit_is_named():
    net, inputs = case("dense")
    stem, first, second = unit_flow(net, inputs).layers
    assert [(c.slot.tensor, c.slot.dim, c.slot.offset, c.slot.stride) for c in stem.consumers] == [
        ("conv1.weight", 1, 0, 1),
        ("conv2.weight", 1, 0, 1),
        ("head.weight", 1, 0, 4),
    ]
    assert [(c.slot.tensor, c.slot.offset) for c in first.consumers] == [("conv2.weight", 3), ("head.weight", 12)]
    assert [(norm.kind, norm.scale) for norm in second.norms] == [("batch", Slot("norm3.weight", 0, 7))]
    assert (second.name, second.size, second.bias, second.activation) == ("conv2", 5, (Slot("conv2.bias", 0),), "relu")
    assert second.consumers == (Consumer(Slot("head.weight", 1, 28, 4), Slot("head", 1, 28, 4), makes=0, bias="head.bias"),)


def test_both_signs_of_a_unit_are_read():
    net, inputs = case("both signs")
    conv, hidden = unit_flow(net, inputs).layers
    assert [c.slot for c in conv.consumers] == [Slot("hidden.weight", 1, 0, 9), Slot("hidden.weight", 1, 27, 9)]
    assert [c.reading for c in hidden.consumers] == [Slot("head", 1, 0), Slot("head", 1, 5)]


def test_a_depthwise_layer_reads_blocks_of_its_own_outputs_and_meets_its_own_input():
    net, inputs = case("inverted")
    flow = unit_flow(net, inputs)
    assert flow.layers[0].consumers[0].slot == Slot("each.weight", 0, 0, 2)
    assert [[layer.name for layer in group] for group in flow.groups] == [["wide"], ["each"], ["narrow", "each2"]]


def test_attention_passes_values_on_and_says_why_it_does_not_queries_and_keys():
    net, inputs = case("transformer")
    flow = unit_flow(net, inputs)
    assert [(layer.name, layer.size) for layer in flow.layers] == [
        ("embed", 8), ("attend[16:24]", 8), ("project", 8), ("up", 10), ("down", 8)
    ]  # fmt: skip
    assert flow.layers[0].meets == ("project", "down")
    assert flow.left_out == {"attend[0:16]": "a product of units with units"}


def test_two_halves_of_a_layer_that_meet_are_two_layers():
    net, inputs = case("gated")
    value, gate = unit_flow(net, inputs).layers
    assert (value.name, value.meets, gate.name, gate.incoming) == (
        "both[0:6]",
        ("both[6:12]",),
        "both[6:12]",
        Slot("both.weight", 0, 6),
    )


def test_a_batch_norm_takes_the_place_of_a_bias_that_is_not_there():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))
    (reader,) = unit_flow(net, torch.randn(2, 2, 4, 4)).layers[0].consumers
    assert (reader.bias, reader.mean) == (None, "3.running_mean")


@pytest.mark.parametrize("batch", [1, 3])
def test_a_unit_alone_in_its_layer_is_followed(batch):
    net = nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2))
    first, second = unit_flow(net, torch.randn(batch, 2)).layers
    assert (first.incoming, first.bias) == (Slot("0.weight", 0), (Slot("0.bias", 0),))
    assert (first.consumers[0].slot, first.consumers[0].reading) == (Slot("2.weight", 1), Slot("2", 1))
    assert second.consumers[0].slot == Slot("4.weight", 1)


class Ends(nn.Module):
    """A layer whose units go into `last`."""

    def __init__(self, last, out=6):
        super().__init__()
        self.hidden, self.first, self.head, self.last = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(out, 2), last

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.hidden(x), self.first(x)))


ENDS = [
    (lambda h, f: h.cumsum(dim=1), 6, "the operation cumsum"),
    (lambda h, f: h.mean(dim=1, keepdim=True), 1, "mean over its units"),
    (lambda h, f: h @ f.T @ f, 6, "a product of units with units"),
    (lambda h, f: h + f[:, [1, 0, 2, 3, 4, 5]], 6, "the operation index"),
    (lambda h, f: h + torch.cat([f[:, 3:], f[:, :3]], dim=1), 6, "others' units are added to them in another order"),
]


@pytest.mark.parametrize(("last", "out", "why"), ENDS, ids=[why for _, _, why in ENDS])
def test_where_units_cannot_be_followed_the_operation_is_named(last, out, why):
    with pytest.raises(ValueError, match=rf"{why}.*; declare its units by hand: give the net a method unit_layers\(\)"):
        unit_flow(Ends(last, out), torch.randn(3, 4))


def test_a_norm_written_out_lets_units_through():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.head, self.scale = nn.Linear(4, 6), nn.Linear(6, 2), nn.Parameter(torch.randn(6))

        def forward(self, x: Tensor) -> Tensor:
            x = self.hidden(x)
            x = x - x.mean(dim=1, keepdim=True)
            return self.head(torch.relu(x / (x.square().mean(dim=1, keepdim=True) + 1e-5).sqrt() * self.scale))

    (layer,) = unit_flow(Normed(), torch.randn(3, 4)).layers
    assert (layer.others, layer.activation) == ((Slot("scale", 0),), "relu")


def test_what_is_added_to_the_input_cannot_be_replaced():
    class AroundInput(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.back, self.head = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x + self.back(torch.relu(self.hidden(x))))

    flow = unit_flow(AroundInput(), torch.randn(3, 4))
    assert [layer.name for layer in flow.layers] == ["hidden"]
    assert flow.left_out == {"back": "what is no unit is added to them"}


def test_a_net_that_branches_on_values_is_told_to_declare_its_units():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x) if x.sum() > 0 else -self.one(x))

    with pytest.raises(UntraceableError, match="declare its units by hand"):
        unit_flow(Branches(), torch.randn(3, 4))

    class Declares(Branches):
        def unit_layers(self):
            return [UnitLayer("one", 3, Slot("one.weight", 0), consumers=(Consumer(Slot("two.weight", 1), Slot("two", 1)),))]

    assert unit_flow(Declares(), torch.randn(3, 4)).layers == tuple(Declares().unit_layers())


def test_a_single_layer_has_no_hidden_units():
    with pytest.raises(ValueError, match=r"no units of this net can be followed \(it has no hidden layer\)"):
        unit_flow(nn.Linear(4, 2), torch.randn(3, 4))


def test_tracing_leaves_the_net_alone():
    net, inputs = case("dense")
    net.train()
    with assert_leaves_net_untouched(net):
        unit_flow(net, inputs)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_a_slot_puts_back_what_it_took(dim):
    tensor = torch.randn(7, 8, 9)
    slot = Slot("t", dim, offset=1, stride=2)
    values = slot.of(tensor, 3)
    assert values.shape[0] == 3
    assert torch.equal(slot.put(tensor, values), tensor)
    expected = tensor.clone()
    expected.narrow(dim, 1, 6).zero_()
    assert torch.equal(slot.put(tensor, torch.zeros_like(values)), expected)
    assert slot.along(torch.tensor([1.0, 2.0, 3.0]), 8).tolist() == [0, 1, 1, 2, 2, 3, 3, 0]
