"""Norms between patches and maps: for some layouts, torch's own gradient of them is that of other numbers."""

import pytest
import torch
from torch import Tensor, nn

from loss_landscape import HessianOperator, LossSurface, evaluate_grid, random_directions
from loss_landscape.objective.norm_layouts import norms_in_any_layout

MEAN, VARIANCE = torch.linspace(-1, 1, 6, dtype=torch.float64), torch.linspace(0.5, 2, 6, dtype=torch.float64)


class BatchNormWrittenOut(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return (maps - MEAN.reshape(6, 1, 1)) / (VARIANCE + 1e-5).sqrt().reshape(6, 1, 1)


class InstanceNormWrittenOut(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        centred = maps - maps.mean((2, 3), keepdim=True)
        return centred / (centred.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()


def batch_norm() -> nn.Module:
    norm = nn.BatchNorm2d(6, affine=False)
    norm.running_mean, norm.running_var = MEAN.clone(), VARIANCE.clone()
    return norm


NORMS = {"batch": (batch_norm, BatchNormWrittenOut), "instance": (lambda: nn.InstanceNorm2d(6), InstanceNormWrittenOut)}


class ToPatches(nn.Module):
    """Maps [N, 6, 4, 4], normalised and read as patches [N, T, 6], or with their positions first as [T, N, 6]."""

    def __init__(self, norm: nn.Module, order: tuple[int, int, int]):
        super().__init__()
        self.norm, self.order = norm, order
        self.scale, self.head = nn.Parameter(torch.rand(6, 1, 1) + 0.5), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.norm(x.sin() * self.scale).flatten(2).permute(self.order)
        weights = torch.linspace(-1, 2, patches.numel()).reshape(patches.shape)
        return self.head((patches.tanh() * weights).sum(self.order.index(2)))


class OfPatches(nn.Module):
    """Patches [N, T, 6], normalised as maps [N, 6, 4, 4]."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm, self.mix, self.head = norm, nn.Linear(6, 6), nn.Linear(96, 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.mix(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)
        return self.head(self.norm(maps).tanh().reshape(len(x), 96))


NETS = {
    "to patches": lambda norm: ToPatches(norm, (0, 2, 1)),
    "to positions first": lambda norm: ToPatches(norm, (2, 0, 1)),
    "of patches": OfPatches,
}


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize(("norm", "written_out"), NORMS.values(), ids=NORMS)
def test_losses_gradients_and_products_are_those_of_the_norm_written_out(norm, written_out, net):
    draw = torch.Generator().manual_seed(0)
    batches = [(torch.randn(count, 6, 4, 4, generator=draw, dtype=torch.float64), torch.arange(count)) for count in (2, 1)]
    surfaces = []
    for make in (norm, written_out):
        torch.manual_seed(0)
        surfaces.append(LossSurface(net(make()).double(), nn.CrossEntropyLoss(), batches))
    found, right = surfaces
    assert found.loss() == pytest.approx(right.loss(), rel=1e-12)
    step, vector = torch.randn(2, found.size, generator=draw, dtype=torch.float64)
    torch.testing.assert_close(found.gradient(step), right.gradient(step), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(HessianOperator(found) @ vector, HessianOperator(right) @ vector, rtol=1e-9, atol=1e-10)
    here, there = (evaluate_grid(surface, random_directions(surface, 1), 3, rho=0.1) for surface in surfaces)
    assert here.losses == pytest.approx(there.losses, rel=1e-10)


class ByKeywords(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        statistics = {"running_mean": MEAN, "running_var": VARIANCE, "momentum": 0.1, "eps": 1e-5, "cudnn_enabled": False}
        return torch.batch_norm(input=maps, weight=None, bias=None, training=False, **statistics)


def test_norms_can_be_called_by_keywords():
    batch = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.arange(2)
    surfaces = []
    for make in (ByKeywords, BatchNormWrittenOut):
        torch.manual_seed(0)
        surfaces.append(LossSurface(OfPatches(make()).double(), nn.CrossEntropyLoss(), [batch]))
    found, right = surfaces
    assert found.loss() == pytest.approx(right.loss(), rel=1e-12)
    torch.testing.assert_close(found.gradient(), right.gradient(), rtol=1e-10, atol=1e-12)


def test_the_gradient_of_a_norm_whose_maps_lie_in_one_way_only_is_torchs_to_the_bit():
    draw = torch.Generator().manual_seed(0)
    maps, weights = (torch.randn(16, 32, 16, 16, generator=draw).to(memory_format=torch.channels_last) for _ in range(2))
    norm = nn.BatchNorm2d(32).eval()

    def slopes() -> tuple[Tensor, ...]:
        return torch.autograd.grad(norm(maps), list(norm.parameters()), weights.transpose(2, 3))

    expected = slopes()
    with norms_in_any_layout():
        found = slopes()
    assert all(map(torch.equal, found, expected))
