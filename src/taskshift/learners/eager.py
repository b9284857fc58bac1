"""Parts that write in place and keep their own memory, and torch's own optimizers: they run eager alone."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from taskshift.learners.forward import show, tensors_of
from taskshift.learners.interventions import AfterStep, AtSwitch, Intervention
from taskshift.learners.part import Context, Memory, Part, Slots, Start, Subject, Switch, Tensors
from taskshift.learners.regularizers import Regularizer
from taskshift.learners.rule import Rule
from taskshift.learners.shapes import refuse_other_tensors
from taskshift.shifts.task import Task

OF_GROUPS = "param_groups"
"""The slot in which a `TorchRule` keeps what an optimizer counts for all its parameters together, group by group."""


class EagerPart(Part):
    """A part whose memory is its own affair. What it remembers between calls belongs in `state_dict`."""

    def state_dict(self) -> dict[str, Any]:
        """What this part remembers, as tensors in plain containers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, but the checkpoint has {', '.join(sorted(state))} for it")

    def why_eager(self) -> str | None:
        return f"{type(self).__name__} changes what it is given in place"


class EagerRegularizer(EagerPart, Regularizer):
    """A penalty of the parameters alone."""

    def attach(self, net: nn.Module) -> None:
        """See the net once, as it was initialised, before the first step and before any `load_state_dict`."""

    @abstractmethod
    def penalty(self, parameters: Tensors) -> Tensor:
        """A differentiable scalar of the parameters that are trained, by name."""


class EagerIntervention(EagerPart, Intervention):
    """Changes the net's parameters and the optimizer's state in place. Randomness comes from torch's default generator."""

    def attach(self, net: nn.Module, optimizer: Optimizer) -> None:
        """See both once, as initialised, before the first step and before any `load_state_dict`; hooks go on here."""


class EagerAfterStep(EagerIntervention, AfterStep):
    """Acts after each step of the optimizer, without gradients."""

    @abstractmethod
    def after_step(self, net: nn.Module, optimizer: Optimizer, task: Task, inputs: Tensor, targets: Tensor) -> None:
        """Change parameters in place. The batch is the step's; the net's outputs on it were from before the step."""


class EagerAtSwitch(EagerIntervention, AtSwitch):
    """Acts at the start of every task but the first, before its first batch, without gradients."""

    @abstractmethod
    def at_switch(self, net: nn.Module, optimizer: Optimizer, task: Task) -> None:
        """Change parameters in place; `task` is the one that begins."""


class TorchRule(Rule):
    """Any optimizer of torch.optim's kind, as a function of its parameters, gradients and state, at the price of a copy.

    Numbers in its groups that its own steps move, as a count of steps, are a part of that state; the learning rate is not.
    """

    def __init__(self, optimizer: Optimizer, leaves: Mapping[str, nn.Parameter]):
        self.optimizer, self.leaves = optimizer, leaves
        self._counted: set[str] = set()  # the names of such numbers, known after a step
        self._groups_at_first = self._numbers()
        self._first = self.slots()  # some have a state before their first step

    def settings(self) -> Mapping[str, float]:
        return self.settings_of(self.optimizer.param_groups[0])

    def settings_of(self, group: Mapping[str, Any]) -> Mapping[str, float]:
        return {"lr": float(group["lr"])} if "lr" in group else {}

    def why_eager(self) -> str:
        return f"{type(self.optimizer).__name__} steps by torch's own code, in place"

    def first_slots(self, parameters: Tensors) -> Slots:
        return self._first

    def loaded(self, slots: Slots) -> Slots:
        self.put(slots)
        self.optimizer.load_state_dict(self.optimizer.state_dict())  # torch decides what lies on which device
        return self.slots()

    def step(self, subject: Subject, context: Context) -> Subject:
        for name, leaf in self.leaves.items():
            leaf.data, leaf.grad = subject.net[name].clone(), context.gradients[name]
        self.put(subject.slots)
        before = self._numbers()
        self.optimizer.step()
        for had, has in zip(before, self._numbers(), strict=True):
            self._counted |= {key for key, value in has.items() if had.get(key) != value}
        self.optimizer.zero_grad(set_to_none=True)
        return subject._replace(net={name: leaf.detach() for name, leaf in self.leaves.items()}, slots=self.slots())

    def put(self, slots: Slots) -> None:
        """Give torch's optimizer a copy of this state."""
        state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        for slot, values in _by_parameter(slots).items():
            for name, value in values.items():
                state[self.leaves[name]][slot] = value.clone() if isinstance(value, Tensor) else deepcopy(value)
        self.optimizer.state = state
        self._put_counts(slots.get(OF_GROUPS, {}))

    def _put_counts(self, counts: Mapping[str, Any]) -> None:
        self._counted |= {key for of in counts.values() for key in of}
        for number, (group, first) in enumerate(zip(self.optimizer.param_groups, self._groups_at_first, strict=True)):
            for key in self._counted:
                group.pop(key, None)
            group.update({key: value for key, value in first.items() if key in self._counted})
            group.update(counts.get(str(number), {}))

    def slots(self) -> Slots:
        """What torch's optimizer remembers, slot by slot."""
        found: dict[str, dict[str, Any]] = {}
        for name, leaf in self.leaves.items():
            for slot, value in self.optimizer.state.get(leaf, {}).items():
                found.setdefault(slot, {})[name] = value
        counts = [{key: value for key, value in of.items() if key in self._counted} for of in self._numbers()]
        return {**found, OF_GROUPS: {str(number): of for number, of in enumerate(counts)}} if any(counts) else found

    def _numbers(self) -> list[dict[str, float]]:
        """Each group's numbers but the learning rate, which is a scheduler's to move."""
        groups = self.optimizer.param_groups
        return [{key: v for key, v in group.items() if key != "lr" and isinstance(v, int | float)} for group in groups]

    def torch_state(self, slots: Slots) -> Mapping[str, Mapping[str, Tensor]] | None:
        found: dict[str, dict[str, Tensor]] = {}
        for slot, values in _by_parameter(slots).items():
            for name, value in values.items():
                found.setdefault(name, {})[slot] = value
        return found


def _by_parameter(slots: Slots) -> Slots:
    return {slot: of for slot, of in slots.items() if slot != OF_GROUPS}


class AdaptedRegularizer(Regularizer):
    """An `EagerRegularizer` where a regulariser goes."""

    def __init__(self, part: EagerRegularizer):
        self.part, self.why_eager = part, part.why_eager

    def init(self, start: Start) -> Memory:
        self.part.attach(start.module)
        return {}

    def penalty(self, parameters: Tensors, context: Context) -> Tensor:
        return self.part.penalty(parameters)


class AdaptedIntervention(AfterStep, AtSwitch):
    """An `EagerIntervention` where an intervention goes: it writes into copies, which come back as values."""

    task: Task  # the one that is being learned, or that begins

    def __init__(self, part: EagerIntervention, module: nn.Module, rule: TorchRule):
        self.part, self.module, self.rule, self.why_eager = part, module, rule, part.why_eager

    def init(self, start: Start) -> Memory:
        self.part.attach(self.module, self.rule.optimizer)
        return {}

    def after_step(self, subject: Subject, context: Context) -> Subject:
        if not isinstance(self.part, EagerAfterStep):
            return subject
        return self._acted(subject, lambda *given: self.part.after_step(*given, self.task, *context.batch))

    def at_switch(self, subject: Subject, context: Switch) -> Subject:
        if not isinstance(self.part, EagerAtSwitch):
            return subject
        return self._acted(subject, lambda *given: self.part.at_switch(*given, self.task))

    def _acted(self, subject: Subject, act: Callable[[nn.Module, Optimizer], None]) -> Subject:
        show(self.module, {name: tensor.clone() for name, tensor in subject.net.items()})
        self.rule.put(subject.slots)
        act(self.module, self.rule.optimizer)
        net = tensors_of(self.module)
        refuse_other_tensors(type(self.part).__name__, subject.net, {**dict.fromkeys(subject.net), **net})
        return subject._replace(net=net, slots=self.rule.slots())
