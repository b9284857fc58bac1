"""A net's state on disk, written while it trains."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import nn

from loss_landscape.directions.points import read_state
from loss_landscape.files import write_whole
from loss_landscape.objective.objective import unwrapped
from loss_landscape.storage.records import Checkpoint


def write_checkpoint(folder: Path, model: nn.Module, *, number: int, epoch: float) -> Path:
    """Write parameters and buffers, whole or not at all, into a file of their own; nothing stays in memory."""
    file = folder / f"{number:06d}_epoch_{epoch:g}.pt"
    write_whole(file, partial(_save, {name: tensor.detach() for name, tensor in tensors_of(model).items()}))
    return file


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a net without what is no tensor, by the names that it has outside of wrappers."""
    return {name: tensor for name, tensor in unwrapped(model).state_dict().items() if isinstance(tensor, torch.Tensor)}


def require_same_net(model: nn.Module, recorded: Checkpoint) -> None:
    """Refuse a net whose parameters have other names or shapes than one `recorded` before: no path has both.

    Buffers may be new. Where the file is not there any more, or damaged, nothing is known of the other net.
    """
    try:
        before = {name: list(tensor.shape) for name, tensor in read_state(recorded.file).items()}
    except (OSError, ValueError):
        return
    now = {name: list(tensor.shape) for name, tensor in tensors_of(model).items()}
    buffers = {name for name, _ in unwrapped(model).named_buffers()}
    moved = [name for name, shape in now.items() if name not in buffers and before.get(name) != shape]
    differing = [*moved, *(name for name in before if name not in now)]
    if differing:
        name = differing[0]
        raise ValueError(
            f"this is another net than that of epoch {recorded.epoch:g}: {name} was {before.get(name, 'not there')} and is "
            f"{now.get(name, 'not there')}; give each net a folder of its own"
        )


def _save(state: dict[str, torch.Tensor], path: Path) -> None:
    with path.open("wb") as file:  # torch's own writer has no words for a full disk
        torch.save(state, file)
