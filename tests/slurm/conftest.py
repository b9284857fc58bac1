"""A cluster for all tests of this folder, and a place with a net that they can slow down or break."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.one_node import slurm

NET = '''
import time
from pathlib import Path

from torch import nn


class Net(nn.Module):
    """A small net that takes its time while a file says how much, `pause` in training and `slow` else.

    It fails where a file `fail` names its seed, in training: after the passes that try it before anything is queued.
    """

    def __init__(self, input_shape, num_outputs, seed):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, num_outputs))
        self.seed, self.passes = seed, 0

    def forward(self, inputs):
        if self.training:
            self.passes += 1
            if self.passes > 5 and Path("fail").exists() and self.seed == int(Path("fail").read_text()):
                raise RuntimeError("failing on purpose")
        pause = Path("pause" if self.training else "slow")
        if pause.exists():
            time.sleep(float(pause.read_text()))
        return self.layers(inputs)
'''


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with slurm():
        yield


@pytest.fixture
def accounting_cluster() -> Iterator[None]:
    absent = [name for name in ("slurmdbd", "mariadbd") if shutil.which(name) is None]
    if absent:
        pytest.skip(f"{', '.join(absent)} is not installed; Debian has slurmdbd and mariadb-server-core")
    with slurm("--accounting"):
        yield


@pytest.fixture
def place(tmp_path) -> Path:
    (tmp_path / "taking_time.py").write_text(NET)
    return tmp_path
