"""How much memory a surface, its directions and a plane take at their peak, in units of the net's own weights."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from loss_landscape import LossSurface, blockwise, evaluate_grid, random_directions
from loss_landscape.surface import strategy


class LiveBytes(TorchDispatchMode):
    """A context that counts the bytes of all tensors that are made inside and live: `now`, and `peak`, the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and not isinstance(tensor, FakeTensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._known or storage.device.type == "meta":
            return
        self._known.add(storage._cdata)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, key: int, num_bytes: int) -> None:
        self._known.discard(key)
        self.now -= num_bytes


def test_the_count_is_of_what_lives():
    with LiveBytes() as live:
        kept = torch.ones(100)
        del kept
        other = torch.ones(50)
        view = other[:10]
    assert (live.now, live.peak) == (200, 400)
    assert len(view) == 10


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 3))


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 40, 3), nn.ReLU(), nn.Conv2d(40, 400, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400 * 4, 80))


@pytest.mark.parametrize(("build", "shape"), [(dense, (2, 400)), (convolutional, (1, 3, 6, 6))])
def test_a_surface_with_a_plane_takes_at_most_seven_times_the_weights(monkeypatch, build, shape):
    monkeypatch.setattr(blockwise, "BLOCK", 1 << 12)  # a small part of these nets, as it is of large ones
    monkeypatch.setattr(strategy, "CHUNK_BYTES", {"cpu": 1})  # one cell at a time, as of large nets
    torch.manual_seed(0)
    net = build()
    weights = sum(parameter.nbytes for parameter in net.parameters())
    batch = torch.randn(shape), torch.zeros(len(torch.empty(shape)), dtype=torch.long)
    with LiveBytes() as live:
        surface = LossSurface(net, nn.CrossEntropyLoss(), [batch])
        grid = evaluate_grid(surface, random_directions(surface), 5)
    assert grid.info.evaluation.strategy == "traced"
    assert grid.info.noise.floor > 0
    assert live.peak <= 7 * weights, f"{live.peak / weights:.2f} times"
