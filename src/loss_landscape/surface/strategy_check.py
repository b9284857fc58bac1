"""Whether a strategy gives the losses of the plain loop, and what to try where it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from loss_landscape.surface.strategy import EAGER, EAGER_CHUNK, EvaluationStrategy

Evaluate = Callable[[EvaluationStrategy], np.ndarray]
"""A strategy → the losses of the cells that it is judged by."""


def alternatives(strategy: EvaluationStrategy) -> Iterator[EvaluationStrategy]:
    """The strategy, then the same with less to go wrong: uncompiled, then cell by cell, then the plain loop."""
    yield strategy
    if strategy.compiled:
        yield replace(strategy, compiled=False)
    if strategy.name == "vectorized":
        yield replace(strategy, name="traced", chunk=EAGER_CHUNK, compiled=False)
    if strategy.name != "eager":
        yield EAGER


def objection_to(strategy: EvaluationStrategy, found: np.ndarray, plain: np.ndarray, dtype: torch.dtype) -> str | None:
    """What speaks against a strategy that `found` these losses where the plain loop found `plain`; None where they agree."""
    if not is_off(found, plain, dtype):
        return None
    return f"{strategy} gave {found.tolist()} instead of {plain.tolist()}"


def is_off(found: np.ndarray | float, expected: np.ndarray | float, dtype: torch.dtype) -> bool:
    """Whether losses are further from the `expected` ones than another order of operations in this dtype explains."""
    relative, absolute = (1e-10, 1e-10) if dtype == torch.float64 else (1e-5, 1e-6)
    return not np.allclose(found, expected, rtol=relative, atol=absolute, equal_nan=True)


def failure_of(strategy: EvaluationStrategy, error: Exception) -> str:
    """In words that a strategy raised an error."""
    text = str(error).strip()
    return f"{strategy} failed: {text.splitlines()[0] if text else type(error).__name__}"


FAILURES = (RuntimeError, NotImplementedError, ValueError, TypeError)
"""What a traced or compiled loss may raise that the plain loop does not; running out of memory apart."""
