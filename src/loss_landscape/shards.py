"""Work divided among several processes, each of which keeps its part in a file of its own."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Shard:
    """Part number `index`, from 0, of `count`: every count-th chunk of a grid, or probe of a density, from `index` on.

    Raises ValueError for a number that is not from 0 to count − 1.

    >>> list(Shard(1, 3).share(8))
    [1, 4, 7]
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.index < self.count:
            raise ValueError(f"shard {self.index} of {self.count}: expected a number from 0 to count − 1")

    def share(self, total: int) -> range:
        """Which of `total` things are this shard's; none where there are fewer things than shards."""
        return range(self.index, total, self.count)

    def beside(self, file: Path) -> Path:
        """Where this shard keeps its part of what `file` will hold."""
        return file.with_name(f"{file.stem}.shard_{self.index}_of_{self.count}{file.suffix}")


def shard_files(file: Path) -> list[Path]:
    """The parts of `file` that shards have kept, whatever the number of shards."""
    return sorted(file.parent.glob(f"{glob.escape(file.stem)}.shard_*_of_*{glob.escape(file.suffix)}"))
