"""Several runs carried out together: each lives as it does alone, and their steps are taken by the programs they share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

import torch

from taskshift import checkpoint
from taskshift.execution.programs import Asked
from taskshift.learners.learner import Steps
from taskshift.stack import StackShared
from taskshift.trainer import Wish, Wishes

Result = TypeVar("Result")

Guard = Callable[["LiveRun", Callable[[], None]], bool]
"""(member, what it does next): do it, and say whether that went well."""


class LiveRun:
    """A run among others: what of the process is a lone run's own, is the member's while it is at work.

    That is the state of torch's generators, the number of threads, and whose log it is.
    """

    def __init__(self, live: Callable[[], Wishes], device: torch.device):
        self._live, self._context, self._device = live, copy_context(), device
        self._random, self._threads = checkpoint.random_state(self._device), torch.get_num_threads()
        self._wishes: Wishes | None = None
        self.wish: Wish | None = None
        self.asked: Asked | None = None

    @property
    def num_steps(self) -> int:
        return self.wish.training.num_steps

    def begin(self) -> None:
        """Live up to the first wish."""
        self._at_work(self._begin)

    def ask(self) -> None:
        """Say what the steps that it wishes for go by."""
        self._at_work(self._ask)

    def go_on(self, steps: Steps) -> None:
        """Live from a wish that was granted to the next one."""
        self._at_work(self._next, steps)

    def grant_alone(self) -> None:
        """Learn from the batches alone, and go on."""
        self._at_work(self._grant_alone)

    def close(self) -> None:
        """End it where it stands, as an interruption does."""
        if self._wishes is not None:
            self._at_work(self._wishes.close)

    def fail(self, error: Exception) -> None:
        """Let it fail of what its steps ended with."""
        self._at_work(self._wishes.throw, error)

    def _begin(self) -> None:
        self._wishes = self._live()
        self._next(None)

    def _next(self, steps: Steps | None) -> None:
        try:
            self.wish = self._wishes.send(steps)
        except StopIteration:
            self.wish = None

    def _ask(self) -> None:
        training, task, batches = self.wish
        self.asked = self._lived(partial(training.asked, task, batches))

    def _grant_alone(self) -> None:
        self._next(self._lived(self.wish.granted))

    def _lived(self, work: Callable[[], Result]) -> Result:
        """Do what a lone run does itself, so that it is the run that fails of it."""
        try:
            return work()
        except Exception as error:
            self._wishes.throw(error)
            raise

    def _at_work(self, work: Callable[..., None], *given: Any) -> None:
        checkpoint.set_random_state(self._random, self._device)
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        try:
            self._context.run(work, *given)
        finally:
            self._random, self._threads = checkpoint.random_state(self._device), torch.get_num_threads()


def carry(members: Sequence[LiveRun], stack: StackShared, guard: Guard) -> None:
    """Carry members to their ends; one that fails leaves the others to go on. `guard` takes every failure in."""
    with _heard():
        try:
            for member in members:
                _tried(guard, member, member.begin)
                if member.wish is not None and member.wish.training.is_eager:  # at once: its clock goes from its beginning
                    _to_its_end(member, stack, guard)
            while waiting := [member for member in members if member.wish is not None]:
                stack.look()
                _one_round(waiting, stack, guard)
        finally:
            for member in members:
                member.close()


def _to_its_end(member: LiveRun, stack: StackShared, guard: Guard) -> None:
    while member.wish is not None:
        stack.look()
        _tried(guard, member, member.grant_alone)


def _one_round(waiting: Sequence[LiveRun], stack: StackShared, guard: Guard) -> None:
    """Those that are behind learn from their next batches."""
    least = min(member.num_steps for member in waiting)
    for group in _groups([member for member in waiting if member.num_steps == least]):
        if len(group) == 1 or group[0].wish.training.lane is None:
            for member in group:
                _tried(guard, member, member.grant_alone)
        else:
            _grant(group, guard)


def _groups(members: Sequence[LiveRun]) -> list[list[LiveRun]]:
    """Members whose wishes one program can grant together, and others one by one."""
    found: dict[Hashable, list[LiveRun]] = {}
    for member in members:
        training, task, batches = member.wish
        if training.lane is not None and training.has_program_for(batches):
            key: Hashable = training.lane.block, len(batches.targets), training.lane.structure(task.loss)
        else:
            key = member
        found.setdefault(key, []).append(member)
    return list(found.values())


def _grant(group: Sequence[LiveRun], guard: Guard) -> None:
    asking = {member.wish.training.lane.number: member for member in group if _tried(guard, member, member.ask)}
    if not asking:
        return
    block = next(iter(asking.values())).wish.training.lane.block
    try:
        found = block.learn({number: member.asked for number, member in asking.items()})
    except RuntimeError as error:  # of the device, such as its memory: no member's own
        for member in asking.values():
            _tried(guard, member, partial(member.fail, error))
        return
    for number, member in asking.items():
        state, steps = found[number]
        member.wish.training.take(state, member.wish.batches)
        _tried(guard, member, partial(member.go_on, steps))


def _tried(guard: Guard, member: LiveRun, work: Callable[[], None]) -> bool:
    if went_well := guard(member, work):
        return went_well
    member.wish = None
    return False


@contextmanager
def _heard() -> Iterator[None]:
    """Let a member that ends first not turn down what the others say."""
    logger = logging.getLogger("taskshift")
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
