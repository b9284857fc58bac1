"""The mathematics of a run's learning: net × loss × gradient × optimizer rule × regularisers × interventions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from taskshift.learners.draws import none_taken
from taskshift.learners.eager import (
    AdaptedIntervention,
    AdaptedRegularizer,
    EagerIntervention,
    EagerPart,
    EagerRegularizer,
    TorchRule,
)
from taskshift.learners.forward import Forward, detached, tensors_of
from taskshift.learners.gradient import Found, Gradient, Objective, Pass, Plain, norm
from taskshift.learners.interventions import AfterEpoch, AfterStep, AtSwitch, Intervention, StepScaling
from taskshift.learners.part import INPUT_OF, Part, Start, Subject, Switch, Tensors, setting
from taskshift.learners.regularizers import Regularizer
from taskshift.learners.rule import Rule
from taskshift.learners.rules.torch_rules import pure_rule
from taskshift.learners.turn import Turn
from taskshift.quantities import Quantity
from taskshift.shifts.task import Batch

State = Mapping[str, Any]
"""All that a learner's steps change, nested dicts of tensors:

net       parameters and buffers by name
slots     the optimizer's, slot → parameter → tensor
parts     part → its memory
settings  part → its hyper-parameters, 0-d
taken     part → rows it has used of each of its fresh rows
"""

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) → the mean over examples. What differs between tasks in it is a buffer, so that one recording serves all."""


@dataclass(frozen=True)
class Step:
    """What one step leaves behind, on the device, detached: no host sync."""

    loss: Tensor  # scalar, the task's mean loss on the batch before the step, without regularisers
    outputs: Tensor  # [B, K]
    numbers: Tensors = field(default_factory=dict)  # what parts tell, by `<part>/<name>`


@dataclass(frozen=True)
class Steps:
    """What some steps in a row leave behind."""

    losses: Tensor  # [K]
    outputs: Tensor  # [K · B, outputs], batch after batch
    numbers: Mapping[str, Tensor] = field(default_factory=dict)  # name → the values of the steps that told it

    @classmethod
    def of(cls, step: Step) -> Steps:
        """A single step."""
        return cls(step.loss.reshape(1), step.outputs, {name: value.reshape(1) for name, value in step.numbers.items()})

    @classmethod
    def joined(cls, pieces: Sequence[Steps]) -> Steps:
        """Those of all pieces, one after another."""
        numbers: dict[str, list[Tensor]] = {}
        for piece in pieces:
            for name, values in piece.numbers.items():
                numbers.setdefault(name, []).append(values)
        losses, outputs = (torch.cat([getattr(piece, name) for piece in pieces]) for name in ("losses", "outputs"))
        return cls(losses, outputs, {name: torch.cat(values) for name, values in numbers.items()})


CLIPPED = Quantity(
    "gradient_clip/clipped",
    "steps whose gradient was longer than `gradient_clip`",
    "steps",
    "Pascanu et al. 2013; `gradient_clip`",
    panel="steps of an epoch whose gradient was clipped",
)


class Learner:
    """How `net` learns. It holds no tensor that changes: `init` makes a state, `step` takes one and gives the next.

    A step takes the loss's gradient as `gradient` says (null: at the parameters), the regularisers' with it, clips it to the norm
    `gradient_clip` (null: it does not), lets the optimizer's rule step and the interventions act: first those that scale the
    step, then regularisers that are interventions as well, then the others in the order given. The scheduler steps after every
    batch or every epoch (`scheduler_every`); with `restart_scheduler` each task begins with the settings of the first.

    SGD, Adam, AdamW and RMSprop of torch.optim become pure rules that step alike; any other optimizer, and parts that work in
    place, run as they are: `why_eager` names them.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[..., Optimizer] | Rule,
        scheduler: Callable[..., LRScheduler] | None = None,
        gradient: Gradient | None = None,
        regularizers: dict[str, Regularizer] | None = None,
        interventions: dict[str, Intervention] | None = None,
        gradient_clip: float | None = None,
        scheduler_every: Literal["step", "epoch"] = "epoch",
        restart_scheduler: bool = True,
    ):
        if gradient_clip is not None and not gradient_clip > 0:
            raise ValueError(f"gradient_clip is {gradient_clip}; a norm above 0, or null for no clipping, is allowed")
        self.net, self.forward = net, Forward(net)
        leaves = {name: value for name, value in net.named_parameters() if value.requires_grad}
        self.trained = tuple(leaves)
        self.scheduler, self.scheduler_every, self.restart_scheduler = scheduler, scheduler_every, restart_scheduler
        self.gradient, self.gradient_clip = gradient or Plain(), gradient_clip
        in_place = any(isinstance(part, EagerIntervention) for part in (interventions or {}).values())
        self.rule, self.optimizer = _rule_of(optimizer, leaves, in_place=in_place)
        self.regularizers = {name: _adapted(part) for name, part in (regularizers or {}).items()}
        self.interventions = {name: self._intervention(name, part) for name, part in (interventions or {}).items()}
        self.parts = _named_apart(self.rule, self.gradient, self.regularizers, self.interventions)
        also = {name: part for name, part in self.regularizers.items() if isinstance(part, Intervention)}
        self.interventions = also | self.interventions
        after = [name for name, part in self.interventions.items() if isinstance(part, AfterStep)]
        self._after_step = tuple(sorted(after, key=lambda name: not isinstance(self.interventions[name], StepScaling)))
        self._act_always = all(self.interventions[name].every == 1 for name in self._after_step)
        self.reads: tuple[str, ...] = ()  # known after `init`

    # -- a state and its steps ------------------------------------------------------------------------------------

    def init(self, example: Batch) -> State:
        """The state before the first step: the net as it is drawn, and what every part remembers at first."""
        self.forward = Forward(self.extended(self.net, example.inputs))
        net = {name: tensor.clone() for name, tensor in tensors_of(self.net).items()}
        start = Start(self.net, net, self.trained, example)
        memories = {name: part.init(start) for name, part in self.parts.items()}
        self.reads = tuple(dict.fromkeys(name for part in self.parts.values() for name in part.reads))
        _refuse_unknown_modules(self.net, self.parts)
        device = next(iter(net.values())).device
        numbers = {name: part.settings() for name, part in self.parts.items()} | {"gradient_clip": self._clip_settings()}
        return {
            "net": net,
            "slots": self.rule.first_slots(self._trained(net)),
            "parts": {name: memory for name, memory in memories.items() if memory},
            "settings": {part: {key: setting(value, device) for key, value in of.items()} for part, of in numbers.items() if of},
            "taken": {name: none_taken(part.draws(), device) for name, part in self.parts.items() if part.draws()},
        }

    def extended(self, net: nn.Module, inputs: Tensor) -> nn.Module:
        """A net as the run's own was drawn, with the modules that interventions need in it."""
        for part in self.interventions.values():
            part.extend(net, inputs)
        return net

    @torch.no_grad()
    def step(
        self,
        state: State,
        batch: Batch,
        loss: Loss,
        draws: Mapping[str, Tensors] | None = None,
        *,
        acting: Collection[str] | None = None,
    ) -> tuple[State, Step]:
        """The state after one step on one batch, inputs [B, …]; pure.

        `draws` are the step's, part → name → tensor; `acting` names the after-step interventions whose turn it is (None: all's).
        """
        if not self.net.training:
            self.net.train()
        turn = Turn(self.parts, state, batch, draws or {})
        found = self._gradient(turn, loss)
        turn.found(found, self._clipped(turn, found.gradients))
        trained = turn.subject("optimizer")._replace(net=self._trained(turn.net))
        turn.take("optimizer", self.rule.step(trained, turn.context("optimizer")))
        for name in self._after_step:
            part, given = self.interventions[name], (turn.subject(name), turn.context(name))
            if acting is None or name in acting:
                turn.take(name, part.after_step(*given))
            else:
                turn.remember(name, part.meanwhile(*given))
        return turn.state(), Step(found.seen.loss, found.seen.outputs, turn.numbers)

    def _gradient(self, turn: Turn, loss: Loss) -> Found:
        """The gradient part's finding; regularisers advance first, once."""
        for name, regularizer in self.regularizers.items():
            turn.remember(name, regularizer.advance(self._trained(turn.net), turn.context(name)))
        contexts = {name: turn.context(name) for name in self.regularizers}

        def evaluate(parameters: Tensors) -> tuple[Tensor, Pass]:
            outputs, buffers, features = self.forward({**turn.net, **parameters}, turn.batch.inputs, self.reads)
            value = loss(outputs, turn.batch.targets)
            return value, Pass(value.detach(), outputs.detach(), detached(buffers), features)

        def penalty(parameters: Tensors, features: Tensors) -> Tensor | None:
            terms = [
                part.penalty(parameters, contexts[name].reading({key: features[key] for key in part.reads}))
                for name, part in self.regularizers.items()
            ]
            return sum(terms[1:], terms[0]) if terms else None

        return self.gradient.gradient(Objective(self._trained(turn.net), evaluate, penalty), turn.context("gradient"))

    def _clipped(self, turn: Turn, gradients: Tensors) -> Tensors:
        """As torch.nn.utils.clip_grad_norm_ does it."""
        if self.gradient_clip is None:
            return gradients
        share = turn.settings("gradient_clip")["norm"] / (norm(gradients) + 1e-6)
        turn.numbers["gradient_clip/clipped"] = (share < 1).to(share.dtype)
        share = share.clamp(max=1.0)
        return {name: gradient * share for name, gradient in gradients.items()}

    # -- between steps --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def switch(self, state: State, contexts: Mapping[str, Switch]) -> tuple[State, Tensors]:
        """The state with which a new task begins, and what the parts tell; `contexts` by part."""
        return self._between(state, AtSwitch, lambda part, *given: part.at_switch(*given), contexts)

    @torch.no_grad()
    def after_epoch(self, state: State, contexts: Mapping[str, Switch]) -> tuple[State, Tensors]:
        """The state after an epoch's end, and what the parts tell."""
        return self._between(state, AfterEpoch, lambda part, *given: part.after_epoch(*given), contexts)

    def measured(self, state: State) -> Tensors:
        """The net that tests, evaluators and checkpoints see, every tensor by name: the trained one unless a part has another."""
        net = state["net"]
        for name, part in self.interventions.items():
            net = part.measured(net, state["parts"].get(name, {}))
        return net

    def _between(
        self, state: State, kind: type, act: Callable[..., Subject], contexts: Mapping[str, Switch]
    ) -> tuple[State, Tensors]:
        turn = Turn(self.parts, state, None, {})
        for name, part in self.interventions.items():
            if isinstance(part, kind) and name in contexts:
                turn.take(name, act(part, turn.subject(name), contexts[name]))
        return turn.state(), turn.numbers

    # -- what it is made of ---------------------------------------------------------------------------------------

    def acting(self, step: int) -> tuple[str, ...]:
        """The after-step interventions that act after step number `step` of the run, from 0."""
        if self._act_always:
            return self._after_step
        return tuple(name for name in self._after_step if (step + 1) % self.interventions[name].every == 0)

    def acting_in(self, steps: range) -> list[tuple[str, ...]]:
        """The same after each of these steps."""
        return [self._after_step] * len(steps) if self._act_always else [self.acting(number) for number in steps]

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What its parts tell, as the record calls it."""
        told = [one.below(name) for name, part in self.parts.items() for one in part.quantities]
        told += [] if self.gradient_clip is None else [CLIPPED]
        return tuple(one.below("learner") for one in told)

    def why_eager(self) -> str | None:
        """Why its step can neither be recorded nor stacked, in one sentence that names the part; None where it can."""
        for name, part in self.parts.items():
            reason = part.why_eager()
            if reason is not None:
                return f"learner.{self._place(name)}: {reason}, so this learner runs eager"
        return None

    @property
    def eager_parts(self) -> Iterator[tuple[str, EagerPart]]:
        """The parts that keep their own memory, by name."""
        for name, part in self.parts.items():
            if isinstance(part, AdaptedRegularizer | AdaptedIntervention):
                yield name, part.part

    def _intervention(self, name: str, part: Intervention) -> Intervention:
        if not isinstance(part, AfterStep | AfterEpoch | AtSwitch):
            raise TypeError(
                f"intervention {name} is a {type(part).__name__}; it must be an AfterStep, an AfterEpoch or an AtSwitch"
            )
        return AdaptedIntervention(part, self.net, self.rule) if isinstance(part, EagerIntervention) else part

    def _trained(self, net: Tensors) -> dict[str, Tensor]:
        return {name: net[name] for name in self.trained}

    def _clip_settings(self) -> Mapping[str, float]:
        return {} if self.gradient_clip is None else {"norm": self.gradient_clip}

    def _place(self, name: str) -> str:
        kinds = {"regularizers": self.regularizers, "interventions": self.interventions}
        return next((f"{kind}.{name}" for kind, parts in kinds.items() if name in parts), name)


def _rule_of(
    optimizer: Callable[..., Optimizer] | Rule, leaves: Mapping[str, nn.Parameter], *, in_place: bool
) -> tuple[Rule, Optimizer]:
    """The rule that steps, and torch's optimizer whose groups a scheduler moves; one rule of the two kinds is enough for it."""
    if isinstance(optimizer, Rule):
        if in_place:
            raise ValueError("an intervention that works in place needs an optimizer of torch.optim's kind, not a rule")
        return optimizer, Optimizer(list(leaves.values()), optimizer.group_of({}, optimizer.settings()))
    made = optimizer(list(leaves.values()))
    _refuse_closures(made)
    rule = None if in_place else pure_rule(made)
    return rule or TorchRule(made, leaves), made


def _refuse_closures(optimizer: Optimizer) -> None:
    """A step that needs a closure evaluates the loss several times; a learner's evaluates it as its gradient part says."""
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"optimizer {type(optimizer).__name__} evaluates the loss several times a step (it needs a closure), "
            "which this learner does not offer; take one that steps from the gradient alone, such as SGD or Adam"
        )


def _adapted(part: Regularizer) -> Regularizer:
    return AdaptedRegularizer(part) if isinstance(part, EagerRegularizer) else part


def _named_apart(
    rule: Rule, gradient: Gradient, regularizers: Mapping[str, Regularizer], interventions: Mapping[str, Intervention]
) -> dict[str, Part]:
    """All parts by name; numbers, draws and memory go by these names, so no two may share one."""
    own = {"optimizer": rule, "gradient": gradient}
    for name in regularizers.keys() & interventions.keys():
        raise ValueError(f"regularizers and interventions both have a part called {name}; give one of them another name")
    for name in (regularizers.keys() | interventions.keys()) & {*own, "gradient_clip"}:
        raise ValueError(f"a part is called {name}, which the learner's own {name} is called already; give it another name")
    return {**own, **regularizers, **interventions}


def _refuse_unknown_modules(net: nn.Module, parts: Mapping[str, Part]) -> None:
    known = {name for name, _ in net.named_modules()}
    for part, reader in parts.items():
        for name in reader.reads:
            if name.removeprefix(INPUT_OF) not in known:
                what, module = "input" if name.startswith(INPUT_OF) else "output", name.removeprefix(INPUT_OF)
                raise ValueError(f"{part} reads the {what} of the module {module}, which the net does not have")
