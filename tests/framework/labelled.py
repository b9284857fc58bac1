"""Assertions about data sets."""

from __future__ import annotations

import torch

from taskshift.data.labelled_data import LabelledData


def assert_well_formed(data: LabelledData) -> None:
    """What every data set must be, whatever is in it."""
    assert data.inputs.dtype == torch.float32
    assert data.inputs.is_contiguous()
    assert data.inputs.isfinite().all()
    for indices in (data.targets, data.train, data.test):
        assert indices.dtype == torch.int64
    assert len(data.inputs) == len(data.targets)
    together = torch.cat([data.train, data.test])
    assert len(together.unique()) == len(together) == len(data.inputs), "splits overlap, or leave examples out"
    assert data.targets.min() >= 0
    assert data.targets.max() < data.num_classes
    assert data.black.shape == data.input_shape[:1]


def assert_same(one: LabelledData, other: LabelledData) -> None:
    for name in ("inputs", "targets", "train", "test", "black"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
