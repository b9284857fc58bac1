"""What must not change when a net is rescaled and computes the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from loss_landscape import LossSurface, asam_sharpness, random_directions, sam_sharpness

RESCALINGS = ["relu", "filters"]
MODES = ["running", "batch", "recompute"]


def rescaled(net: nn.Sequential, kind: str) -> nn.Sequential:
    """The same function: a ReLU's two layers scaled against each other, or each filter before a batch norm scaled by itself."""
    twin = copy.deepcopy(net)
    with torch.no_grad():
        if kind == "relu":
            twin[4].weight *= 5
            twin[4].bias *= 5
            twin[6].weight /= 5
        else:
            factors = torch.tensor([1.0, 7.0, 0.2, 3.0], dtype=torch.float64)
            twin[0].weight *= factors[:, None, None, None]
            twin[1].running_mean *= factors
            twin[1].running_var *= factors**2
    return twin


@pytest.fixture(params=[(kind, mode) for kind in RESCALINGS for mode in MODES], ids="-".join)
def twins(request: pytest.FixtureRequest) -> tuple[LossSurface, LossSurface]:
    kind, mode = request.param
    torch.manual_seed(0)
    body = [nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4, eps=1e-14), nn.ReLU(), nn.Flatten()]
    net = nn.Sequential(*body, nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    net(torch.randn(64, 1, 6, 6, dtype=torch.float64))
    batch: tuple[Any, Tensor] = (torch.randn(16, 1, 6, 6, dtype=torch.float64), torch.arange(16) % 3)
    return tuple(LossSurface(n, nn.CrossEntropyLoss(), [batch], batch_norm=mode) for n in (net, rescaled(net, kind)))


def test_a_filter_normalised_line(twins):
    lines = []
    for surface in twins:
        (axis,) = random_directions(surface, 1, normalization="filter", generator=3)
        lines.append(surface.losses(displacements=torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None] * axis))
    torch.testing.assert_close(lines[0], lines[1], rtol=1e-9, atol=0)
    assert float(lines[0].max() / lines[0].min()) > 1.05
    raw = [surface.losses(displacements=random_directions(surface, 1, normalization="none")[0][None]) for surface in twins]
    assert float((raw[0] / raw[1] - 1).abs()) > 1e-3


def test_adaptive_sharpness(twins):
    before, after = twins
    assert asam_sharpness(after, 0.5, eta=0.0) == pytest.approx(asam_sharpness(before, 0.5, eta=0.0), rel=1e-9)
    assert sam_sharpness(after, 0.5) != pytest.approx(sam_sharpness(before, 0.5), rel=1e-3)
