"""Every object of a run, constructed and checked; no disk is touched. Stage 2 of the checks is this."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn

from taskshift.config.check import check_quick, enabled, evaluator_blocks
from taskshift.config.construct import Recipe, construct, read_block
from taskshift.config.first_pass import join_single_examples, pass_two_examples
from taskshift.config.schema import LlaHead, Top
from taskshift.config.targets import Kind, import_plugins
from taskshift.data.labelled_data import LabelledData
from taskshift.data.resize import enlarged
from taskshift.data.validation import with_validation
from taskshift.evaluators.evaluator import Evaluator
from taskshift.evaluators.watcher import Watcher
from taskshift.faults import Fault
from taskshift.learners.learner import Learner
from taskshift.learners.schedule import Length
from taskshift.quantities import Quantities, Quantity
from taskshift.randomness import random_state_kept
from taskshift.recorders.recorder import Recorder
from taskshift.run_quantities import COST, TRAINING
from taskshift.shifts.source import Source, StreamSettings
from taskshift.shifts.task import TaskShift
from taskshift.stream import TaskStream
from taskshift.training import Training

__all__ = ["Parts", "PartsInTurn", "build_parts", "construct"]

WANDB = "taskshift.recorders.wandb_mirror"
"""The module whose recorder `use_wandb=false` takes out."""


@dataclass(frozen=True)
class Parts:
    """The objects of a run."""

    top: Top
    lla: LlaHead
    device: torch.device
    stream: Source
    training: Training
    evaluators: Mapping[str, Evaluator]  # those switched on, by name
    watchers: Mapping[str, Watcher]  # of single steps
    recorders: Mapping[str, Recorder]
    make_training: Callable[[int], Training]  # another one, its net drawn from this seed; leaves no trace in the random state
    quantities: Quantities  # all that may be logged, by evaluators that are switched off as well


@dataclass(frozen=True)
class _Recipes:
    data: Recipe | None
    shift: Recipe
    net: Recipe
    learner: Recipe
    evaluators: Mapping[str, Recipe]
    watchers: Mapping[str, Recipe]
    recorders: Mapping[str, Recipe]


def build_parts(config: Mapping[str, Any], data_sets: dict[str, LabelledData] | None = None) -> Parts:
    """Construct all that the resolved `config` describes. Seeds torch with `seed`; raises Fault, one sentence a fault.

    Data that lie in `data_sets` are taken from there, others added.
    """
    top, lla = check_quick(config)
    device = device_of(top.device)
    if top.num_threads is not None:
        torch.set_num_threads(top.num_threads)
    import_plugins(top.plugins)
    recipes, attempt = _read(config, top), _Attempts()
    evaluators = {name: attempt(recipe.make, seed=top.seed) for name, recipe in recipes.evaluators.items()}
    watchers = {name: attempt(recipe.make, seed=top.seed) for name, recipe in recipes.watchers.items()}
    recorders = {name: attempt(recipe.make) for name, recipe in recipes.recorders.items()}
    training = make_training = None
    if (stream := attempt(_make_stream, recipes, top, device, attempt, {} if data_sets is None else data_sets)) is not None:
        training, make_training = attempt(_make_training, recipes, stream, device, epochs=top.epochs) or (None, None)
    attempt.settle()
    on = {name: evaluator for name, evaluator in evaluators.items() if enabled(config["lla"], name)}
    mirrors = {name: one for name, one in recorders.items() if top.use_wandb or type(one).__module__ != WANDB}
    scores = [quantity.after("test_") for quantity in stream.quantities]
    declared = Quantities([*TRAINING, *scores, *COST, *_told_by(evaluators), *_told_by(watchers), *training.learner.quantities])
    return Parts(top, lla, device, stream, training, on, watchers, mirrors, make_training, declared)


class PartsInTurn:
    """`build_parts` for one config after the other: those in a row with the same `data` have them made once.

    Other data are let go first: all that a sweep has may be more than the memory holds.
    """

    def __init__(self) -> None:
        self._block: Mapping[str, Any] | None = None
        self._data_sets: dict[str, LabelledData] = {}

    def __call__(self, config: Mapping[str, Any]) -> Parts:
        if config["data"] != self._block:
            self._data_sets.clear()
        self._block = config["data"]
        return build_parts(config, self._data_sets)


def _told_by(evaluators: Mapping[str, Evaluator] | Mapping[str, Watcher]) -> Iterator[Quantity]:
    """What evaluators or watchers declare, as the record calls it."""
    for name, evaluator in evaluators.items():
        yield from (quantity.below(name) for quantity in evaluator.quantities)


class _Attempts:
    """Calls what makes objects, so that all faults are known before the first is raised."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def __call__(self, make: Callable[..., Any], *positional: Any, **given: Any) -> Any:
        try:
            return make(*positional, **given)
        except Fault as fault:
            self.faults.extend(fault.sentences)
            return None

    def settle(self) -> None:
        if self.faults:
            raise Fault(*self.faults)


def _read(config: Mapping[str, Any], top: Top) -> _Recipes:
    """Every block checked against its signature, those of switched-off evaluators as well."""
    faults: list[str] = []

    def one(name: str, wanted: Kind) -> Recipe | None:
        return read_block(name, config[name], wanted, top.plugins, faults)

    def many(at: str, blocks: Mapping[str, Any], wanted: type) -> dict[str, Recipe | None]:
        return {name: read_block(f"{at}.{name}", block, wanted, top.plugins, faults) for name, block in blocks.items()}

    recipes = _Recipes(
        None if config["data"] is None else one("data", LabelledData),
        one("task_shift", TaskShift | Source),
        one("net", nn.Module),
        one("learner", Learner),
        many("lla", evaluator_blocks(config["lla"]), Evaluator),
        many("watch", config["watch"], Watcher),
        many("recorder", config["recorder"], Recorder),
    )
    if faults:
        raise Fault(*faults)
    return recipes


def _make_stream(
    recipes: _Recipes, top: Top, device: torch.device, attempt: _Attempts, data_sets: dict[str, LabelledData]
) -> Source | None:
    """The run's source of batches: its shift over its data, or what the shift's block makes by itself."""
    settings = StreamSettings(top.num_tasks, top.batch_size, top.seed, device)
    shift = attempt(recipes.shift.make, seed=top.seed, stream_settings=settings)
    data = None if recipes.data is None else attempt(_held_data, recipes, top, device, data_sets)
    if isinstance(shift, Source):
        _refuse_data(recipes, top)
        return shift
    if shift is not None and recipes.data is None:
        raise Fault(f"data=none: {top.task_shift_mode} shows the examples of a data set; choose one, such as data=digits")
    if shift is None or data is None:
        return None
    attempt(_refuse_more_tasks, top, shift, data)
    stream = TaskStream(data, shift, num_tasks=top.num_tasks, batch_size=top.batch_size, seed=top.seed)
    _refuse_empty_tasks(stream)
    return stream


def _held_data(recipes: _Recipes, top: Top, device: torch.device, data_sets: dict[str, LabelledData]) -> LabelledData:
    """The data, made once for all runs whose data are the same."""
    makes = recipes.data
    seed = top.seed if makes.takes("seed") else None
    key = repr((makes.target, makes.arguments, seed, top.validation, str(device), _smallest_side(recipes)))
    if key not in data_sets:
        data_sets[key] = _make_data(recipes, top, device)
    return data_sets[key]


def _smallest_side(recipes: _Recipes) -> int:
    """Of the images that the net takes."""
    return getattr(recipes.net.target, "smallest_side", 1)


def _make_data(recipes: _Recipes, top: Top, device: torch.device) -> LabelledData:
    """The data on the device, images enlarged to what the net takes, a part of the training examples set aside."""
    small: LabelledData = recipes.data.make(seed=top.seed)
    try:
        data = enlarged(small.to(device), _smallest_side(recipes))
    except ValueError as error:
        raise Fault(f"net: {error}") from error
    if top.validation.size is None:
        return data
    try:
        return with_validation(data, top.validation.size, seed=top.validation.seed)
    except ValueError as error:
        raise Fault(str(error)) from error


def _refuse_data(recipes: _Recipes, top: Top) -> None:
    """A source that makes its own examples shows no others."""
    if recipes.data is not None:
        raise Fault(f"data: {top.task_shift_mode} makes its own examples; give data=none")
    if top.validation.size is not None:
        raise Fault(f"validation.size={top.validation.size}: {top.task_shift_mode} has no data set to take it from; give null")


def _refuse_more_tasks(top: Top, shift: TaskShift, data: LabelledData) -> None:
    limit = shift.num_tasks(data)
    if limit is not None and top.num_tasks > limit:
        ends = f"{top.task_shift_mode} ends after {limit} tasks on {data.name}"
        raise Fault(f"num_tasks={top.num_tasks}: {ends}; give 1 to {limit}")


def _refuse_empty_tasks(stream: TaskStream) -> None:
    """Raise Fault for a task of classes without examples; of tasks that show all of the data none is looked at."""
    if stream[0].train is stream.data.train:
        return
    for task in islice(stream, stream.shift.num_tasks(stream.data)):  # after so many they come again
        for examples, split in ((task.train, "training"), (task.test, "test")):
            if not len(examples):
                has_none = f"task {task.index} has no {split} examples: it is of classes that have none"
                raise Fault(f"data: {has_none}; give more data, or fewer tasks")


def _make_training(
    recipes: _Recipes, stream: Source, device: torch.device, *, epochs: int
) -> tuple[Training, Callable[[int], Training]]:
    """The run's training, rehearsed, and what makes others like it."""
    num_outputs, task = stream.num_outputs, stream[0]
    length = Length(stream, epochs, stream.num_batches)
    example = stream.gather(task, task.train[:2])

    def given(seed: int) -> dict[str, Any]:
        return {"seed": seed, "input_shape": stream.input_shape, "num_outputs": num_outputs}

    def drawn(seed: int, **instead: Any) -> nn.Module:
        torch.manual_seed(seed)
        return recipes.net.instead(**instead).make(**given(seed)).to(device)

    def fresh(seed: int) -> nn.Module:
        with random_state_kept(device):
            return drawn(seed, checkpoint=None)  # a net that began from a file is drawn anew as its class draws

    def seeded(seed: int) -> Training:
        net = drawn(seed)
        with random_state_kept(device):
            pass_two_examples(net, example.inputs, num_outputs, recipes.net.target.__name__)
            join_single_examples(net, stream)
        learner = recipes.learner.make(**given(seed), net=net)
        return Training(learner, example, seed=seed, make_net=fresh, length=length)

    def apart(seed: int) -> Training:
        with random_state_kept(device):
            return seeded(seed)

    training = seeded(stream.seed)
    training.rehearse(task, example)
    return training, apart


def device_of(name: str) -> torch.device:
    """The device that the config names; raises Fault where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        number = torch.cuda.device_count()
        found = f"this machine shows torch {number} GPU{'s' if number > 1 else ''}" if number else "torch sees no GPU here"
        raise Fault(f"device={name}: {found}; give auto or cpu" + (f", or cuda:0 to cuda:{number - 1}" if number else ""))
    return device
