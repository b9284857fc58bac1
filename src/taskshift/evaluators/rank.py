"""How many dimensions do the features of each layer use, and where along the depth are they lost?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from taskshift.evaluators.evaluator import Evaluator, Findings, Measurement, arrays_file, json_file
from taskshift.evaluators.layers import matching
from taskshift.metrics import rank_drops, ranks
from taskshift.metrics.features import Features, of_each_layer
from taskshift.metrics.gini import gini
from taskshift.metrics.ranks import Measure
from taskshift.quantities import Column, Quantity

QUANTITIES = (
    Quantity(
        "approximate_rank",
        "least k with Σ_{i≤k} σᵢ² ≥ prop · Σσ²",
        "dimensions",
        "Yang et al. 2019; `approximate_rank_prop`",
        panel="approximate rank of the features",
        label="mean of the layers",
        columns=(Column("approx.\nrank", key="approximate_rank"),),
    ),
    Quantity(
        "effective_rank",
        "exp(−Σ p ln p), p = σ/Σσ",
        "dimensions",
        "Roy & Vetterli 2007",
        panel="effective rank of the features",
        label="mean of the layers",
    ),
    Quantity(
        "l1_rank",
        'least k with Σ_{i≤k} σᵢ ≥ prop · Σσ; elsewhere called srank, or "stable rank"',
        "dimensions",
        "Kumar et al. 2021; `approximate_rank_prop`",
        panel="l1 rank of the features",
        label="mean of the layers",
    ),
    Quantity(
        "numerical_rank",
        "number of σᵢ ≥ ε σ₁",
        "dimensions",
        "`numerical_rank_epsilon`",
        panel="numerical rank of the features",
        label="mean of the layers",
    ),
    Quantity(
        "stable_rank",
        "Σσ² / σ₁²",
        "dimensions",
        "Rudelson & Vershynin 2007",
        panel="stable rank of the features",
        label="mean of the layers",
    ),
    Quantity(
        "singular_value_gini",
        "Gini coefficient of σ: Σᵢ (2i − m − 1) σ₍ᵢ₎ / (m Σσ), m their number, σ₍ᵢ₎ upwards",
        "0 … 1",
        "`compute_gini`",
    ),
    *(
        Quantity(f"<layer>/{measure}_rank", "the same for one layer", "dimensions", panel=f"{measure} rank of the features")
        for measure in get_args(Measure)
    ),
    Quantity("<layer>/singular_value_gini", "the same for one layer", "0 … 1"),
    Quantity("<measure>_drop_gini", "Gini coefficient of d₁ … d_D; 0 where nothing drops", "0 … 1"),
    Quantity("<measure>_drop_centroid", "Σ i dᵢ / Σ dᵢ; NaN where nothing drops", "layers"),
    Quantity("<measure>_aurc", "trapezoidal area under r₀ … r_D over r₀ · D; NaN for one layer", "ratio"),
    Quantity("num_examples", "n", "examples", "`batch_size`"),
)


class Rank(Evaluator):
    """Ranks of the layers' features on the first `batch_size` evaluation examples, from their singular values.

    Features are activation outputs, uncentred, a row an example; a convolution's map is flattened, channels and positions alike.
    No rank can exceed the number of examples, which is logged beside it.
    """

    quantities = QUANTITIES

    def __init__(
        self,
        layers: str = "*",
        measures: Sequence[Measure] = ("approximate",),
        batch_size: int = 256,
        approximate_rank_prop: float = 0.99,
        numerical_rank_epsilon: float = 0.01,
        compute_gini: bool = True,
        save_numpy: bool = True,
    ):
        if not measures or len(set(measures)) < len(measures):
            raise ValueError(f"measures is {list(measures)}; give at least one, each once")
        check_rank_options(batch_size, approximate_rank_prop)
        if not 0 < numerical_rank_epsilon < 1:
            raise ValueError(
                f"numerical_rank_epsilon is {numerical_rank_epsilon}; it is relative to the largest, between 0 and 1"
            )
        known: dict[Measure, Callable[[Tensor], float]] = {
            "approximate": lambda sigma: ranks.approximate_rank(sigma, approximate_rank_prop),
            "effective": ranks.effective_rank,
            "l1": lambda sigma: ranks.l1_rank(sigma, approximate_rank_prop),
            "numerical": lambda sigma: ranks.numerical_rank(sigma, numerical_rank_epsilon),
            "stable": ranks.stable_rank,
        }
        self.layers, self.batch_size, self.compute_gini, self.save_numpy = layers, batch_size, compute_gini, save_numpy
        self.measures = {f"{measure}_rank": known[measure] for measure in measures}

    def __call__(self, measurement: Measurement) -> Findings:
        inputs = probe(measurement, self.batch_size)
        spectra = of_each_layer(measurement.training.net, inputs, _spectrum)
        chosen = matching(self.layers, spectra)
        rows = {layer: self._of_layer(spectra[layer]["singular_values"]) for layer in chosen}
        scalars = {f"{layer}/{name}": value for layer, row in rows.items() for name, value in row.items()}
        scalars |= self._over_layers(list(rows.values())) | {"num_examples": float(len(inputs))}
        content = {layer: {"num_columns": spectra[layer]["num_columns"]} | row for layer, row in rows.items()}
        artifacts = {"metrics.json": json_file({"num_examples": len(inputs), "layers": content})}
        if self.save_numpy:
            sigma = {f"{layer}.singular_values": spectra[layer]["singular_values"].cpu().numpy() for layer in chosen}
            artifacts["singular_values.npz"] = arrays_file(**sigma)
        return Findings(scalars, artifacts)

    def _of_layer(self, sigma: Tensor) -> dict[str, float]:
        row = {name: measure(sigma) for name, measure in self.measures.items()}
        return row | ({"singular_value_gini": gini(sigma)} if self.compute_gini else {})

    def _over_layers(self, rows: list[dict[str, float]]) -> dict[str, float]:
        """Means over the layers, and what becomes of each measure along the depth."""
        found = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
        for name in self.measures:
            along = torch.tensor([row[name] for row in rows], dtype=torch.float64)
            found[f"{name}_drop_gini"] = rank_drops.drop_gini(along)
            found[f"{name}_drop_centroid"] = rank_drops.drop_centroid(along)
            found[f"{name}_aurc"] = rank_drops.aurc(along)
        return found


def check_rank_options(batch_size: int, approximate_rank_prop: float) -> None:
    """Raise ValueError where a rank of so many examples, or by this share, says nothing."""
    if batch_size < 2:
        raise ValueError(f"batch_size is {batch_size}; the rank of fewer than 2 examples says nothing, give at least 2")
    if not 0 < approximate_rank_prop <= 1:
        raise ValueError(f"approximate_rank_prop is {approximate_rank_prop}; it is a share of the whole, above 0 and at most 1")


def probe(measurement: Measurement, num_examples: int) -> Tensor:
    """The first `num_examples` inputs of the evaluation data, or all where there are fewer."""
    taken, missing = [], num_examples
    for inputs, _ in measurement.batches:
        taken.append(inputs[:missing])
        missing -= len(taken[-1])
        if missing == 0:
            break
    return torch.cat(taken)


def _spectrum(features: Features) -> dict[str, Any]:
    matrix = features.as_matrix()
    return {"singular_values": ranks.singular_values(matrix), "num_columns": matrix.shape[1]}
