"""Batches by (seed, task, epoch, batch), whatever happened before."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
import torch
import yaml
from runs import compose, run_in

from taskshift.config.build import build_parts
from taskshift.config.construct import construct
from taskshift.data.synthetic_images import synthetic_images
from taskshift.randomness import generator, seed_from
from taskshift.run_folder import read_rows
from taskshift.shifts.incremental_classes import IncrementalClasses
from taskshift.shifts.permuted import Permuted
from taskshift.shifts.stationary import Stationary
from taskshift.shifts.task import TaskShift
from taskshift.stream import TaskStream
from tests.framework.shift_assertions import DEVICES, MODES

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
    block = yaml.safe_load(MODES[mode].read_text())["task_shift"]
    shift = construct(block, TaskShift, seed=3)
    stream = TaskStream(replace(data, augment=None), shift, num_tasks=2, batch_size=7, seed=0)
    monkeypatch.setattr("taskshift.shifts.indexed_source.CHUNK_EXAMPLES", 25)
    assert stream.chunk_length == 3
    task = stream[1]
    order = torch.randperm(len(task.train), generator=generator(0, "order", 1, 2)).to(task.train.device)
    alone = [stream.gather(task, indices) for indices in task.train[order].split(7)]
    for start in range(len(alone) + 1):
        assert same(list(stream.epoch(task, 2, start=start)), alone[start:])


@pytest.mark.parametrize("augmented", [True, False])
@pytest.mark.parametrize(("length", "sizes"), [(1, [1, 1, 1, 1]), (2, [2, 1, 1]), (3, [3, 1]), (9, [3, 1]), (None, [3, 1])])
def test_chunks_hold_whole_batches_and_an_odd_last_one_alone(stream, data, augmented, length, sizes):
    """Each batch against one that is put together alone: 50 examples in batches of 16."""
    stream.data = data if augmented else replace(data, augment=None)
    chunks = list(stream.chunks(stream[1], 2, length=length))
    assert [len(chunk.inputs) for chunk in chunks] == sizes
    assert [tuple(chunk.inputs.shape[2:]) for chunk in chunks] == [data.input_shape] * len(sizes)
    assert [tuple(chunk.targets.shape) for chunk in chunks][-1] == (1, 2)
    assert same([batch for chunk in chunks for batch in zip(*chunk, strict=True)], alone(stream, 1, 2))


def alone(stream, index, number):
    """An epoch's batches written out: gathered, augmented by their number, shown."""
    data, task, made = stream.data, stream[index], []
    order = torch.randperm(len(task.train), generator=generator(stream.seed, "order", index, number)).to(data.device)
    for batch, indices in enumerate(task.train[order].split(stream.batch_size)):
        inputs, noise = data.inputs[indices], torch.Generator(device=data.device)
        noise.manual_seed(seed_from(stream.seed, "augmentation", index, number, batch))
        shown = inputs if data.augment is None else data.augment(inputs, noise)
        made.append(task.view(shown, data.targets[indices], indices))
    return made


def test_a_chunk_entered_in_its_middle_is_what_is_left_of_it(stream):
    whole = epoch(stream)
    for start in range(5):
        chunks = list(stream.chunks(stream[1], 2, start=start, length=2))
        assert [len(chunk.targets) for chunk in chunks] == [[2, 1, 1], [1, 1, 1], [1, 1], [1], []][start]
        assert same([batch for chunk in chunks for batch in zip(*chunk, strict=True)], whole[start:])


def test_a_chunk_is_gathered_and_shown_at_once(data):
    """With augmentation too: one call of the view a chunk."""
    stream, calls = TaskStream(data, Stationary(seed=0), **SETTINGS), []
    task = stream[0]
    counted = replace(task, view=lambda *shown: calls.append(len(shown[2])) or task.view(*shown))
    assert sum(len(chunk.targets) for chunk in stream.chunks(counted, 0)) == 4
    assert calls == [48, 2]


def tensors_alive() -> int:
    gc.collect()
    return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())


def test_a_long_epoch_of_single_examples_is_not_cut_ahead_of_time():
    """A million tensors for a million examples took 621 MB and three seconds, at each resume anew."""
    long = synthetic_images(num_classes=4, side=4, train_size=20_000, test_size=4)
    stream, asked = TaskStream(long, Stationary(seed=0), num_tasks=1, batch_size=1, seed=0), []
    task = replace(stream[0], view=lambda *shown: asked.append(shown[2]) or stream[0].view(*shown))
    before = tensors_alive()
    batches = stream.epoch(task, 0, start=12_345)
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


def test_online_permuted_mnist_counts_each_example_before_its_step(tmp_path):
    """The preset on the digits, against a loop written out: single examples, SGD without momentum, means of bins."""
    words = ("experiment=online_permuted_mnist", "data=digits", "data.train_size=90", "num_tasks=2", "log_every=30")
    off = ("recorder=none", "num_threads=1", "lla.logging.save_plots=false")
    config = compose(*words, *off, "lla.enable_rank=false", "lla.enable_units=false", "lla.enable_weights=false")
    rows = read_rows(run_in(tmp_path, config))
    parts, right, wanted = build_parts(config), [], []
    net = parts.training.net
    weights = [weight.detach().clone().requires_grad_() for weight in net.parameters()]
    for task in parts.stream:
        for batch in parts.stream.epoch(task, 0):
            assert 0 <= batch.inputs.min() <= batch.inputs.max() <= 1
            right.append(step(weights, batch, lr=0.003))
    wanted = [sum(right[first : first + 30]) / 30 for first in range(0, 180, 30)]
    assert [row["bin_accuracy"] for row in rows if "bin_accuracy" in row] == pytest.approx(wanted, abs=1e-6)
    assert [row["samples"] for row in rows if "bin_accuracy" in row] == [30, 60, 90, 120, 150, 180]
    assert len({weight.shape for weight in weights}) == 5  # 64-100-100-100-10


def step(weights, batch, lr):
    """One step of gradient descent on an MLP with ReLU; whether the example was classified rightly before it."""
    hidden = batch.inputs.flatten(1)
    for weight, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        hidden = torch.relu(hidden @ weight.T + bias)
    outputs = hidden @ weights[-2].T + weights[-1]
    loss = torch.logsumexp(outputs, dim=1) - outputs[0, batch.targets]
    for weight, slope in zip(weights, torch.autograd.grad(loss.sum(), weights), strict=True):
        weight.data -= lr * slope
    return int(outputs.argmax() == batch.targets.item())
