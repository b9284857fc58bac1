"""A plane keeps its own directions, is guarded where it is public, and hands ρ to nobody else."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from nets import mlp
from surfaces import quadratic
from torch import Tensor, nn

from loss_landscape import LossSurface, sam_sharpness
from loss_landscape.surface.plane import Plane
from loss_landscape.surface.strategy import EAGER, Evaluation

COORDINATES = torch.tensor([[0.0, 0.0], [0.5, -1.0], [1.0, 2.0], [-0.3, 0.2], [2.0, 0.1]], dtype=torch.float64)


@pytest.fixture
def surface() -> LossSurface:
    torch.manual_seed(0)
    inputs = torch.randn(16, 6)
    return LossSurface(mlp(), nn.CrossEntropyLoss(), [(inputs, torch.arange(16) % 3)])


def directions_of(surface: LossSurface, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [0.3 * torch.randn(surface.size, generator=draw, dtype=dtype) for _ in range(2)]


def by_data(direction: Tensor) -> None:
    direction.data.mul_(3)


def in_inference_mode(direction: Tensor) -> None:
    with torch.inference_mode():
        direction.mul_(3)


@pytest.mark.parametrize("change", [by_data, in_inference_mode], ids=["data", "inference"])
def test_a_direction_changed_in_place_changes_no_plane_made_before_and_every_one_made_after(surface, change):
    with torch.inference_mode(change is in_inference_mode):
        directions = [direction.clone() for direction in directions_of(surface)]
    plane = surface.plane(directions)
    before = plane.losses(COORDINATES)
    change(directions[0])
    assert torch.equal(plane.losses(COORDINATES), before)
    with torch.inference_mode(False):
        moves = COORDINATES.float() @ torch.stack([direction.clone() for direction in directions])
    torch.testing.assert_close(surface.plane(directions).losses(COORDINATES), surface.losses(displacements=moves))


def test_numpy_memory_changed_in_place_is_not_a_planes(surface):
    memory = directions_of(surface)[0].numpy()
    plane = surface.plane([torch.from_numpy(memory)])
    before = plane.losses(COORDINATES[:, :1])
    np.multiply(memory, 3, out=memory)
    assert torch.equal(plane.losses(COORDINATES[:, :1]), before)


def test_a_strategy_that_disagrees_with_the_plain_loop_is_left_by_the_public_call(surface, monkeypatch):
    plane, original = surface.plane(directions_of(surface)), Plane.evaluate

    def faulty(plane, coordinates, strategy, rho=None):
        wrong = strategy.name != "eager" and len(coordinates) > 0
        return original(plane, coordinates, strategy, rho) + (1e-2 * (coordinates[:, 0] != 0) if wrong else 0)

    monkeypatch.setattr(Plane, "evaluate", faulty)
    moves = COORDINATES.float() @ torch.stack(directions_of(surface))
    torch.testing.assert_close(plane.losses(COORDINATES), surface.losses(displacements=moves))


def test_losses_after_an_ascent_step_have_their_own_radius(surface):
    plane, nowhere = surface.plane(directions_of(surface)), torch.zeros(1, 2, dtype=torch.float64)
    for rho in (0.05, 0.2, 0.05):
        assert plane.losses(nowhere, rho).item() - surface.loss() == pytest.approx(sam_sharpness(surface, rho), rel=1e-4)
    assert plane.losses(nowhere).item() == pytest.approx(surface.loss(), rel=1e-6)


def test_bfloat16_is_another_evaluation_of_the_same_plane(surface):
    plane = surface.plane(directions_of(surface))
    exact, rough = plane.losses(COORDINATES), plane.losses(COORDINATES, evaluation=Evaluation(precision="bfloat16"))
    assert 1e-6 < float(((rough - exact) / exact).abs().max()) < 3e-2


def test_no_cells_have_no_losses(surface):
    assert surface.plane(directions_of(surface)).losses(torch.zeros(0, 2)).shape == (0,)


def test_a_plane_wants_a_direction_and_coordinates_to_match(surface):
    with pytest.raises(ValueError, match=r"expected one direction \[P\] or more, got none"):
        surface.plane([])
    with pytest.raises(ValueError, match=r"expected coordinates \[K, 2\], a column a direction, got \[3, 1\]"):
        surface.plane(directions_of(surface)).losses(torch.zeros(3, 1))


def test_numpy_arrays_are_vectors_too(surface):
    point = surface.origin.numpy() * 2
    expected = surface.losses(points=torch.from_numpy(point)[None])
    assert torch.equal(surface.losses(points=point[None]), expected)
    assert torch.equal(surface.losses(displacements=point[None] / 2), expected)
    assert surface.moved_to(point).loss() == expected.item()
    assert torch.equal(surface.gradient(point / 2), surface.moved_to(point).gradient())
    found = surface.plane(point[None] / 2).losses(np.array([[1.0]]))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


VECTORS = {
    "a net": (
        lambda surface: surface.moved_to(mlp()),
        r"got Sequential; as_directions\(surface, …\) and point_in\(surface, net\)",
    ),
    "a list": (lambda surface: surface.losses(points=[surface.origin]), "got list; as_directions"),
    "one direction": (
        lambda surface: surface.plane(surface.origin),
        r"expected directions \[D, P\] or a list of them, got \[\d+\]",
    ),
    "a step down": (
        lambda surface: surface.plane([surface.origin]).losses(torch.zeros(1, 1), -0.1),
        "rho must be finite and ≥ 0",
    ),
}


@pytest.mark.parametrize(("call", "sentence"), VECTORS.values(), ids=VECTORS)
def test_what_is_no_vector_and_no_radius_is_told(surface, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(surface)


@pytest.mark.parametrize("patterns", [(), (["0.*"],), (torch.zeros(3),)])
def test_globs_are_given_one_by_one(surface, patterns):
    with pytest.raises(TypeError, match=r"expected globs of parameters' names one by one, such as restricted\('layer1"):
        surface.restricted(*patterns)


def test_a_surface_that_was_evaluated_can_be_pickled(surface):
    plane = surface.plane([torch.ones_like(surface.origin)])
    plane.losses(torch.zeros(1, 1))
    again = pickle.loads(pickle.dumps(surface))
    assert again.loss() == surface.loss()
    assert torch.equal(again.plane(plane.directions).losses(torch.ones(1, 1)), plane.losses(torch.ones(1, 1)))


def test_displacements_and_points_are_told_apart():
    surface = quadratic([2.0, 4.0])
    step = torch.tensor([[1.0, 0.5]]).to(surface.origin)
    assert torch.equal(surface.losses(displacements=step), surface.losses(points=surface.origin + step))
    for given in ({}, {"displacements": step, "points": step}):
        with pytest.raises(ValueError, match="give exactly one of displacements, from the origin, and points"):
            surface.losses(**given)


def test_a_moved_surface_that_is_restricted_keeps_the_other_parameters_where_it_was_moved(surface):
    there = surface.origin + directions_of(surface)[0]
    part = surface.moved_to(there).restricted("0.*")
    assert part.loss() == surface.moved_to(there).loss() != surface.loss()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"compile": "yes"}, "compile must be 'auto', True or False, got 'yes'"),
        ({"precision": "float16"}, "precision must be 'bfloat16', or None for the surface's own, got 'float16'"),
        ({"chunk": 0}, "chunk must be ≥ 1, got 0"),
        ({"noise_cells": -1}, "noise_cells must be ≥ 0, got -1"),
    ],
)
def test_an_evaluation_that_can_not_be_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Evaluation(**options)


def test_the_plain_loop_needs_no_graph(surface):
    plane = surface.plane(directions_of(surface))
    expected = surface.losses(displacements=COORDINATES.float() @ torch.stack(directions_of(surface)))
    torch.testing.assert_close(plane.evaluate(COORDINATES, replace(EAGER, chunk=1)), expected, rtol=1e-6, atol=1e-7)
