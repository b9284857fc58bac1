"""The whole spectrum of a curvature operator from a few products: stochastic Lanczos quadrature."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from loss_landscape.checkpointing import Checkpointing, require_options
from loss_landscape.operators.base import CurvatureOperator, as_operator
from loss_landscape.randomness import GeneratorLike, generator_from
from loss_landscape.results.density import Density
from loss_landscape.spectra.krylov import tridiagonal
from loss_landscape.spectra.partial_density import PartialDensity, Quadrature
from loss_landscape.spectra.probes import Probes, probe, require_known, spherical
from loss_landscape.spectra.traces import ProbeFallback


def spectral_density(
    operator: CurvatureOperator | Tensor,
    num_probes: int = 8,
    lanczos_steps: int = 50,
    *,
    zero_epsilon: float = 1e-3,
    probes: Probes = "rademacher",
    generator: GeneratorLike = None,
    on_oom: ProbeFallback = "error",
    checkpointing: Checkpointing = Checkpointing(),
) -> Density:
    """The spectral density of an `operator` by Lanczos from `num_probes` random vectors (Ubaru et al. 2017).

    Each probe takes `lanczos_steps` products, P at most (`note` tells); its nodes and weights integrate polynomials up to degree
    2·lanczos_steps − 1 exactly, so the trace and the moments are Hutchinson's. The basis, `lanczos_steps` vectors [P], is kept
    and reorthogonalised, hence no ghost values. `probes` are `rademacher` signs, or `normal` numbers, whose direction is uniform
    on the sphere; `generator` draws them.

    Eigenvalues up to `zero_epsilon` times the largest |node| count as zero: a few nodes scatter the null space of a net with more
    parameters than data to either side of 0, further than rounding would.

    `on_oom="fewer_probes"`: out of memory after two probes or more it ends with those, and `note` says so.

    `checkpointing` names a file that keeps finished probes: interrupted and called again, it goes on after them, with the same
    bits. What `density_share` has kept beside it is taken up too. The caller removes it.

    Raises ValueError for counts or options that can't be, TypeError for what is no operator.

    >>> density = spectral_density(torch.diag(torch.tensor([3.0, 1.0, -2.0])), num_probes=2, lanczos_steps=3)
    >>> density.trace
    Estimate(2 ± 0, 2 samples)
    """
    operator = as_operator(operator)
    require_known(probes)
    _check_counts(num_probes, lanczos_steps)
    if not 0 <= zero_epsilon < 1:
        raise ValueError(f"zero_epsilon is relative to the largest |eigenvalue|, ≥ 0 and < 1, got {zero_epsilon}")
    if on_oom not in ("error", "fewer_probes"):
        raise ValueError(f"on_oom must be 'error' or 'fewer_probes', got {on_oom!r}")
    require_options(checkpointing, "file", by="spectral_density")
    steps = min(lanczos_steps, operator.size)
    notes = [] if steps == lanczos_steps else [f"{steps} Lanczos steps, as many as the matrix has rows, not {lanczos_steps}"]
    rows: list[Quadrature] = []
    try:
        rows.extend(_rows(operator, range(num_probes), steps, probes, generator, checkpointing))
    except torch.OutOfMemoryError:
        if on_oom == "error" or len(rows) < 2:
            raise
        notes.append(f"out of memory: {len(rows)} of {num_probes} probes")
    nodes, weights = (_padded(part, steps) for part in zip(*rows, strict=True))
    threshold = max(zero_epsilon, 10 * torch.finfo(operator.dtype).eps) * float(nodes.abs().max())
    return Density(nodes, weights, operator.size, threshold, "; ".join(notes))


def density_share(
    operator: CurvatureOperator | Tensor,
    *,
    checkpointing: Checkpointing,
    num_probes: int = 8,
    lanczos_steps: int = 50,
    probes: Probes = "rademacher",
    generator: GeneratorLike = None,
) -> None:
    """Compute a shard's probes of an `operator`'s `spectral_density`, into a file of its own, from which that takes them.

    `checkpointing` names the file that all shards share, and the shard. The vectors are those that `spectral_density` would draw
    itself, by the same `num_probes`, `lanczos_steps`, `probes` and `generator`; a shard without a probe does nothing. What
    anybody has is not computed again. Raises as `spectral_density` does, ValueError without a shard as well.

    >>> matrix = torch.diag(torch.tensor([3.0, 1.0, -2.0]))
    >>> for number in range(2):
    ...     density_share(matrix, checkpointing=Checkpointing("density.npz", Shard(number, 2)), lanczos_steps=3)
    >>> spectral_density(matrix, lanczos_steps=3, checkpointing=Checkpointing("density.npz")).trace
    Estimate(2 ± 0, 8 samples)
    """
    operator = as_operator(operator)
    require_known(probes)
    _check_counts(num_probes, lanczos_steps)
    require_options(checkpointing, "file", "shard", by="density_share")
    if checkpointing.shard is None:
        raise ValueError("density_share computes a shard's probes: give checkpointing=Checkpointing(file, shard)")
    steps, numbers = min(lanczos_steps, operator.size), checkpointing.shard.share(num_probes)
    for _ in _rows(operator, numbers, steps, probes, generator, checkpointing):
        pass


def _check_counts(num_probes: int, lanczos_steps: int) -> None:
    if num_probes < 1 or lanczos_steps < 1:
        raise ValueError(f"num_probes and lanczos_steps must be ≥ 1, got {num_probes} and {lanczos_steps}")


def _rows(
    operator: CurvatureOperator,
    numbers: range,
    steps: int,
    probes: Probes,
    generator: GeneratorLike,
    checkpointing: Checkpointing,
) -> Iterator[Quadrature]:
    """The quadrature of each probe of these numbers, ascending; the draws of the others are passed over."""
    generator = generator_from(generator)
    facts = f"{operator.size} {operator.dtype} {steps} {probes}"
    known = PartialDensity(checkpointing, lambda: [facts, generator.get_state(), *operator.fingerprint()])
    for number in range(numbers[-1] + 1 if numbers else 0):
        start = probe(operator, probes, generator) if probes == "rademacher" else spherical(operator, generator)
        known.check(operator, number, start)
        if number in numbers:
            if number not in known.rows:
                known.put(number, _quadrature(operator, start, steps))
            yield known.rows[number]


def _quadrature(operator: CurvatureOperator, start: Tensor, steps: int) -> Quadrature:
    """Nodes and weights [≤ steps] of the measure that `start` sees; one node, NaN, where products are not finite."""
    matrix = tridiagonal(operator, start, steps)
    if not bool(matrix.isfinite().all()):
        return torch.full((1,), torch.nan, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(matrix)
    return values, vectors[0].square()


def _padded(rows: tuple[Tensor, ...], steps: int) -> Tensor:
    """The rows [≤ steps] filled up with zeros, [num_rows, steps]."""
    return torch.stack([torch.nn.functional.pad(row, (0, steps - len(row))) for row in rows])
