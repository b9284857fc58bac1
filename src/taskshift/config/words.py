"""Values, kinds and near misses, in the words of the sentences that users read."""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

MISSING = "???"
"""What Hydra leaves where a value must be given."""

PLAIN = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    type(None): "null",
    dict: "a block of keys",
    list: "a list",
    tuple: "a list",
}


def shown(value: Any) -> str:
    """`value` as it would be written on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(shown, value)) + "]"
    return str(value)


def said(kind: Any) -> str:
    """What an annotation allows: `Literal["a", "b"] | None` is "a, b or null"."""
    return either(list(dict.fromkeys(_alternatives(kind))))


def _alternatives(kind: Any) -> list[str]:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return [word for member in get_args(kind) for word in _alternatives(member)]
    if origin is Literal:
        return [shown(choice) for choice in get_args(kind)]
    if origin is Annotated:
        plain, *bounds = get_args(kind)
        return [", ".join([said(plain), *filter(None, map(_bound, bounds))])]
    return [_one(kind, origin)]


def _one(kind: Any, origin: Any) -> str:
    if origin is tuple and Ellipsis not in get_args(kind):
        return f"a list of {len(get_args(kind))} ({', '.join(map(said, get_args(kind)))})"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list of {said(get_args(kind)[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a block of keys"
    if dataclasses.is_dataclass(kind):
        return f"a block of {', '.join(field.name for field in dataclasses.fields(kind))}"
    return PLAIN.get(kind) or getattr(kind, "__name__", str(kind))


def _bound(bound: Any) -> str:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return ", ".join(f"{word} {getattr(bound, name)}" for name, word in words.items() if hasattr(bound, name))


def either(words: Sequence[str]) -> str:
    """`["a", "b", "c"]` as "a, b or c"."""
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def no_such_key(at: str, key: str, known: Iterable[str]) -> str:
    """The sentence about a key that nobody reads; `at` is "" or ends with a dot."""
    known = sorted(known)
    near = difflib.get_close_matches(key, known, 1)
    block = at[:-1] or "the top level"
    hint = f"did you mean {at}{near[0]}?" if near else f"{block} takes {', '.join(known) or 'no keys'}"
    return f"{at}{key}: there is no such key; {hint}"


def no_value(where: str) -> str:
    """The sentence about a value that is still to be given."""
    return f"{where} has no value; give one: {where}=…"
