"""Which losses a picture's colours run between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.colors import Normalize

SEVERAL_DECADES = 100.0  # from here on a linear scale would show one colour
MAX_DECADES = 12.0
COMMON = 0.98  # the share of the cells that always count


@dataclass(frozen=True)
class ColourScale:
    """Limits that a few extreme cells cannot stretch; logarithmic where losses of one sign span two decades or more."""

    low: float
    high: float
    logarithmic: bool = False
    clipped: bool = False  # some finite losses are above `high`

    @classmethod
    def of(cls, *losses: np.ndarray) -> ColourScale:
        """One scale for all these losses together; non-finite ones do not count."""
        values = np.concatenate([array[np.isfinite(array)] for array in losses]) if losses else np.zeros(0)
        if values.size == 0:
            return cls(0.0, 1.0)
        low, high = float(values.min()), float(values.max())
        if low >= 0 and high > 0 and high >= SEVERAL_DECADES * low:
            return cls._logarithmic(values[values > 0])
        top = _without_outliers(low, float(np.quantile(values, COMMON)), high)
        return cls(low, top, clipped=top < high)

    @classmethod
    def _logarithmic(cls, positive: np.ndarray) -> ColourScale:
        decades = np.log10(positive)
        high = float(decades.max())
        top = _without_outliers(float(decades.min()), float(np.quantile(decades, COMMON)), high)
        low = max(float(decades.min()), top - MAX_DECADES)
        if low == top:  # every cell is 0 but a few of one height
            return cls(0.0, float(positive.max()))
        return cls(10.0**low, 10.0**top, logarithmic=True, clipped=top < high)

    @property
    def is_flat(self) -> bool:
        """Whether the limits are one number up to rounding."""
        return self.high - self.low <= 1e-12 * max(abs(self.low), abs(self.high))

    def levels(self, count: int) -> np.ndarray:
        """Values inside the scale, evenly apart on it."""
        space = np.geomspace if self.logarithmic else np.linspace
        return space(self.low, self.high, count + 2)[1:-1]

    def norm(self) -> Normalize:
        """The scale for matplotlib; a flat one is opened a little, so that it lies in the middle of the colours."""
        from matplotlib.colors import LogNorm, Normalize

        if self.logarithmic:
            return LogNorm(self.low, self.high)
        margin = (0.1 * abs(self.low) or 1.0) if self.is_flat else 0.0
        return Normalize(self.low - margin, self.high + margin)


def _without_outliers(low: float, common: float, high: float) -> float:
    """`high`, or `common` where what is above it would take more than half of the scale."""
    return common if low < common and high - common > 0.5 * (high - low) else high
