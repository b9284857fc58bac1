"""A part of the training examples set aside, and the modes' and the record's share in it."""

from __future__ import annotations

import pytest
import torch
from runs import TINY, compose, run_in

from taskshift.config.build import build_parts
from taskshift.data.digits import digits
from taskshift.data.synthetic_images import synthetic_images
from taskshift.data.validation import with_validation
from taskshift.faults import Fault
from taskshift.run_folder import read_rows
from taskshift.shifts.class_pairs import ClassPairs
from taskshift.shifts.drifting_values import DriftingValues
from taskshift.shifts.incremental_classes import IncrementalClasses


@pytest.fixture(scope="module")
def data():
    return digits()


def counts(data, indices):
    return torch.bincount(data.targets[indices], minlength=data.num_classes)


@pytest.mark.parametrize(("size", "count"), [(0.1, 144), (200, 200), (1, 1), (1437, 1437)])
def test_so_many_are_set_aside_and_none_is_lost(data, size, count):
    split = with_validation(data, size, seed=0)
    assert len(split.validation) == count
    together = torch.cat([split.train, split.validation])
    assert torch.equal(together.sort().values, data.train.sort().values)
    assert torch.equal(split.test, data.test)
    assert split.inputs is data.inputs


@pytest.mark.parametrize("seed", range(4))
def test_each_class_gives_its_share_to_within_one(data, seed):
    split = with_validation(data, 0.1, seed=seed)
    share = counts(data, data.train) * len(split.validation) / len(data.train)
    assert (counts(data, split.validation) - share).abs().max() < 1


def test_equal_classes_give_alike():
    split = with_validation(synthetic_images(num_classes=5, train_size=500), 50, seed=0)
    assert counts(split, split.validation).tolist() == [10] * 5


def test_the_seed_alone_decides(data):
    torch.manual_seed(1)
    first = with_validation(data, 0.2, seed=3).validation
    torch.manual_seed(2)
    assert torch.equal(first, with_validation(data, 0.2, seed=3).validation)
    assert not torch.equal(first, with_validation(data, 0.2, seed=4).validation)


def test_within_a_class_any_example_may_be_chosen(data):
    chosen = torch.cat([with_validation(data, 0.2, seed=seed).validation for seed in range(60)])
    assert torch.isin(data.train, chosen).all()  # missed by all sixty: 0.8^60


@pytest.mark.parametrize("size", [1438, 0.0001, 5000])
def test_nothing_left_on_a_side_is_refused(data, size):
    with pytest.raises(ValueError, match=rf"validation.size={size} is \d+ of the 1438 training examples of digits; leave some"):
        with_validation(data, size, seed=0)


def test_modes_of_classes_validate_on_theirs(data):
    split = with_validation(data, 0.2, seed=0)
    for shift in (ClassPairs(seed=0), IncrementalClasses(seed=0, keep_seen=False)):
        task = shift.task(split, 1)
        assert len(task.validation) > 0
        assert set(split.targets[task.validation].tolist()) == set(split.targets[task.train].tolist())
        assert torch.isin(task.validation, split.validation).all()
    assert torch.equal(DriftingValues(seed=0).task(split, 1).validation, split.validation)


def test_a_run_logs_it_beside_the_test_split(tmp_path):
    words = (*TINY, "data=digits", "validation.size=0.25", "evaluate_every=2", "epochs=3", "lla=default", "num_tasks=1")
    off = [f"lla.enable_{name}=false" for name in ("planes", "spectrum", "sam", "rank", "units", "weights", "coupling")]
    config = compose(*words, *off, "lla.training.max_checkpoints=0")
    rows = [row for row in read_rows(run_in(tmp_path, config)) if "epoch_loss" in row]
    assert [{"val_loss", "val_accuracy", "test_loss"} <= row.keys() for row in rows] == [True, True, False]
    parts = build_parts(config)
    assert rows[-1]["samples"] == 3 * len(parts.stream[0].train) == 3 * (1438 - 360)


def test_what_is_no_size_is_refused():
    for size in ("0", "-1", "1.5", "half"):
        with pytest.raises(Fault, match=f"validation.size={size}: expected"):
            build_parts(compose(f"validation.size={size}"))
    with pytest.raises(Fault, match="validation.size=2000 is 2000 of the 1438 training examples of digits"):
        build_parts(compose("validation.size=2000"))
