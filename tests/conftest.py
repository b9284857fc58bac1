"""What all tests share."""

from __future__ import annotations

import pytest
import torch

DEVICES = ["cpu", *(f"cuda:{index}" for index in range(min(1, torch.cuda.device_count())))]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, as they share what it takes long to make, and all that start a SLURM."""
    for item in items:
        group = "slurm" if item.path.parent.name == "slurm" else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every kind of device there is."""
    return torch.device(request.param)
