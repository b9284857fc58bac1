"""What makes a run the run that it is: the part of its config that may not change when it goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from taskshift.faults import Fault

IDENTITY = (
    "seed", "arch", "data", "validation", "net", "learner", "task_shift_mode", "task_shift",
    "epochs", "batch_size", "evaluate_every", "log_every", "plugins", "lla", "watch",
)  # fmt: skip
"""The keys that make a run what it is; all others may change when it is resumed."""

FREE = ("data.root", "data.download", "lla.on_error", "lla.shards", "lla.runtime")
"""Keys below those of `IDENTITY` that may change all the same."""

_ABSENT = object()


def refuse_another_identity(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> None:
    """Raise a Fault naming the differing keys where `new` is not the run that `old` describes.

    Evaluators may be switched off and watchers left out, never taken in: earlier tasks lack their numbers. `num_tasks` may grow.
    """
    before, after = identity(old), identity(new)
    sentences = [
        f"{key}: this folder's run has {before.get(key, 'no such key')!r}, the command says {after.get(key, 'no such key')!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, _ABSENT) != after.get(key, _ABSENT) and not _switched_off(key, before, after)
    ]
    if new["num_tasks"] < old["num_tasks"]:
        sentences.append(
            f"num_tasks: this folder's run has {old['num_tasks']}; it may be extended, not cut to {new['num_tasks']}"
        )
    if sentences:
        raise Fault(f"{path} holds another run; give another run_name, or the settings it has:", *sentences)


def _switched_off(key: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    if key.startswith("watch."):
        return ".".join([*key.split(".")[:2], "_target_"]) not in after
    return key.startswith("lla.enable_") and before.get(key) is True and after.get(key) is False


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a run what it is, as dotted keys; without watchers there is no word of them."""
    flat = dict(flattened({key: config.get(key) for key in IDENTITY if key != "watch" or config.get(key)}))
    return {key: value for key, value in flat.items() if not any(key == free or key.startswith(f"{free}.") for free in FREE)}


def flattened(node: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested blocks, by dotted keys."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from flattened(value, f"{at}.{key}" if at else str(key))
    else:
        yield at, list(node) if isinstance(node, Sequence) and not isinstance(node, str) else node
