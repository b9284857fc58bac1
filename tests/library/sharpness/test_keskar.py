from __future__ import annotations

import itertools

import pytest
import torch
from nets import assert_leaves_net_untouched, mlp
from torch import Tensor, nn

from loss_landscape import LossSurface
from loss_landscape.sharpness.keskar import keskar_sharpness

EPSILON = 0.05


class Bowl(nn.Module):
    def __init__(self, start: Tensor):
        super().__init__()
        self.x = nn.Parameter(start.clone())


def bowl(start: Tensor, matrix: Tensor, slope: float = 0.0, height: float = 0.0) -> LossSurface:
    """height + slope · Σx + ½ xᵀ matrix x."""

    def loss(model: Bowl, _: int) -> Tensor:
        return height + slope * model.x.sum() + 0.5 * model.x @ matrix @ model.x

    return LossSurface(Bowl(start.double()), batches=[0], batch_loss=loss)


def at_the_highest_corner(surface: LossSurface) -> float:
    """The same from all corners of the box: where a loss is convex, one of them is the highest point."""
    box = EPSILON * (surface.origin.abs() + 1)
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=surface.size)), dtype=torch.float64) * box
    loss = surface.loss()
    return 100 * (float(surface.losses(displacements=corners).max()) - loss) / (1 + loss)


def test_on_a_plane_and_on_a_bowl_it_is_the_closed_form():
    start = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    box = EPSILON * (start.abs() + 1)
    flat = bowl(start, torch.zeros(3, 3, dtype=torch.float64), slope=3.0, height=4.0)
    assert keskar_sharpness(flat, EPSILON) == pytest.approx(100 * 3 * float(box.sum()) / (1 + flat.loss()), rel=1e-12)
    curvatures = torch.tensor([3.0, 0.5, 1.0], dtype=torch.float64)
    rise = 0.5 * float((curvatures * ((start.abs() + box).square() - start.square())).sum())
    curved = bowl(start, torch.diag(curvatures))
    assert keskar_sharpness(curved, EPSILON) == pytest.approx(100 * rise / (1 + curved.loss()), rel=1e-12)


def test_a_minimum_is_left_and_a_flat_place_has_none():
    curvatures = torch.tensor([3.0, 0.5, 0.0, 1.0], dtype=torch.float64)
    bottom = bowl(torch.zeros(4), torch.diag(curvatures), height=1.0)
    assert keskar_sharpness(bottom, EPSILON) == pytest.approx(100 * 0.5 * EPSILON**2 * 4.5 / 2, rel=1e-12)
    assert keskar_sharpness(bowl(torch.ones(4), torch.zeros(4, 4, dtype=torch.float64)), EPSILON) == 0.0
    assert keskar_sharpness(bowl(torch.zeros(4), -torch.diag(curvatures)), EPSILON) == 0.0  # a maximum


@pytest.mark.parametrize("seed", range(5))
def test_it_is_a_lower_bound_that_a_convex_loss_nearly_reaches(seed):
    draw = torch.Generator().manual_seed(seed)
    root = torch.randn(7, 7, generator=draw, dtype=torch.float64)
    surface = bowl(torch.randn(7, generator=draw), root @ root.T)
    highest = at_the_highest_corner(surface)
    assert 0.9 * highest <= keskar_sharpness(surface, EPSILON) <= highest * (1 + 1e-12)


def test_every_point_tried_is_within_the_box(monkeypatch):
    torch.manual_seed(0)
    net = mlp().double()
    inputs = torch.randn(16, 6, dtype=torch.float64)
    surface = LossSurface(net, nn.CrossEntropyLoss(), [(inputs, torch.arange(16) % 3)])
    tried: list[Tensor] = []
    evaluate = surface.losses

    def watched(**given: Tensor) -> Tensor:
        tried.extend(given[name] for name in given.keys() & {"displacements"})
        return evaluate(**given)

    monkeypatch.setattr(surface, "losses", watched)
    with assert_leaves_net_untouched(net):
        sharpness = keskar_sharpness(surface, EPSILON, num_steps=12)
    ratios = torch.cat(tried).abs() / (EPSILON * (surface.origin.abs() + 1))
    assert float(ratios.max()) <= 1 + 1e-12
    assert sharpness >= keskar_sharpness(surface, EPSILON, num_steps=3) > 0
    corner = EPSILON * (surface.origin.abs() + 1) * surface.gradient().sign()
    assert sharpness >= 100 * (float(evaluate(displacements=corner[None])) - surface.loss()) / (1 + surface.loss()) * 0.99


def test_a_diverged_net_has_a_sharpness_of_nan():
    net = mlp()
    with torch.no_grad():
        net[0].weight.fill_(float("nan"))
    surface = LossSurface(net, nn.CrossEntropyLoss(), [(torch.randn(4, 6), torch.tensor([0, 1, 2, 0]))])
    assert torch.tensor(keskar_sharpness(surface)).isnan()


def test_bad_options_are_refused():
    surface = bowl(torch.zeros(2), torch.eye(2, dtype=torch.float64))
    with pytest.raises(ValueError, match="epsilon must be finite and > 0, got 0"):
        keskar_sharpness(surface, 0)
    with pytest.raises(ValueError, match="num_steps must be ≥ 1, got 0"):
        keskar_sharpness(surface, num_steps=0)
