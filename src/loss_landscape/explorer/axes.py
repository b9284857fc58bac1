"""The directions that a landscape is sampled along, all in units of the net's own size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from loss_landscape.directions.custom import DirectionsLike, as_directions
from loss_landscape.directions.directions import random_directions
from loss_landscape.directions.normalization import biases_and_norm_layers
from loss_landscape.directions.points import PointLike
from loss_landscape.directions.trajectory import trajectory_directions
from loss_landscape.randomness import generator_from
from loss_landscape.results.directions import Directions
from loss_landscape.results.info import DirectionInfo, PlanePoint
from loss_landscape.surface.surface import LossSurface

RANGE_SCALE = 0.1
"""How far a landscape reaches unless told: a tenth of each filter's norm."""

PATH_SHARE = 0.9
"""How far out the farthest checkpoint is, of the range that is chosen for a path."""


def filter_directions(surface: LossSurface, count: int, seed: int) -> Directions:
    """Random directions with the filters' own norms; where every parameter is a bias, these move too, as one filter each."""
    only_biases = len(biases_and_norm_layers(surface.layout)) == len(surface.layout.names)
    return random_directions(surface, count, exclude_bn_and_bias=not only_biases, generator=generator_from(seed))


def path_directions(surface: LossSurface, checkpoints: Sequence[PointLike], count: int) -> Directions:
    """The principal axes of a path about the net, each as long as the net's parameters, so that 0.1 is a tenth of them."""
    made = trajectory_directions(surface, checkpoints, count=count, scale="unit")
    length = made.info.origin_norm or 1.0
    points = [replace(point, coordinates=_over(point, length)) for point in made.info.trajectory or ()]
    info = replace(made.info, norms=(), trajectory=tuple(points))
    return Directions(tuple(vector * length for vector in made), info)


def path_range(directions: Directions) -> float:
    """How far a landscape must reach to hold the path that its directions come from."""
    reach = max((abs(place) for point in directions.info.trajectory or () for place in point.coordinates), default=0.0)
    return max(reach / PATH_SHARE, RANGE_SCALE)


def given_directions(surface: LossSurface, given: DirectionsLike, count: int) -> Directions:
    """A user's own directions, `count` of them; those of another net's landscape are taken as they are."""
    directions = as_directions(surface, _about(surface, given))
    if len(directions) != count:
        raise ValueError(
            f"a landscape of {count} dimension{'s' if count > 1 else ''} takes as many directions, got {len(directions)}"
        )
    return directions


def _about(surface: LossSurface, given: DirectionsLike) -> DirectionsLike:
    """The same without what is known of them about another net's place."""
    own = float(surface.origin.double().norm())
    if not isinstance(given, Directions) or given.info.origin_norm == own:
        return given
    info = DirectionInfo(given.info.kind, normalization=given.info.normalization, excluded=given.info.excluded)
    return Directions(given.vectors, info)


def _over(point: PlanePoint, length: float) -> tuple[float, ...]:
    return tuple(place / length for place in point.coordinates)
