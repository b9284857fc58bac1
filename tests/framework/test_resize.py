"""Images enlarged to the side that a net needs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from labelled import assert_well_formed

from taskshift.data import resize
from taskshift.data.digits import digits
from taskshift.data.labelled_data import LabelledData
from taskshift.data.normalised import Images, normalised
from taskshift.data.resize import enlarged
from taskshift.data.synthetic_images import synthetic_images


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Written from the definition: pixel centres at i + 1/2, the edge continued outwards."""
    rows = np.clip((np.arange(height) + 0.5) * image.shape[0] / height - 0.5, 0, image.shape[0] - 1)
    columns = np.clip((np.arange(width) + 0.5) * image.shape[1] / width - 0.5, 0, image.shape[1] - 1)
    top, left = rows.astype(int), columns.astype(int)
    bottom, right = np.minimum(top + 1, image.shape[0] - 1), np.minimum(left + 1, image.shape[1] - 1)
    down, over = (rows - top)[:, None], (columns - left)[None, :]
    upper = image[np.ix_(top, left)] * (1 - over) + image[np.ix_(top, right)] * over
    lower = image[np.ix_(bottom, left)] * (1 - over) + image[np.ix_(bottom, right)] * over
    return upper * (1 - down) + lower * down


def test_enlargement_is_bilinear(monkeypatch):
    monkeypatch.setattr(resize, "ROWS_AT_ONCE", 7)
    data = synthetic_images(channels=2, train_size=20, test_size=5)
    large = enlarged(data, 24)
    assert_well_formed(large)
    assert large.input_shape == (2, 24, 24)
    expected = np.array([[bilinear(channel, 24, 24) for channel in image] for image in data.inputs.double().numpy()])
    np.testing.assert_allclose(large.inputs, expected, atol=1e-5)
    assert torch.equal(large.black, data.black)


def test_large_enough_images_are_the_same_object():
    data = synthetic_images(side=12, train_size=4, test_size=2)
    assert enlarged(data, 12) is data
    assert enlarged(data, 1) is data


def test_only_a_short_side_grows():
    pixels = Images(torch.rand(6, 1, 4, 9, generator=torch.Generator().manual_seed(0)), torch.zeros(6))
    assert enlarged(normalised("wide", pixels, pixels, num_classes=1), 6).input_shape == (1, 6, 9)


def test_black_frames_stay_black():
    data = digits(train_size=50, test_size=10)
    large = enlarged(data, 28)
    assert torch.isclose(large.inputs.min(), data.black).all()
    assert torch.isclose(large.inputs[:, 0, 0, 0], data.inputs[:, 0, 0, 0], atol=1e-6).all()


def test_vectors_are_not_enlarged():
    vectors = LabelledData("vectors", torch.zeros(4, 5), *(torch.arange(4),) * 3, num_classes=4, black=torch.zeros(1))
    assert enlarged(vectors, 1) is vectors
    with pytest.raises(
        ValueError, match=r"the net takes images of at least 24×24, but an example of vectors has the shape \(5,\)"
    ):
        enlarged(vectors, 24)
