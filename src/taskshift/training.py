"""A run's learner with its state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache, partial
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from taskshift.execution.block import Lane
from taskshift.execution.programs import Asked, Programs, fitting_length
from taskshift.execution.shared import SharedPrograms
from taskshift.execution.unrecordable import UnrecordableError
from taskshift.learners.draws import Draws
from taskshift.learners.eager import AdaptedIntervention
from taskshift.learners.forward import Forward, show, tensors_of
from taskshift.learners.gradient import slopes
from taskshift.learners.learner import Learner, Loss, State, Step, Steps
from taskshift.learners.part import Switch, Tensors, setting
from taskshift.learners.rehearsal import rehearse
from taskshift.learners.schedule import Length, Schedule
from taskshift.randomness import generator, random_state_kept, seed_from
from taskshift.shifts.source import Source
from taskshift.shifts.task import Batch, Task


class Training:
    """What a run, its checkpoints and its measurements hold: a learner, the state it has come to, and its schedule.

    `example` is two examples of the first task; `make_net(seed)` draws the run's net anew; `length` is that of the run's tasks,
    for schedules that go by it. Everything it remembers is in `state_dict`: a training built anew that loads it goes on with the
    same bits.
    """

    def __init__(
        self,
        learner: Learner,
        example: Batch,
        *,
        seed: int = 0,
        make_net: Callable[[int], nn.Module] | None = None,
        length: Length | None = None,
    ):
        self.learner, self.seed = learner, seed
        self.state: State = learner.init(example)
        every, restart = learner.scheduler_every, learner.restart_scheduler
        self.schedule = Schedule(learner.optimizer, learner.scheduler, every=every, restart=restart, length=length)
        self._settings = dict(learner.rule.settings())  # the optimizer's, as numbers
        self._make_net, self._example = make_net, example
        self.num_steps = self.num_samples = self.num_epochs = 0
        net = self.state["net"]
        wanted = {name: part.draws() for name, part in learner.parts.items()}
        self.draws = Draws(wanted, seed=seed, fresh=self._fresh, net=net, device=next(iter(net.values())).device)
        self._is_shown = False
        self._programs: Programs | Lane | None = None
        self._shared: SharedPrograms | None = None  # where its programs are, and others' beside them
        self._read_settings()  # a scheduler may have begun elsewhere

    @property
    def net(self) -> nn.Module:
        """The net that is measured, a window onto the state: what is written into it in place is written into the state."""
        if not self._is_shown:
            show(self.learner.net, self.learner.measured(self.state))
            self._is_shown = True
        return self.learner.net

    def hide(self) -> None:
        """Let `net` be looked up anew, whatever was put in its parameters' place."""
        self._is_shown = False

    # -- learning -------------------------------------------------------------------------------------------------

    def begin(self, task: Task, batches: Sequence[Batch] = ()) -> Tensors:
        """Get ready for `task`, once, before its first batch; return what parts tell.

        Before all tasks but the first come the switch interventions, which see the task's `batches`; a schedule that restarts
        begins anew.
        """
        numbers = self._switch(task, batches) if task.index > 0 else {}
        if self.schedule.begin_task(task):
            self._read_settings()
        return numbers

    def _switch(self, task: Task, batches: Sequence[Batch]) -> Tensors:
        self._face(task)
        contexts = self._contexts("switch", task.index, task.loss, batches=batches)
        self.state, numbers = self.learner.switch(self.state, contexts)
        self._is_shown = False
        return numbers

    def learn(self, task: Task, batch: Batch) -> Step:
        """One step on one batch, inputs [B, …], targets [B]."""
        self._face(task)
        learner = self.learner
        draws = self.draws.at(self.num_steps, self.state["taken"])
        self.state, step = learner.step(self.state, batch, task.loss, draws, acting=learner.acting(self.num_steps))
        self.num_steps += 1
        self.num_samples += len(batch.targets)
        self._is_shown = False
        if self.schedule.after_step():
            self._read_settings()
        return step

    @property
    def is_eager(self) -> bool:
        """Whether its steps go by no program."""
        return self._programs is None

    @property
    def most_steps(self) -> int:
        """How many steps `learn_all` takes at a time: 1 where they run eager, or where batches are large."""
        return 1 if self._programs is None else self._programs.length

    def steps_ahead(self, source: Source) -> int:
        """The length of the chunks to learn from: an environment's own, for what comes next depends on what was learned."""
        return min(self.most_steps, source.chunk_length) if source.state_dict() else self.most_steps

    def in_a_row(self, source: Source, task: Task, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """An epoch's batches from number `start` on, inputs [K, B, …], as many at a time as one call learns from."""
        if self.most_steps > 1:
            yield from source.chunks(task, epoch, start=start, length=self.steps_ahead(source), actor=self)
            return
        for inputs, targets in source.epoch(task, epoch, start=start, actor=self):
            yield Batch(inputs[None], targets[None])

    def learn_all(self, task: Task, batches: Batch) -> Steps:
        """A step on each of up to `most_steps` batches, inputs [K, B, …]; its outputs are good until the next call.

        By a program where there is one for batches of their size, else eager, one by one.
        """
        if not self.has_program_for(batches):
            count = len(batches.targets)
            pieces = [Steps.of(self.learn(task, Batch(batches.inputs[at], batches.targets[at]))) for at in range(count)]
            return pieces[0] if count == 1 else Steps.joined(pieces)
        state, steps = self._programs.learn(self.asked(task, batches))
        self.take(state, batches)
        return steps

    def has_program_for(self, batches: Batch) -> bool:
        """Whether batches [K, B, …] of this size are learned from by a program."""
        return self._programs is not None and batches.targets.shape[1] == self._programs.batch_size

    def asked(self, task: Task, batches: Batch) -> Asked:
        """What a program is asked for where these batches [K, B, …] come next; the scheduler is stepped as often."""
        count = len(batches.targets)
        draws = self.draws.ahead(self.num_steps, count, self.state["taken"])
        acting = self.learner.acting_in(range(self.num_steps, self.num_steps + count))
        return Asked(self.state, batches, task.loss, draws, acting, self._moving(count))

    def take(self, state: State, batches: Batch) -> None:
        """Go on from the state to which these batches led."""
        count, size = batches.targets.shape[:2]
        self.state = {**state, "settings": self.state["settings"]}
        self.num_steps += count
        self.num_samples += count * size
        self._is_shown = False

    def end_epoch(self, task: Task, means: Mapping[str, float]) -> Tensors:
        """Close an epoch of `task` whose mean training `loss` and metrics were `means`; return what parts tell."""
        contexts = self._contexts("epoch", self.num_epochs, task.loss, means=means)
        self.state, numbers = self.learner.after_epoch(self.state, contexts)
        self.num_epochs += 1
        self._is_shown = False
        if self.schedule.after_epoch(means["loss"]):
            self._read_settings()
        return numbers

    def rehearse(self, task: Task, batch: Batch) -> None:
        """Try every part once, and leave no trace; raises Fault where one changes names or shapes."""
        kept = {name: deepcopy(part.state_dict()) for name, part in self.learner.eager_parts}
        device = batch.inputs.device
        with random_state_kept(device):
            self._face(task)
            contexts = self._contexts("switch", 0, task.loss, batches=[batch])
            draws = self.draws.at(0, self.state["taken"])
            rehearse(self.learner, self.state, batch, task.loss, draws=draws, contexts=contexts)
        for name, part in self.learner.eager_parts:
            part.load_state_dict(kept[name])
        self.learner.rule.loaded(self.state["slots"])  # torch's optimizer counts its steps in its groups
        self._is_shown = False

    def use_programs(
        self, task: Task, batch: Batch, *, compiles: bool, shared: SharedPrograms | None = None, block: int = 1
    ) -> bool:
        """From now on take steps on batches of this one's size by programs; say whether they are compiled, as `compiles` wishes.

        With `shared` they are those of all trainings whose steps are alike; with a `block` above 1 so many step together.
        Raises UnrecordableError, naming the part where it is one, for a learner whose step is no fixed graph of operations.
        """
        if (reason := self.learner.why_eager()) is not None:
            raise UnrecordableError(reason)
        shared = SharedPrograms() if shared is None else shared
        outputs = self.try_step(task, batch).outputs
        length = fitting_length(batch, outputs, self.draws.bytes_of_a_step(), members=block)
        self.draws.most_steps = length
        asked = self._next_step(task, batch)
        if block > 1:
            programs = shared.lane(self.learner, asked, size=block, length=length, compiles=compiles)
        else:
            programs = shared.turns(self.learner, asked, length=length, compiles=compiles)
        try:
            is_compiled = programs.prepare(asked)
        except BaseException:
            if isinstance(programs, Lane):
                programs.leave()
            raise
        self._programs, self._shared = programs, shared
        return is_compiled

    def use_programs_of(self, other: Training, task: Task, batch: Batch) -> None:
        """Step as `other` does, a training by the same recipe: eager, or by its recordings, one training at a time."""
        if other._programs is not None and other._shared is not None:
            self.use_programs(task, batch, compiles=other._programs.compiles, shared=other._shared)

    def close(self) -> None:
        """Give its place in a block, where it has one, to another."""
        if self.lane is not None:
            self.lane.leave()
            self._programs = None

    @property
    def block(self) -> int:
        """How many trainings its programs are made for."""
        return 1 if self._programs is None else self._programs.size

    @property
    def lane(self) -> Lane | None:
        """Its place in a block, where it steps together with others."""
        return self._programs if isinstance(self._programs, Lane) else None

    def _next_step(self, task: Task, batch: Batch) -> Asked:
        """What the next step on this batch goes by; no scheduler is stepped."""
        draws, acting = self.draws.ahead(self.num_steps, 1, self.state["taken"]), self.learner.acting(self.num_steps)
        optimizer = self.state["settings"].get("optimizer", {})
        moving = {name: [value] for name, value in optimizer.items()} if self.schedule.moves_every_step else {}
        batches = Batch(batch.inputs[None], batch.targets[None])
        return Asked(self.state, batches, task.loss, draws, [acting], moving)

    def try_step(self, task: Task, batch: Batch) -> Step:
        """What the next step would leave behind, on this batch; it leaves the training as it is, but for torch's random state."""
        draws = self.draws.at(self.num_steps, self.state["taken"])
        return self.learner.step(self.state, batch, task.loss, draws, acting=self.learner.acting(self.num_steps))[1]

    # -- its state ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Tensors in plain containers; they are the training's own, so save or clone them before the next step."""
        return {
            "state": self.state,
            "schedule": self.schedule.state_dict(),
            "steps": self.num_steps,
            "samples": self.num_samples,
            "epochs": self.num_epochs,
            "eager": {name: part.state_dict() for name, part in self.learner.eager_parts},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` of a training built in the same way gave."""
        given, own = (set(at["settings"]) | set(at["parts"]) | set(at["taken"]) for at in (state["state"], self.state))
        given, own = given | set(state["eager"]), own | set(dict(self.learner.eager_parts))
        if given != own:
            raise ValueError(f"the checkpoint is of a learner with the parts {sorted(given)} but this one has {sorted(own)}")
        self.state = {**state["state"], "slots": self.learner.rule.loaded(state["state"]["slots"])}
        self.schedule.load_state_dict(state["schedule"])
        self._settings = self.learner.rule.settings_of(self.schedule.optimizer.param_groups[0])
        self.num_steps, self.num_samples, self.num_epochs = state["steps"], state["samples"], state["epochs"]
        for name, part in self.learner.eager_parts:
            part.load_state_dict(state["eager"][name])
        self.draws.forget()
        self._is_shown = False

    def load_net(self, state: Mapping[str, Any]) -> None:
        """Put another net in this one's place, from a module's state dict; optimizer and parts stay as they are."""
        module = self.learner.net
        show(module, {name: tensor.clone() for name, tensor in self.state["net"].items()})
        module.load_state_dict(state)
        self.state = {**self.state, "net": tensors_of(module)}
        self._is_shown = False

    @property
    def torch_optimizer(self) -> Optimizer | None:
        """torch's optimizer as it would stand here, over the parameters of `net`; None where it would have no such state."""
        found = self.learner.rule.torch_state(self.state["slots"])
        if found is None:
            return None
        optimizer, leaves = self.learner.optimizer, dict(self.learner.net.named_parameters())
        optimizer.state.clear()
        for name, own in found.items():
            optimizer.state[leaves[name]] = dict(own)
        return optimizer

    # -- within ---------------------------------------------------------------------------------------------------

    def _contexts(
        self, occasion: str, number: int, loss: Loss, *, batches: Sequence[Batch] = (), means: Mapping[str, float] | None = None
    ) -> dict[str, Switch]:
        """What each intervention may look at between tasks or epochs."""
        settings, learner = self.state["settings"], self.learner
        return {
            name: Switch(
                settings.get(name, {}),
                settings.get("optimizer", {}),
                batches,
                means or {},
                lambda net, trained=learner.trained: learner.rule.first_slots({key: net[key] for key in trained}),
                cache(partial(self._fresh, seed_from(self.seed, occasion, name, number, "fresh"))),
                partial(generator, self.seed, occasion, name, number),
                partial(_features, learner.forward, reads=tuple(part.reads)),
                partial(_gradients, learner, loss),
            )
            for name, part in learner.interventions.items()
        }

    def _fresh(self, seed: int) -> Tensors:
        if self._make_net is None:
            raise ValueError("this training was made without make_net, so no weights can be drawn anew")
        return tensors_of(self.learner.extended(self._make_net(seed), self._example.inputs))

    def _face(self, task: Task) -> None:
        for part in self.learner.interventions.values():
            if isinstance(part, AdaptedIntervention):
                part.task = task

    def _moving(self, count: int) -> dict[str, list[Tensor]]:
        """The optimizer's settings at each of the next steps, where a scheduler moves them: it is stepped as often."""
        seen = []
        for _ in range(count):
            seen.append(self.state["settings"].get("optimizer", {}))
            if not self.schedule.after_step():
                return {}
            self._read_settings()
        return {name: [at[name] for at in seen] for name in seen[0]}

    def _read_settings(self) -> None:
        """Take the optimizer's settings from where the scheduler moved them; what did not move stays the same tensor."""
        before = self.state["settings"].get("optimizer", {})
        now = self.learner.rule.settings_of(self.schedule.optimizer.param_groups[0])
        moved = {key: setting(value, before[key].device) for key, value in now.items() if value != self._settings[key]}
        self._settings = now
        self.state = {**self.state, "settings": {**self.state["settings"], "optimizer": {**before, **moved}}}


def _features(forward: Forward, net: Tensors, inputs: Tensor, *, reads: Sequence[str]) -> Tensors:
    return forward.evaluated(net, inputs, reads)[1]


def _gradients(learner: Learner, loss: Loss, net: Tensors, batch: Batch) -> Tensors:
    def value(parameters: Tensors):
        return loss(learner.forward.evaluated({**net, **parameters}, batch.inputs)[0], batch.targets), None

    return slopes(value, {name: net[name] for name in learner.trained})[0]
