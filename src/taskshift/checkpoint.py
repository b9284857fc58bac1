"""What a run needs to go on: files that appear whole or not at all."""

from __future__ import annotations

import copy
import errno
import os
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loss_landscape.files import write_whole
from taskshift.intact import RESTORE, absent, damaged

PIECE_BYTES = 2**20


def save(path: Path, state: Any) -> None:
    """Save tensors in plain containers, whole or not at all, with a checksum of every byte at the end."""
    write_whole(path, lambda partial: _save(partial, state))


def load(path: Path, device: torch.device | str = "cpu", mend: str = RESTORE) -> Any:
    """Load what `save` saved; never unpickles anything but tensors and plain containers.

    Raises Fault, with what can be done in the words of `mend`, where the file is gone or has changed since it was written.
    """
    require_intact(path, mend)
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (EOFError, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # torch seeks where a file that was cut has nothing
            raise
        raise damaged(path, str(error).splitlines()[0] if str(error) else type(error).__name__, mend) from error


def require_intact(path: Path, mend: str = RESTORE) -> None:
    """Raise Fault where a file of tensors is gone, or has changed since it was written."""
    if not path.exists():
        raise absent(path, mend)
    if not is_intact(path):
        raise damaged(path, "its checksum is another", mend)


def is_intact(path: Path) -> bool:
    """Whether a file of tensors is as it was written, as far as its checksum says, or those of its parts where it has none.

    torch itself looks at no checksum.
    """
    checksum, said = _checksums(path)
    if said is not None:
        return checksum == said
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except zipfile.BadZipFile:
        return _is_of_older_format(path)


def _is_of_older_format(path: Path) -> bool:
    """Whether a file is no archive, but what torch wrote before 1.6: without any checksum."""
    with path.open("rb") as file:
        return file.read(2) not in (b"", b"PK")


SEAL = re.compile(rb"crc32 ([0-9a-f]{8})\n")
SEAL_BYTES = 15
"""The checksum of a file as its last bytes, behind torch's archive, which none of those who read archives looks at."""


def _save(path: Path, state: Any) -> None:
    torch.save(_apart(state), path)
    checksum, _ = _checksums(path)
    with path.open("ab") as file:
        file.write(b"crc32 %08x\n" % checksum)


def _checksums(path: Path) -> tuple[int, int | None]:
    """The CRC-32 of a file without its seal, and the one that the seal says; of a file without a seal the CRC-32 of all of it."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - SEAL_BYTES))
        seal = SEAL.fullmatch(file.read())
        file.seek(0)
        left, checksum = size - (SEAL_BYTES if seal else 0), 0
        while left and (piece := file.read(min(left, PIECE_BYTES))):
            checksum, left = zlib.crc32(piece, checksum), left - len(piece)
    return checksum, int(seal[1], 16) if seal else None


def _apart(state: Any) -> Any:
    """The same with copies of tensors that are windows onto larger ones, of which torch would write all."""
    if isinstance(state, Tensor):
        is_window = state.untyped_storage().nbytes() > state.numel() * state.element_size()
        return state.detach().clone(memory_format=torch.contiguous_format) if is_window else state
    if isinstance(state, Mapping):
        found = copy.copy(state)
        for key, value in state.items():
            found[key] = _apart(value)
        return found
    return type(state)(_apart(value) for value in state) if type(state) in (list, tuple) else state


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
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.as_strided(flat.shape, (1,)).view(
        torch.uint8
    )  # the only entry of a window counts as contiguous, whatever its stride
