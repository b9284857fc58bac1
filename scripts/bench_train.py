"""What a training step costs: eager, replayed and compiled, beside the loop that the field's reference code runs.

    python scripts/bench_train.py                    every work, a table as the last output
    python scripts/bench_train.py --work NAME         one of them
    python scripts/bench_train.py --save docs/benchmarks.md [--before FOLDER]

One process, one thread, blocks of steps taken in turns; processor seconds, the least of the blocks. Ours are counted with their
data path (order, gathering, the task's view) and with the epoch's sums; the loop is given its batches ready-made. Recording and
compiling are apart. Of a stack a step is one step of one run. Whole commands come last, in processes of their own; `--before` is
a checkout of earlier code, beside which those are timed that may not become slower.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lla_benchmarks.machine import machine
from lla_benchmarks.report import markdown, put_training_section
from timed_commands import COMMANDS, cells_of_command
from torch import Tensor, nn
from torch.nn import functional as F

from taskshift.data.synthetic_images import synthetic_images
from taskshift.execution.block import Block
from taskshift.execution.shared import SharedPrograms, fitting_block
from taskshift.learners.cbp import ContinualBackprop
from taskshift.learners.learner import Learner, Steps
from taskshift.nets.convnet import ConvNet
from taskshift.nets.mlp import MLP
from taskshift.progress import EpochSums, of_steps
from taskshift.shifts.permuted import Permuted
from taskshift.shifts.slowly_changing_regression import SlowlyChangingRegression
from taskshift.shifts.source import Source, StreamSettings
from taskshift.shifts.task import Batch, Task
from taskshift.stream import TaskStream
from taskshift.training import Training

EXAMPLES = 2048
HEADINGS = ["work", "ours", "reference", "times", "asked", "aimed", "limit", "eager", "replay", "recording", "compiling"]
EXPLAINED = (
    "Ours is compiled, with its data path and the epoch's sums; the reference's loop has its batches ready-made; in turns in one "
    "process. Of a stack a step is one step of one run. The convnet's reference is ours, eager. The *limit* is what the ratio "
    "would be if a step took as long as its matrix products by themselves. The last lines are whole commands, with start, "
    "compiling and all that they write."
)
LARGE = 2**14
"""Multiplications of a forward pass above which its products by themselves tell what a step takes at least."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Work:
    """A net, its data and its batch size, and how many times faster than its reference a step has to be."""

    widths: tuple[int, ...]  # of an MLP; empty: the convnet
    batch_size: int
    stream: Callable[[int, int, torch.device], Source]  # (batch size, seed, device)
    asked: float
    aimed: str
    lr: float = 0.01
    replacement_rate: float | None = None  # of continual backprop; None: backprop
    num_members: int = 1  # of a stack

    @property
    def has_limit(self) -> bool:
        pairs = zip(self.widths, self.widths[1:], strict=False)
        return self.num_members == 1 and sum(one * other for one, other in pairs) > LARGE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", choices=[*WORKS, *COMMANDS], action="append")
    parser.add_argument("--seconds", type=float, default=0.5, help="a block's length, about")
    parser.add_argument("--repeats", type=int, default=7, help="blocks of each")
    parser.add_argument("--save", type=Path, help="the page that gets the table as a section, such as docs/benchmarks.md")
    parser.add_argument("--before", type=Path, help="a checkout of earlier code, for what may not become slower")
    options = parser.parse_args()
    torch.set_num_threads(1)
    about = f"torch {torch.__version__}, one thread; µs of processor time a step, the least of {options.repeats} blocks (median)"
    print(about)
    lines = [HEADINGS]
    for name in options.work or [*WORKS, *COMMANDS]:
        if name in WORKS:
            lines.append(cells(name, WORKS[name], options.seconds, options.repeats))
        else:
            found = cells_of_command(name, options.before)
            lines.append([*found, *[""] * (len(HEADINGS) - len(found))])
        print(in_columns(lines[-1]), flush=True)
    print("\n" + "\n".join(map(in_columns, lines)))
    if options.save:
        command = shlex.join(["python", "scripts/bench_train.py", *sys.argv[1:]])
        told = f"{machine(CPU)['processor']}; {about}. Written by `{command}` on {datetime.date.today():%Y-%m-%d}."
        put_training_section(options.save, f"{told} {EXPLAINED}\n\n{markdown(HEADINGS, lines[1:])}")


def in_columns(line: Sequence[str]) -> str:
    """A line of the terminal's table."""
    return " ".join(f"{cell:{width}}" for cell, width in zip(line, (34, 17, 17, 9, 9, 7, 9, 17, 17, 10, 9), strict=True))


def cells(name: str, work: Work, seconds: float, repeats: int) -> list[str]:
    """A line of the table."""
    set_up = {}
    runs: dict[str, Iterator[int]] = {"reference": reference(work)}
    for how in ("eager", "replay", "compiled") if work.num_members == 1 else ("replay", "compiled"):
        begin = time.process_time()
        runs[how] = ours(work, how) if work.num_members == 1 else stacked(work, how)
        next(runs[how])
        set_up[how] = time.process_time() - begin
    if work.has_limit:
        runs["limit"] = products(work)
    taken = in_turns(runs, seconds, repeats)
    least = {how: min(of) for how, of in taken.items()}
    times = least["reference"] / least["compiled"]
    limit = f"{least['reference'] / least['limit']:.1f} ×" if work.has_limit else "–"
    figures = {how: f"{min(of) * 1e6:.2f} ({statistics.median(of) * 1e6:.2f})" for how, of in taken.items()}
    missed = "" if times >= work.asked else ", missed"
    return [
        name, figures["compiled"], figures["reference"], f"{times:.1f} ×", f"{work.asked:g} ×{missed}", work.aimed,
        limit, figures.get("eager", ""), figures["replay"], f"{set_up['replay']:.1f} s", f"{set_up['compiled']:.1f} s",
    ]  # fmt: skip


def in_turns(runs: Mapping[str, Iterator[int]], seconds: float, repeats: int) -> dict[str, list[float]]:
    """Processor seconds a step, block by block; a first block of each is for caches."""
    taken: dict[str, list[float]] = {how: [] for how in runs}
    for steps in runs.values():
        block(steps, seconds / 5)
    for _ in range(repeats):
        for how, steps in runs.items():
            taken[how].append(block(steps, seconds))
    return taken


def block(steps: Iterator[int], seconds: float) -> float:
    """Processor seconds a step, over a block of about so many seconds."""
    begin, count = time.process_time(), 0
    while not count or time.process_time() - begin < seconds:  # what is set up first is no step
        count += next(steps)
    return (time.process_time() - begin) / count


# -- the reference's way: one run, one step an example, numbers read one by one ------------------------------------


class Hidden(nn.Module):
    """A ReLU MLP that hands its hidden features out beside its outputs."""

    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in zip(widths, widths[1:], strict=False))

    def predict(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = []
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
            features.append(x)
        return self.layers[-1](x), features


def reference(work: Work, device: torch.device = CPU) -> Iterator[int]:
    """Steps by autograd and torch.optim, each with its number written into a tensor on the CPU; of a convnet ours, eager."""
    if not work.widths:
        yield from ours(work, "eager", device)
    stream, net = work.stream(work.batch_size, 0, device), Hidden(work.widths).to(device)
    optimizer, task = torch.optim.SGD(net.parameters(), lr=work.lr), stream[0]
    tester = None if work.replacement_rate is None else Tester(net, work.replacement_rate)
    batches, numbers = list(stream.epoch(task, 0)), torch.zeros(10_000)
    while True:
        for number, (inputs, targets) in enumerate(batches):
            flat = inputs.flatten(1)
            optimizer.zero_grad()
            outputs, features = net.predict(flat)
            loss = task.loss(outputs, targets)
            loss.backward()
            optimizer.step()
            if tester is not None:
                tester.test(features)
            with torch.no_grad():
                numbers[number] = _right(outputs, targets) if task.metrics else loss
            if number % 64 == 63:
                yield 64


class Tester:
    """Continual backprop layer by layer, with branches on values: the unit of least utility makes room when it is due."""

    def __init__(self, net: Hidden, rate: float, decay: float = 0.99, maturity: int = 100):
        self.layers, self.rate, self.decay, self.maturity = net.layers, rate, decay, maturity
        like, sizes = net.layers[0].weight, [layer.out_features for layer in net.layers[:-1]]
        self.utility, self.mean, self.age = ([like.new_zeros(size) for size in sizes] for _ in range(3))
        self.owed = [0.0] * len(sizes)

    @torch.no_grad()
    def test(self, features: list[Tensor]) -> None:
        for number, values in enumerate(features):
            corrected = self._utility(number, values)
            old = torch.where(self.age[number] > self.maturity)[0]
            self.owed[number] += self.rate * len(old)
            count = int(self.owed[number])
            if count:
                self.owed[number] -= count
                self._replace(number, old[torch.topk(-corrected[old], count)[1]])

    def _utility(self, number: int, values: Tensor) -> Tensor:
        into, out = self.layers[number], self.layers[number + 1]
        self.age[number] += 1
        self.mean[number].mul_(self.decay).add_((1 - self.decay) * values.mean(dim=0))
        now = out.weight.abs().mean(dim=0) * values.abs().mean(dim=0) / into.weight.abs().mean(dim=1)
        self.utility[number].mul_(self.decay).add_((1 - self.decay) * now)
        return self.utility[number] / (1 - self.decay ** self.age[number])

    def _replace(self, number: int, chosen: Tensor) -> None:
        into, out = self.layers[number], self.layers[number + 1]
        bound = (6 / into.in_features) ** 0.5
        into.weight[chosen] = into.weight.new_empty(len(chosen), into.in_features).uniform_(-bound, bound)
        into.bias[chosen] = 0
        out.weight[:, chosen] = 0
        for kept in (self.utility, self.mean, self.age):
            kept[number][chosen] = 0


def _right(outputs: Tensor, targets: Tensor) -> Tensor:
    return (F.softmax(outputs, dim=1).argmax(dim=1) == targets).float().mean()


def products(work: Work) -> Iterator[int]:
    """The matrix products of a step by themselves: forward, the weights' gradients, back through all layers but the first."""
    sizes = list(zip(work.widths, work.widths[1:], strict=False))
    inputs, outputs = ([torch.randn(work.batch_size, size) for size in of] for of in zip(*sizes, strict=True))
    weights = [torch.randn(out, size) for size, out in sizes]
    gradients = [torch.empty_like(weight) for weight in weights]
    while True:
        for _ in range(64):
            for number, (x, y, weight, gradient) in enumerate(zip(inputs, outputs, weights, gradients, strict=True)):
                torch.mm(x, weight.T, out=y)
                torch.mm(y.T, x, out=gradient)
                if number:
                    torch.mm(y, weight, out=x)
                    x.fill_(0.5)  # else numbers grow over all bounds
        yield 64


# -- ours -----------------------------------------------------------------------------------------------------------


def ours(work: Work, how: str, device: torch.device = CPU) -> Iterator[int]:
    """The same steps as a run takes them, an epoch after another; the first value comes when all is set up."""
    stream = work.stream(work.batch_size, 0, device)
    task, training = stream[0], training_of(work, stream, 0)
    if how != "eager":
        training.use_programs(task, stream.gather(task, task.train[: work.batch_size]), compiles=how == "compiled")
    yield 0
    epoch = 0
    while True:
        sums = EpochSums()
        for batches in in_a_row(stream, task, epoch, training.most_steps):
            steps = training.learn_all(task, batches)
            sums.add_values(work.batch_size, of_steps(task, steps, batches.targets.flatten(0, 1)))
            yield len(batches.targets)
        sums.means()
        epoch += 1


def training_of(work: Work, stream: Source, seed: int) -> Training:
    def make(seed: int) -> nn.Module:
        torch.manual_seed(seed % 2**31)
        if not work.widths:
            return ConvNet(stream.input_shape, stream.num_outputs).to(stream.device)
        return MLP((work.widths[0],), work.widths[-1], depth=len(work.widths) - 2, width=work.widths[1]).to(stream.device)

    parts = {} if work.replacement_rate is None else {"cbp": ContinualBackprop(work.replacement_rate)}
    learner = Learner(make(seed), lambda parameters: torch.optim.SGD(parameters, lr=work.lr), interventions=parts)
    task = stream[0]
    return Training(learner, stream.gather(task, task.train[:2]), seed=seed, make_net=make)


def stacked(work: Work, how: str) -> Iterator[int]:
    """The same of as many runs as the stack has, each with a stream and sums of its own."""
    shared, streams = (
        SharedPrograms(work.num_members),
        [work.stream(work.batch_size, seed, CPU) for seed in range(work.num_members)],
    )
    tasks, trainings = [stream[0] for stream in streams], []
    for seed, (stream, task) in enumerate(zip(streams, tasks, strict=True)):
        trainings.append(training_of(work, stream, seed))
        batch = stream.gather(task, task.train[: work.batch_size])
        block = fitting_block(trainings[-1].net, batch.inputs, work.num_members)
        trainings[-1].use_programs(task, batch, compiles=how == "compiled", shared=shared, block=block)
    yield 0
    epoch = 0
    while True:
        sums = [EpochSums() for _ in trainings]
        chunks = [stream.chunks(task, epoch, length=trainings[0].most_steps) for stream, task in zip(streams, tasks, strict=True)]
        for batches in zip(*chunks, strict=True):
            for at, steps in enumerate(learn_together(trainings, tasks, batches)):
                sums[at].add_values(work.batch_size, of_steps(tasks[at], steps, batches[at].targets.flatten(0, 1)))
            yield len(batches[0].targets) * len(trainings)
        for one in sums:
            one.means()
        epoch += 1


def learn_together(trainings: Sequence[Training], tasks: Sequence[Task], batches: Sequence[Batch]) -> list[Steps]:
    of_block: dict[Block, list[int]] = {}
    for number, training in enumerate(trainings):
        of_block.setdefault(training.lane.block, []).append(number)
    steps: dict[int, Steps] = {}
    for block, numbers in of_block.items():
        asked = {trainings[at].lane.number: trainings[at].asked(tasks[at], batches[at]) for at in numbers}
        found = block.learn(asked)
        for at in numbers:
            state, steps[at] = found[trainings[at].lane.number]
            trainings[at].take(state, batches[at])
    return [steps[at] for at in range(len(trainings))]


def in_a_row(stream: Source, task: Task, epoch: int, most: int) -> Iterator[Batch]:
    if most > 1:
        return stream.chunks(task, epoch, length=most)
    return (Batch(inputs[None], targets[None]) for inputs, targets in stream.epoch(task, epoch))


# -- works ----------------------------------------------------------------------------------------------------------


def images(batch_size: int, seed: int, device: torch.device) -> Source:
    data = synthetic_images(side=28, train_size=EXAMPLES, test_size=64).to(device)
    return TaskStream(data, Permuted(seed=0), num_tasks=1, batch_size=batch_size, seed=0)


def bits(batch_size: int, seed: int, device: torch.device) -> Source:
    settings = StreamSettings(num_tasks=1, batch_size=batch_size, seed=seed, device=device)
    return SlowlyChangingRegression(settings, num_steps=10_000)


PIXELS = (784, 100, 100, 100, 10)
WORKS = {
    "slowly-changing regression, b 1": Work((20, 5, 1), 1, bits, 20, "30 ×"),
    "the same, 100 runs": Work((20, 5, 1), 1, bits, 300, "800 ×", num_members=100),
    "the same, 100 runs, CBP": Work((20, 5, 1), 1, bits, 400, "900 ×", num_members=100, replacement_rate=1e-4),
    "784-100-100-100-10, batch 1": Work(PIXELS, 1, images, 6, "10 ×", lr=0.003),
    "784-100-100-100-10, batch 16": Work(PIXELS, 16, images, 1.4, "limit"),
    "slowly-changing regression, CBP": Work((20, 5, 1), 1, bits, 20, "30 ×", replacement_rate=1e-4),
    "784-100-100-100-10, b 1, CBP": Work(PIXELS, 1, images, 6, "10 ×", lr=0.003, replacement_rate=1e-4),
    "784-100-100-100-10, b 16, CBP": Work(PIXELS, 16, images, 2, "limit", replacement_rate=1e-4),
    "convnet, 28×28, batch 64, epochs": Work((), 64, images, 1, "1.5 ×"),
}

if __name__ == "__main__":
    main()
