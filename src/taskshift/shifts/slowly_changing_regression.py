"""Regression on bits of which most stay as they are for a long time: the smallest problem on which plasticity is lost."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from taskshift.randomness import generator
from taskshift.shifts.cumulative import Cumulative
from taskshift.shifts.indexed_source import IndexedSource
from taskshift.shifts.source import StreamSettings
from taskshift.shifts.task import Batch, Task

MODE = "slowly_changing_regression"
LARGEST_TABLE = 16  # bits


class SlowlyChangingRegression(IndexedSource):
    """Bit-flipping regression (Dohare et al. 2024, Extended Data Fig. 2; m, f, T and β are theirs).

    An input has m = `num_bits` bits: f = `num_flipping_bits` that stay for a task, then m - f that are drawn anew for every
    example. Its target is c + Σ_j v_j [x·w_j + b_j > τ_j] over `num_target_units` linear threshold units, all weights and biases
    drawn from ±1 once a run, τ_j = β (m + 1) - S_j. `threshold` "reference" is that of the published curves' code, S_j = (m -
    Σw_j + b_j) / 2; "strict" counts the -1 among w_j and b_j, S_j = (m + 1 - Σw_j - b_j) / 2, and its targets vary more.

    At each new task `change` "resample" draws all f bits anew, as that code does; "flip_one" flips one of them, as the text says.
    A task's epoch has T = `num_steps` steps. Within a task a target depends on m - f bits alone, so that it is looked up in a
    table of 2^(m-f) values. Training and test examples are all 2^(m-f) inputs: their mean loss is the expected loss, exactly.
    """

    def __init__(
        self,
        stream_settings: StreamSettings,
        num_bits: int = 20,
        num_flipping_bits: int = 15,
        num_steps: int = 10_000,
        num_target_units: int = 100,
        beta: float = 0.7,
        change: Literal["resample", "flip_one"] = "resample",
        threshold: Literal["reference", "strict"] = "reference",
    ):
        _refuse_counts(num_bits, num_flipping_bits, num_steps=num_steps, num_target_units=num_target_units)
        super().__init__(stream_settings, name=MODE, input_shape=(num_bits,), num_outputs=1)
        self.num_steps, self.num_flipping_bits, self.change = num_steps, num_flipping_bits, change
        self.target_net = TargetNet(self.seed, num_bits, num_target_units, beta, threshold)
        self.fast = all_bits(num_bits - num_flipping_bits)  # [2^(m-f), m-f], row i the bits of i
        self._flipped = Cumulative(self._drawn(0), self._with_one_flipped)

    def task(self, index: int) -> Task:
        every = torch.arange(len(self.fast), device=self.device)
        inputs = torch.cat([self.slow_bits(index).expand(len(self.fast), -1), self.fast], dim=1)
        view = BitTable(inputs.to(self.device), self.target_net(inputs).to(self.device))
        return Task(index, every, every, view, nn.MSELoss())

    def slow_bits(self, index: int) -> Tensor:
        """The bits that stay as they are in task `index`, [f]."""
        return self._drawn(index) if self.change == "resample" else self._flipped(index)

    def num_examples(self, task: Task) -> int:
        return self.num_steps * self.batch_size

    def order(self, task: Task, epoch: int) -> Tensor:
        draw = generator(self.seed, MODE, "fast bits", task.index, epoch)
        return torch.randint(len(self.fast), (self.num_examples(task),), generator=draw).to(self.device)

    def gather(self, task: Task, indices: Tensor) -> Batch:
        return task.view(indices, indices, indices)

    def _drawn(self, index: int) -> Tensor:
        return torch.randint(2, (self.num_flipping_bits,), generator=generator(self.seed, MODE, "slow bits", index)).float()

    def _with_one_flipped(self, bits: Tensor, number: int) -> Tensor:
        which = torch.randint(self.num_flipping_bits, (1,), generator=generator(self.seed, MODE, "flip", number))
        return bits.index_add(0, which, 1 - 2 * bits[which])


class BitTable:
    """The view of examples that are numbers: every input of a task, and its target."""

    def __init__(self, inputs: Tensor, targets: Tensor):
        self.inputs, self.targets = inputs, targets  # [2^(m-f), m], [2^(m-f), 1]

    def __call__(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> Batch:
        """indices [B] into the table → inputs [B, m], targets [B, 1]."""
        return Batch(self.inputs.index_select(0, indices), self.targets.index_select(0, indices))


class TargetNet:
    """One hidden layer of linear threshold units, every weight and bias ±1."""

    def __init__(self, seed: int, num_bits: int, num_units: int, beta: float, threshold: str):
        draw = generator(seed, MODE, "target net")
        self.weight = _signs(draw, num_bits, num_units)  # [m, n]
        self.bias, self.head, self.head_bias = _signs(draw, num_units), _signs(draw, num_units, 1), _signs(draw, 1)
        sign, ones = (1, num_bits) if threshold == "reference" else (-1, num_bits + 1)
        self.threshold = beta * (num_bits + 1) - (ones - self.weight.sum(dim=0) + sign * self.bias) / 2  # [n]

    def __call__(self, bits: Tensor) -> Tensor:
        """[B, m] → [B, 1], whole numbers in float32."""
        is_on = (bits.double() @ self.weight + self.bias > self.threshold).double()
        return (is_on @ self.head + self.head_bias).float()


def all_bits(count: int) -> Tensor:
    """Every row of `count` bits, [2^count, count]: row i holds the bits of i, the lowest first."""
    return ((torch.arange(2**count)[:, None] >> torch.arange(count)) & 1).float()


def _signs(draw: torch.Generator, *shape: int) -> Tensor:
    return torch.randint(2, shape, generator=draw).double() * 2 - 1


def _refuse_counts(num_bits: int, num_flipping_bits: int, **counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; give at least 1")
    fast = num_bits - num_flipping_bits
    if num_flipping_bits < 1 or not 1 <= fast <= LARGEST_TABLE:
        raise ValueError(
            f"num_flipping_bits is {num_flipping_bits} of {num_bits} bits; give at least 1, and leave 1 to {LARGEST_TABLE} others"
        )
