"""Batches by (seed, task, epoch, batch), whatever happened before."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from taskshift.data.synthetic_images import synthetic_images
from taskshift.shifts.incremental_classes import IncrementalClasses
from taskshift.shifts.permuted import Permuted
from taskshift.stream import TaskStream
from tests.framework.shift_assertions import DEVICES

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
