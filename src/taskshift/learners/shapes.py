"""The net's tensors keep their names and shapes for the whole run."""

from __future__ import annotations

from torch import Tensor

from taskshift.faults import Fault
from taskshift.learners.part import Tensors


def refuse_other_tensors(part: str, before: Tensors, after: Tensors) -> None:
    """Raise Fault where a part gives back tensors that the net does not have, or of other shapes."""
    for name, tensor in after.items():
        old = before.get(name)
        if tensor is None or old is None or tensor.shape != old.shape or tensor.dtype != old.dtype:
            raise Fault(
                f"{part} changed the net: {name} was {_seen(old)} and is {_seen(tensor)} now; optimizers, checkpoints "
                "and evaluators go by names and shapes, so build all parameters from the start"
            )


def _seen(tensor: Tensor | None) -> str:
    return "not there" if tensor is None else f"{list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
