"""How long does one epoch of permuted MNIST take to load, by our stream and by the ways it is done elsewhere?

    python scripts/bench_data.py --data-root data --markdown

All ways give the same normalised, permuted examples, which is checked first; they are timed alternately, in one process, on
the CPU. Where the root has no MNIST, random pixels of the same number stand in for it.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from taskshift.data.labelled_data import LabelledData
from taskshift.data.normalised import Images, channel_statistics, normalised
from taskshift.data.torchvision_images import read_splits
from taskshift.randomness import generator
from taskshift.shifts.permuted import Permuted
from taskshift.stream import TaskStream

COUNT = 60_000  # MNIST's training images
OURS, PIL, TENSORS, COPY = "the task stream", "PIL image by image", "tensor by tensor", "slices of a permuted copy"


class Way(NamedTuple):
    """One way to load: `epoch` makes an iterable over one epoch's batches."""

    name: str
    workers: int
    batch_size: int
    epoch: Callable[[], Iterable]


class PilImages(Dataset):
    """The usual torchvision pipeline: each example becomes a PIL image, a tensor, a normalised one and a permuted one."""

    def __init__(self, images: Images, order: Tensor):
        mean, deviation = channel_statistics(images.pixels)
        self.pixels, self.labels = images.pixels[:, 0].numpy(), images.labels
        self.transform = torchvision.transforms.Compose(
            [
                torchvision.transforms.ToTensor(),
                torchvision.transforms.Normalize(mean / 255, deviation / 255),
                torchvision.transforms.Lambda(partial(permuted, order=order)),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), int(self.labels[index])


class TensorImages(Dataset):
    """Normalised tensors, permuted one example at a time."""

    def __init__(self, inputs: Tensor, labels: Tensor, order: Tensor):
        self.inputs, self.labels, self.order = inputs, labels, order

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return permuted(self.inputs[index], order=self.order), self.labels[index]


def permuted(image: Tensor, *, order: Tensor) -> Tensor:
    """One image with its pixels in another order."""
    return image.flatten()[order].view_as(image)


def slices_of_a_copy(inputs: Tensor, labels: Tensor, order: Tensor, batch_size: int) -> Iterable[tuple[Tensor, Tensor]]:
    """The whole set permuted and shuffled into a copy first, then read from its beginning to its end."""
    shuffled = torch.randperm(len(labels))
    copy, targets = inputs.flatten(1)[:, order].view_as(inputs)[shuffled], labels[shuffled]
    for start in range(0, len(targets), batch_size):
        yield copy[start : start + batch_size], targets[start : start + batch_size]


def main() -> None:
    """Measure and print."""
    options = parse()
    train, test, source = load(options.data_root)
    data = normalised("mnist", train, test, num_classes=10)
    ways = all_ways(train, data, options.batch_size)
    check_same(train, data)
    seconds: dict[Way, list[float]] = {way: [] for way in ways}
    for repeat in range(options.repeats + 1):
        for way in ways:
            took = timed(way)
            if repeat > 0:  # the first round touches memory for the first time
                seconds[way].append(took)
    print(describe(source, options.repeats))
    print(table(seconds, markdown=options.markdown))
    print(verdict(seconds, options.batch_size))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default=os.environ.get("TASKSHIFT_DATA", "data"), help="the folder that has MNIST/raw")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--markdown", action="store_true", help="print the table as docs/DATA_LOADING.md has it")
    return parser.parse_args()


def load(root: str) -> tuple[Images, Images, str]:
    """Training and test split, and what they are."""
    if (Path(root).expanduser() / "MNIST" / "raw").is_dir():
        return *read_splits("mnist", root, download=False), "MNIST"
    rng = generator(0, "stand-in")

    def random_images(size: int) -> Images:
        pixels = torch.randint(0, 256, (size, 1, 28, 28), generator=rng, dtype=torch.uint8)
        return Images(pixels, torch.randint(0, 10, (size,), generator=rng))

    return random_images(COUNT), random_images(10_000), f"random pixels of MNIST's size, since there is no {root}/MNIST/raw"


def all_ways(train: Images, data: LabelledData, batch_size: int) -> list[Way]:
    """Ours first; the loaders without workers and with two."""
    order = torch.randperm(data.inputs[0].numel(), generator=generator(0, "order"))
    inputs, labels = data.inputs[data.train], data.targets[data.train]
    ways = []
    for size in (batch_size, 1):
        stream = TaskStream(data, Permuted(seed=0), num_tasks=1, batch_size=size, seed=0)
        ways.append(Way(OURS, 0, size, partial(stream.epoch, stream[0], 0)))
        ways.append(Way(COPY, 0, size, partial(slices_of_a_copy, inputs, labels, order, size)))
    for name, dataset in ((PIL, PilImages(train, order)), (TENSORS, TensorImages(inputs, labels, order))):
        for workers in (0, 2):
            loader = DataLoader(dataset, batch_size, shuffle=True, num_workers=workers)
            ways.append(Way(name, workers, batch_size, partial(iter, loader)))
    return ways


def check_same(train: Images, data: LabelledData) -> None:
    """All ways show the same pixels."""
    task = Permuted(seed=0).task(data, 0)
    few = data.train[:50]
    ours = task.view(data.inputs[few], data.targets[few], few).inputs
    positions = torch.arange(data.inputs[0].numel(), dtype=data.inputs.dtype).view(1, *data.input_shape)
    order = task.view(positions, data.targets[:1], few[:1]).inputs.flatten().long()
    by_image, by_tensor = PilImages(train, order), TensorImages(data.inputs, data.targets, order)
    for index in range(len(few)):
        torch.testing.assert_close(by_image[index][0], ours[index], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(by_tensor[index][0], ours[index], atol=0, rtol=0)


def timed(way: Way) -> float:
    """Seconds for one epoch, workers' start included, as every epoch pays for it."""
    begin, seen = time.perf_counter(), 0
    for _, targets in way.epoch():
        seen += len(targets)
    seconds = time.perf_counter() - begin
    if seen != COUNT:
        raise AssertionError(f"{way.name} gave {seen} examples, not {COUNT}")
    return seconds


def describe(source: str, repeats: int) -> str:
    """What was measured on which machine."""
    return (
        f"{source}, {COUNT} examples, median of {repeats} rounds; {processor()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} torch threads, torch {torch.__version__}, Python {platform.python_version()}.\n"
    )


def processor() -> str:
    """The CPU's name, where Linux tells it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def table(seconds: dict[Way, list[float]], *, markdown: bool) -> str:
    """One row a way: median and spread of the epoch's seconds, examples a second, and how many times ours."""
    ours = {way.batch_size: statistics.median(times) for way, times in seconds.items() if way.name == OURS}
    rows = [("way", "workers", "batch", "seconds an epoch: median", "min – max", "examples a second", "times ours")]
    for way, times in seconds.items():
        middle = statistics.median(times)
        spread = f"{min(times):.3f} – {max(times):.3f}"
        ratio = f"{middle / ours[way.batch_size]:.1f}"
        rows.append((way.name, str(way.workers), str(way.batch_size), f"{middle:.3f}", spread, f"{COUNT / middle:,.0f}", ratio))
    if markdown:
        return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], ("---",) * 7, *rows[1:]))
    widths = [max(len(row[column]) for row in rows) for column in range(7)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def verdict(seconds: dict[Way, list[float]], batch_size: int) -> str:
    """Ours against the faster of 0 and 2 workers: the median and the range of the ratios, repeat by repeat."""

    def fastest(name: str) -> list[float]:
        candidates = [times for way, times in seconds.items() if (way.name, way.batch_size) == (name, batch_size)]
        return min(candidates, key=statistics.median)

    lines = []
    for name in (PIL, TENSORS):
        ratios = [theirs / ours for theirs, ours in zip(fastest(name), fastest(OURS), strict=True)]
        lines.append(f"{name}: {statistics.median(ratios):.1f} times ours, round by round {min(ratios):.1f} to {max(ratios):.1f}")
    return "\n" + "\n".join(lines)


if __name__ == "__main__":
    main()
