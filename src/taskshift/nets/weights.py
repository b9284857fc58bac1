"""Weights from a file into a net."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn


def load_checkpoint(net: nn.Module, checkpoint: str | None) -> None:
    """Load a state dict, or a checkpoint of a run (its "net"), into `net`; nothing where `checkpoint` is None.

    Every name and shape must match. Only tensors and plain containers are read: a file can run no code.
    """
    if checkpoint is None:
        return
    state = read_state_dict(Path(checkpoint))
    difference = first_difference(net.state_dict(), state)
    if difference:
        raise ValueError(f"checkpoint={checkpoint} does not fit the net: {difference}; give the net that it was saved from")
    net.load_state_dict(state)


def read_state_dict(file: Path) -> Mapping[str, Tensor]:
    """The state dict that `file` holds, by itself or under the key "net", on the CPU."""
    if not file.is_file():
        raise ValueError(f"checkpoint={file} is no file; give one that torch.save wrote, or null")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(
            f"checkpoint={file} can't be read as tensors alone ({first_line(error)}); "
            "save it with torch.save(net.state_dict(), FILE)"
        ) from error
    state = content.get("net", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f'checkpoint={file} holds neither a state dict nor one under the key "net"; save net.state_dict()')
    return state


def first_difference(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """What keeps `given` from being loaded as `wanted`, told by the first name that differs; None where nothing does."""
    for name, tensor in wanted.items():
        if name not in given:
            spare = next((other for other in given if other not in wanted), None)
            instead = "" if spare is None else f" (it has {spare}, which the net has not)"
            return f"it lacks {name}{instead}"
        if given[name].shape != tensor.shape:
            return f"its {name} has the shape {list(given[name].shape)}, the net's {list(tensor.shape)}"
    spare = next((name for name in given if name not in wanted), None)
    return None if spare is None else f"it has {spare}, which the net has not"


def first_line(error: Exception) -> str:
    """The first line of what an exception says, without its last stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
