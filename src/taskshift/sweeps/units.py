"""What a metric is measured in, by its name; docs/METRICS.md has every name."""

from __future__ import annotations

import re

UNITS = {
    r"(.+/)?seconds": "s",
    r"task/memory_mb": "MB",
    r".*_accuracy|units/.*_fraction|spectrum/(negative|positive|zero)_mass|spectrum/(negative_fraction|signed_balance)": "share",
    r"spectrum/(.+/)?(top|bottom)_eigenvalue(_\d+)?|spectrum/(.+/)?trace|spectrum/(min|max)_ritz_value": "loss / θ²",
    r"spectrum/(frobenius_norm|stability_threshold|partial_topk_sum)": "loss / θ²",
    r"rank/(.+/)?(approximate|effective|l1|numerical|stable)_rank": "dimensions",
    r"sam/((first_order|asam|expected)_)?sharpness|planes/.+/(\w+_loss|total_persistence|noise_floor)": "loss",
    r"mode_connectivity/(.+_barrier|.+_loss)": "loss",
    r"mode_connectivity/opt_seconds": "s",
    r"mode_connectivity/.+_length": "θ",
    r"sam/keskar_sharpness": "%",
    r"weights/(.+/)?(mean_abs|norm|distance_from_init)": "θ",
}
"""Pattern of a name → its unit; names that none matches have no unit, or one that the task decides."""


def with_unit(metric: str, *, of_classes: bool) -> str:
    """`metric` for an axis, its unit in brackets; the losses of tasks of classes are in nats."""
    name = metric.removeprefix("start/")
    unit = next((unit for pattern, unit in UNITS.items() if re.fullmatch(pattern, name)), None)
    if unit is None and of_classes and name.rpartition("/")[2].endswith("loss"):
        unit = "nats"
    return f"{metric} [{unit}]" if unit else metric
