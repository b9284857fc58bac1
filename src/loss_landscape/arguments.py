"""What users hand over, judged where it comes in: numbers, paths, functions; each fault is a sentence with what to give."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

SEEDS = range(-(2**63), 2**63)
"""What torch and a database hold as one whole number."""

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@runtime_checkable
class Array(Protocol):
    """A tensor of torch or an array, of NumPy or of another library."""

    @property
    def shape(self) -> Sequence[int]: ...

    def item(self) -> Any: ...


def as_number(value: Any, name: str) -> float:
    """A real number, NaN and the infinities too, or the one entry of a tensor or an array; ValueError for anything else."""
    number = _entry(value)
    if isinstance(number, bool) or not isinstance(number, Real):
        raise ValueError(f"{name} must be a number, or a tensor of one entry, got {_described(number)}")
    return float(number)


def as_number_or_none(value: Any, name: str) -> float | None:
    """The same, or None where there is none."""
    return None if value is None else as_number(value, name)


def as_finite(value: Any, name: str, *, above: float = -math.inf, below: float = math.inf) -> float:
    """The same without NaN and the infinities, `above` and `below` bounds that it is not to reach."""
    number = as_number(value, name)
    if not above < number < below:  # NaN is neither
        bounds = [f" {word} {bound:g}" for word, bound in (("above", above), ("below", below)) if math.isfinite(bound)]
        raise ValueError(f"{name} must be a finite number{' and'.join(bounds)}, got {number:g}")
    return number


def as_whole(value: Any, name: str, *, least: int, of: str) -> int:
    """A whole number of `least` or more `of` something, or the one entry of a tensor or an array."""
    number = _entry(value)
    if not _is_whole(number) or number < least:
        raise ValueError(f"{name} must be a whole number of {least} or more {of}, got {_described(number)}")
    return int(number)


def as_seed(value: Any) -> int:
    """A seed of random numbers."""
    number = _entry(value)
    if not _is_whole(number) or number not in SEEDS:
        raise ValueError(f"seed must be a whole number from -2**63 to 2**63 - 1, got {_described(number)}")
    return int(number)


def as_path(value: Any, name: str, *, such_as: str) -> Path:
    """The path of a file or folder; ValueError for an empty one, TypeError for what is none."""
    if not isinstance(value, str | os.PathLike) or isinstance(os.fspath(value), bytes):
        raise TypeError(f"{name} must be a path, such as {such_as!r}, got {_described(value)}")
    if not os.fspath(value):
        raise ValueError(f"{name} is empty; give a path, such as {such_as!r}")
    return Path(value)


def require_callable_as(function: Any, name: str, *given: str) -> None:
    """Refuse what is no function of as many arguments as are `given`; one that can't be read is tried when it is called."""
    form = f"{name}({', '.join(given)})"
    if not callable(function):
        raise TypeError(f"expected a function, called as {form}, got {_described(function)}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a builtin
        return
    try:
        signature.bind(*given)
    except TypeError as error:
        taken = ", ".join(map(str, signature.parameters.values())) or "nothing"
        raise ValueError(f"expected a function, called as {form}, got one that takes {taken}") from error


def required_arguments(function: Callable[..., Any], name: str, *, instead: str) -> list[str]:
    """The names of the positional arguments without a default.

    Raises ValueError where these can't be read or are any number, and where more are needed by keyword; `instead` says what to
    wrap such a function in.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}'s arguments can't be read; wrap it: {instead}") from error
    many = next((one.name for one in parameters if one.kind is one.VAR_POSITIONAL), None)
    if many is not None:
        raise ValueError(f"{name} takes *{many}, so what it wants is not clear; wrap it: {instead}")
    by_keyword = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
    if by_keyword:
        given = ", ".join(f"{one}=…" for one in by_keyword)
        raise ValueError(f"{name} is not given {', '.join(by_keyword)}, which it needs; give functools.partial(f, {given})")
    return [one.name for one in parameters if one.kind in POSITIONAL and one.default is one.empty]


def _entry(value: Any) -> Any:
    """The one entry of a tensor or an array as a number of Python's; anything else as it is."""
    return value.item() if isinstance(value, Array) and math.prod(value.shape) == 1 else value


def _is_whole(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


def _described(value: Any) -> str:
    """A value as an error names it: one that is long by its kind and size."""
    if isinstance(value, Array):
        return f"one of shape {list(value.shape)}"
    said = repr(value)
    return said if len(said) <= 60 else f"a {type(value).__name__}"
