"""How curved the loss is in each layer's own parameters."""

from __future__ import annotations

import glob
from collections.abc import Sequence

from loss_landscape.operators.hessian import HessianOperator
from loss_landscape.randomness import GeneratorLike
from loss_landscape.results.layers import LayerCurvature, LayerCurvatures
from loss_landscape.spectra.lanczos import eigenpairs
from loss_landscape.spectra.traces import trace
from loss_landscape.surface.surface import LossSurface, require_surface


def layer_curvature(
    surface: LossSurface,
    patterns: Sequence[str] | str | None = None,
    *,
    num_products: int = 100,
    tolerance: float = 1e-3,
    generator: GeneratorLike = None,
    memory_budget_mb: int = 2048,
) -> LayerCurvatures:
    """The largest eigenvalue and the trace of the Hessian's diagonal blocks on a `surface`, in the order of the parameters.

    A block is what one module owns (its weight and bias), or, where `patterns` are given, the parameters that match a glob such
    as `layer1.*`, one row each. The trace takes at most `num_products` products by Hutchinson's method, with its standard error,
    and is exact where these suffice for every column; the eigenvalue has a relative residual of `tolerance`. `generator` draws
    for both. `memory_budget_mb`, in MiB, is `HessianOperator`'s. The blocks know nothing of how layers act on each other: a layer
    may be flat alone and the net sharp. Raises ValueError where a pattern matches nothing.

    >>> layer_curvature(surface, "weight").to_arrays()["trace_value"]
    array([5.])
    """
    require_surface(surface)
    if isinstance(patterns, str):
        patterns = [patterns]
    blocks = _modules(surface) if patterns is None else {pattern: [pattern] for pattern in patterns}
    rows = []
    for name, names in blocks.items():
        block = surface.restricted(*names)
        operator = HessianOperator(block, memory_budget_mb=memory_budget_mb)
        pairs = eigenpairs(operator, 1, tolerance=tolerance, generator=generator)
        total = trace(operator, num_products=num_products, generator=generator)
        top, residual, converged = (float(found[0]) for found in (pairs.values, pairs.residuals, pairs.converged))
        rows.append(LayerCurvature(name, block.size, top, residual, bool(converged), total))
    return LayerCurvatures(rows)


def _modules(surface: LossSurface) -> dict[str, list[str]]:
    """The parameters of each module that owns some, by its name (the net's own by theirs); globs that match nothing else."""
    owned: dict[str, list[str]] = {}
    for name in surface.layout.names:
        owned.setdefault(name.rpartition(".")[0] or name, []).append(glob.escape(name))
    return owned
