from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from nets import mlp
from torch import Tensor, nn

from loss_landscape import LossSurface, trajectory_directions
from loss_landscape.directions import trajectory

BATCH = torch.randn(32, 6, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3


@pytest.fixture
def trained() -> tuple[LossSurface, list[dict[str, Tensor]]]:
    torch.manual_seed(0)
    net = mlp(width=8)
    optimizer = torch.optim.Adam(net.parameters(), 0.03)
    states = [copy.deepcopy(net.state_dict())]
    for _ in range(7):
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(BATCH[0]), BATCH[1]).backward()
            optimizer.step()
        states.append(copy.deepcopy(net.state_dict()))
    return LossSurface(net, nn.CrossEntropyLoss(), [BATCH]), states


def differences(surface: LossSurface, states: list[dict[str, Tensor]]) -> np.ndarray:
    rows = [surface.layout.flatten(state).double() - surface.origin.double() for state in states]
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("scale", ["unit", "fit"])
def test_axes_are_the_principal_ones_about_the_last_point(trained, scale):
    surface, states = trained
    axes = trajectory_directions(surface, states, scale=scale)
    moved = differences(surface, states)
    _, singular, right = np.linalg.svd(moved, full_matrices=False)
    for axis, true in zip(axes, right, strict=False):
        unit = axis.double().numpy() / np.linalg.norm(axis.double().numpy())
        assert abs(unit @ true) == pytest.approx(1, abs=1e-6)
    assert axes.meta["explained_variance"] == pytest.approx((singular**2 / (singular**2).sum())[:2].tolist(), rel=1e-9)
    assert abs(axes.meta["cosine"]) < 1e-6
    assert axes.meta["direction_norms"][0] == pytest.approx(axes.meta["direction_norms"][1], rel=1e-6)


@pytest.mark.parametrize("scale", ["unit", "fit"])
def test_axes_about_the_mean_are_those_of_numpys_centred_svd(trained, scale):
    surface, states = trained
    axes = trajectory_directions(surface, states, scale=scale, centre="mean")
    moved = differences(surface, states)
    _, singular, right = np.linalg.svd(moved - moved.mean(axis=0), full_matrices=False)
    for axis, true in zip(axes, right, strict=False):
        unit = axis.double().numpy() / np.linalg.norm(axis.double().numpy())
        assert abs(unit @ true) == pytest.approx(1, abs=1e-6)
    assert axes.meta["explained_variance"] == pytest.approx((singular**2 / (singular**2).sum())[:2].tolist(), rel=1e-9)
    assert axes.meta["explained_variance"] != pytest.approx(trajectory_directions(surface, states).meta["explained_variance"])
    assert axes.meta["centred_on"] == "mean"


@pytest.mark.parametrize("centre", ["origin", "mean"])
def test_every_checkpoint_is_where_its_coordinates_say(trained, centre):
    surface, states = trained
    axes = trajectory_directions(surface, states, steps=[3 * i for i in range(8)], centre=centre)
    plane = np.stack([axis.double().numpy() for axis in axes])
    for moved, told in zip(differences(surface, states), axes.meta["trajectory"], strict=True):
        best, *_ = np.linalg.lstsq(plane.T, moved, rcond=None)
        assert [told["alpha"], told["beta"]] == pytest.approx(best.tolist(), abs=1e-6)
        assert told["residual"] == pytest.approx(np.linalg.norm(moved - best @ plane), abs=1e-5)
    last = axes.meta["trajectory"][-1]
    assert (last["alpha"], last["beta"], last["residual"], last["step"]) == (
        pytest.approx(0, abs=1e-9),
        pytest.approx(0, abs=1e-9),
        0.0,
        21,
    )
    reach = max(max(abs(point["alpha"]), abs(point["beta"])) for point in axes.meta["trajectory"])
    assert reach == pytest.approx(0.9)


def test_files_states_and_vectors_give_the_same(trained, tmp_path: Path, monkeypatch):
    surface, states = trained
    files = [tmp_path / f"{i}.pt" for i in range(len(states))]
    for file, state in zip(files, states, strict=True):
        torch.save(state, file)
    vectors = [surface.layout.flatten(state) for state in states]
    expected = trajectory_directions(surface, states)
    monkeypatch.setattr(trajectory, "SLICE", 7)
    for given in (files, [str(file) for file in files], vectors):
        axes = trajectory_directions(surface, given)
        for axis, other in zip(axes, expected, strict=True):
            torch.testing.assert_close(axis.abs(), other.abs(), rtol=1e-4, atol=1e-6)
        assert axes.meta["explained_variance"] == pytest.approx(expected.meta["explained_variance"])


def test_frozen_parameters_and_buffers_are_no_part_of_it():
    net = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    net[0].weight.requires_grad_(False)
    surface = LossSurface(net, nn.CrossEntropyLoss(), [BATCH])
    states = []
    for i in range(4):
        state = copy.deepcopy(net.state_dict())
        state["0.weight"] += 10.0 * i
        state["1.running_mean"] += 10.0 * i
        state["2.weight"] += torch.randn(3, 4) * (3 - i)
        states.append(state)
    assert trajectory_directions(surface, states).meta["trajectory"][-1]["residual"] == 0


def test_too_short_or_straight_a_path_is_refused(trained):
    surface, states = trained
    with pytest.raises(ValueError, match="a trajectory needs 3 checkpoints or more, got 2"):
        trajectory_directions(surface, states[:2])
    line = [surface.origin + step * torch.ones_like(surface.origin) for step in (2.0, 1.0, 0.0)]
    with pytest.raises(ValueError, match="span fewer than 2 axes"):
        trajectory_directions(surface, line)
    with pytest.raises(ValueError, match="span fewer than 2 axes"):
        trajectory_directions(surface, [surface.origin] * 3)
    assert len(trajectory_directions(surface, line, count=1)) == 1
    with pytest.raises(ValueError, match="not finite"):
        trajectory_directions(surface, [*line, surface.origin * float("nan")])


def test_bad_options_are_refused(trained):
    surface, states = trained
    with pytest.raises(ValueError, match="scale must be 'fit' or 'unit'"):
        trajectory_directions(surface, states, scale="auto")
    with pytest.raises(ValueError, match="a step for each of the 8 checkpoints, got 2"):
        trajectory_directions(surface, states, steps=[1, 2])
    with pytest.raises(ValueError, match="got one without 0.weight, 0.bias, 2.weight, …; it has nothing"):
        trajectory_directions(surface, [{}, {}, {}])
    with pytest.raises(ValueError, match="centre must be 'origin' or 'mean', got 'last'"):
        trajectory_directions(surface, states, centre="last")
    with pytest.raises(ValueError, match="count must be 1, 2 or 3"):
        trajectory_directions(surface, states, count=0)
