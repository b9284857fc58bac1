"""Sums block by block are those of the whole, and draws too."""

from __future__ import annotations

import pytest
import torch
from surfaces import surface_of

from loss_landscape import blockwise, random_directions


@pytest.mark.parametrize("size", [0, 1, 15, 16, 63, 64, 65, 79, 80, 1000])
def test_blocks_are_every_entry_once_and_none_is_short(monkeypatch, size):
    monkeypatch.setattr(blockwise, "BLOCK", 64)
    found = list(blockwise.blocks(size))
    assert torch.equal(torch.cat([torch.arange(size)[block] for block in found]), torch.arange(size))
    lengths = [block.stop - block.start for block in found]
    assert all(length >= 16 for length in lengths) or lengths == [size]
    assert all(length == 64 for length in lengths[:-1])


def test_sums_are_those_in_float64(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 1000, generator=draw)
    whole = blockwise.norm(first)
    assert whole == float(first.double().norm())
    monkeypatch.setattr(blockwise, "BLOCK", 64)
    assert blockwise.norm(first) == pytest.approx(whole, rel=1e-14)
    assert blockwise.sum_of_squares(first) == pytest.approx(whole**2, rel=1e-14)
    expected = float(first.double() @ second.double())
    found = blockwise.product_of(1000, lambda block: first[block].double(), lambda block: second[block].double())
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("normalization", ["filter", "layer", "none"])
def test_directions_are_the_same_in_blocks(monkeypatch, normalization):
    surface = surface_of(dtype=torch.float64)
    whole = random_directions(surface, 3, normalization=normalization)
    monkeypatch.setattr(blockwise, "BLOCK", 16)
    parts = random_directions(surface, 3, normalization=normalization)
    for one, other in zip(whole, parts, strict=True):
        assert other == pytest.approx(one, rel=1e-12, abs=1e-14)
    assert parts.info.norms == pytest.approx(whole.info.norms, rel=1e-14)
    if normalization == "filter":
        assert parts.info.filter_norm_error == pytest.approx(whole.info.filter_norm_error, rel=1e-9)
