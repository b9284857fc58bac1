"""How the cells of a grid are evaluated: by shapes, dtype and device type alone, so that a grid has the same bits again."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

Compile = bool | Literal["auto"]
Precision = Literal["bfloat16"] | None

LOOP_CHUNK = 16  # cells that a loop hands back at a time
MOST_CELLS = {"cpu": 128, "cuda": 1024}
CHUNK_BYTES = {"cpu": 3 << 21, "cuda": 1 << 26}  # of a chunk's largest activation: a CPU's cache, a GPU's launches
BATCHED_CONVOLUTION_BYTES = 1 << 22  # of the largest activation, above which a GPU is busy with a single cell
COMPILING_PAYS = {"cpu": 2e13, "cuda": 2e15}  # floating-point operations of a grid: minutes, where compiling takes one


@dataclass(frozen=True)
class GridPath:
    """`batched`: `chunk` cells in one pass of the traced loss; `graph`: one after the other through it; `loop`: through the net.

    A batched chunk is always whole, filled up with copies of its last cell, so that its arithmetic is the same for any number of
    cells. In the other two, `chunk` is only how many are handed back at a time. `dtype` is what the net computes in, where that
    is not the surface's.
    """

    name: Literal["batched", "graph", "loop"]
    chunk: int
    compiled: bool = False
    dtype: Precision = None
    note: str = ""  # why it is not what the rule would choose

    def halved(self) -> GridPath:
        """The same with half the chunk; ValueError where it is a single cell."""
        if self.chunk == 1:
            raise ValueError("a chunk of one cell can't be halved")
        return replace(self, chunk=self.chunk // 2)


@dataclass(frozen=True)
class CellCost:
    """What one cell takes, by shapes."""

    largest_bytes: int  # of the tensors that differ from cell to cell
    operations: float  # floating-point operations in products and convolutions
    has_convolution: bool


def path_for(cost: CellCost, device: str, num_cells: int | None, compile: Compile, precision: Precision) -> GridPath:
    """The path for cells of this cost on a device of this type.

    Cells are batched where a pass is bound by its overhead: dense nets with small activations on a CPU, small nets on a GPU.
    """
    kind = "cpu" if device == "cpu" else "cuda"
    fitting = CHUNK_BYTES[kind] // max(cost.largest_bytes, 1)
    chunk = min(MOST_CELLS[kind], 1 << int(math.log2(max(fitting, 1))))
    too_large = cost.has_convolution and (kind == "cpu" or cost.largest_bytes > BATCHED_CONVOLUTION_BYTES)
    batched = chunk > 1 and not too_large
    dense_on_cpu = kind == "cpu" and not cost.has_convolution
    pays = num_cells is not None and num_cells * cost.operations > COMPILING_PAYS[kind] and not dense_on_cpu
    compiled = pays if compile == "auto" else bool(compile)
    return GridPath("batched" if batched else "graph", chunk if batched else LOOP_CHUNK, compiled, precision)
