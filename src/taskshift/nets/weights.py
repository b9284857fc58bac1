"""Weights from a file into a net."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from taskshift.checkpoint import is_intact


def load_checkpoint(net: nn.Module, checkpoint: str | None) -> None:
    """Load a state dict, or a checkpoint of a run (its "net"), into `net`; nothing where `checkpoint` is None.

    Every name and shape must match. Only tensors and plain containers are read: a file can run no code.
    """
    if checkpoint is None:
        return
    net.load_state_dict(fitting_state(net, Path(checkpoint)))


def fitting_state(net: nn.Module, file: Path) -> Mapping[str, Tensor]:
    """The state dict that `file` holds, which must have the names and shapes of `net`; else a ValueError."""
    state = read_state_dict(file)
    difference = differences(net.state_dict(), state)
    if difference:
        raise ValueError(f"checkpoint={file} does not fit the net: {difference}; give the net that it was saved from")
    return state


HOLDERS = ("net", "model", "state_dict", "model_state_dict")
"""Keys under which checkpoints hold a net's state dict."""

WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""


def read_state_dict(file: Path) -> Mapping[str, Tensor]:
    """The state dict that `file` holds, by itself or under one of `HOLDERS`, on the CPU, without the names' wrappers."""
    if not file.is_file():
        raise ValueError(f"checkpoint={file} is no file; give one that torch.save wrote, or null")
    try:
        if not is_intact(file):
            raise ValueError(f"checkpoint={file} is damaged: its checksum is another; put a copy of it back")
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(
            f"checkpoint={file} can't be read as tensors alone ({first_line(error)}); "
            "save it with torch.save(net.state_dict(), FILE)"
        ) from error
    held = [content, *(content[key] for key in HOLDERS if key in content)] if isinstance(content, Mapping) else []
    state = next((one for one in held if _is_state_dict(one)), None)
    if state is None:
        keys = ", ".join(f'"{key}"' for key in HOLDERS[1:])
        raise ValueError(
            f'checkpoint={file} holds neither a state dict nor one under the key "net" (or {keys}); save net.state_dict()'
        )
    for wrapper in WRAPPERS:
        if all(name.startswith(wrapper) for name in state):
            state = {name.removeprefix(wrapper): tensor for name, tensor in state.items()}
    return state


def _is_state_dict(content: object) -> bool:
    return isinstance(content, Mapping) and bool(content) and all(isinstance(value, Tensor) for value in content.values())


def differences(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """What keeps `given` from being loaded as `wanted`, told by the first names that differ; None where nothing does."""
    absent = [name for name in wanted if name not in given]
    spare = [name for name in given if name not in wanted]
    if absent:
        instead = f" (it has {_first(spare)}, which the net has not)" if spare else ""
        return f"it lacks {_first(absent)}{instead}"
    for name, tensor in wanted.items():
        if given[name].shape != tensor.shape:
            return f"its {name} has the shape {list(given[name].shape)}, the net's {list(tensor.shape)}"
    return f"it has {_first(spare)}, which the net has not" if spare else None


def _first(names: Sequence[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def first_line(error: Exception) -> str:
    """The first line of what an exception says, without its last stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
