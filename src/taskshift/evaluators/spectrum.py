"""How curved is the loss at the net's parameters: eigenvalues, trace, and the whole spectrum's density."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loss_landscape import (
    Checkpointing,
    Density,
    Eigenpairs,
    Estimate,
    HessianOperator,
    Shard,
    density_share,
    layer_curvature,
    spectral_density,
    trace,
)
from taskshift.evaluators.evaluator import Artifact, Evaluator, Findings, Measurement, Request, arrays_file, json_file
from taskshift.evaluators.stability import THRESHOLD, TO_THRESHOLD, preconditioned_sharpness, stability
from taskshift.metrics.signed_spectrum import SignedSpectrum
from taskshift.quantities import OF_THE_VALUE, Column, Quantity

PADDING = 3.0  # of the smoothing's widths, on either side of the outermost nodes


@dataclass(frozen=True)
class DensityOptions:
    """Of the density by stochastic Lanczos quadrature; it takes num_probes × lanczos_steps products with the Hessian."""

    num_probes: int = 8
    lanczos_steps: int = 40
    bins: int = 200  # points at which the smoothed density is taken
    n_kh: float = 0.5  # the power n of K_h(n)

    def __post_init__(self) -> None:
        for name, least in (("num_probes", 1), ("lanczos_steps", 1), ("bins", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"esd.{name} is {getattr(self, name)}; give at least {least}")
        if not self.n_kh > 0:
            raise ValueError(f"esd.n_kh is {self.n_kh}; the power of K_h(n) is above 0")


QUANTITIES = (
    Quantity(
        "top_eigenvalue_<k>",
        "k-th largest λ",
        "loss / θ²",
        "Lanczos, `top_k`",
        error="top_residual_<k>",
        columns=(Column("λ₁\n(residual)", "top_eigenvalue_1", "top_eigenvalue", with_error="{} ({})"),),
    ),
    Quantity(
        "top_residual_<k>",
        "‖Hv − λv‖ / largest |Ritz value| of that pair",
        "relative",
        columns=(Column(None, "top_residual_1", "top_residual"),),
    ),
    Quantity("bottom_eigenvalue_<k>", "k-th smallest λ", "loss / θ²", "Lanczos, `bottom_k`", error="bottom_residual_<k>"),
    Quantity("bottom_residual_<k>", "as for the top", "relative"),
    Quantity("num_unconverged", "pairs whose residual is above `tolerance`", "pairs"),
    Quantity(
        "trace",
        "Σλ, the mean of zᵀHz over random sign vectors z; exact where `hutchinson_probes` ≥ P",
        "loss / θ²",
        "Hutchinson 1990",
        panel="trace of the Hessian, ± standard error",
        error="trace_standard_error",
        columns=(Column("trace\n± error", key="trace", with_error="{} ± {}"),),
    ),
    Quantity(
        "frobenius_norm",
        "‖H‖_F = √tr H², tr H² = P · Σ w θᵢ², mean over probes; needs 2 `lanczos_steps` or more",
        "loss / θ²",
        "`esd.num_probes`",
        error="frobenius_norm_standard_error",
    ),
    Quantity(
        "stability_threshold",
        THRESHOLD,
        "loss / θ²",
        "Cohen et al. 2021, 2022",
    ),
    Quantity(
        "sharpness_to_threshold",
        TO_THRESHOLD,
        "ratio",
        "Cohen et al. 2021, 2022",
    ),
    Quantity(
        "<layer>/top_eigenvalue",
        "largest λ of the Hessian's diagonal block of one module's own parameters",
        "loss / θ²",
        "`per_layer`",
        error="<layer>/top_residual",
    ),
    Quantity("<layer>/top_residual", "‖Bv − λv‖ / largest |Ritz value| of that block B", "relative", "`per_layer`"),
    Quantity(
        "<layer>/trace",
        "its trace, by Hutchinson",
        "loss / θ²",
        "`per_layer`, `hutchinson_probes`",
        error="<layer>/trace_standard_error",
    ),
    Quantity("<layer>/trace_standard_error", "as above", "loss / θ²", "`per_layer`"),
    Quantity("partial_topk_sum", "sum of the `top_k` largest λ", "loss / θ²"),
    Quantity("trace_fraction_topk", "`partial_topk_sum` / `trace`", "share"),
    Quantity(
        "epsilon_rank", "P · Σ w over |θᵢ| > `zero_epsilon` · largest |θᵢ|", "eigenvalues", error="epsilon_rank_standard_error"
    ),
    Quantity(
        "negative_mass",
        "Σ w over θᵢ < −zero, mean over probes",
        "share",
        panel="share of negative eigenvalues, ± standard error",
        error="negative_mass_standard_error",
    ),
    Quantity("positive_mass", "Σ w over θᵢ > zero, mean over probes", "share", error="positive_mass_standard_error"),
    Quantity("zero_mass", "Σ w over |θᵢ| ≤ zero, mean over probes", "share", error="zero_mass_standard_error"),
    Quantity(
        "negative_fraction",
        "negative / (negative + positive mass), mean over probes",
        "share",
        error="negative_fraction_standard_error",
    ),
    Quantity("signed_balance", "positive − negative mass, mean over probes", "share", error="signed_balance_standard_error"),
    Quantity("re", "|θ_min / θ_max| of a probe's own extremes, mean over probes", "ratio", error="re_standard_error"),
    Quantity("khn", "Σ_{θ<−zero} |θw|ⁿ / Σ_{θ>zero} (θw)ⁿ, mean over probes", "ratio", "`esd.n_kh`", error="khn_standard_error"),
    Quantity(
        "<estimate>_standard_error",
        "see above; 0 for an exact value, NaN for one probe",
        OF_THE_VALUE,
        columns=(Column(None, "trace_standard_error", "trace_standard_error"),),
    ),
    Quantity("min_ritz_value", "smallest node of all probes; never below the smallest λ", "loss / θ²"),
    Quantity("max_ritz_value", "largest node of all probes; never above the largest λ", "loss / θ²"),
    Quantity(
        "negative_density_integral",
        "∫ of the smoothed density over λ < 0; differs from the mass by what smoothing carries across 0",
        "share",
    ),
    Quantity("positive_density_integral", "the same over λ > 0", "share"),
    Quantity("negative_density_peak", "highest smoothed density at λ < 0; depends on the width above", "θ² / loss"),
    Quantity("positive_density_peak", "the same at λ > 0", "θ² / loss"),
)


class Spectrum(Evaluator):
    """The Hessian's ends, trace and density over the evaluation data, what is estimated with its standard error."""

    quantities = QUANTITIES

    def __init__(
        self,
        top_k: int = 5,
        bottom_k: int = 1,
        tolerance: float = 1e-3,
        hutchinson_probes: int = 30,
        esd: DensityOptions = DensityOptions(),
        zero_epsilon: float = 1e-3,
        per_layer: bool = False,
        save_numpy: bool = True,
        save_plots: bool = True,
    ):
        if top_k < 1 or bottom_k < 0:
            raise ValueError(f"top_k is {top_k} and bottom_k is {bottom_k}; give at least 1 and 0")
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance is {tolerance}; a relative residual lies between 0 and 1")
        if hutchinson_probes < 2:
            raise ValueError(f"hutchinson_probes is {hutchinson_probes}; a standard error takes at least 2")
        if not 0 < zero_epsilon < 1:
            raise ValueError(f"zero_epsilon is {zero_epsilon}; it is relative to the largest |eigenvalue|, between 0 and 1")
        self.top_k, self.bottom_k, self.hutchinson_probes, self.esd = top_k, bottom_k, hutchinson_probes, esd
        self.tolerance, self.per_layer = tolerance, per_layer
        self.zero_epsilon, self.save_numpy, self.save_plots = zero_epsilon, save_numpy, save_plots
        self.request = Request(top_k, bottom_k, tolerance)

    def __call__(self, measurement: Measurement) -> Findings:
        pairs = measurement.eigenpairs(self.top_k, self.bottom_k)
        hessian = HessianOperator(measurement.surface, memory_budget_mb=measurement.settings.memory_budget_mb)
        total = trace(hessian, method="hutchinson", num_products=self.hutchinson_probes, generator=measurement.generator("trace"))
        options = self._density_options(measurement)
        density = spectral_density(hessian, **options, zero_epsilon=self.zero_epsilon)
        x, curve = self._curve(density)
        top = pairs.values[: pairs.num_top].sum().item()
        scalars = _ends(pairs) | _estimate("trace", total)
        scalars |= {"partial_topk_sum": top, "trace_fraction_topk": top / total.value if total.value else float("nan")}
        scalars |= self._signed(density) | _sides(x, curve)
        scalars |= _estimate("epsilon_rank", density.epsilon_rank(self.zero_epsilon))
        scalars |= _estimate("frobenius_norm", density.frobenius_norm)
        scalars |= self._stability(measurement, hessian, pairs)
        if self.per_layer:
            scalars |= self._layers(measurement)
        details = _details(pairs, density) | {"hessian_method": hessian.method, "hessian_note": hessian.note}
        return Findings(scalars, self._files(measurement, scalars, details, pairs, density, x, curve))

    def compute_share(self, measurement: Measurement, shard: Shard) -> None:
        """A shard's probes of the density."""
        hessian = HessianOperator(measurement.surface, memory_budget_mb=measurement.settings.memory_budget_mb)
        density_share(hessian, **self._density_options(measurement, shard))

    def _density_options(self, measurement: Measurement, shard: Shard | None = None) -> dict[str, Any]:
        return {
            "num_probes": self.esd.num_probes,
            "lanczos_steps": self.esd.lanczos_steps,
            "generator": measurement.generator("spectral density"),
            "checkpointing": Checkpointing(measurement.scratch / "density.npz", shard),
        }

    def _stability(self, measurement: Measurement, hessian: HessianOperator, pairs: Eigenpairs) -> dict[str, float]:
        """How near the optimizer is to the edge of stability; nothing where it is not as it was then."""
        if not measurement.optimizer_known:
            return {}
        optimizer = measurement.training.torch_optimizer
        preconditioned = partial(
            preconditioned_sharpness,
            measurement.surface,
            hessian,
            net=measurement.training.net,
            optimizer=optimizer,
            tolerance=self.tolerance,
            generator=measurement.generator("preconditioned eigenpair"),
        )
        return stability(
            measurement.training.learner.optimizer,
            top=pairs.values[0].item(),
            preconditioned=None if optimizer is None else preconditioned,
        )

    def _layers(self, measurement: Measurement) -> dict[str, float]:
        """The top eigenvalue and the trace of each layer's own block of the Hessian."""
        rows = layer_curvature(
            measurement.surface,
            num_products=self.hutchinson_probes,
            tolerance=self.tolerance,
            generator=measurement.generator("layers"),
            memory_budget_mb=measurement.settings.memory_budget_mb,
        )
        found: dict[str, float] = {}
        for row in rows:
            found[f"{row.name}/top_eigenvalue"] = row.top_eigenvalue
            found[f"{row.name}/top_residual"] = row.residual
            found |= _estimate(f"{row.name}/trace", row.trace)
        return found

    def _signed(self, density: Density) -> dict[str, float]:
        """The statistics of the two signs, each the mean over the probes, and the extreme nodes."""
        signed = SignedSpectrum(density.nodes, density.weights, density.zero_threshold)
        per_probe = {
            "negative_mass": signed.negative_mass(),
            "positive_mass": signed.positive_mass(),
            "zero_mass": signed.zero_mass(),
            "negative_fraction": signed.negative_fraction(),
            "signed_balance": signed.signed_balance(),
            "re": signed.extreme_ratio(),
            "khn": signed.weighted_ratio(self.esd.n_kh),
        }
        found: dict[str, float] = {}
        for name, samples in per_probe.items():
            found |= _estimate(name, Estimate.from_samples(samples))
        live = density.nodes[density.weights != 0]
        return found | {"min_ritz_value": live.min().item(), "max_ritz_value": live.max().item()}

    def _curve(self, density: Density) -> tuple[Tensor, Tensor]:
        """Where the smoothed density is taken, and its values there, [bins] each; NaN for a net that has diverged."""
        if not _is_finite(density):
            nowhere = torch.full((self.esd.bins,), math.nan, dtype=torch.float64)
            return nowhere, nowhere
        live, pad = density.nodes[density.weights > 0], PADDING * density.default_sigma
        steps = torch.linspace(0, 1, self.esd.bins, dtype=torch.float64)
        low, high = live.min() - pad, live.max() + pad
        x = low + (high - low) * steps
        return x, density.density(x)

    def _files(
        self,
        measurement: Measurement,
        scalars: dict[str, float],
        details: dict[str, Any],
        pairs: Eigenpairs,
        density: Density,
        x: Tensor,
        curve: Tensor,
    ) -> dict[str, Artifact]:
        title = f"Hessian spectrum, {measurement.phase} of task {measurement.task.index}"
        files = {"metrics.json": json_file(scalars | details)}
        if self.save_numpy:
            arrays = {"nodes": density.nodes, "weights": density.weights, "x": x, "density": curve}
            files["quadrature.npz"] = arrays_file(**{name: array.cpu().numpy() for name, array in arrays.items()})
        if self.save_plots and _is_finite(density):
            files["esd.png"] = partial(_plot, density=density, title=title, eigenvalues=pairs.values.tolist())
        return files


def _ends(pairs: Eigenpairs) -> dict[str, float]:
    """Eigenvalues and residuals of both ends, numbered outwards in, and how many have not converged."""
    found: dict[str, float] = {}
    values, residuals = pairs.values.tolist(), pairs.residuals.tolist()
    for end, first, last in (("top", 0, pairs.num_top), ("bottom", pairs.num_top, len(values))):
        for number, index in enumerate(range(first, last), start=1):
            found[f"{end}_eigenvalue_{number}"] = values[index]
            found[f"{end}_residual_{number}"] = residuals[index]
    return found | {"num_unconverged": float((~pairs.converged).sum())}


def _estimate(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_standard_error": estimate.standard_error}


def _is_finite(density: Density) -> bool:
    return bool(density.nodes.isfinite().all() and density.weights.isfinite().all())


def _sides(x: Tensor, curve: Tensor) -> dict[str, float]:
    """The smoothed density's integral and highest value on either side of zero."""
    found = {}
    for side, mask in (("negative", x < 0), ("positive", x > 0)):
        there = curve * mask  # NaN stays NaN
        found[f"{side}_density_integral"] = torch.trapezoid(there, x).item()
        found[f"{side}_density_peak"] = there.max().item()
    return found


def _details(pairs: Eigenpairs, density: Density) -> dict[str, Any]:
    return {
        "num_parameters": density.size,
        "eigenvalues": pairs.values.tolist(),
        "residuals": pairs.residuals.tolist(),
        "converged": pairs.converged.tolist(),
        "verified": pairs.verified,
        "products": pairs.num_products,
        "zero": density.zero_threshold,
        "smoothing_width": density.default_sigma if _is_finite(density) else math.nan,
    }


def _plot(path: Path, density: Density, title: str, eigenvalues: list[float]) -> None:
    from loss_landscape.plot import plot_spectrum  # imports matplotlib

    plot_spectrum(path, density, title=title, eigenvalues=eigenvalues)
