"""scikit-learn's handwritten digits: 1797 grey images of 8×8 that come with the package, so nothing is downloaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from taskshift.data.augment import Augment
from taskshift.data.labelled_data import LabelledData
from taskshift.data.normalised import Images, PixelRange, Scaling, Subset, normalised
from taskshift.randomness import generator


def digits(
    test_fraction: float = 0.2,
    split_seed: int = 0,
    train_size: int | None = None,
    test_size: int | None = None,
    pixel_range: PixelRange = None,
    augment: Augment | None = None,
) -> LabelledData:
    """The digits as [1797, 1, 8, 8]; `test_fraction` of every class, chosen by `split_seed`, is the test split."""
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction={test_fraction} was asked for; give a share between 0 and 1, such as 0.2")
    table = torch.from_numpy(_table())  # a row an image: 64 whole numbers from 0 to 16, and its label
    pixels, labels = table[:, :-1].reshape(-1, 1, 8, 8), table[:, -1].to(torch.int64)
    train, test = stratified_split(labels, test_fraction, split_seed)
    return normalised(
        "digits",
        Images(pixels[train], labels[train]),
        Images(pixels[test], labels[test]),
        num_classes=10,
        subset=Subset(train_size, test_size, split_seed),
        augment=augment,
        scaling=None if pixel_range is None else Scaling(pixel_range, white=16),
    )


def _table() -> np.ndarray:
    """The package's own file, [1797, 65], uint8; importing scikit-learn to read it would take longer than the first epoch."""
    package = importlib.util.find_spec("sklearn")
    if package is None:
        raise ValueError("the digits come with scikit-learn, which is absent; pip install scikit-learn, or choose other data")
    file = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    if file.exists():
        return np.loadtxt(file, delimiter=",", dtype=np.uint8)
    from sklearn.datasets import load_digits  # a release that keeps its files elsewhere

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target]).astype(np.uint8)


def stratified_split(labels: Tensor, test_fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Ascending indices of a training and a test part; each class gives its rounded share to the test part."""
    draw = generator(seed, "stratified split")
    in_test = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        chosen = torch.randperm(len(members), generator=draw)[: round(test_fraction * len(members))]
        in_test[members[chosen]] = True
    return (~in_test).nonzero().flatten(), in_test.nonzero().flatten()
