"""Every mode in conf/task_shift_mode, and what each shows."""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from taskshift.config.construct import construct
from taskshift.data.synthetic_images import synthetic_images
from taskshift.shifts.class_pairs import ClassPairs
from taskshift.shifts.incremental_classes import IncrementalClasses
from taskshift.shifts.permuted import Permuted
from taskshift.shifts.permuted_output import PermutedOutput
from taskshift.shifts.random_labels import RandomLabels
from taskshift.shifts.stationary import Stationary
from taskshift.shifts.task import TaskShift
from tests.framework.shift_assertions import DEVICES, MODES, assert_pure_in_index, assert_whole, fingerprint, same, shown

ENDING = {"incremental_classes", "class_pairs"}


@pytest.fixture(params=DEVICES)
def data(request):
    return synthetic_images(num_classes=8, channels=3, side=6, train_size=96, test_size=48).to(request.param)


def block_of(mode: str) -> dict:
    return yaml.safe_load(MODES[mode].read_text())["task_shift"]


def make(mode: str, seed: int) -> TaskShift:
    return construct(block_of(mode), TaskShift, seed=seed)


@pytest.mark.parametrize("mode", MODES)
def test_mode_is_pure_in_index(mode, data):
    assert_pure_in_index(partial(make, mode), data)


@pytest.mark.parametrize("mode", MODES)
def test_mode_shows_whole_tasks(mode, data):
    shift = make(mode, 0)
    for index in range(3):
        assert_whole(shift.task(data, index), data, shift.num_outputs(data))


@pytest.mark.parametrize("mode", sorted(MODES.keys() - {"stationary"}))
def test_every_task_differs_from_the_others_and_between_seeds(mode, data):
    """The predecessor's permutations were the same for every task where no seed was set."""
    prints = [fingerprint(make(mode, seed).task(data, index), data) for seed in (0, 1) for index in range(3)]
    distinct = [print_ for number, print_ in enumerate(prints) if not any(same(print_, other) for other in prints[:number])]
    assert len(distinct) == len(prints)


@pytest.mark.parametrize("mode", sorted(MODES.keys() - {"stationary"} - ENDING))
def test_shift_first_task_false_shows_task_0_as_the_data_are(mode, data):
    shift = construct(block_of(mode) | {"shift_first_task": False}, TaskShift, seed=3)
    inputs, targets = shown(shift.task(data, 0), data, data.train)
    assert torch.equal(inputs, data.inputs[data.train])
    assert torch.equal(targets, data.targets[data.train])
    plain = fingerprint(shift.task(data, 0), data)
    assert not same(plain, fingerprint(shift.task(data, 1), data))
    assert not same(plain, fingerprint(make(mode, 3).task(data, 0), data))


@pytest.mark.parametrize("mode", MODES)
def test_yaml_is_global_and_lists_every_argument_with_its_default(mode):
    text = MODES[mode].read_text()
    assert text.splitlines()[0] == "# @package _global_", "Hydra ignores it after line 1"
    assert yaml.safe_load(text)["task_shift_mode"] == mode
    shift, block = make(mode, 0), block_of(mode)
    defaults = {name: one.default for name, one in inspect.signature(type(shift)).parameters.items() if name != "seed"}
    assert block.keys() - {"_target_"} == defaults.keys()
    if mode != "permuted_input":
        written = construct(block, TaskShift, seed=0)
        assert settings(written) == settings(type(shift)(seed=0))


def settings(shift: TaskShift) -> dict:
    return {name: value for name, value in vars(shift).items() if not name.startswith("_")}


def test_own_waits_for_a_target():
    block = yaml.safe_load(Path("conf/task_shift_mode/own.yaml").read_text())
    assert block == {"task_shift_mode": "own", "task_shift": {"_target_": "???"}}


def test_stationary_changes_nothing(data):
    assert torch.equal(shown(Stationary(seed=0).task(data, 5), data, data.test).inputs, data.inputs[data.test])


def test_permuted_moves_the_pixels_of_all_channels_alike(data):
    channels = shown(Permuted(seed=0).task(data, 2), data).inputs.flatten(2)
    originals = data.inputs[torch.cat([data.train, data.test])].flatten(2)
    assert torch.equal(channels.sort(dim=2).values, originals.sort(dim=2).values), "entries left their channel"
    # each pixel's colour is the colour of one pixel of the original, in every image the same one
    source = (channels[0].T[:, None] == originals[0].T[None]).all(-1).int().argmax(1)
    assert sorted(source.tolist()) == list(range(36))
    assert torch.equal(channels, originals[:, :, source])


def test_permuted_across_channels_mixes_them(data):
    mixed = shown(Permuted(seed=0, across_channels=True).task(data, 2), data).inputs
    originals = data.inputs[torch.cat([data.train, data.test])]
    assert torch.equal(mixed.flatten(1).sort().values, originals.flatten(1).sort().values)
    assert not torch.equal(mixed.flatten(2).sort().values, originals.flatten(2).sort().values)


def test_permuted_takes_vectors(data):
    vectors = type(data)(**{**vars(data), "inputs": data.inputs.flatten(1)})
    moved = shown(Permuted(seed=0).task(vectors, 0), vectors, data.train).inputs
    assert torch.equal(moved.sort().values, vectors.inputs[data.train].sort().values)
    assert not torch.equal(moved, vectors.inputs[data.train])


def test_permuted_orders_are_uniform():
    """The source of one pixel over 3000 tasks, χ² with 8 degrees of freedom: above 26.1 one time in a thousand."""
    data = synthetic_images(num_classes=2, channels=1, side=3, train_size=4, test_size=4)
    for seed in range(3):
        shift = Permuted(seed)
        sources = torch.stack([shift.task(data, index).view.order[0] for index in range(3000)])
        counts = torch.bincount(sources, minlength=9).double()
        assert ((counts - 3000 / 9) ** 2 / (3000 / 9)).sum() < 26.1


def test_permuted_output_renames_every_class(data):
    labels = shown(PermutedOutput(seed=0).task(data, 1), data, data.train).targets
    renamed = {(int(old), int(new)) for old, new in zip(data.targets[data.train], labels, strict=True)}
    assert sorted(new for _, new in renamed) == list(range(8)), "not one new name a class"


def test_random_labels_are_uniform_and_the_same_in_every_epoch(data):
    task = RandomLabels(seed=0).task(data, 1)
    labels = shown(task, data).targets
    backwards = torch.cat([task.train, task.test]).flip(0)
    assert torch.equal(shown(task, data, backwards).targets.flip(0), labels), (
        "labels belong to examples, not to places in a batch"
    )
    agreement = (labels == data.targets[backwards.flip(0)]).double().mean()
    assert abs(agreement - 1 / 8) < 4 * (1 / 8 * 7 / 8 / len(labels)) ** 0.5


def test_random_labels_redraw_the_given_fraction(data):
    many = synthetic_images(num_classes=10, channels=1, side=4, train_size=900, test_size=100)
    labels = shown(RandomLabels(seed=0, fraction=0.3).task(many, 1), many, torch.arange(1000)).targets
    changed = int((labels != many.targets).sum())
    assert abs(changed - 270) < 4 * (300 * 0.9 * 0.1) ** 0.5, "a tenth of 300 draws repeats the old label"
    none = shown(RandomLabels(seed=0, fraction=0.0).task(many, 1), many, torch.arange(1000)).targets
    assert torch.equal(none, many.targets)


def test_random_labels_are_drawn_from_all_classes_alike():
    """4000 labels of 8 classes, χ² with 7 degrees of freedom: above 24.3 one time in a thousand."""
    many = synthetic_images(num_classes=8, channels=1, side=4, train_size=3900, test_size=100)
    for seed in range(3):
        counts = torch.bincount(RandomLabels(seed).task(many, 0).view.labels, minlength=8).double()
        assert ((counts - 500) ** 2 / 500).sum() < 24.3


@pytest.mark.parametrize("keep_seen", [True, False])
def test_incremental_classes_brings_every_class_once(data, keep_seen):
    shift = IncrementalClasses(seed=0, classes_per_task=3, keep_seen=keep_seen)
    assert shift.num_tasks(data) == 2, "8 classes, 3 a task: the remainder is never shown"
    assert shift.num_outputs(data) == 8
    first, second = (set(data.targets[shift.task(data, index).train].tolist()) for index in (0, 1))
    assert len(first) == 3
    assert (first < second and len(second) == 6) if keep_seen else (first.isdisjoint(second) and len(second) == 3)
    task = shift.task(data, 1)
    for split, chosen in ((data.train, task.train), (data.test, task.test)):
        belongs = [int(i) for i in split if int(data.targets[i]) in second]
        assert chosen.tolist() == belongs


def test_incremental_classes_ignores_outputs_of_classes_that_are_not_shown(data):
    task = IncrementalClasses(seed=0, keep_seen=False).task(data, 1)
    targets = shown(task, data, task.train).targets
    outputs = torch.zeros(len(targets), 8, device=data.device)
    outputs[torch.arange(len(targets)), targets] = 1.0
    absent = sorted(set(range(8)) - set(targets.tolist()))
    outputs[:, absent] = 9.0
    assert task.metrics["accuracy"](outputs, targets).mean() == 1.0
    outputs.requires_grad_()
    loss = task.loss(outputs, targets)
    torch.testing.assert_close(loss.item(), torch.tensor([0.0, 1.0]).logsumexp(0).item() - 1)
    (gradient,) = torch.autograd.grad(loss, outputs)
    assert (gradient[:, absent] == 0).all()
    assert (gradient[:, targets.unique()] != 0).all()


def test_class_pairs_relabels_two_classes_for_two_outputs(data):
    shift = ClassPairs(seed=0)
    assert shift.num_outputs(data) == 2
    assert shift.num_tasks(data) == 4
    seen = []
    for index in range(4):
        task = shift.task(data, index)
        pairs = set(zip(data.targets[task.test].tolist(), shown(task, data, task.test).targets.tolist(), strict=True))
        assert sorted(label for _, label in pairs) == [0, 1]
        seen += [original for original, _ in pairs]
    assert sorted(seen) == list(range(8)), "every class comes once"


def test_class_pairs_may_come_again_in_the_same_order(data):
    once, again = ClassPairs(seed=0), ClassPairs(seed=0, cycle=True)
    assert (once.num_tasks(data), again.num_tasks(data)) == (4, None)
    for index in range(4):
        alike = fingerprint(once.task(data, index), data)
        assert same(alike, fingerprint(again.task(data, index), data))
        assert all(same(alike, fingerprint(again.task(data, index + later), data)) for later in (4, 4000))
    assert again.task(data, 4001).index == 4001


@pytest.mark.parametrize("shift", [ClassPairs(seed=0), IncrementalClasses(seed=0)])
def test_modes_that_end_refuse_more_tasks(shift, data):
    with pytest.raises(IndexError, match="task 4 was asked for but the classes last for tasks 0 to 3"):
        shift.task(data, 4)


def test_streams_without_an_end_say_so(data):
    assert {mode for mode in MODES if make(mode, 0).num_tasks(data) is not None} == ENDING


@pytest.mark.parametrize(
    ("make_shift", "message"),
    [
        (lambda: IncrementalClasses(seed=0, classes_per_task=1), "classes_per_task is 1; 2 or more"),
        (lambda: RandomLabels(seed=0, fraction=1.5), "fraction is 1.5; the share .* between 0 and 1"),
        (lambda: RandomLabels(seed=0, fraction=float("nan")), "fraction is nan"),
    ],
)
def test_bad_values_are_named(make_shift, message):
    with pytest.raises(ValueError, match=message):
        make_shift()


def test_too_many_classes_a_task_are_refused(data):
    with pytest.raises(ValueError, match="shows 9 classes a task but synthetic_images has 8 in all"):
        IncrementalClasses(seed=0, classes_per_task=9).num_tasks(data)
