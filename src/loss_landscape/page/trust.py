"""The card that says whether a page's pictures show more than rounding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loss_landscape.interpretation.hints import Answer
from loss_landscape.page.content import Card
from loss_landscape.page.figures import OVER
from loss_landscape.results.grid import Grid
from loss_landscape.results.info import NOISE_MARGIN

QUESTION = "Can the pictures be trusted?"
LIMITS = "Rounding alone is judged: the loss of other data would differ by its sampling error."
SETTLED_BY = "The same plane on other data, and along other directions."


def trust_card(grids: Sequence[tuple[str, Grid]], *, num_unconverged: int = 0) -> Card:
    """Whether all of these named `grids` show more than rounding, every cell is finite, and no eigenvalue is unconverged.

    Where the float noise of one is not known, it cannot tell unless another says no.
    """
    reliefs = [(ratio, name) for name, grid in grids if (ratio := relief_ratio(grid)) is not None]
    lost = sum(grid.num_nonfinite for _, grid in grids)
    counts = f"cells not finite: {lost}; eigenvalues not converged: {num_unconverged}"
    if not reliefs:
        evidence = "No grid has finite cells and a float noise that is known."
        return Card(QUESTION, "cannot tell", "no range over float noise", counts, evidence, LIMITS, SETTLED_BY, "no")
    unknown = [name for name, grid in grids if grid.float_noise is None]
    worst, name = min(reliefs)
    answer: Answer = "no" if worst < NOISE_MARGIN else "cannot tell" if lost or num_unconverged or unknown else "yes"
    times = f"over {OVER:.0f}" if worst > OVER else f"{worst:.2g}"
    compared = f"The range of losses is {times} times the float noise at the worst grid ({name})"
    without = f" Not known is the float noise of: {', '.join(unknown)}." if unknown else ""
    evidence = f"{compared}; from {NOISE_MARGIN:g} times on it shows more than rounding.{without}"
    return Card(QUESTION, answer, f"range {times} × the float noise", counts, evidence, LIMITS, SETTLED_BY, "no")


def relief_ratio(grid: Grid) -> float | None:
    """The range of a grid's losses over its float noise, 0 of a flat one; None without a known noise or a finite cell."""
    noise, finite = grid.float_noise, grid.losses[np.isfinite(grid.losses)]
    if noise is None or not finite.size:
        return None
    relief = float(np.ptp(finite))
    return relief / noise if noise else np.inf if relief else 0.0
