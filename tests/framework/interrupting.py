"""A process that ends in the middle of something."""

from __future__ import annotations

from typing import Any

import pytest


class Interrupted(BaseException):
    """Not an Exception: nothing may catch it."""


def interrupt(patch: pytest.MonkeyPatch, owner: Any, name: str, count: int) -> None:
    """Let the `count`-th call of `owner.name` end, then raise."""
    original, calls = getattr(owner, name), 0

    def fatal(*arguments, **options):
        nonlocal calls
        calls += 1
        result = original(*arguments, **options)
        if calls == count:
            raise Interrupted
        return result

    patch.setattr(owner, name, fatal)
