"""What a training step costs: eager, replayed and compiled, beside the loop that the field's reference code runs.

    python scripts/bench_train.py                    every work, a table as the last output
    python scripts/bench_train.py --work NAME         one of them

One process, one thread, blocks of steps taken in turns; processor seconds, the least of the blocks. Ours are counted with their
data path (order, gathering, the task's view) and with the epoch's sums; the loop is given its batches ready-made. Recording and
compiling are apart.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from taskshift.data.synthetic_images import synthetic_images
from taskshift.learners.learner import Learner
from taskshift.nets.mlp import MLP
from taskshift.progress import EpochSums, of_steps
from taskshift.shifts.permuted import Permuted
from taskshift.shifts.slowly_changing_regression import SlowlyChangingRegression
from taskshift.shifts.source import Source, StreamSettings
from taskshift.shifts.task import Batch, Task
from taskshift.stream import TaskStream
from taskshift.training import Training

EXAMPLES = 2048
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Work:
    """A net, its data and its batch size."""

    widths: tuple[int, ...]
    batch_size: int
    stream: Callable[[int, torch.device], Source]
    lr: float = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", choices=list(WORKS), action="append")
    parser.add_argument("--seconds", type=float, default=0.5, help="a block's length, about")
    parser.add_argument("--repeats", type=int, default=7, help="blocks of each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread; µs of processor time a step, the least of {options.repeats} blocks (median)")
    lines = [
        f"{'work':28} {'reference':>16} {'eager':>16} {'replay':>16} {'compiled':>16}   reference/compiled  recording  compiling"
    ]
    for name in options.work or WORKS:
        lines.append(line(name, WORKS[name], options.seconds, options.repeats))
        print(lines[-1], flush=True)
    print("\n" + "\n".join(lines))


def line(name: str, work: Work, seconds: float, repeats: int) -> str:
    """A row of the table."""
    set_up = {}
    runs: dict[str, Iterator[int]] = {"reference": reference(work)}
    for how in ("eager", "replay", "compiled"):
        begin = time.process_time()
        runs[how] = ours(work, how)
        next(runs[how])
        set_up[how] = time.process_time() - begin
    taken: dict[str, list[float]] = {how: [] for how in runs}
    for steps in runs.values():  # a first block for caches
        block(steps, seconds / 5)
    for _ in range(repeats):
        for how, steps in runs.items():
            taken[how].append(block(steps, seconds))
    cells = [f"{min(of) * 1e6:8.1f} ({statistics.median(of) * 1e6:6.1f})" for of in taken.values()]
    ratio = min(taken["reference"]) / min(taken["compiled"])
    costs = f"{set_up['replay']:10.1f} s {set_up['compiled']:8.1f} s"
    return f"{name:28} {' '.join(f'{cell:>16}' for cell in cells)} {ratio:14.1f} × {costs}"


def block(steps: Iterator[int], seconds: float) -> float:
    """Processor seconds a step, over a block of about so many seconds."""
    begin, count = time.process_time(), 0
    while time.process_time() - begin < seconds:
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
    """Steps by autograd and torch.optim, each with its number written into a tensor on the CPU."""
    stream, net = work.stream(work.batch_size, device), Hidden(work.widths).to(device)
    optimizer, task = torch.optim.SGD(net.parameters(), lr=work.lr), stream[0]
    batches, numbers = list(stream.epoch(task, 0)), torch.zeros(EXAMPLES)
    while True:
        for number, (inputs, targets) in enumerate(batches):
            flat = inputs.flatten(1)
            optimizer.zero_grad()
            outputs, _ = net.predict(flat)
            loss = task.loss(outputs, targets)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                numbers[number] = _right(outputs, targets) if task.metrics else loss
            if number % 64 == 63:
                yield 64


def _right(outputs: Tensor, targets: Tensor) -> Tensor:
    return (F.softmax(outputs, dim=1).argmax(dim=1) == targets).float().mean()


# -- ours -----------------------------------------------------------------------------------------------------------


def ours(work: Work, how: str, device: torch.device = CPU) -> Iterator[int]:
    """The same steps as a run takes them, an epoch after another; the first value comes when all is set up."""
    stream = work.stream(work.batch_size, device)
    task = stream[0]
    net = MLP((work.widths[0],), work.widths[-1], depth=len(work.widths) - 2, width=work.widths[1]).to(device)
    learner = Learner(net, lambda parameters: torch.optim.SGD(parameters, lr=work.lr))
    training = Training(learner, stream.gather(task, task.train[:2]))
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


def in_a_row(stream: Source, task: Task, epoch: int, most: int) -> Iterator[Batch]:
    if most > 1:
        return stream.chunks(task, epoch, length=most)
    return (Batch(inputs[None], targets[None]) for inputs, targets in stream.epoch(task, epoch))


# -- works ----------------------------------------------------------------------------------------------------------


def images(batch_size: int, device: torch.device) -> Source:
    data = synthetic_images(side=28, train_size=EXAMPLES, test_size=64).to(device)
    return TaskStream(data, Permuted(seed=0), num_tasks=1, batch_size=batch_size, seed=0)


def bits(batch_size: int, device: torch.device) -> Source:
    settings = StreamSettings(num_tasks=1, batch_size=batch_size, seed=0, device=device)
    return SlowlyChangingRegression(settings, num_steps=EXAMPLES)


PIXELS = (784, 100, 100, 100, 10)
WORKS = {
    "slowly-changing regression, b 1": Work((20, 5, 1), 1, bits),
    "784-100-100-100-10, batch 1": Work(PIXELS, 1, images, lr=0.003),
    "784-100-100-100-10, batch 16": Work(PIXELS, 16, images),
}

if __name__ == "__main__":
    main()
