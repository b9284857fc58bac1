"""What can be read from each kind of picture, and what can't be told from it; and numbers as text."""

from __future__ import annotations

import math
import re

from loss_landscape.page.content import Cell
from loss_landscape.results.grid import Grid

ReadAndNot = tuple[str, str]

PLANES: dict[str, ReadAndNot] = {
    "trajectory": (
        "The cross is the net, the line its way of training, from ring to star, along the two main directions of that way.",
        "What lies off this plane. The path is a shadow: the next picture shows its own loss beside the plane's. "
        "Planes of other moments have other axes.",
    ),
    "random": (
        "The cross is the net. Both directions are random; with filters' norms a step of one is as long as the filters are, "
        "so that planes of one net at different moments compare.",
        "Saddles: a random plane almost never meets a direction of negative curvature. "
        "A smooth picture is no proof of easy training.",
    ),
    "hessian": (
        "The cross is the net, the axes the directions of largest curvature: how far the loss lets it go before it rises.",
        "Flatness elsewhere: these are the steepest of all directions. From moment to moment they may swap or change sign, "
        "and the picture turns.",
    ),
    "hessian_extremes": (
        "The cross is the net, one axis the direction of largest curvature, the other that of the smallest: "
        "below 0 there is a way down.",
        "How far a direction of negative curvature leads: it is measured at the cross alone.",
    ),
    "gradient": (
        "The cross is the net, the first axis its gradient: how far a step downhill improves the loss.",
        "What the optimizer does: momentum and the noise of batches lead elsewhere.",
    ),
    "three_points": (
        "The plane lies through three nets, the numbered dots: whether a low way leads from one to another within it.",
        "Ways outside the plane: a barrier here may have a detour (see mode connectivity).",
    ),
}
OTHER_PLANE: ReadAndNot = (
    "The cross is the net. Colour is the loss, the same along each white line.",
    "How the loss runs in all other directions, of which there are as many as parameters.",
)
ASCENT: ReadAndNot = (
    "Each place shows the loss after one step uphill of length ρ from there: low places that stay dark are flat.",
    "Generalisation: sharpness changes when layers are rescaled without changing what the net computes.",
)
LINE: ReadAndNot = (
    "The loss along single directions through the net at 0; the ring is the net's own loss.",
    "Whether these directions matter: they are a few of as many as there are parameters.",
)
CUT: ReadAndNot = (
    "The plane's two lines through the net at 0. The grey band is what float rounding can't resolve.",
    "How the loss runs in all other directions.",
)
SURFACE: ReadAndNot = (
    "The same plane with the loss as height, on the colours' scale. The sliders turn and tilt it.",
    "Heights hidden behind a ridge: the plane beside it hides nothing.",
)
PATH: ReadAndNot = (
    "The loss of each net of the path, and that of its shadow on the plane; where they part, the plane is not what training "
    "saw. Beside it, how far off the plane each net is.",
    "What happened between two points. The main directions of any smooth path, a random walk's too, make it look like a curve.",
)
SPECTRUM: ReadAndNot = (
    "How many eigenvalues of the Hessian there are of each size, logarithmic. Triangles are those found one by one, hollow "
    "where they have not converged; the dashed line is where the optimizer's steps overshoot.",
    "Single eigenvalues inside the bulk: the density is as wide as its smoothing. λ changes when layers are rescaled.",
)
VOLUME: ReadAndNot = (
    "A slice of the volume along three directions; the slider moves it. Surfaces of equal loss show it whole.",
    "Whether the directions matter: three of as many as there are parameters.",
)
CONNECTION: ReadAndNot = (
    "The loss on the way from one net to the other. A hump on the straight line that the fitted curve avoids is no real barrier.",
    "That there is no way: another curve, or a permutation of units, may be lower still.",
)


def plane_words(grid: Grid) -> ReadAndNot:
    """What a plane can say and what it can't, by its directions; of one after an ascent, that of the ascent."""
    return ASCENT if grid.info.rho is not None else PLANES.get(grid.info.directions.kind, OTHER_PLANE)


def told(value: Cell, digits: int = 4) -> str:
    """A table's cell: text as it is, whole numbers whole, others with some digits; a dash where nothing was measured."""
    if value is None:
        return "–"
    if isinstance(value, str | bool | int):
        return str(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
    return re.sub(r"e[+]?(-?)0*(?=\d)", r"e\1", f"{value:.{digits}g}").replace("-", "−")
