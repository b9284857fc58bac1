"""Slowly-changing regression: its targets against a net of threshold units written out, its stream against single draws."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from interrupting import Interrupted, interrupt
from runs import TINY, compose, run_in

from taskshift.compare import differences
from taskshift.config.build import build_parts
from taskshift.faults import Fault
from taskshift.job import Job
from taskshift.randomness import generator
from taskshift.run_folder import read_rows
from taskshift.shifts.slowly_changing_regression import SlowlyChangingRegression
from taskshift.shifts.source import StreamSettings
from tests.framework.shift_assertions import DEVICES

WORDS = (
    *TINY, "task_shift_mode=slowly_changing_regression", "data=none", "run_name=one", "epochs=2", "batch_size=1", "log_every=40",
    "task_shift.num_steps=100", "checkpoints.every_seconds=0", "lla.enable_planes=false", "lla.enable_spectrum=false",
)  # fmt: skip


def made(seed=0, batch_size=1, device="cpu", **given):
    return SlowlyChangingRegression(StreamSettings(num_tasks=9, batch_size=batch_size, seed=seed, device=device), **given)


def written_out(net, bits, beta, strict):
    """The target of one input, unit by unit: Dohare et al. 2024, and the form that the published code has."""
    num_bits, total = len(bits), net.head_bias.item()
    for unit in range(net.weight.shape[1]):
        weights, bias = net.weight[:, unit].tolist(), net.bias[unit].item()
        negatives = sum(weight == -1 for weight in weights) + ((bias == -1) if strict else bias / 2)
        reached = sum(weight for weight, bit in zip(weights, bits, strict=True) if bit) + bias
        total += net.head[unit].item() if reached > beta * (num_bits + 1) - negatives else 0
    return total


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("threshold", "beta"), [("reference", 0.7), ("strict", 0.7), ("reference", 0.55)])
def test_targets_are_those_of_a_net_of_threshold_units(threshold, beta, seed):
    source = made(seed, threshold=threshold, beta=beta)
    net = source.target_net
    for tensor in (net.weight, net.bias, net.head, net.head_bias):
        assert set(tensor.flatten().tolist()) <= {-1.0, 1.0}
    assert net.weight.shape == (20, 100)
    inputs, targets = source.gather(source[3], source[3].train)
    wanted = [written_out(net, bits, beta, threshold == "strict") for bits in inputs.tolist()]
    assert targets.shape == (32, 1)
    assert targets.flatten().tolist() == wanted
    assert len(set(wanted)) > 1


def test_signs_are_drawn_anew_for_each_seed_and_as_often_up_as_down():
    signs = torch.cat([made(seed).target_net.weight.flatten() for seed in range(20)])
    assert abs(signs.mean()) < 4 / len(signs) ** 0.5
    assert not torch.equal(made(0).target_net.weight, made(1).target_net.weight)


def test_a_task_shows_every_input_that_it_can_meet_once():
    source = made()
    inputs, _ = source.gather(source[2], source[2].test)
    assert torch.equal(inputs[:, :15], source.slow_bits(2).expand(32, 15))
    assert sorted(map(tuple, inputs[:, 15:].tolist())) == sorted(product((0.0, 1.0), repeat=5))


@pytest.mark.parametrize("change", ["resample", "flip_one"])
def test_slow_bits_change_with_the_task_alone(change):
    source, other = made(change=change), made(change=change)
    bits = [source.slow_bits(index) for index in range(40)]
    for index in (39, 3, 17):
        assert torch.equal(other.slow_bits(index), bits[index]), "depends on what was asked before"
    changed = [int((one != two).sum()) for one, two in zip(bits, bits[1:], strict=False)]
    assert all(set(one.tolist()) <= {0.0, 1.0} for one in bits)
    if change == "flip_one":
        assert changed == [1] * 39
    else:  # binomial: 15 bits, each another with chance ½
        assert abs(sum(changed) / 39 - 7.5) < 4 * (15 / 4 / 39) ** 0.5


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("length", [1, 7, 100, None])
def test_chunks_are_the_draws_one_by_one(length, device):
    source = made(3, batch_size=2, device=device, num_steps=50)
    task = source[1]
    codes = torch.randint(32, (100,), generator=generator(3, "slowly_changing_regression", "fast bits", 1, 0)).tolist()
    slow, table = source.slow_bits(1).tolist(), source.target_net(source.gather(task, task.train).inputs.cpu()).flatten().tolist()
    inputs = [[*slow, *(float(code >> bit & 1) for bit in range(5))] for code in codes]
    for start in (0, 1, 13, 49):
        chunks = list(source.chunks(task, 0, start=start, length=length))
        assert all(chunk.inputs.shape[1:] == (2, 20) and chunk.targets.shape[1:] == (2, 1) for chunk in chunks)
        assert torch.cat([chunk.inputs for chunk in chunks]).flatten(0, 1).tolist() == inputs[2 * start :]
        assert torch.cat([chunk.targets for chunk in chunks]).flatten().tolist() == [table[code] for code in codes[2 * start :]]


def test_fast_bits_are_uniform_and_differ_between_epochs_tasks_and_seeds():
    source = made(num_steps=20_000)
    counts = torch.bincount(source.order(source[0], 0)).double()
    assert ((counts - 625) ** 2 / 625).sum() < 31 + 4 * 62**0.5  # chi-squared of 31 degrees of freedom
    orders = [
        source.order(source[0], 0),
        source.order(source[0], 1),
        source.order(source[1], 0),
        made(1, num_steps=20_000).order(source[0], 0),
    ]
    assert not any(torch.equal(one, two) for number, one in enumerate(orders) for two in orders[:number])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"num_flipping_bits": 0}, "num_flipping_bits is 0 of 20 bits; give at least 1, and leave 1 to 16 others"),
        ({"num_flipping_bits": 20}, "num_flipping_bits is 20 of 20 bits"),
        ({"num_bits": 40}, "num_flipping_bits is 15 of 40 bits"),
        ({"num_steps": 0}, "num_steps is 0; give at least 1"),
        ({"num_target_units": 0}, "num_target_units is 0; give at least 1"),
    ],
)
def test_bad_numbers_are_named(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        made(**given)


def test_data_beside_it_are_refused():
    with pytest.raises(Fault, match="^data: slowly_changing_regression makes its own examples; give data=none$"):
        build_parts(compose(*WORDS, "data=digits"))


def test_the_mode_alone_takes_data_out_and_goes_online():
    config = compose("task_shift_mode=slowly_changing_regression")
    assert (config["data"], config["batch_size"], config["epochs"]) == (None, 1, 1)
    assert compose("experiment=slowly_changing_regression")["data"] is None


@pytest.mark.slow
def test_a_run_is_regression_online_and_goes_on_in_mid_chunk_with_the_same_bits(tmp_path, monkeypatch):
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = run_in(tmp_path / "whole", compose(*WORDS))
    rows = read_rows(whole)
    assert [row["bin_loss"] for row in rows if "bin_loss" in row] != []
    assert [row["global_step"] for row in rows if "bin_loss" in row][:5] == [40, 80, 120, 160, 200]
    assert not any("accuracy" in name for row in rows for name in row)
    assert all(row["test_loss"] >= 0 for row in rows if "epoch_loss" in row)
    for count in (53, 31, 120):
        cut(tmp_path / "cut", count, monkeypatch)
    assert differences(run_in(tmp_path / "cut", compose(*WORDS)), whole) == []


def cut(folder, count, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, Job, "tick", count)
        with pytest.raises(Interrupted):
            run_in(folder, compose(*WORDS))
