"""Products, eigenpairs, traces and densities of every curvature matrix, and sharpness."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from loss_landscape import (
    Checkpointing,
    CurvatureOperator,
    EmpiricalFisherOperator,
    GaussNewtonOperator,
    HessianOperator,
    KroneckerFactoredOperator,
    LossSurface,
    PreconditionedOperator,
    SampledFisherOperator,
    Shard,
    adam_preconditioner,
    asam_sharpness,
    density_share,
    diagonal,
    eigenpairs,
    expected_sharpness,
    first_order_sharpness,
    frobenius_norm,
    keskar_sharpness,
    largest_magnitude_eigenpairs,
    layer_curvature,
    sam_sharpness,
    spectral_density,
    stability_thresholds,
    trace,
    trace_and_frobenius_norm,
)
from number_records import calls
from number_records.nets import Case, with_adam
from number_records.record import Record
from number_records.surfaces import drawn

MATRICES: dict[str, Callable[[LossSurface], CurvatureOperator]] = {
    "gauss_newton": GaussNewtonOperator,
    "empirical_fisher": EmpiricalFisherOperator,
    "sampled_fisher": lambda surface: SampledFisherOperator(surface, num_samples=2, generator=drawn(11)),
    "kronecker_factored": KroneckerFactoredOperator,
}


def curvature(case: Case, record: Record) -> None:
    """Every method's products, every matrix's spectrum, estimates, and the layers' own curvature."""
    surface = case.surface()
    products(case, record)
    for name, make in {"hessian": case.hessian, **MATRICES}.items():
        operator = record.take(f"matrix/{name}/made", lambda make=make: make(surface), lambda made: type(made).__name__)
        if operator is not None:
            spectrum(operator, f"matrix/{name}", record)
    estimates(case, record)
    density(case.hessian(surface), record)
    record.take("layers", lambda: [*layer_curvature(surface, num_products=6, tolerance=1e-2, generator=drawn(12))])
    for how in ("batch", "recompute") if case.has_batch_norm else ():
        record.take(
            f"matrix/hessian/batch_norm_{how}",
            lambda how=how: eigenpairs(HessianOperator(case.surface(batch_norm=how)), top=2, tolerance=1e-3),
            calls.of_pairs,
        )


def products(case: Case, record: Record) -> None:
    """The Hessian's products by every method, and what the rule takes."""
    surface = case.surface()
    block = torch.randn(surface.size, 3, generator=drawn(13), dtype=torch.float64).to(surface.origin)
    for method in ("auto", "traced", "retained", "finite_differences"):

        def product(method: str = method) -> dict[str, object]:
            operator = HessianOperator(surface, method=method)
            return {"block": operator @ block, "vector": operator @ block[:, 0], "method": operator.method, "note": operator.note}

        record.take(f"hessian/{method}", product)
    for name, make in {"hessian": case.hessian, "gauss_newton": GaussNewtonOperator}.items():
        record.take(f"{name}/rebuilt_graphs", lambda make=make: make(surface, memory_budget_mb=0) @ block)


def spectrum(operator: CurvatureOperator, name: str, record: Record) -> None:
    """Products and eigenpairs of a matrix."""
    block = torch.randn(operator.size, 2, generator=drawn(14), dtype=torch.float64).to(operator.dtype)
    record.take(f"{name}/product", lambda: operator @ block)
    how = {"tolerance": 1e-3, "generator": drawn(15)}
    record.take(f"{name}/eigenpairs", lambda: calls.of_pairs(eigenpairs(operator, top=2, bottom=1, **how)))
    record.take(f"{name}/trace", lambda: trace(operator, num_products=6, generator=drawn(16)))
    if name.endswith(("fisher", "factored")):
        return
    how = {"tolerance": 1e-3, "generator": drawn(17)}
    record.take(f"{name}/largest_magnitude", lambda: calls.of_pairs(largest_magnitude_eigenpairs(operator, 3, **how)))


def estimates(case: Case, record: Record) -> None:
    """Traces by every method, norms and diagonals, and a spectrum in little memory."""
    surface = case.surface()
    operator = case.hessian(surface)
    for method in ("hutchinson", "hutch++", "xtrace"):
        record.take(f"trace/{method}", lambda m=method: trace(operator, method=m, num_products=12, generator=drawn(18)))
    record.take("trace/to_an_error", lambda: trace(operator, num_products=40, generator=drawn(19), target_error=1.0))
    record.take("trace/both", lambda: trace_and_frobenius_norm(operator, num_products=12, generator=drawn(20)))
    record.take("frobenius", lambda: frobenius_norm(operator, num_products=12, generator=drawn(21)))
    record.take("diagonal", lambda: diagonal(operator, num_products=12, generator=drawn(22)))
    last = case.hessian(surface.restricted(surface.layout.names[-1]))
    record.take("exact", lambda: [trace(last), frobenius_norm(last), diagonal(last)])
    vectors = 24 * surface.size * surface.origin.element_size() / 2**20
    record.take(
        "restarted",
        lambda: calls.of_pairs(eigenpairs(operator, top=2, tolerance=1e-2, generator=drawn(23), memory_budget_mb=vectors)),
    )


def density(operator: CurvatureOperator, record: Record) -> None:
    """The spectral density, in one and from shares, and what is read off it."""
    how = {"num_probes": 2, "lanczos_steps": 10}
    found = record.take("density", lambda: spectral_density(operator, generator=drawn(24), **how), calls.of_density)
    record.take(
        "density/of",
        lambda: {
            "trace": found.trace,
            "frobenius_norm": found.frobenius_norm,
            "negative_mass": found.negative_mass,
            "moment": found.moment(3),
            "effective_dimension": found.effective_dimension(0.1),
            "epsilon_rank": found.epsilon_rank(0.05),
            "exp": found.trace_of(torch.exp),
            "log_determinant": found.log_determinant(100.0),
            "density": found.density(torch.linspace(-1, 5, 13)),
            "sigma": found.default_sigma,
        },
    )
    with tempfile.TemporaryDirectory() as folder:
        partial = Path(folder) / "density.npz"
        for number in range(2):
            density_share(operator, checkpointing=Checkpointing(partial, Shard(number, 2)), generator=drawn(24), **how)
        whole = {"generator": drawn(24), "checkpointing": Checkpointing(partial), **how}
        record.take("density/of_shards", lambda: spectral_density(operator, **whole), calls.of_density)


def sharpness(case: Case, record: Record) -> None:
    """Every measure of sharpness, and where optimizers become unstable."""
    surface = case.surface()
    record.take("sharpness/sam", lambda: sam_sharpness(surface, rho=0.05))
    record.take("sharpness/first_order", lambda: first_order_sharpness(surface, rho=0.05))
    record.take("sharpness/asam", lambda: asam_sharpness(surface, rho=0.5))
    record.take("sharpness/keskar", lambda: keskar_sharpness(surface, epsilon=1e-3, num_steps=5, generator=drawn(31)))
    record.take("sharpness/expected", lambda: expected_sharpness(surface, sigma=0.01, num_samples=4, generator=drawn(32)))
    net, adam = with_adam(case)
    here = LossSurface(net, case.loss_fn, case.batches, dtype=case.dtype)
    scales = record.take("stability/preconditioner", lambda: adam_preconditioner(here, net, adam))
    how = {"tolerance": 1e-3, "generator": drawn(33)}
    record.take(
        "stability/preconditioned",
        lambda: calls.of_pairs(eigenpairs(PreconditionedOperator(case.hessian(here), scales), top=2, **how)),
    )
    for name, optimizer in {
        "adam": adam,
        "sgd": torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
        "nesterov": torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
        "adamw": torch.optim.AdamW(net.parameters(), lr=0.01),
    }.items():
        record.take(f"stability/{name}", lambda optimizer=optimizer: stability_thresholds(optimizer))
