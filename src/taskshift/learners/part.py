"""What a learner is put together from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Part:
    """A piece of a learner that may remember something between calls; what it remembers belongs in `state_dict`."""

    def state_dict(self) -> dict[str, Any]:
        """What this part remembers, as tensors in plain containers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, but the checkpoint has {', '.join(sorted(state))} for it")
