"""What a learner is put together from: pure functions of tensors, and what they are given.

A part holds numbers, names and shapes, never a tensor that changes: what changes is in the learner's state. Its functions are
pure. They take tensors and return new ones, of the same shapes whatever the values: `where` and masks, no branch on a value, no
`.item()`, nothing in place but on what they have just made. So one recording serves every step, and `torch.vmap` every member
of a stack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from taskshift.quantities import Quantity
from taskshift.shifts.task import Batch

Tensors = Mapping[str, Tensor]
Slots = Mapping[str, Tensors]
"""What an optimizer remembers: slot → a parameter's name → a tensor of its shape."""
Memory = Mapping[str, Any]
"""What a part remembers: nested dicts of tensors."""
INPUT_OF = "input of "


@dataclass(frozen=True)
class Start:
    """The beginning of a run, as a part sees it once."""

    module: nn.Module  # the net's structure: which layers have which names; its values are in `net`
    net: Tensors  # its parameters and buffers by name, as initialised
    trained: tuple[str, ...]  # the names of the parameters that are trained
    example: Batch  # two examples of the first task


class Subject(NamedTuple):
    """What an intervention acts on, and what it gives back: `subject._replace(net=…, numbers=…)`."""

    net: Tensors  # every parameter and buffer by name; an optimizer rule sees the trained parameters alone
    slots: Slots  # the optimizer's
    memory: Memory  # the part's own
    numbers: Tensors = {}  # scalars for the record, `learner/<part>/<name>`, summed over an epoch's steps
    taken: Tensors = {}  # how many rows it used of each of its `FreshRows`, a scalar each


class Context(NamedTuple):
    """What a part may look at in a step."""

    settings: Tensors  # the part's own hyper-parameters, 0-d, in the parameters' dtype; an optimizer rule's in float64
    memory: Memory = {}  # the part's own
    optimizer: Tensors = {}  # the optimizer's settings, `lr` among them
    batch: Batch | None = None  # the step's
    gradients: Tensors = {}  # of the trained parameters, once they are known
    features: Tensors = {}  # outputs or inputs [B, …] of the modules in `reads`, from before the step
    draws: Tensors = {}  # see `Part.draws`
    taken: Tensors = {}  # rows used so far of each of its `FreshRows`
    net_before: Tensors = {}  # every parameter and buffer as the step began
    slots_before: Slots = {}  # the optimizer's, as the step began

    def reading(self, features: Tensors) -> Context:
        """The same with these features."""
        return self._replace(features=features) if features else self

    def rows(self, name: str, count: int) -> Tensor:
        """The next `count` rows [count, …] of the `FreshRows` called `name`; say in `Subject.taken` how many were used."""
        ring = self.draws[name]  # its length is a power of two: a remainder would be taken anew for every entry of a weight
        return ring[(self.taken[name] + torch.arange(count, device=ring.device)) & (len(ring) - 1)]


@dataclass(frozen=True)
class Switch:
    """What a part may look at between two tasks or two epochs; this is not recorded, and may take its time."""

    settings: Tensors
    optimizer: Tensors
    batches: Sequence[Batch]  # the new task's training examples, in order, as it shows them; none at an epoch's end
    means: Mapping[str, float]  # the epoch's loss and metrics; none at a switch
    first_slots: Callable[[Tensors], Slots]  # what the optimizer remembers of parameters before their first step
    fresh: Callable[[], Tensors]  # a net drawn anew from the run's own initial distribution, every tensor by name
    generator: Callable[[str], torch.Generator]  # on the CPU, by what it is for
    features: Callable[[Tensors, Tensor], Tensors]  # (net, inputs) → outputs of the modules in `reads`, in eval mode
    gradients: Callable[[Tensors, Batch], Tensors]  # (net, batch) → the task's loss's, in eval mode, without regularisers


class Part:
    """The base of optimizer rules, gradients, regularisers and interventions."""

    reads: Sequence[str] = ()
    """Modules, by name, whose outputs it wants as `features`, or by `input_of(name)` what they are given.

    Each must be called once in a forward pass.
    """

    quantities: Sequence[Quantity] = ()
    """Its `numbers`, without `learner/<part>/`: what each means, its unit, its panel."""

    def settings(self) -> Mapping[str, float]:
        """Its numeric hyper-parameters; as tensors they come back in `context.settings`."""
        return {}

    def init(self, start: Start) -> Memory:
        """What it remembers at first: new tensors. It may keep names and shapes on itself, and set `reads` from them."""
        return {}

    def draws(self) -> Mapping[str, Any]:
        """The randomness of its steps by name, `EveryStep` or `FreshRows` (see draws.py); asked for after `init`."""
        return {}

    def why_eager(self) -> str | None:
        """Why it can neither be recorded nor stacked, in a few words; None where it can."""
        return None


def input_of(module: str) -> str:
    """The name by which `Part.reads` and `Context.features` know the first tensor that a module is given."""
    return INPUT_OF + module


def setting(value: float, device: torch.device) -> Tensor:
    """A hyper-parameter as a tensor: float64, so that 1 − β is as exact as torch computes it."""
    return torch.tensor(float(value), dtype=torch.float64, device=device)
