"""What a run needs to go on: files that appear whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loss_landscape.files import write_whole


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_whole(path, lambda partial: partial.write_text(text))


def save(path: Path, state: Any) -> None:
    """Save tensors in plain containers, whole or not at all."""
    write_whole(path, lambda partial: torch.save(state, partial))


def load(path: Path, device: torch.device | str = "cpu") -> Any:
    """Load what `save` saved; never unpickles anything but tensors and plain containers."""
    return torch.load(path, map_location=device, weights_only=True)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """torch's default generators, on the CPU and on `device`."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Undo what was drawn since `random_state`; a state from another kind of device restores the CPU's alone."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


def cloned(state: Any) -> Any:
    """A deep copy of nested containers of tensors."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: cloned(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [cloned(value) for value in state]
    return state


def first_difference(one: Any, other: Any, at: str = "") -> str | None:
    """Where two nested containers first differ, bit for bit (NaN equals NaN), or None."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        same = one.shape == other.shape and one.dtype == other.dtype and torch.equal(_bits(one), _bits(other))
        return None if same else at
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if one.keys() != other.keys():
            return f"{at}: keys {sorted(map(str, one.keys() ^ other.keys()))}"
        pairs = ((f"{at}.{key}" if at else str(key), one[key], other[key]) for key in one)
    elif isinstance(one, Sequence) and isinstance(other, Sequence) and not isinstance(one, str):
        if len(one) != len(other):
            return f"{at}: {len(one)} and {len(other)} entries"
        pairs = ((f"{at}[{index}]", a, b) for index, (a, b) in enumerate(zip(one, other, strict=True)))
    else:
        return None if one == other or (one != one and other != other) else at
    return next((found for name, a, b in pairs if (found := first_difference(a, b, name)) is not None), None)


def _bits(tensor: Tensor) -> Tensor:
    """The tensor's bytes, so that NaN equals itself and -0.0 differs from 0.0."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
