"""Do two short series move together? Correlations with bootstrap intervals, or the reason why there are none."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from taskshift.metrics.gini import gini
from taskshift.metrics.rank_drops import relative_drops

FEWEST_POINTS = 5


@dataclass(frozen=True)
class Correlation:
    """A coefficient and a bootstrap interval."""

    coefficient: float
    low: float
    high: float


@dataclass(frozen=True)
class Coupling:
    """How two series go together; both coefficients are None where `why_none` says why.

    There is no p-value: it would take the points for independent, which neighbours in time are not. The intervals do so too, and
    are too narrow.
    """

    num_points: int
    pearson: Correlation | None = None
    spearman: Correlation | None = None
    why_none: str | None = None


@dataclass(frozen=True)
class Resampling:
    """Of the intervals: how many draws with replacement, and the share of them that an interval holds."""

    num_resamples: int = 1000
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.num_resamples < 1:
            raise ValueError(f"num_resamples is {self.num_resamples}; give at least 1")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence is {self.confidence}; it is a share of the draws, between 0 and 1")


def coupling(
    x: Tensor,
    y: Tensor,
    generator: torch.Generator,
    resampling: Resampling = Resampling(),
    names: tuple[str, str] = ("the first series", "the second series"),
) -> Coupling:
    """Pearson's and Spearman's correlation of those pairs (xᵢ, yᵢ) of `x` and `y` [n] that are finite.

    Intervals are percentiles over draws of n pairs with replacement (Efron 1979), the same draws for both; a draw in which a
    series is constant has no coefficient and does not count. Fewer than five points, or a constant series: no coefficient, and
    the sentence that says so calls the two by their `names`.
    """
    x, y = x.double().cpu(), y.double().cpu()
    finite = x.isfinite() & y.isfinite()
    x, y = x[finite], y[finite]
    if (reason := _why_none(x, y, names)) is not None:
        return Coupling(len(x), why_none=reason)
    draws = torch.randint(len(x), (resampling.num_resamples, len(x)), generator=generator)
    drawn_x, drawn_y = x[draws], y[draws]
    pearson = _correlation(x, y, correlations(drawn_x, drawn_y), resampling.confidence)
    ordered = correlations(average_ranks(drawn_x), average_ranks(drawn_y))
    spearman = _correlation(average_ranks(x), average_ranks(y), ordered, resampling.confidence)
    return Coupling(len(x), pearson, spearman)


def _why_none(x: Tensor, y: Tensor, names: tuple[str, str]) -> str | None:
    if len(x) < FEWEST_POINTS:
        return f"{len(x)} point{'' if len(x) == 1 else 's'}: a correlation takes at least {FEWEST_POINTS}"
    for series, name in zip((x, y), names, strict=True):
        if (series == series[0]).all():
            return f"{name} is {series[0].item():g} at all {len(x)} points"
    return None


def _correlation(x: Tensor, y: Tensor, drawn: Tensor, confidence: float) -> Correlation:
    r, tails = correlations(x, y).item(), torch.tensor([0.5 - confidence / 2, 0.5 + confidence / 2], dtype=torch.float64)
    return Correlation(r, *torch.nanquantile(drawn, tails).tolist())


def correlations(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's r [...] of the rows of `x` and `y` [..., n]; NaN where one of the two is constant."""
    constant = (x == x[..., :1]).all(-1) | (y == y[..., :1]).all(-1)  # by value: the mean of equal numbers may differ from them
    x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    r = (x * y).sum(-1) / (torch.linalg.vector_norm(x, dim=-1) * torch.linalg.vector_norm(y, dim=-1))
    return r.clamp(-1, 1).masked_fill(constant, math.nan)


def average_ranks(values: Tensor) -> Tensor:
    """The place, from 1, of each value in the order of its row, [..., n] float64; equal values share the mean of their places."""
    ordered = values.sort(dim=-1).values
    below = torch.searchsorted(ordered, values)
    up_to = torch.searchsorted(ordered, values, right=True)
    return (below + up_to + 1).double() / 2


def drop_statistics(ranks: Tensor) -> dict[str, float]:
    """What `ranks` [T], one after the other in time, say of the T - 1 relative drops between neighbours.

    Their mean, standard deviation (over T - 2), smallest and largest, a rise counting as a negative drop; the Gini coefficient
    is of the drops alone, rises counting as 0. NaN where there are none, or a rank is NaN.
    """
    drops = relative_drops(ranks)
    if not len(drops):
        return dict.fromkeys(("drop_gini", "drop_mean", "drop_std", "drop_min", "drop_max"), math.nan)
    return {
        "drop_gini": gini(drops.clamp_min(0)),
        "drop_mean": drops.mean().item(),
        "drop_std": drops.std().item() if len(drops) > 1 else math.nan,
        "drop_min": drops.min().item(),
        "drop_max": drops.max().item(),
    }
