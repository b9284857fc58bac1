"""Two examples through a new net, so that a wrong size is a sentence before anything is written."""

from __future__ import annotations

import copy
import traceback

import torch
from torch import Tensor, nn

from taskshift.faults import Fault
from taskshift.shifts.indexed_source import IndexedSource
from taskshift.shifts.source import Source


def pass_two_examples(net: nn.Module, inputs: Tensor, num_outputs: int, name: str) -> None:
    """Run `inputs`, two examples of the first task, through `net` in eval mode; raises Fault where sizes don't fit.

    Other errors of a net are left alone, with their tracebacks.
    """
    modes = {module: module.training for module in net.modules()}
    try:
        with torch.no_grad():
            outputs = net.eval()(inputs)
    except RuntimeError as error:
        raise Fault(
            f"net: {name} cannot take inputs of shape {_shape(inputs)} ({_first_line(error)}, {_place(error)}); "
            "build its first layer from the argument input_shape, or choose other data"
        ) from error
    finally:
        for module, training in modes.items():
            module.training = training
    if not isinstance(outputs, Tensor):
        raise Fault(f"net: {name} returned {type(outputs).__name__}; expected one tensor of shape [{len(inputs)}, {num_outputs}]")
    if outputs.shape != (len(inputs), num_outputs):
        raise Fault(
            f"net: {name} returned the shape {_shape(outputs)} for {len(inputs)} examples; "
            f"expected [{len(inputs)}, {num_outputs}], so let its head have num_outputs units"
        )


def join_single_examples(net: nn.Module, stream: Source) -> None:
    """Let the stream make no training batch of one example where `net` cannot learn from one; raises Fault where it has to."""
    if stream.joins_single or learns_from_one(net, stream):
        return
    stream.joins_single = True
    otherwise = "or a net without batch norm, which cannot learn from one example"
    if stream.batch_size == 1:
        raise Fault(f"batch_size=1: give 2 or more, {otherwise}")
    single = [task.index for task in stream if stream.num_examples(task) == 1] if isinstance(stream, IndexedSource) else []
    if single:
        raise Fault(f"data: task {single[0]} has one training example; give more data, {otherwise}")


def learns_from_one(net: nn.Module, stream: Source) -> bool:
    """Whether `net` takes a batch of one example in training: batch norm refuses to normalise over a single value."""
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules()):
        return True
    task, probe = stream[0], copy.deepcopy(net).train()  # a copy, whose running statistics nobody needs
    try:
        with torch.no_grad():
            probe(stream.gather(task, task.train[:1]).inputs)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        return False
    return True


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].strip().rstrip(".")


def _place(error: Exception) -> str:
    """The innermost line that is not torch's own."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/torch/" not in frame.filename]
    return f"line {frames[-1].lineno} of {frames[-1].filename.rpartition('/')[2]}"
