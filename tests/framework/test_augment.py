"""Crops and flips: each example its own, black from outside, everything from the generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from taskshift.data.augment import CropAndFlip
from taskshift.data.synthetic_images import synthetic_images


def all_crops(image: np.ndarray, black: np.ndarray, padding: int, flip: bool) -> dict[bytes, tuple]:
    """Every picture that crop and flip may make of `image`, by its bytes."""
    channels, height, width = image.shape
    padded = np.stack([np.pad(image[c], padding, constant_values=black[c]) for c in range(channels)])
    crops = {}
    for row in range(2 * padding + 1):
        for column in range(2 * padding + 1):
            crop = padded[:, row : row + height, column : column + width]
            crops[np.ascontiguousarray(crop).tobytes()] = (row, column, False)
            if flip:
                crops[np.ascontiguousarray(crop[:, :, ::-1]).tobytes()] = (row, column, True)
    return crops


@pytest.mark.parametrize(("padding", "flip"), [(1, True), (2, False), (3, True), (0, True)])
def test_each_example_becomes_one_of_its_own_crops(padding, flip):
    draw = torch.Generator().manual_seed(5)
    image, black = torch.rand(3, 5, 6, generator=draw), torch.tensor([-1.0, -2.0, -3.0])
    batch = image.expand(2000, -1, -1, -1).clone()
    crops = all_crops(image.numpy(), black.numpy(), padding, flip)
    results = CropAndFlip(padding, flip).padded_with(black)(batch, torch.Generator().manual_seed(0))
    assert results.shape == batch.shape
    assert results.is_contiguous()
    seen = [crops[result.numpy().tobytes()] for result in results]  # a KeyError is a picture that may not be
    places = (2 * padding + 1) ** 2 * (2 if flip else 1)
    assert len(set(seen)) == places, "some crops never occur"
    counts = np.array([seen.count(place) for place in set(seen)])
    assert ((counts - 2000 / places) ** 2 / (2000 / places)).sum() < places + 5 * np.sqrt(2 * places), (
        "crops are not equally likely"
    )


def test_augmentation_depends_on_its_generator_alone():
    data = synthetic_images(augment=CropAndFlip(2))
    before, batch = data.inputs.clone(), data.inputs[:64]
    torch.manual_seed(0)
    first = data.augment(batch, torch.Generator().manual_seed(3))
    torch.manual_seed(1)
    assert torch.equal(first, data.augment(batch, torch.Generator().manual_seed(3)))
    assert not torch.equal(first, data.augment(batch, torch.Generator().manual_seed(4)))
    assert torch.equal(before, data.inputs), "augmentation wrote into the data"


def test_data_pad_with_their_own_black():
    data = synthetic_images(channels=3, augment=CropAndFlip(2, flip=False))
    results = data.augment(torch.full((500, 3, 8, 8), 9.0), torch.Generator().manual_seed(0))
    for channel in range(3):
        assert set(results[:, channel].unique().tolist()) == {data.black[channel].item(), 9.0}


def test_no_padding_and_no_flip_change_nothing():
    batch = synthetic_images().inputs[:9]
    assert torch.equal(CropAndFlip(0, False).padded_with(torch.zeros(1))(batch, torch.Generator()), batch)


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_augmentation_stays_on_the_datas_device(device):
    data = synthetic_images(augment=CropAndFlip(2)).to(device)
    results = data.augment(data.inputs[:5], torch.Generator(device=device).manual_seed(0))
    assert results.device == data.device
    assert results.dtype == data.inputs.dtype


def test_double_precision_is_kept():
    data = synthetic_images(augment=CropAndFlip(2))
    assert data.augment(data.inputs[:5].double(), torch.Generator()).dtype == torch.float64


def test_negative_padding_is_refused():
    with pytest.raises(ValueError, match=r"padding=-1 was asked for; give the number of pixels"):
        CropAndFlip(-1)
