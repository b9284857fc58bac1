"""Batches by (seed, task, epoch, batch), whatever happened before."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from taskshift.config.construct import construct
from taskshift.data.synthetic_images import synthetic_images
from taskshift.randomness import generator
from taskshift.shifts.incremental_classes import IncrementalClasses
from taskshift.shifts.permuted import Permuted
from taskshift.shifts.task import TaskShift
from taskshift.stream import TaskStream
from tests.framework.shift_assertions import DEVICES

MODES = sorted(path.stem for path in Path("conf/task_shift_mode").glob("*.yaml") if path.stem != "own")
SETTINGS = {"num_tasks": 3, "batch_size": 16, "seed": 0}


def noisy(inputs, noise):
    return inputs + torch.rand(inputs.shape, generator=noise, device=inputs.device)


@pytest.fixture(params=DEVICES)
def data(request):
    made = synthetic_images(num_classes=4, side=4, train_size=50, test_size=20).to(request.param)
    return replace(made, augment=noisy)


@pytest.fixture
def stream(data):
    return TaskStream(data, Permuted(seed=0), **SETTINGS)


def epoch(stream, index=1, number=2, **kwargs):
    return list(stream.epoch(stream[index], number, **kwargs))


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )


def test_an_epoch_shows_every_training_example_once(data, stream):
    task = stream[1]
    plain = TaskStream(replace(data, augment=None), stream.shift, **SETTINGS)
    rows = torch.cat([batch.inputs for batch in plain.epoch(task, 0)]).flatten(1)
    wanted = torch.cat([batch.inputs for batch in plain.batches(task, task.train)]).flatten(1)
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, wanted.tolist()))
    assert not torch.equal(rows, wanted), "not shuffled"


def test_the_last_batch_may_be_smaller_and_is_shown(stream):
    assert [len(batch.targets) for batch in epoch(stream)] == [16, 16, 16, 2]
    assert stream.num_batches(stream[0]) == 4


def test_epochs_resume_at_any_batch_with_the_same_bits(stream):
    whole = epoch(stream)
    for start in range(5):
        torch.rand(3)
        assert same(epoch(stream, start=start), whole[start:])


@pytest.mark.parametrize("mode", MODES)
def test_batches_that_come_out_of_chunks_are_those_gathered_alone(mode, data, monkeypatch):
    """Bit for bit, entered anywhere, the last one small, in every mode of conf/."""
    block = yaml.safe_load((Path("conf/task_shift_mode") / f"{mode}.yaml").read_text())["task_shift"]
    shift = construct(block, TaskShift, seed=3)
    stream = TaskStream(replace(data, augment=None), shift, num_tasks=2, batch_size=7, seed=0)
    monkeypatch.setattr("taskshift.stream.CHUNK_EXAMPLES", 25)
    assert stream.chunk_length == 3
    task = stream[1]
    order = torch.randperm(len(task.train), generator=generator(0, "order", 1, 2)).to(task.train.device)
    alone = [stream.gather(task, indices) for indices in task.train[order].split(7)]
    for start in range(len(alone) + 1):
        assert same(list(stream.epoch(task, 2, start=start)), alone[start:])


def tensors_alive() -> int:
    gc.collect()
    return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())


def test_a_long_epoch_of_single_examples_is_not_cut_ahead_of_time(monkeypatch):
    """A million tensors for a million examples took 621 MB and three seconds, at each resume anew."""
    long = synthetic_images(num_classes=4, side=4, train_size=20_000, test_size=4)
    stream = TaskStream(long, Permuted(seed=0), num_tasks=1, batch_size=1, seed=0)
    asked, gather = [], TaskStream.gather
    monkeypatch.setattr(
        TaskStream, "gather", lambda self, task, indices, *a: asked.append(indices) or gather(self, task, indices, *a)
    )
    before = tensors_alive()
    batches = stream.epoch(stream[0], 0, start=12_345)
    assert len(next(batches).targets) == 1
    order = torch.randperm(20_000, generator=generator(0, "order", 0, 0))
    assert [indices.tolist() for indices in asked] == [order[12_288:13_312].tolist()], "chunks begin at fixed numbers"
    assert tensors_alive() - before < 5_000


def test_chunks_of_large_images_stay_small():
    large = synthetic_images(num_classes=2, channels=3, side=64, train_size=8, test_size=2)
    assert TaskStream(large, Permuted(seed=0), num_tasks=1, batch_size=32, seed=0).chunk_length == 5  # 8 MB / 48 kB / 32
    assert TaskStream(large, Permuted(seed=0), num_tasks=1, batch_size=4096, seed=0).chunk_length == 1


def test_epochs_tasks_and_seeds_shuffle_differently(data, stream):
    other = TaskStream(data, stream.shift, num_tasks=3, batch_size=16, seed=1)
    assert not torch.equal(epoch(stream)[0].targets, epoch(stream, number=3)[0].targets)
    assert not torch.equal(epoch(stream)[0].targets, epoch(stream, index=2)[0].targets)
    assert not torch.equal(epoch(stream)[0].targets, epoch(other)[0].targets)


def test_the_stream_does_not_touch_the_default_generator(stream):
    state = torch.get_rng_state()
    epoch(stream)
    assert torch.equal(state, torch.get_rng_state())


def test_augmentation_differs_between_epochs_and_never_touches_evaluation(data, stream):
    task = stream[0]
    evaluated = torch.cat([batch.inputs for batch in stream.batches(task, task.test, 7)])
    assert torch.equal(evaluated, task.view(data.inputs[task.test], data.targets[task.test], task.test).inputs)
    dark = replace(data, inputs=torch.zeros_like(data.inputs))
    noise = [batch.inputs for number in (0, 1) for batch in epoch(TaskStream(dark, stream.shift, **SETTINGS), 0, number)]
    assert len(torch.cat(noise).flatten(1).unique(dim=0)) == 100, "some examples got the same noise"


def test_tasks_of_few_examples_make_few_batches(data):
    stream = TaskStream(data, IncrementalClasses(seed=0, keep_seen=False), num_tasks=2, batch_size=16, seed=0)
    sizes = [len(batch.targets) for batch in epoch(stream, 1, 0)]
    assert sum(sizes) == len(stream[1].train)
    assert len(sizes) == stream.num_batches(stream[1])


def test_indexing_is_a_sequences(stream):
    assert len(stream) == 3
    assert [task.index for task in stream] == [0, 1, 2]
    assert [task.index for task in stream[1:]] == [1, 2]
    with pytest.raises(IndexError, match="task 3 was asked for; the stream has tasks 0 to 2"):
        stream[3]


@pytest.mark.parametrize(("train_size", "sizes"), [(49, [16, 16, 17]), (48, [16, 16, 16]), (50, [16, 16, 16, 2])])
def test_a_last_batch_of_one_joins_the_one_before_where_asked(train_size, sizes):
    data = synthetic_images(num_classes=4, side=4, train_size=train_size, test_size=20)
    stream, joined = (TaskStream(data, Permuted(seed=0), **SETTINGS) for _ in range(2))
    joined.joins_single = True
    assert [len(batch.targets) for batch in epoch(joined)] == sizes
    assert joined.num_batches(joined[1]) == len(sizes)
    assert same(epoch(joined, start=1), epoch(joined)[1:])
    for which in range(2):  # the same examples in the same order
        assert torch.equal(*(torch.cat([batch[which] for batch in epoch(one)]) for one in (stream, joined)))
