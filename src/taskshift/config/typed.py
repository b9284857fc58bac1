"""Values against annotations. Imports no torch: the top level of a config is checked with it too."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from taskshift.config.words import MISSING, no_such_key, no_value, said, shown


def typed(where: str, value: Any, kind: Any, faults: list[str]) -> Any:
    """`value` converted to what the annotation `kind` asks for; what is wrong is added to `faults`, a sentence each."""
    if isinstance(value, str) and value == MISSING:
        faults.append(no_value(where))
        return None
    if isinstance(value, float) and math.isnan(value):
        faults.append(f"{where}=nan: expected {said(kind)}")
        return None
    record = next((member for member in members(kind) if dataclasses.is_dataclass(member)), None)
    if record is None:
        return _leaf(where, value, kind, faults)
    if isinstance(value, Mapping):
        return from_mapping(where, value, record, faults)
    if value is not None or types.NoneType not in members(kind):
        faults.append(f"{where}={shown(value)}: expected {said(kind)}")
    return None


def from_mapping(where: str, block: Mapping[str, Any], kind: type, faults: list[str]) -> Any:
    """The dataclass `kind` made from a block of keys; None where something is wrong."""
    at, before = f"{where}." if where else "", len(faults)
    wanted, hints = {field.name: field for field in dataclasses.fields(kind)}, get_type_hints(kind, include_extras=True)
    faults.extend(no_such_key(at, key, wanted) for key in block if key not in wanted)
    values = {}
    for name, field in wanted.items():
        if name in block:
            values[name] = typed(at + name, block[name], hints[name], faults)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            faults.append(no_value(at + name))
    if len(faults) > before:
        return None
    try:
        return kind(**values)
    except ValueError as error:  # from __post_init__
        faults.append(f"{where}: {error}")
        return None


def members(kind: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the annotation alone."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _leaf(where: str, value: Any, kind: Any, faults: list[str]) -> Any:
    try:
        result = _adapter(kind).validate_python(value)
    except ValidationError as error:
        own = [str(one["ctx"]["error"]) for one in error.errors() if one["type"] == "value_error"]
        faults.append(f"{where}={shown(value)}: {own[0] if own else f'expected {said(kind)}'}")
        return None
    except PydanticUserError:  # an annotation that pydantic cannot read; the constructor will judge
        return value
    if _truth_as_number(value, result):
        faults.append(f"{where}={shown(value)}: expected {said(kind)}")
    return result


def _adapter(kind: Any) -> TypeAdapter:
    """What converts values to an annotation, made once for each: it takes far longer than the conversion."""
    try:
        return _kept_adapter(kind, repr(kind))
    except TypeError:  # it holds what has no hash
        return _new_adapter(kind)


@functools.cache
def _kept_adapter(kind: Any, written: str) -> TypeAdapter:
    """`written` tells `int | str` from `str | int`, which are equal and convert in another order."""
    return _new_adapter(kind)


def _new_adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True))


def _truth_as_number(value: Any, result: Any) -> bool:
    if isinstance(value, (list, tuple)) and isinstance(result, (list, tuple)):
        return any(map(_truth_as_number, value, result))
    return isinstance(value, bool) and type(result) in (int, float)
