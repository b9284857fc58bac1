"""Nets given as points that differ from the surface's in what it does not move: told in the result."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loss_landscape import (
    LossSurface,
    PathLosses,
    barrier,
    difference_directions,
    evaluate_grid,
    fit_bezier,
    line,
    path_losses,
    point_in,
    repaired_line,
    three_point_directions,
    trajectory_directions,
)

DRAW = torch.Generator().manual_seed(0)
INPUTS = torch.randn(120, 6, generator=DRAW) * 2 + 1
LABELS = INPUTS[:, :3].argmax(1)
STATISTICS = ("1.running_mean", "1.running_var")


def trained(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(net(INPUTS), LABELS).backward()
        optimizer.step()
    return net.eval()


@pytest.fixture(scope="module")
def nets() -> list[nn.Sequential]:
    return [trained(seed) for seed in range(3)]


def surface_of(net: nn.Module, **options) -> LossSurface:
    return LossSurface(net, nn.CrossEntropyLoss(), [(INPUTS, LABELS)], **options)


def recomputed_loss(net: nn.Module) -> float:
    """The loss with the statistics of all data, by torch's own training mode."""
    twin = copy.deepcopy(net).double()
    twin[1].reset_running_stats()
    twin[1].momentum = None
    twin.train()
    with torch.no_grad():
        twin(INPUTS.double())
        return float(F.cross_entropy(twin.eval()(INPUTS.double()), LABELS))


@pytest.mark.parametrize("form", ["net", "state dict", "file", "compiled name", "reversed arrays"])
def test_a_path_to_a_net_with_other_running_statistics_says_so(nets, form, tmp_path):
    other = nets[1]
    torch.save(other.state_dict(), tmp_path / "net.pt")
    points = {
        "net": other,
        "state dict": other.state_dict(),
        "file": tmp_path / "net.pt",
        "compiled name": {f"_orig_mod.{name}": tensor for name, tensor in other.state_dict().items()},
        "reversed arrays": {name: np.flip(np.flip(tensor.numpy()).copy()) for name, tensor in other.state_dict().items()},
    }
    path = barrier(surface_of(nets[0]), nets[0], points[form], num_points=3)
    assert path.info.directions.not_moved == STATISTICS
    assert "not the nets' own losses: the surface holds 1.running_mean, 1.running_var" in repr(path)
    assert json.loads(json.dumps(path.meta))["not_moved"] == list(STATISTICS)
    again = PathLosses.from_arrays(path.to_arrays())
    assert again.info.directions == path.info.directions


def test_with_statistics_taken_anew_the_ends_are_right_and_nothing_is_told(nets):
    surface = surface_of(nets[0], batch_norm="recompute")
    path = barrier(surface, nets[0], nets[1], num_points=3)
    assert path.info.directions.not_moved == ()
    assert [path.losses[0], path.losses[-1]] == pytest.approx([recomputed_loss(net) for net in nets[:2]], rel=1e-5)
    assert barrier(surface_of(nets[0], batch_norm="batch"), nets[0], nets[1], num_points=3).info.directions.not_moved == ()


def test_every_result_that_is_given_nets_tells_it(nets):
    surface = surface_of(nets[0])
    axes = three_point_directions(surface, nets[1], nets[2])
    assert axes.info.not_moved == STATISTICS
    assert "batch_norm='recompute'" in repr(axes)
    grid = evaluate_grid(surface, difference_directions(surface, nets[1]), 3, span=(0.0, 1.0))
    assert grid.info.directions.not_moved == STATISTICS
    curve = fit_bezier(surface, nets[0], nets[1], steps=2)
    assert curve.info.not_moved == STATISTICS
    assert type(curve).from_arrays(curve.to_arrays()).info == curve.info
    assert path_losses(surface, curve, num_points=3).info.directions.not_moved == STATISTICS
    assert repaired_line(surface, nets[0], nets[1], num_points=3).info.directions.not_moved == STATISTICS
    assert trajectory_directions(surface, [nets[2], nets[1], nets[0]]).info.not_moved == STATISTICS


def test_vectors_and_the_net_itself_tell_nothing(nets):
    surface = surface_of(nets[0])
    straight = line(point_in(surface, nets[0]), point_in(surface, nets[1]))
    assert path_losses(surface, straight, num_points=3).info.directions.not_moved == ()
    assert barrier(surface, nets[0], copy.deepcopy(nets[0]).state_dict(), num_points=3).info.directions.not_moved == ()


def test_frozen_parameters_and_other_buffers_count_too():
    class Shifted(nn.Module):
        def __init__(self, shift: float):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(6, 4), nn.Linear(4, 3)
            self.register_buffer("shift", torch.full((4,), shift))
            self.register_buffer("hidden", torch.full((4,), shift), persistent=False)
            self.a.bias.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).tanh() + self.shift + self.hidden)

    net, other = Shifted(0.0), Shifted(1.0)
    other.b.weight.data += 0.1
    other.a.bias.data += 0.1
    surface = surface_of(net)
    assert set(difference_directions(surface, other).info.not_moved) == {"a.bias", "shift", "hidden"}
    assert set(difference_directions(surface, other.state_dict()).info.not_moved) == {"a.bias", "shift"}


class HandWrittenNorm(nn.Module):
    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) / x.std(0) if self.training else (x - self.mean) / self.variance.sqrt()


@pytest.mark.parametrize("how", ["batch", "recompute"])
def test_an_option_that_does_nothing_says_so(how):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), HandWrittenNorm(16), nn.Linear(16, 3))
    surface = surface_of(net, batch_norm=how)
    told = f"batch_norm={how!r} changes nothing: no module is a batch norm of torch's"
    assert told in repr(surface)
    direction = [torch.ones(surface.size)]
    assert told in evaluate_grid(surface, direction, 3).info.evaluation.strategy_note
    assert told not in repr(surface_of(net))
    assert told not in repr(surface_of(trained(0), batch_norm=how))
    assert surface.loss() == surface_of(net).loss()
