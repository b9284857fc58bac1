"""New parameters put into the last layers of a net between two tasks, without a change to what it computes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from taskshift.learners.forward import watched_pass
from taskshift.learners.interventions import AtSwitch
from taskshift.learners.part import Memory, Start, Subject, Switch
from taskshift.learners.resets import as_at_first
from taskshift.quantities import Quantity

ADDED = "injection"
"""The module that is added to the net."""


class PlasticityInjection(AtSwitch):
    """h_θ(z) → h_θ(z) + h_θ'₁(z) − h_θ'₂(z) at the switch to task number `at_task`, from 0 (Nikishin et al. 2023).

    h is the tail of the net and z what it is given by the layers before it, the encoder. θ is kept as it is from then on. θ'₁
    and θ'₂ are drawn anew, as the run's own net was, and alike; θ'₁ alone is trained, in the tail's own parameters, of which the
    optimizer forgets what it knew. The encoder goes on learning through all three.

    `tail` is the name of the module with which the tail begins; null takes the linear layers at the end of the net, with what
    lies between them. Of a head alone that is linear the sum is linear too: the same net, but for what optimizer and penalties
    make of new parameters. The net has buffers for θ and θ'₂ from the start, equal and not in use before the injection.
    """

    quantities = (Quantity("injected", "1 at the switch at which new parameters are put in, else 0", "0 or 1", "`at_task`"),)

    def __init__(self, at_task: int = 1, tail: str | None = None):
        if at_task < 1:
            raise ValueError(f"at_task is {at_task}; the number of a task that a switch begins, 1 or more, is expected")
        self.at_task, self.tail = at_task, tail
        self._chain: tuple[str, ...] = ()
        self._names: dict[str, str] = {}  # of a tensor of the tail → that of its place in `Injection.kept`, without the module

    def extend(self, net: nn.Module, inputs: Tensor) -> None:
        if isinstance(net, nn.Sequential):
            raise ValueError(
                "the net is a Sequential, which would run what is added to it as well; put it into a module of your own"
            )
        if not hasattr(net, ADDED):
            self._chain = self._chain or tail_of(net, inputs, self.tail)
            Injection([net.get_submodule(name) for name in self._chain]).join(net)
        elif not self._chain:
            raise ValueError(f"the net has a part called {ADDED!r} already; one plasticity injection is all that a net can take")

    def init(self, start: Start) -> Memory:
        for place, module in enumerate(self._chain):
            own = (name for name in start.net if name.startswith(f"{module}."))
            self._names |= {name: f"{place}{name.removeprefix(module)}" for name in own}
        device = next(iter(start.net.values())).device
        return {"switches": torch.zeros((), dtype=torch.int64, device=device)}

    def at_switch(self, subject: Subject, context: Switch) -> Subject:
        switches = subject.memory["switches"] + 1
        injects = int(switches) == self.at_task
        numbers = {"injected": torch.tensor(float(injects))}
        subject = subject._replace(memory={"switches": switches}, numbers=numbers)
        return self._injected(subject, context) if injects else subject

    def _injected(self, subject: Subject, context: Switch) -> Subject:
        fresh = context.fresh()
        net = {name: fresh[name] for name in self._names}
        net |= {f"{ADDED}.fixed.{place}": fresh[name].clone() for name, place in self._names.items()}
        net |= {f"{ADDED}.kept.{place}": subject.net[name].clone() for name, place in self._names.items()}
        net[f"{ADDED}.on"] = torch.ones_like(subject.net[f"{ADDED}.on"])
        slots = as_at_first(subject.slots, {**subject.net, **net}, tuple(self._names), context)
        return subject._replace(net=net, slots=slots)


class Injection(nn.Module):
    """What is added to a net's outputs once it is `on`: h_θ(z) − h_θ'₂(z), of two copies of the tail that hold buffers alone."""

    on: Tensor

    def __init__(self, tail: Sequence[nn.Module]):
        super().__init__()
        self.kept, self.fixed = _of_buffers(tail), _of_buffers(tail)
        self._tail = [tail[0]]  # in a list: it stays the net's own
        self._given: Tensor | None = None
        self.register_buffer("on", torch.zeros((), dtype=torch.bool, device=next(self.kept.buffers()).device))

    def join(self, net: nn.Module) -> None:
        """Become a module of the net, which from now on adds what this gives to its outputs."""
        self._tail.pop().register_forward_pre_hook(self._look)
        net.add_module(ADDED, self)
        net.register_forward_hook(self._added)

    def forward(self, inputs: Tensor) -> Tensor:
        """z → what is added; exactly 0, as is its gradient, before the injection."""
        return torch.where(self.on, self.kept(inputs) - self.fixed(inputs), 0.0)

    def _look(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        self._given = given[0]

    def _added(self, net: nn.Module, given: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
        inputs, self._given = self._given, None
        return outputs + self(inputs)


def tail_of(net: nn.Module, inputs: Tensor, first: str | None = None) -> tuple[str, ...]:
    """The names of modules that hand on to one another and end in the net's outputs: from `first` on, or from the first linear
    layer that begins such a chain. Raises ValueError where there is none.
    """
    calls, returned = _calls(net, inputs)
    modules = dict(net.named_modules())
    if first is not None and first not in modules:
        raise ValueError(f"tail={first!r} is no module of the net; it has {', '.join(name for name in modules if name)}")
    for begin, (name, given, _) in enumerate(calls):
        if given is not None and (name == first or first is None and isinstance(modules[name], nn.Linear)):
            chain = tuple(_chain(calls[begin:], returned))
            if chain and sum(name == called for called, _, _ in calls) == 1:
                return chain
    wanted = "chain of modules, each called once and given what the last one gave, that ends in the net's outputs"
    raise ValueError(f"no linear layer of the net begins a {wanted}" if first is None else f"tail={first!r} begins no {wanted}")


Call = tuple[str, object, object]
"""A module's name, what it was given first, None for nothing, and what it gave."""


def _chain(calls: Sequence[Call], returned: Tensor) -> Iterator[str]:
    """The modules from the first call on, the outermost of those that are given the same; none where they lead elsewhere."""
    names, (name, _, gave) = [], calls[0]
    for at, call in enumerate(calls):
        if at == 0 or call[1] is gave and not call[0].startswith(f"{name}."):
            name, _, gave = call
            names.append(name)
            if gave is returned:
                return iter(names)
    return iter(())


def _calls(net: nn.Module, inputs: Tensor) -> tuple[list[Call], Tensor]:
    """Every call of a module within a pass, as they begin, and the net's outputs."""
    calls: list[Call] = []

    def began(name: str) -> Callable[..., None]:
        return lambda _, given: calls.append((name, next(iter(given), None), None))

    def ended(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, given: tuple[object, ...], output: object) -> None:
            at = max(number for number, call in enumerate(calls) if call[0] == name)
            calls[at] = (*calls[at][:2], output)

        return hook

    handles = []
    for name, module in net.named_modules():
        if name:
            handles += [module.register_forward_pre_hook(began(name)), module.register_forward_hook(ended(name))]
    return calls, watched_pass(net, inputs, handles)


def _of_buffers(tail: Sequence[nn.Module]) -> nn.Sequential:
    """A copy in which no parameter is left: what the optimizer, penalties and surfaces move is not in it."""
    copied = nn.Sequential(*(copy.deepcopy(module) for module in tail))
    for module in copied.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach().clone())
    return copied
