"""Is a curvature at the edge of what an optimizer bears?"""

from __future__ import annotations

import math

from loss_landscape.interpretation.hints import Answer

AT_THE_EDGE, FAR_FROM_IT = 0.9, 0.5
"""Shares of the threshold: from the one on the largest eigenvalue is at the edge, below the other far from it."""


def edge_answer(ratio: float) -> Answer:
    """That of the largest eigenvalue over the threshold, "cannot tell" where that is not finite."""
    if not math.isfinite(ratio) or FAR_FROM_IT <= ratio < AT_THE_EDGE:
        return "cannot tell"
    return "yes" if ratio >= AT_THE_EDGE else "no"
