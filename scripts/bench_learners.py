"""What each after-step intervention costs a compiled step, beside plain backprop and beside the least that it could cost.

    python scripts/bench_learners.py                            every learner, batches of 1, 16 and 64
    python scripts/bench_learners.py --learner redo --batch 16    some of them
    python scripts/bench_learners.py --save docs/LEARNERS.md

The net is 784-100-100-100-10. A learner and backprop step in turns, blocks of steps in one process and on one thread; processor
seconds, with the data's path and the epoch's sums in both. The limit is backprop's step, plus the bytes that an intervention has
to move beside it at the rate at which this machine copies as many, plus the numbers that it draws at the rate at which torch
draws them. Those bytes are its memory, written and read where it moves and read where it stays; the features that it reads; and
its draws, written and read. What it does to parameters could be done as the optimizer writes them, and counts nothing; neither
does arithmetic.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from bench_train import CPU, PIXELS, block, images, in_a_row
from lla_benchmarks.machine import machine
from lla_benchmarks.report import markdown
from torch.utils._pytree import tree_flatten

from taskshift.config.command import compose
from taskshift.config.construct import construct
from taskshift.learners.draws import EveryStep
from taskshift.learners.learner import Learner
from taskshift.nets.mlp import MLP
from taskshift.progress import EpochSums, of_steps
from taskshift.shifts.source import Source
from taskshift.training import Training

HEADING = "## What an intervention costs a step"
COLUMNS = ["learner", "batch", "backprop, µs", "with it, µs", "times backprop's", "limit", "bytes moved", "numbers drawn"]

LEARNERS = (
    "cbp",
    "ccbp",
    "decaying_rates",
    "ewc",
    "hare_and_tortoise",
    "later_layers_more_often",
    "mas",
    "normalize_and_project",
    "redo",
    "rising_rates",
    "rr_cbp",
    "rr_cbp2",
    "rr_cbp_e2",
    "shrink_and_perturb",
    "si",
    "snr",
    "weight_clipping",
    "weight_decay",
)
"""Those of conf/learner that do something after a step besides following the gradient."""


@dataclass(frozen=True)
class Least:
    """What an intervention cannot do without, a step."""

    bytes: float
    numbers: float  # drawn one by one; rows of fresh weights are so few that they count nothing

    def seconds(self, copied: float, drawn: float) -> float:
        """With so many bytes and numbers a second."""
        return self.bytes / copied + self.numbers / drawn


def main() -> None:
    """Print a line a learner and batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learner", action="append", choices=LEARNERS)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--seconds", type=float, default=0.3, help="a block's length, about")
    parser.add_argument("--repeats", type=int, default=7, help="blocks of each")
    parser.add_argument("--save", type=Path, help=f"the page that gets the table under '{HEADING}'")
    options = parser.parse_args()
    torch.set_num_threads(1)
    copied, drawn = copy_rate(), draw_rate()
    rates = f"copies of {copied / 1e9:.1f} GB/s, {drawn / 1e6:.0f} million normal numbers a second"
    about = f"torch {torch.__version__}, one thread; {rates}"
    print(about)
    rows = []
    for size in options.batch:
        plain = stepping(training_of("backprop", size), size)
        for name in options.learner or LEARNERS:
            rows.append(row(name, size, plain, (copied, drawn), options.seconds, options.repeats))
            print(" | ".join(rows[-1]), flush=True)
    if options.save:
        command = shlex.join(["python", "scripts/bench_learners.py", *sys.argv[1:]])
        told = f"{machine(CPU)['processor']}; {about}. Written by `{command}` on {datetime.date.today():%Y-%m-%d}; {EXPLAINED}"
        put_section(options.save, f"{told}\n\n{markdown(COLUMNS, sorted(rows))}")


EXPLAINED = (
    "the least (median) of the blocks' processor time, the limit from the bytes and numbers beside it: "
    "memory, features and draws, without arithmetic."
)


def row(name: str, size: int, plain: Iterator[int], rates: tuple[float, float], seconds: float, repeats: int) -> list[str]:
    """A line of the table; `rates` are bytes copied and numbers drawn a second."""
    training = training_of(name, size)
    least, runs = least_of(training, size), {"backprop": plain, name: stepping(training, size)}
    taken: dict[str, list[float]] = {one: [] for one in runs}
    for steps in runs.values():  # a first block for caches
        block(steps, seconds / 3)
    for _ in range(repeats):
        for one, steps in runs.items():
            taken[one].append(block(steps, seconds))
    base, own = min(taken["backprop"]), min(taken[name])
    ratios = [mine / its for its, mine in zip(taken["backprop"], taken[name], strict=True)]
    limit = 1 + least.seconds(*rates) / base
    figures = [f"{min(of) * 1e6:.1f} ({statistics.median(of) * 1e6:.1f})" for of in taken.values()]
    times = f"{own / base:.2f} ({min(ratios):.2f} – {max(ratios):.2f})"
    return [f"`{name}`", str(size), *figures, times, f"{limit:.2f}", f"{least.bytes / 1e3:.0f} kB", f"{least.numbers:.0f}"]


def learner_of(name: str, seed: int = 0) -> Learner:
    """As the command makes it."""
    return construct(compose(f"learner={name}")["learner"], Learner, where="learner", net=net_of(seed))


def net_of(seed: int) -> MLP:
    torch.manual_seed(seed % 2**31)
    return MLP(PIXELS[:1], PIXELS[-1], depth=len(PIXELS) - 2, width=PIXELS[1])


def training_of(name: str, size: int) -> Training:
    stream = images(size, 0, CPU)
    return Training(learner_of(name), stream.gather(stream[0], stream[0].train[:2]), make_net=net_of)


def stepping(training: Training, size: int) -> Iterator[int]:
    """Compiled steps as a run takes them, an epoch after another."""
    stream: Source = images(size, 0, CPU)
    task, epoch = stream[0], 0
    training.use_programs(task, stream.gather(task, task.train[:size]), compiles=True)
    while True:
        sums = EpochSums()
        for batches in in_a_row(stream, task, epoch, training.most_steps):
            steps = training.learn_all(task, batches)
            sums.add_values(size, of_steps(task, steps, batches.targets.flatten(0, 1)))
            yield len(batches.targets)
        sums.means()
        epoch += 1


# -- the limit ------------------------------------------------------------------------------------------------------


def least_of(training: Training, size: int) -> Least:
    """From one eager step in which every part acts: which of its memory is new, what it reads, what it draws.

    A part that acts in every n-th step moves its features and memory in the others too, to remember them.
    """
    stream, learner = images(size, 0, CPU), training.learner
    task = stream[0]
    batch, draws = stream.gather(task, task.train[:size]), training.draws.at(0, training.state["taken"])
    after, _ = learner.step(training.state, batch, task.loss, draws)
    moved = 0
    for name, memory in after["parts"].items():
        before = {id(tensor) for tensor in tree_flatten(training.state["parts"].get(name, {}))[0]}
        moved += sum(bytes_of(tensor) * (1 if id(tensor) in before else 2) for tensor in tree_flatten(memory)[0])
    features = learner.forward(training.state["net"], batch.inputs, learner.reads)[2]
    read = sum(bytes_of(tensor) for tensor in {id(tensor): tensor for tensor in features.values()}.values())
    specs = [spec for part in learner.parts.values() for spec in part.draws().values() if isinstance(spec, EveryStep)]
    numbers = sum(torch.Size(spec.shape).numel() for spec in specs)
    return Least(moved + read + 2 * training.draws.bytes_of_a_step(), numbers)


def bytes_of(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def copy_rate(size: int = 400_000, repeats: int = 200) -> float:
    """Bytes read and written a second, of copies as large as the net: they lie in the caches, as its tensors do."""
    source, target = torch.zeros(size // 4), torch.zeros(size // 4)
    return 2 * size / _least_seconds(lambda: target.copy_(source), repeats)


def draw_rate(count: int = 100_000, repeats: int = 50) -> float:
    """Normal numbers a second."""
    generator = torch.Generator().manual_seed(0)
    return count / _least_seconds(lambda: torch.randn(count, generator=generator), repeats)


def _least_seconds(call: Callable[[], object], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def put_section(page: Path, text: str) -> None:
    """Put the section in the place of the one that the page has, or at its end."""
    before, _, rest = page.read_text().partition(f"\n{HEADING}\n")
    following = "".join(rest.partition("\n## ")[1:])
    page.write_text(f"{before.rstrip()}\n\n{HEADING}\n\n{text.rstrip()}\n{following}")


if __name__ == "__main__":
    main()
