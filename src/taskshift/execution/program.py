"""A recorded step on fixed tensors: replayed, or compiled."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from taskshift.execution.compiling import UncompilableError, compiled
from taskshift.execution.leaves import over_steps
from taskshift.execution.recording import Given, Recording, in_place

log = logging.getLogger(__name__)


class Program:
    """`run(*arguments)`: the tensors of a `Given`, a row of numbers and the outputs, of which it writes what the step changes.

    `rows` and `outputs` hold those of a chunk's steps, step by step.
    """

    def __init__(self, recording: Recording, given: Given, *, length: int, compiles: bool, innermost: bool = False):
        self.names = recording.names
        self.rows = over_steps(torch.zeros_like(recording.row), length, innermost=innermost)
        self.outputs = over_steps(torch.zeros_like(recording.outputs), length, innermost=innermost)
        self.row_views, self.output_views = self.rows.unbind(), self.outputs.unbind()
        fast = self._compiled(recording, given) if compiles else None
        self.is_compiled, self.run = fast is not None, fast or in_place(recording.graph, recording.num_changing).forward

    def _compiled(self, recording: Recording, given: Given) -> Callable[..., object] | None:
        try:
            inner = compiled(recording, [*given.flat(), self.row_views[0], self.output_views[0]])
        except UncompilableError as error:
            log.warning("the step is replayed, for it could not be compiled: %s", error)
            return None
        return lambda *arguments: inner(list(arguments))
