"""How sure is a mean over runs? The runs drawn again, many times."""

from __future__ import annotations

import numpy as np

LEVEL = 0.95
"""How much of the resampled means an interval holds."""

FEWEST = 3
"""Runs that an interval takes: two can say no more than how far apart they are."""

RESAMPLES = 10_000
_NUMBERS_AT_ONCE = 2_000_000


def mean_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both ends [X] of the percentile bootstrap interval of the mean of each column of `values` [R, X] over its R runs.

    A whole run is drawn at a time, so that columns share their draws; the draws are the same in every call. NaN for fewer
    than `FEWEST` runs. Of few runs such intervals are too narrow: about by √((R − 1)/R). Efron & Tibshirani 1993, ch. 13.
    """
    runs, places = values.shape
    if runs < FEWEST:
        return np.full(places, np.nan), np.full(places, np.nan)
    draws = np.random.default_rng(0).multinomial(runs, np.full(runs, 1 / runs), size=RESAMPLES) / runs  # [B, R]
    parts = np.array_split(values, -(-RESAMPLES * places // _NUMBERS_AT_ONCE), axis=1)
    tail = (1 - LEVEL) / 2
    low, high = np.concatenate([np.quantile(draws @ part, (tail, 1 - tail), axis=0) for part in parts], axis=1)
    return low, high
