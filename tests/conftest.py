"""What all tests share."""

from __future__ import annotations

import pytest
import torch

DEVICES = ["cpu", *(f"cuda:{index}" for index in range(min(1, torch.cuda.device_count())))]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every kind of device there is."""
    return torch.device(request.param)
