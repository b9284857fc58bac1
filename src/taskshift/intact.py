"""Text and JSON that are read again: written whole with a checksum, and refused in a sentence where they were damaged since."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taskshift.faults import Fault

CHECKSUM = "checksum"
"""The last key of a JSON file: the CRC-32 of the file as it would be without."""

RESTORE = "put a copy of it back, or begin again under another run_name"


class Damaged(Fault):
    """A file is not as it was written."""


def damaged(path: Path, why: str, mend: str = RESTORE) -> Damaged:
    """What is said of a file that is not as it was written."""
    return Damaged(f"{path} is damaged ({why}); {mend}")


def absent(path: Path, mend: str = RESTORE) -> Fault:
    """What is said of a file that was written and is gone."""
    return Fault(f"{path} is gone; {mend}")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all, in UTF-8 whatever the locale says."""
    from loss_landscape.files import write_whole  # brings torch, which who only reads a run does without

    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def read_text(path: Path, mend: str = RESTORE) -> str:
    """What `write_text` wrote; raises Fault where the file is gone, or no text any more."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise absent(path, mend) from None
    except UnicodeDecodeError as error:
        raise damaged(path, str(error), mend) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its checksum, whole or not at all."""
    write_text(path, _sealed(_text(content)) + "\n")


def read_json(path: Path, mend: str = RESTORE) -> dict[str, Any]:
    """What `write_json` wrote; raises Fault where the file is gone, is no JSON object, or has another checksum than it says."""
    content = read_any_json(path, mend)
    if not isinstance(content, dict):
        raise damaged(path, "no JSON object", mend)
    return content


def read_any_json(path: Path, mend: str = RESTORE) -> Any:
    """The same for a file that may hold no object: a list has no checksum."""
    try:
        content = json.loads(read_text(path, mend))
    except json.JSONDecodeError as error:
        raise damaged(path, str(error), mend) from error
    said = content.pop(CHECKSUM, None) if isinstance(content, dict) else None
    if said is not None and said != zlib.crc32(_text(content).encode()):
        raise damaged(path, "its checksum is another", mend)
    return content


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2)


def _sealed(text: str) -> str:
    """The text of an object with its checksum as the last key."""
    keys = text[1:-1].rstrip()
    return f'{{{keys}{"," if keys else ""}\n  "{CHECKSUM}": {zlib.crc32(text.encode())}\n}}'
