"""One step under way: what its parts have made of the state so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from taskshift.learners.forward import detached
from taskshift.learners.gradient import Found
from taskshift.learners.part import Context, Memory, Part, Subject, Tensors
from taskshift.shifts.task import Batch


class Turn:
    """Hands each part what it may see, and takes what it gives back."""

    def __init__(self, parts: Mapping[str, Part], state: Mapping[str, Any], batch: Batch | None, draws: Mapping[str, Tensors]):
        self._parts, self._before, self._draws, self.batch = parts, state, draws, batch
        self.net, self.slots, self.numbers = state["net"], state["slots"], {}
        self._memories, self._taken = dict(state["parts"]), dict(state["taken"])
        self._features: Tensors = {}
        self._gradients: Tensors = {}
        self._dtype = next(iter(self.net.values())).dtype

    def settings(self, name: str) -> dict[str, Tensor]:
        """A part's settings, in the parameters' dtype; the optimizer's as they are, for it takes 1 − β of them."""
        own = self._before["settings"].get(name, {})
        return own if name == "optimizer" else {key: value.to(self._dtype) for key, value in own.items()}

    def context(self, name: str) -> Context:
        """What the part may look at."""
        return Context(
            self.settings(name),
            self.memory(name),
            self._before["settings"].get("optimizer", {}),
            self.batch,
            self._gradients,
            {module: self._features[module] for module in self._parts[name].reads} if self._features else self._features,
            self._draws.get(name, {}),
            self._taken.get(name, {}),
            self._before["net"],
            self._before["slots"],
        )

    def memory(self, name: str) -> Memory:
        return self._memories.get(name, {})

    def subject(self, name: str) -> Subject:
        """What the part may change."""
        return Subject(self.net, self.slots, self.memory(name))

    def remember(self, name: str, memory: Memory) -> None:
        """Keep a part's memory; of one that has none there is no entry."""
        if memory:
            self._memories[name] = memory

    def found(self, found: Found, gradients: Tensors) -> None:
        """Take what the gradient part found: with the buffers that its pass left, and the gradients as they are followed."""
        self.net = {**self.net, **found.seen.buffers}
        self._features, self._gradients = detached(found.seen.features), gradients
        self.remember("gradient", found.memory)
        self._tell("gradient", found.numbers)

    def take(self, name: str, subject: Subject) -> None:
        """Go on with what the part made of its subject; of the net it may give back what it changed alone."""
        self.net, self.slots = {**self.net, **subject.net}, subject.slots
        self.remember(name, subject.memory)
        self._tell(name, subject.numbers)
        if subject.taken:
            self._taken[name] = {key: count + subject.taken.get(key, 0) for key, count in self._taken[name].items()}

    def state(self) -> dict[str, Any]:
        """The state after it."""
        return {**self._before, "net": self.net, "slots": self.slots, "parts": self._memories, "taken": self._taken}

    def _tell(self, name: str, numbers: Tensors) -> None:
        for key, value in numbers.items():
            self.numbers[f"{name}/{key}"] = value
