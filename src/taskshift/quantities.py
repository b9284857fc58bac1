"""What the numbers of a record are: how they are called, what they mean, their unit, where they are drawn and printed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

PLACEHOLDER = re.compile(r"<([a-z]+)>")
WORD = r"\w+"
STANDS_FOR = {"k": r"[1-9]\d*", "layer": r"[^/<>]+"}
"""Placeholder → what may stand in its place; for any other it is a word."""

UNITS_OF_METRICS = {"loss": "nats", "accuracy": "share"}
"""A task's metric → its unit, in tasks of classes; a loss of others has none of its own."""

OF_THE_METRIC = ", ".join(UNITS_OF_METRICS.values())
"""The unit of a pattern that ends with a task's metric: the name says which."""

ERROR = "_standard_error"
"""What an error's name ends with, after its value's."""

OF_THE_VALUE = "as the estimate"
"""The unit of an error that has its value's."""


@dataclass(frozen=True)
class Column:
    """A column of the table at a run's end, and of summary_table.json. A share is printed in percent."""

    title: str | None  # over the printed column, on two lines at most; None: in the JSON alone
    name: str | None = None  # which of the pattern's names it shows, where the pattern has placeholders
    key: str | None = None  # in the JSON; the name unless given
    with_error: str | None = None  # how a cell shows the number and its error, such as "{} ± {}"; None: the number alone
    place: int = 50  # columns stand in this order, then as they were declared


@dataclass(frozen=True)
class Quantity:
    """A number that a run logs, or a family of them: `<layer>` stands for a layer's name, `<k>` for a number from 1 on.

    Evaluators, watchers, parts of a learner and sources declare theirs without what is put before every name. Quantities with one
    `panel` share it: a family's are a thin curve each, beside what has no placeholder.
    """

    pattern: str  # the name, placeholders in angle brackets
    meaning: str  # a formula or a few words, in Markdown
    unit: str = ""
    source: str = ""  # where the definition comes from, or the key that it depends on
    panel: str | None = None  # title of its panel among the summary pictures; None: no panel
    label: str | None = None  # its name in the panel's legend
    error: str | None = None  # the name of its error, with the same placeholders
    columns: tuple[Column, ...] = ()

    def __post_init__(self) -> None:
        known = self.placeholders
        if unknown := set(PLACEHOLDER.findall(self.error or "")) - set(known):
            raise ValueError(f"the error {self.error} has <{min(unknown)}>, which {self.pattern} does not have")
        for column in self.columns:
            if self.placed(shown := column.name or self.pattern) is None:
                told = f"a column of {self.pattern} shows {shown}, which is not one of its names"
                raise ValueError(f"{told}; say which one by name=…")

    @property
    def placeholders(self) -> list[str]:
        """Their names, without brackets."""
        return PLACEHOLDER.findall(self.pattern)

    def placed(self, name: str) -> Mapping[str, str] | None:
        """What stands for each placeholder in `name`, None where that is no name of this quantity."""
        found = self._expression.fullmatch(name)
        return None if found is None else found.groupdict()

    def error_of(self, name: str) -> str | None:
        """The name of the error of this quantity's `name`."""
        placed = self.placed(name) or {}
        return self.error and PLACEHOLDER.sub(lambda match: placed[match[1]], self.error)

    def below(self, prefix: str) -> Quantity:
        """The same with `prefix/` before every name."""
        return self.after(f"{prefix}/")

    def after(self, prefix: str) -> Quantity:
        """The same with `prefix` before every name."""
        error = self.error and f"{prefix}{self.error}"
        columns = tuple(replace(one, name=one.name and f"{prefix}{one.name}") for one in self.columns)
        return replace(self, pattern=f"{prefix}{self.pattern}", error=error, columns=columns)

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        parts = PLACEHOLDER.split(self.pattern)  # text, placeholder, text, …
        parts[::2] = map(re.escape, parts[::2])
        parts[1::2] = [f"(?P<{name}>{STANDS_FOR.get(name, WORD)})" for name in parts[1::2]]
        return re.compile("".join(parts))


class Quantities:
    """All that a run declares."""

    def __init__(self, declared: Iterable[Quantity] = ()):
        self._declared = tuple(declared)

    def __iter__(self) -> Iterator[Quantity]:
        return iter(self._declared)

    def of(self, name: str) -> Quantity | None:
        """The quantity that the record calls `name`, also at a task's start; None for a name that was not declared.

        Of several that match, the one with the fewest placeholders, then with the most text of its own.
        """
        return next((one for one in self._exact_first if one.placed(name.removeprefix("start/")) is not None), None)

    def unit(self, name: str, *, of_classes: bool) -> str:
        """The unit of the record's `name`, empty where it has none; losses have one in tasks of classes alone."""
        found = self.of(name)
        if found is None:
            return ""
        if found.unit == OF_THE_METRIC:
            metric = name.rpartition("_")[2]
            return UNITS_OF_METRICS.get(metric, "") if of_classes or metric != "loss" else ""
        if found.unit == OF_THE_VALUE:
            own = name.removeprefix("start/")
            value = next((one.pattern for one in self if one.error == own), own.removesuffix(ERROR))
            return "" if value == own else self.unit(value, of_classes=of_classes)
        return found.unit

    def to_json(self) -> list[dict[str, Any]]:
        """A plain form; what is as by default is left out."""
        return [_without_defaults(one) | _columns(one) for one in self]

    @classmethod
    def from_json(cls, content: Iterable[Mapping[str, Any]]) -> Quantities:
        """The quantities that `to_json` gave, whatever later code may have added to them."""
        return cls(
            Quantity(**_known(Quantity, one) | {"columns": tuple(Column(**_known(Column, c)) for c in one.get("columns", ()))})
            for one in content
        )

    @cached_property
    def _exact_first(self) -> list[Quantity]:
        return sorted(self, key=lambda one: (len(one.placeholders), -len(PLACEHOLDER.sub("", one.pattern))))


def _columns(quantity: Quantity) -> dict[str, Any]:
    return {"columns": [_without_defaults(column) for column in quantity.columns]} if quantity.columns else {}


def _without_defaults(one: Quantity | Column) -> dict[str, Any]:
    return {field.name: value for field in fields(one) if (value := getattr(one, field.name)) != field.default}


def _known(kind: type, content: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: content[field.name] for field in fields(kind) if field.name in content}
