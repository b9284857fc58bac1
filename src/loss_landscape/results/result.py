"""What all results can: to become arrays, and a file of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from torch import Tensor, bfloat16

from loss_landscape.files import write_whole

if TYPE_CHECKING:
    from pandas import DataFrame


class Result(ABC):
    """A result that `save` writes to one .npz file and `load` reads again."""

    @abstractmethod
    def to_arrays(self) -> dict[str, np.ndarray]:
        """All that it holds, by name; numbers and words are arrays without a dimension."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """The result of which `to_arrays` made these."""

    def save(self, path: str | Path) -> None:
        """Write it to `path`, whole or not at all; the suffix .npz is customary, none is added."""
        arrays = {"result": np.array(type(self).__name__), **self.to_arrays()}

        def write(file: Path) -> None:
            with file.open("wb") as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type]

        write_whole(Path(path), write)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """A result that `save` wrote; ValueError where `path` holds another kind."""
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        kind = str(arrays.pop("result", "no result of this library"))
        if kind != cls.__name__:
            raise ValueError(f"{path} holds {kind}, not {cls.__name__}")
        return cls.from_arrays(arrays)


def array(tensor: Tensor) -> np.ndarray:
    """The tensor's values for NumPy, which knows no bfloat16: float32 there."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == bfloat16 else tensor).numpy()


def table(columns: Mapping[str, object]) -> DataFrame:
    """A pandas table of these columns; pandas is imported here, ImportError says how to get it."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError("to_pandas needs pandas: pip install pandas; to_arrays needs nothing") from error
    return pandas.DataFrame(columns)


def short(values: Tensor, most: int = 4) -> str:
    """The first few of a vector's numbers, to three digits."""
    told = ", ".join(f"{float(value):.3g}" for value in values[:most])
    return f"{told}, …" if len(values) > most else told
