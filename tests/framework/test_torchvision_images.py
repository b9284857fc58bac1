"""MNIST's and CIFAR's files: read as torchvision keeps them, and named when they are absent or damaged."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from labelled import assert_well_formed

from taskshift.data.torchvision_images import cifar10, cifar100, fashion_mnist, mnist


def write_idx(file: Path, values: np.ndarray) -> None:
    """The IDX format: 0, 0, 8 for bytes, the number of axes, each axis's length in four bytes, the values."""
    file.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, values.ndim]) + b"".join(length.to_bytes(4, "big") for length in values.shape)
    file.write_bytes(header + values.astype(np.uint8).tobytes())


@pytest.fixture
def idx_root(tmp_path):
    """A root with a tiny MNIST and a tiny Fashion-MNIST."""
    draw = np.random.default_rng(0)
    for folder in ("MNIST/raw", "FashionMNIST/raw"):
        for split, size in (("train", 30), ("t10k", 12)):
            write_idx(tmp_path / folder / f"{split}-images-idx3-ubyte", draw.integers(0, 256, (size, 28, 28)))
            write_idx(tmp_path / folder / f"{split}-labels-idx1-ubyte", np.arange(size) % 10)
    return tmp_path


def write_cifar(root: Path, dataset, monkeypatch, label_key: str, meta_key: str, num_classes: int) -> np.ndarray:
    """Tiny CIFAR files, and their checksums where torchvision looks for them; returns the training images [N, 3, 32, 32]."""
    draw, folder = np.random.default_rng(0), root / dataset.base_folder
    folder.mkdir(parents=True)
    images = []

    def listed(entries):
        checksums = []
        for name, _ in entries:
            pixels = draw.integers(0, 256, (num_classes, 3 * 32 * 32), dtype=np.uint8)
            content = pickle.dumps({"data": pixels, label_key: list(range(num_classes))})
            (folder / name).write_bytes(content)
            checksums.append([name, hashlib.md5(content).hexdigest()])
            images.append(pixels.reshape(-1, 3, 32, 32))
        return checksums

    monkeypatch.setattr(dataset, "train_list", listed(dataset.train_list))
    train = np.concatenate(images)
    monkeypatch.setattr(dataset, "test_list", listed(dataset.test_list))
    meta = pickle.dumps({meta_key: [str(label) for label in range(num_classes)]})
    (folder / dataset.meta["filename"]).write_bytes(meta)
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": hashlib.md5(meta).hexdigest()})
    return train


@pytest.mark.parametrize(("make", "folder"), [(mnist, "MNIST/raw"), (fashion_mnist, "FashionMNIST/raw")])
def test_idx_files_are_read(idx_root, make, folder):
    data = make(root=str(idx_root))
    assert_well_formed(data)
    assert data.input_shape == (1, 28, 28)
    assert data.num_classes == 10
    assert (len(data.train), len(data.test)) == (30, 12)
    assert data.targets[data.test].tolist() == [label % 10 for label in range(12)]
    train, test = (np.fromfile(idx_root / folder / f"{split}-images-idx3-ubyte", np.uint8)[16:] for split in ("train", "t10k"))
    expected = (test.reshape(12, 1, 28, 28) - train.mean()) / train.std()
    np.testing.assert_allclose(data.inputs[data.test], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "dataset", "label_key", "meta_key", "num_classes"),
    [
        (cifar10, torchvision.datasets.CIFAR10, "labels", "label_names", 10),
        (cifar100, torchvision.datasets.CIFAR100, "fine_labels", "fine_label_names", 100),
    ],
)
def test_cifar_files_are_read(tmp_path, monkeypatch, make, dataset, label_key, meta_key, num_classes):
    train = write_cifar(tmp_path, dataset, monkeypatch, label_key, meta_key, num_classes).astype(np.float64)
    data = make(root=str(tmp_path))
    assert_well_formed(data)
    assert data.input_shape == (3, 32, 32)
    assert data.num_classes == num_classes
    assert data.targets[data.test].tolist() == list(range(num_classes))
    mean, deviation = train.mean(axis=(0, 2, 3), keepdims=True), train.std(axis=(0, 2, 3), keepdims=True)
    np.testing.assert_allclose(data.inputs[data.train], (train - mean) / deviation, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(data.black, (-mean / deviation).ravel(), rtol=1e-5)


def test_a_set_read_in_part_is_drawn_from_the_whole(idx_root):
    data = mnist(root=str(idx_root), train_size=5, test_size=3, subset_seed=1)
    assert (len(data.train), len(data.test), len(data.inputs)) == (5, 3, 8)
    other = mnist(root=str(idx_root), train_size=5, test_size=3, subset_seed=2)
    assert not torch.equal(data.inputs, other.inputs)


@pytest.mark.parametrize(
    ("make", "folder", "file", "remedy"),
    [
        (mnist, "MNIST/raw", "t10k-labels-idx1-ubyte", "scripts/prepare_data.py --mnist FROM"),
        (fashion_mnist, "FashionMNIST/raw", "train-images-idx3-ubyte", "scripts/prepare_data.py --fashion-mnist"),
        (cifar10, "cifar-10-batches-py", "data_batch_5", "cifar-10-python.tar.gz"),
        (cifar100, "cifar-100-python", "meta", "cifar-100-python.tar.gz"),
    ],
)
def test_an_absent_set_says_which_files_go_where(tmp_path, make, folder, file, remedy):
    with pytest.raises(ValueError, match="is not there") as caught:
        make(root=str(tmp_path))
    sentence = str(caught.value)
    for part in (f"root={tmp_path}", str(tmp_path / folder), file, remedy, "download=true"):
        assert part in sentence
    assert "\n" not in sentence
    assert not any(tmp_path.iterdir()), "looking for data must not make folders"


def test_one_absent_file_is_named_alone(idx_root):
    (idx_root / "MNIST/raw/train-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match=r"mnist is not there, train-labels-idx1-ubyte should be in"):
        mnist(root=str(idx_root))


@pytest.mark.parametrize("keep", [0, 3, 500])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_cut_file_is_one_sentence(idx_root, name, keep):
    file = idx_root / "MNIST/raw" / name
    file.write_bytes(file.read_bytes()[: min(keep, file.stat().st_size - 4)])
    with pytest.raises(
        ValueError, match=r"root=.*: the (training|test) files of mnist in .*MNIST/raw are damaged \(.+\); delete"
    ):
        mnist(root=str(idx_root))


def test_images_without_their_labels_are_one_sentence(idx_root):
    write_idx(idx_root / "MNIST/raw/t10k-labels-idx1-ubyte", np.arange(11) % 10)
    with pytest.raises(ValueError, match=r"the test files of mnist in .*MNIST/raw are damaged \(12 images, 11 labels\); delete"):
        mnist(root=str(idx_root))


def test_a_file_that_may_not_be_read_is_one_sentence(idx_root, monkeypatch):
    def forbidden(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(torchvision.datasets.MNIST, "_load_data", forbidden)
    with pytest.raises(ValueError, match=r"the training files of mnist in .* can't be read \(.*Permission denied\)"):
        mnist(root=str(idx_root))


def test_a_changed_cifar_file_is_one_sentence(tmp_path, monkeypatch):
    write_cifar(tmp_path, torchvision.datasets.CIFAR10, monkeypatch, "labels", "label_names", 10)
    with (tmp_path / "cifar-10-batches-py/data_batch_2").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match=r"the training files of cifar10 in .*cifar-10-batches-py are damaged"):
        cifar10(root=str(tmp_path))


def test_a_failed_download_is_one_sentence(tmp_path, monkeypatch):
    def no_network(self):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nTried a mirror, got:\nno network")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", no_network)
    with pytest.raises(ValueError, match=r"download=true: mnist could not be fetched \(Error downloading train") as caught:
        mnist(root=str(tmp_path), download=True)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "MNIST/raw") in str(caught.value)
