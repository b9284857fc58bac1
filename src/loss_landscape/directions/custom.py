"""Directions as people have them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from loss_landscape.blockwise import norm
from loss_landscape.directions.points import require_fit
from loss_landscape.nested import as_tensor
from loss_landscape.results.directions import Directions
from loss_landscape.results.info import DirectionInfo
from loss_landscape.surface.surface import LossSurface, require_surface

VectorLike = Tensor | np.ndarray | Mapping[str, Tensor] | Sequence[Tensor] | Iterator[Tensor]
"""One direction: a vector [P], a tensor for each parameter by name, or one for each in the layout's order."""

DirectionsLike = Directions | VectorLike | Sequence[VectorLike]

PARALLEL = 1 - 1e-12  # the |cosine| from which two directions are one


def as_directions(surface: LossSurface, given: DirectionsLike) -> Directions:
    """`given` as directions [P] of `surface`, in its dtype and on its device, with their norms and the origin's.

    It may be `Directions`, which keep what they know of themselves; one direction, as a vector [P], a tensor for each parameter
    by name, or a list or iterator of one for each in the layout's order; a list or tuple of such; or a tensor or numpy array
    [D, P]. Raises ValueError for other shapes, for a direction of length 0 and for two that are parallel, and TypeError for
    anything else.

    >>> as_directions(surface, [{"weight": torch.tensor([[3.0, 4.0]])}])
    Directions(1 × [2], custom, norms 5, cosine 0)
    """
    require_surface(surface)
    if isinstance(given, Directions):
        vectors, info = [_vector(surface, vector) for vector in given], given.info
    else:
        vectors, info = _vectors(surface, given), DirectionInfo()
    if info.origin_norm is None:
        made = with_info(surface, vectors, replace(info, norms=()))
        _require_apart(made)
        return made
    return Directions(tuple(vectors), info)


def custom_directions(surface: LossSurface, *vectors: VectorLike) -> Directions:
    """The given `vectors` as directions of `surface`, each as `as_directions` takes one.

    Raises ValueError and TypeError as that does; two may be parallel.

    >>> custom_directions(surface, torch.tensor([3.0, 4.0]), surface.gradient())
    Directions(2 × [2], custom, norms 5, 4.12, cosine 0.78)
    """
    require_surface(surface)
    return with_info(surface, [_vector(surface, vector) for vector in vectors], DirectionInfo())


def with_info(surface: LossSurface, vectors: Sequence[Tensor], info: DirectionInfo) -> Directions:
    """The vectors with `info` and what every kind of directions tells: norms, the origin's norm, the largest cosine."""
    made = Directions(tuple(vectors), replace(info, origin_norm=norm(surface.origin)))
    diverged = not math.isfinite(made.info.origin_norm or 0.0)  # then its filters are too, and a plane of NaN says so
    if 0.0 in made.info.norms or not (diverged or all(map(math.isfinite, made.info.norms))):
        raise ValueError(f"the directions have norms {list(made.info.norms)}; each must be > 0 and finite")
    return made


def _require_apart(directions: Directions) -> None:
    if abs(directions.info.cosine) >= PARALLEL:
        raise ValueError(
            f"two of the {len(directions)} directions are parallel (cosine {directions.info.cosine:.6g}), so the grid would hold "
            "one line many times; give one of them alone, or a second that is not a multiple of the first"
        )


def _vectors(surface: LossSurface, given: Any) -> list[Tensor]:
    if isinstance(given, Iterator):  # such as net.parameters()
        given = list(given)
    if isinstance(given, Tensor | np.ndarray) and given.ndim == 2 and given.shape[-1] == surface.size:
        return [_vector(surface, row) for row in given]
    if _is_one(surface, given):
        return [_vector(surface, given)]
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise TypeError(_wanted(surface, given))
    return [_vector(surface, vector) for vector in given]


def _is_one(surface: LossSurface, given: Any) -> bool:
    """Whether this is a single direction, not several."""
    if isinstance(given, Tensor | np.ndarray | Mapping):
        return True
    shapes = [tuple(part.shape) for part in given if isinstance(part, Tensor | np.ndarray)] if isinstance(given, Sequence) else []
    return shapes == [tuple(shape) for shape in surface.layout.shapes] and len(shapes) == len(given)


def _vector(surface: LossSurface, given: Any) -> Tensor:
    """One direction as a vector [P]."""
    if isinstance(given, Mapping):
        require_fit(surface.layout, given)
        given = surface.layout.flatten(given)
    elif isinstance(given, Sequence) and not isinstance(given, str):
        given = surface.layout.flatten([torch.as_tensor(as_tensor(part)) for part in given])
    if not isinstance(given, Tensor | np.ndarray):
        raise TypeError(_wanted(surface, given))
    vector = torch.as_tensor(as_tensor(given))
    if vector.shape != (surface.size,):
        raise ValueError(_wanted(surface, given))
    if vector.is_complex():
        raise ValueError("expected a direction of real numbers, got complex ones; parameters are real: give direction.real")
    return vector.detach().to(surface.origin)


def _wanted(surface: LossSurface, given: Any) -> str:
    size, got = surface.size, type(given).__name__
    hint = "build one with surface.layout.flatten(...)"
    if isinstance(given, Tensor | np.ndarray):
        got = str(list(given.shape))
        if given.ndim == 2 and given.shape[0] == size:
            hint = "directions are its columns: give its transpose, vectors.T"
    if isinstance(given, nn.Module):
        hint = "a net is a point: difference_directions(surface, net) leads to it"
    return f"expected a direction [P] with P = {size} parameters, or such in a list, got {got}; {hint}"
