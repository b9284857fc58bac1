"""What all results can: to become arrays, and a file of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from torch import Tensor, bfloat16

from loss_landscape.files import DAMAGED, UnreadableFileError, read_arrays, write_arrays, write_whole

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
        """The result of which `to_arrays` made these `arrays`."""

    def save(self, path: str | Path) -> None:
        """Write it to `path`, whole or not at all; the suffix .npz is customary, none is added."""
        arrays, facts = self.to_arrays(), {"result": type(self).__name__}
        write_whole(Path(path), lambda file: write_arrays(file, arrays, facts))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """A result that `save` wrote; ValueError where `path` holds another kind, or is damaged."""
        if Path(path).is_dir():
            raise IsADirectoryError(f"{path} is a folder, which only a grid is kept in: Grid.load")
        arrays, facts = read_arrays(Path(path))
        if facts.get("result") != cls.__name__:
            raise ValueError(f"{path} holds {facts.get('result', 'something else')}, not {cls.__name__}")
        try:
            return cls.from_arrays(arrays)
        except DAMAGED as error:
            raise UnreadableFileError(f"{path} holds {cls.__name__} of another version: {error!r}") from error


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
    """The first `most` of a vector's numbers `values`, to three digits."""
    told = ", ".join(f"{float(value):.3g}" for value in values[:most])
    return f"{told}, …" if len(values) > most else told
