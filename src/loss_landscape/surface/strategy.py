"""How the cells of a grid are evaluated: by shapes, dtype and device type alone, so that a grid has the same bits again."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

Compile = bool | Literal["auto"]
Precision = Literal["bfloat16"] | None

EAGER_CHUNK = 16  # cells that are handed back at a time
MAX_CELLS = {"cpu": 128, "cuda": 1024}
CHUNK_BYTES = {"cpu": 3 << 21, "cuda": 1 << 26}  # of a chunk's largest activation: a CPU's cache, a GPU's launches
VECTORIZED_CONVOLUTION_BYTES = 1 << 22  # of the largest activation, above which a GPU is busy with a single cell
COMPILING_PAYS = {"cpu": 2e13, "cuda": 2e15}  # floating-point operations of a grid: minutes, where compiling takes one


@dataclass(frozen=True)
class Evaluation:
    """How a grid's cells are evaluated and checked; each goes by rule unless given.

    `compile`: whether the traced loss is compiled, "auto" where the grid is large enough to pay for a minute of it. `chunk`:
    how many cells are evaluated at a time, halved where memory runs out. `precision="bfloat16"` is for the net alone, the
    criterion stays in float64. `noise_cells`: how many random cells are computed in float64 as well, beside the centre and
    the three lowest; 0 leaves the check out, None takes as many as cost little: one in 800, 4 at most, with the two or three
    lowest, and of a convnet on a CPU the centre and the lowest. Raises ValueError for any other value.

    >>> plane = surface.plane([torch.tensor([1.0, 0.0])])
    >>> plane.losses(torch.tensor([[0.0], [-1.0]]), evaluation=Evaluation(compile=False, chunk=2)).tolist()
    [2.5, 0.5]
    """

    compile: Compile = "auto"
    chunk: int | None = None
    precision: Precision = None
    noise_cells: int | None = None

    def __post_init__(self) -> None:
        if self.compile not in ("auto", True, False):
            raise ValueError(f"compile must be 'auto', True or False, got {self.compile!r}")
        if self.precision not in (None, "bfloat16"):
            raise ValueError(f"precision must be 'bfloat16', or None for the surface's own, got {self.precision!r}")
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"chunk must be ≥ 1, got {self.chunk}")
        if self.noise_cells is not None and self.noise_cells < 0:
            raise ValueError(f"noise_cells must be ≥ 0, got {self.noise_cells}")


@dataclass(frozen=True)
class EvaluationStrategy:
    """`vectorized`: `chunk` cells in one pass of the traced loss; `traced`: one by one through it; `eager`: through the net.

    A vectorized chunk is always whole, filled up with copies of its last cell, so that its arithmetic is the same for any number
    of cells. In the other two, `chunk` is only how many are handed back at a time. `precision` is what the net computes in, where
    that is not the surface's dtype.
    """

    name: Literal["vectorized", "traced", "eager"]
    chunk: int
    compiled: bool = False
    precision: Precision = None
    note: str = ""  # why it is not what the rule would choose

    def __str__(self) -> str:
        compiled, precision = "compiled " if self.compiled else "", f" in {self.precision}" if self.precision else ""
        return f"{compiled}{self.name}{precision}"

    def halved(self) -> EvaluationStrategy:
        """The same with half the chunk; ValueError where it is a single cell."""
        if self.chunk == 1:
            raise ValueError("a chunk of one cell can't be halved")
        return replace(self, chunk=self.chunk // 2)

    def with_note(self, note: str) -> EvaluationStrategy:
        """The same with one more note."""
        return replace(self, note="; ".join(filter(None, [self.note, note])))


EAGER = EvaluationStrategy("eager", EAGER_CHUNK)


@dataclass(frozen=True)
class CellCost:
    """What one cell takes, by shapes."""

    largest_bytes: int  # of the tensors that differ from cell to cell
    operations: float  # floating-point operations in products and convolutions
    has_convolution: bool


def strategy_for(
    cost: CellCost, device: str, num_cells: int | None, compile: Compile, precision: Precision
) -> EvaluationStrategy:
    """The strategy for cells of this cost on a device of this type.

    Cells are vectorized where a pass is bound by its overhead: dense nets with small activations on a CPU, small nets on a GPU.
    """
    kind = "cpu" if device == "cpu" else "cuda"
    fitting = CHUNK_BYTES[kind] // max(cost.largest_bytes, 1)
    chunk = min(MAX_CELLS[kind], 1 << int(math.log2(max(fitting, 1))))
    too_large = cost.has_convolution and (kind == "cpu" or cost.largest_bytes > VECTORIZED_CONVOLUTION_BYTES)
    vectorized = chunk > 1 and not too_large
    dense_on_cpu = kind == "cpu" and not cost.has_convolution
    pays = num_cells is not None and num_cells * cost.operations > COMPILING_PAYS[kind] and not dense_on_cpu
    compiled = pays if compile == "auto" else bool(compile)
    return EvaluationStrategy("vectorized" if vectorized else "traced", chunk if vectorized else EAGER_CHUNK, compiled, precision)
