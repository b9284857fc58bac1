"""How sure is a mean over runs? Student's t: of few runs a bootstrap interval is too narrow, of three it is their range."""

from __future__ import annotations

import numpy as np

LEVEL = 0.95
"""How often such an interval holds the mean of all runs that there could be."""

FEWEST = 3
"""Runs that an interval takes: two can say no more than how far apart they are."""


def t_quantile(degrees: int) -> float:
    """How many standard errors a `LEVEL` interval reaches either way, by Student's t of so many degrees of freedom."""
    from scipy.special import stdtrit  # scipy.stats, which has it all, takes a second to import

    return float(stdtrit(degrees, (1 + LEVEL) / 2))


def mean_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both ends [X] of the t interval of the mean of each column of `values` [R, X] over its R runs: mean ± t · s/√R.

    t is the quantile of Student's distribution with R − 1 degrees of freedom (Student 1908). It holds the mean as often as
    `LEVEL` says where runs are independent and normal; docs/STATISTICS.md has what a simulation says. NaN for fewer than
    `FEWEST` runs.
    """
    runs, places = values.shape
    if runs < FEWEST:
        return np.full(places, np.nan), np.full(places, np.nan)
    reach = t_quantile(runs - 1) * values.std(axis=0, ddof=1) / np.sqrt(runs)
    return values.mean(axis=0) - reach, values.mean(axis=0) + reach


def p_value(differences: np.ndarray) -> float:
    """How often differences [R] of mean 0 would lie as far from it as these, in either direction: the paired t test.

    NaN for fewer than `FEWEST`. Differences that are all alike are 0 by luck with probability 0, unless they are 0.
    """
    runs = len(differences)
    if runs < FEWEST:
        return np.nan
    from scipy.special import stdtr

    error = differences.std(ddof=1) / np.sqrt(runs)
    if error == 0:
        return float(differences[0] == 0)
    return float(2 * stdtr(runs - 1, -abs(differences.mean()) / error))
