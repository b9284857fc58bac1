"""One file of a run that was cut off is damaged, or gone."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path

from soak_trials.runs import SAME, TOLD, Reference, attempt, completed, folder_in
from taskshift.compare import differences

NOT_READ = (".lock", "train.log", "config.json")
"""Files that a run never reads."""


def one_file(undisturbed: Reference, place: Path, draw: random.Random) -> str:
    """Either it does not matter, or a sentence names the file, and the run goes on when it is put back."""
    ended = attempt(place, undisturbed.config, "kill", str(draw.randint(40, undisturbed.events)))
    if ended.status not in (0, -signal.SIGKILL):
        return f"WRONG: status {ended.status}: {ended.said[-300:]}"
    files = sorted(path for path in folder_in(place).rglob("*") if path.is_file() and path.name not in NOT_READ)
    path = draw.choice(files)
    kept = path.read_bytes()
    DAMAGES[draw.choice(sorted(DAMAGES))](path, kept, draw)
    ended = attempt(place, undisturbed.config)
    if ended.status == 0:
        return _judged(undisturbed, place, path)
    if not (ended.is_told and path.name in ended.said):
        return f"WRONG: {path.name}: status {ended.status}: {ended.said[-300:]}"
    path.write_bytes(kept)
    return completed(undisturbed, place, TOLD)


def _judged(undisturbed: Reference, place: Path, path: Path) -> str:
    """A run that went on ended with the same bits, the damaged file apart where nothing reads it again."""
    name = str(path.relative_to(folder_in(place)))
    found = [one for one in differences(folder_in(place), undisturbed.folder) if name not in one]
    return f"WRONG: {name}: {found[:3]}" if found else SAME


def _turned(path: Path, content: bytes, draw: random.Random) -> None:
    changed = bytearray(content or b"\0")
    changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    path.write_bytes(changed)


DAMAGES: dict[str, Callable[[Path, bytes, random.Random], object]] = {
    "a turned bit": _turned,
    "cut": lambda path, content, draw: path.write_bytes(content[: draw.randrange(len(content) + 1)]),
    "empty": lambda path, content, draw: path.write_bytes(b""),
    "gone": lambda path, content, draw: path.unlink(),
}
