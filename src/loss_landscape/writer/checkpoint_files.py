"""A net's state on disk, written while it trains."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from loss_landscape.files import write_whole
from loss_landscape.objective.objective import unwrapped


def write_checkpoint(folder: Path, model: nn.Module, *, number: int, epoch: float) -> Path:
    """Write parameters and buffers, whole or not at all, into a file of their own; nothing stays in memory."""
    file = folder / f"{number:06d}_epoch_{epoch:g}.pt"
    state = {name: tensor.detach() for name, tensor in unwrapped(model).state_dict().items() if isinstance(tensor, torch.Tensor)}
    write_whole(file, partial(_save, state))
    return file


def number_or_none(value: Any) -> float | None:
    """A loss as a number; a tensor of one entry is one too."""
    return None if value is None else float(value.detach() if isinstance(value, torch.Tensor) else value)


def _save(state: dict[str, torch.Tensor], path: Path) -> None:
    with path.open("wb") as file:  # torch's own writer has no words for a full disk
        torch.save(state, file)
