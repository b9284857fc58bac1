"""Is rank lost where the loss no longer falls? A layer's rank and the loss, from snapshot to snapshot of a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taskshift import checkpoint
from taskshift.evaluation import averages, eval_mode
from taskshift.evaluators.axes import text_file
from taskshift.evaluators.evaluator import Artifact, Evaluator, Findings, Measurement, json_file
from taskshift.evaluators.layers import matching
from taskshift.evaluators.planes import step_of
from taskshift.evaluators.rank import check_rank_options, probe
from taskshift.metrics.coupling import Resampling, coupling, drop_statistics
from taskshift.metrics.features import Features, of_each_layer
from taskshift.metrics.rank_drops import relative_drops
from taskshift.metrics.ranks import approximate_rank, singular_values
from taskshift.quantities import Quantity

FEWEST_SNAPSHOTS = 2
COMPARED = ("the drop of rank", "the change of the loss")
OF_EACH_LAYER = ("pearson", "spearman", "drop_gini", "drop_mean")
"""What a recorder is told of each layer; the rest is in metrics.json."""


@dataclass(frozen=True)
class Course:
    """What was measured at each of T snapshots."""

    steps: list[int]
    losses: Tensor  # [T] float64, over the evaluation data
    ranks: Mapping[str, Tensor]  # layer → [T] float64


QUANTITIES = (
    Quantity("num_points", "pairs (d, c) that are finite", "pairs", "`max_checkpoints` − 1 at most"),
    Quantity(
        "<coefficient>", "Pearson's r, or r of the places in order, ties sharing the mean of theirs", "−1 … 1", "Spearman 1904"
    ),
    Quantity(
        "<coefficient>_low",
        "lower end of the interval of `confidence`: a percentile over `num_resamples` draws of n pairs with replacement",
        "−1 … 1",
        "Efron 1979",
    ),
    Quantity("<coefficient>_high", "its upper end", "−1 … 1"),
    Quantity("drop_gini", "Gini coefficient of max(0, d); 0 where nothing drops", "0 … 1"),
    Quantity("drop_mean", "mean of d", "share"),
    Quantity("drop_std", "standard deviation of d, over their number less 1", "share"),
    Quantity("drop_min", "smallest d, the largest rise", "share"),
    Quantity("drop_max", "largest d", "share"),
    Quantity("<layer>/<coefficient>", "the same for one layer", "−1 … 1"),
    Quantity("<layer>/drop_gini", "the same for one layer", "0 … 1"),
    Quantity("<layer>/drop_mean", "the same for one layer", "share"),
)


class Coupling(Evaluator):
    """The drop of rank between neighbouring snapshots of a task against the change of the loss: per layer, and of their mean.

    The rank is the approximate one of the features (see `Rank`), the drop its relative loss, negative where it rises; the change
    of the loss over the evaluation data stands for plasticity. Each snapshot is evaluated with its own buffers. A positive
    correlation says that the loss falls less where rank is lost. For each snapshot it takes a pass over the evaluation data and
    the ranks of every layer: `lla.training.max_checkpoints` times what `rank` takes. At a task's start there are no snapshots.
    """

    quantities = QUANTITIES

    def __init__(
        self,
        layers: str = "*",
        batch_size: int = 256,
        approximate_rank_prop: float = 0.99,
        num_resamples: int = 1000,
        confidence: float = 0.95,
        save_plots: bool = True,
    ):
        check_rank_options(batch_size, approximate_rank_prop)
        self.layers, self.batch_size, self.approximate_rank_prop = layers, batch_size, approximate_rank_prop
        self.resampling, self.save_plots = Resampling(num_resamples, confidence), save_plots

    def __call__(self, measurement: Measurement) -> Findings:
        if len(measurement.trajectory) < FEWEST_SNAPSHOTS:
            return Findings({}, {"LEFT_OUT.txt": text_file(_why_left_out(measurement))})
        course = self._course(measurement)
        layers = {layer: self._of_layer(ranks, course.losses, measurement) for layer, ranks in course.ranks.items()}
        mean = self._of_layer(torch.stack([*course.ranks.values()]).mean(dim=0), course.losses, measurement)
        sampling = {"num_resamples": self.resampling.num_resamples, "confidence": self.resampling.confidence}
        losses = {"loss": course.losses.tolist(), "loss_change": course.losses.diff().tolist()}
        content = {"steps": course.steps} | losses | sampling | {"mean": mean, "layers": layers}
        artifacts: dict[str, Artifact] = {"metrics.json": json_file(content)}
        if self.save_plots:
            title = f"Rank and loss, {measurement.phase} of task {measurement.task.index}"
            artifacts["coupling.png"] = partial(_picture, content=content, title=title)
        return Findings(_scalars(mean, layers), artifacts)

    def _course(self, measurement: Measurement) -> Course:
        """Loss and ranks at every snapshot, seen by a net of its own."""
        net, device, inputs = (
            measurement.fresh_training().net,
            measurement.stream.device,
            probe(measurement, self.batch_size),
        )
        losses, rows = [], []
        with eval_mode(net):
            for snapshot in measurement.trajectory:
                net.load_state_dict(checkpoint.load(snapshot, device))
                losses.append(averages(net, measurement.task, measurement.batches)["loss"])
                rows.append(of_each_layer(net, inputs, self._rank))
        steps = [step_of(snapshot) for snapshot in measurement.trajectory]
        ranks = {layer: _series([row[layer] for row in rows]) for layer in matching(self.layers, rows[0])}
        return Course(steps, _series(losses), ranks)

    def _rank(self, features: Features) -> float:
        return approximate_rank(singular_values(features.as_matrix()), self.approximate_rank_prop)

    def _of_layer(self, ranks: Tensor, losses: Tensor, measurement: Measurement) -> dict[str, Any]:
        """The ranks [T] themselves, the statistics of their drops, and how these go with the change of the losses [T]."""
        drops = relative_drops(ranks)
        found = coupling(drops, losses.diff(), measurement.generator("bootstrap"), self.resampling, COMPARED)
        return {"approximate_rank": ranks.tolist(), "drops": drops.tolist()} | drop_statistics(ranks) | asdict(found)


def _series(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _why_left_out(measurement: Measurement) -> str:
    if measurement.phase == "start":
        return "At a task's start there are no snapshots of it yet.\n"
    return (
        f"Changes take {FEWEST_SNAPSHOTS} snapshots and this task has {len(measurement.trajectory)}; "
        "raise lla.training.max_checkpoints.\n"
    )


def _scalars(mean: Mapping[str, Any], layers: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    found = {"num_points": float(mean["num_points"])} | _numbers(mean)
    for layer, row in layers.items():
        found |= {f"{layer}/{name}": value for name, value in _numbers(row).items() if name in OF_EACH_LAYER}
    return found


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """A row's statistics and, where it has them, its coefficients with their intervals."""
    found = {name: value for name, value in row.items() if name.startswith("drop_")}
    for kind in ("pearson", "spearman"):
        if row[kind] is not None:
            found |= {kind: row[kind]["coefficient"]}
            found |= {f"{kind}_{name}": row[kind][name] for name in ("low", "high")}
    return found


def _picture(path: Path, content: Mapping[str, Any], title: str) -> None:
    from taskshift.pictures.coupling import plot_coupling  # imports matplotlib

    plot_coupling(path, content, title=title)
