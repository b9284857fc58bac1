"""Reads a local .wandb file: a header, then a LevelDB log of protocol buffers. W&B ships no reader of its own any more."""

from __future__ import annotations

import json
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADER = 7  # ":W&B", a magic number of two bytes, a version
BLOCK = 32768
FULL, FIRST, _MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[Any]:
    """Every record of the file, its checksums verified; ends where the writer was killed."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    assert content[:6] == b":W&B" + struct.pack("<H", 0xBEE1), f"{path} is no .wandb file"
    at, whole = HEADER, b""
    while at + 7 <= len(content):
        room = BLOCK - at % BLOCK
        checksum, length, kind = struct.unpack_from("<IHB", content, at)
        if room < 7 or kind == 0:
            at += room
            continue
        part = content[at + 7 : at + 7 + length]
        if len(part) < length:
            return
        assert zlib.crc32(bytes([kind]) + part) == checksum, f"{path} is damaged at byte {at}"
        at += 7 + length
        whole = part if kind in (FULL, FIRST) else whole + part
        if kind in (FULL, LAST):
            yield Record.FromString(whole)


def kinds(path: Path) -> Counter[str]:
    """How many records of each kind there are."""
    return Counter(record.WhichOneof("record_type") for record in records(path))


def rows(path: Path) -> list[dict[str, Any]]:
    """What was logged, in order, with W&B's own `_step`, `_runtime` and `_timestamp`."""
    return [_items(one.history.item) for one in records(path) if one.WhichOneof("record_type") == "history"]


def config(path: Path) -> dict[str, Any]:
    """The run's config, without what W&B adds about itself."""
    found: dict[str, Any] = {}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind in ("run", "config"):
            found |= _items(record.run.config.update if kind == "run" else record.config.update)
    found.pop("_wandb", None)
    return found


def file_in(folder: Path) -> Path:
    """The one .wandb file of a run folder."""
    (found,) = folder.glob("wandb/*run-*/run-*.wandb")
    return found


def _items(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
