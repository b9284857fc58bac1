"""Results that are read by attribute, and by the keys that the Writer's documents list."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any


class Documented(Mapping[str, Any]):
    """A result that is also a mapping: `result["X"]`, `dict(result)`."""

    @abstractmethod
    def documented(self) -> dict[str, Any]:
        """Its entries by their documented keys."""

    def __getitem__(self, key: str) -> Any:
        entries = self.documented()
        if key not in entries:
            raise KeyError(f"{type(self).__name__} has no {key!r}; it has {', '.join(entries)}")
        return entries[key]

    def __eq__(self, other: object) -> bool:
        """Whether it is the very same result: arrays have no one answer."""
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __iter__(self) -> Iterator[str]:
        return iter(self.documented())

    def __len__(self) -> int:
        return len(self.documented())
