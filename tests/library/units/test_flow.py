"""Units followed through any net: silenced, scaled and permuted by what the flow says, every net does what it must."""

from __future__ import annotations

import pytest
import torch
from flowing import assert_units_can_be_permuted, assert_units_can_be_scaled, assert_units_can_be_silenced
from torch import Tensor, nn
from torch.nn import functional as F
from unit_nets import made

from loss_landscape import unit_flow


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
