"""What a pipeline found, in one JSON and one page to read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from taskshift.intact import write_text
from taskshift.pipeline.prepared import Prepared

HEADLINES: Mapping[str, Mapping[str, str]] = {
    "planes": {
        "hessian/baseline_loss": "loss of the net",
        "hessian/max_loss": "highest loss on the Hessian's plane",
        "random/max_loss": "highest loss on the random plane",
        "trajectory/max_loss": "highest loss on the trajectory's plane",
        "trajectory/explained_variance_1": "share of the trajectory along its first axis",
        "hessian/minimum_offset_alpha": "lowest loss along the first eigenvector, at",
        "hessian/minimum_offset_beta": "lowest loss along the second eigenvector, at",
    },
    "spectrum": {
        "top_eigenvalue_1": "largest eigenvalue λ₁",
        "top_eigenvalue_2": "second eigenvalue λ₂",
        "bottom_eigenvalue_1": "smallest eigenvalue",
        "trace": "trace",
        "negative_mass": "share of negative eigenvalues",
        "zero_mass": "share of eigenvalues near zero",
    },
    "sam": {
        "sharpness": "rise of the loss one step uphill",
        "rho_absolute": "length of that step",
        "asam_sharpness": "rise by a step of each parameter's own size",
    },
    "mode_connectivity": {
        "linear_barrier": "barrier on the straight line",
        "curve_barrier": "barrier on the fitted curve",
        "linear_highest_loss": "highest loss on the straight line",
        "curve_highest_loss": "highest loss on the fitted curve",
    },
    "rank": {
        "approximate_rank": "approximate rank of the features, mean over layers",
        "num_examples": "examples it is measured on",
        "singular_value_gini": "Gini coefficient of the singular values",
    },
    "coupling": {
        "num_points": "pairs of neighbouring snapshots",
        "pearson": "rank drop against loss change, Pearson",
        "spearman": "rank drop against loss change, Spearman",
        "drop_gini": "Gini coefficient of the rank drops",
    },
}
"""Evaluator → what it found → its words on the page; `<name>_standard_error` follows where there is one."""


def write_summary(prepared: Prepared) -> Path:
    """Write summary/summary_table.json and summary/summary.md anew; return the page."""
    table = summary_table(prepared)
    folder = prepared.outdir / "summary"
    write_text(folder / "summary_table.json", json.dumps(table, indent=2) + "\n")
    write_text(folder / "summary.md", "\n".join(page(table, prepared.outdir)) + "\n")
    return folder / "summary.md"


def summary_table(prepared: Prepared) -> dict[str, Any]:
    """The net, what was done to it, every evaluator's numbers under its name, what was left out and why, and the timings."""
    job, options = prepared.job, prepared.plan.config["lla"]["evaluation_data"]
    last = job.task_rows[-1] if job.task_rows else {}
    return {
        "net": job.config["arch"],
        "num_parameters": sum(parameter.numel() for parameter in job.parts.training.net.parameters()),
        "data": job.parts.stream.name,
        "provenance": prepared.provenance,
        "trained": prepared.is_trained,
        "device": str(job.parts.device),
        "evaluation_data": dict(options),
        "training": {name: value for name, value in last.items() if name.startswith(("epoch_", "test_"))},
        **prepared.findings(),
        "left_out": left_out(prepared.outdir),
        "seconds": prepared.seconds(),
    }


def left_out(outdir: Path) -> dict[str, str]:
    """What was left out → the sentence that says why."""
    found = sorted(outdir.glob("*/**/LEFT_OUT.txt"))
    return {str(path.parent.relative_to(outdir)): path.read_text(encoding="utf-8").strip() for path in found}


def page(table: Mapping[str, Any], outdir: Path) -> Iterator[str]:
    """The table in Markdown, line by line, with the pictures that are there."""
    yield f"# {table['net']} on {table['data']}"
    yield ""
    yield f"{table['num_parameters']} parameters, {table['provenance']}; on {table['device']}."
    if not table["trained"]:
        yield ""
        yield "**This net is untrained: nothing below describes a minimum.**"
    if table["training"]:
        yield ""
        yield (
            "Last epoch: " + ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in table["training"].items()) + "."
        )
    for evaluator, words in HEADLINES.items():
        if evaluator in table:
            yield from _section(evaluator, words, table, outdir)
    if table["left_out"]:
        yield from ("", "## left out", "")
        yield from (f"- {name}: {why}" for name, why in table["left_out"].items())
    yield from ("", "## seconds", "", "| | |", "|---|---:|")
    yield from (f"| {name} | {value:.2f} |" for name, value in table["seconds"].items())


def _section(evaluator: str, words: Mapping[str, str], table: Mapping[str, Any], outdir: Path) -> Iterator[str]:
    found = table[evaluator]
    yield from ("", f"## {evaluator.replace('_', ' ')}", "")
    if any(name in found for name in words):
        yield from ("| | |", "|---|---:|")
    for name, said in words.items():
        if name in found:
            yield f"| {said} | {_value(found, name)} |"
    pictures = sorted((outdir / evaluator).glob("**/*.png"))
    if pictures:
        yield from ("", *(f"![{picture.stem}](../{picture.relative_to(outdir)})" for picture in pictures))


def comparison(tables: Sequence[Mapping[str, Any]]) -> str:
    """What was found about several nets side by side, as a table in Markdown; `tables` are their summary tables."""
    lines = ["| | " + " | ".join(table["net"] for table in tables) + " |", "|---|" + "---:|" * len(tables)]
    lines.append("| parameters | " + " | ".join(str(table["num_parameters"]) for table in tables) + " |")
    for evaluator, words in HEADLINES.items():
        for name, said in words.items():
            if any(name in table.get(evaluator, {}) for table in tables):
                lines.append(f"| {said} | " + " | ".join(_value(table.get(evaluator, {}), name) for table in tables) + " |")
    seconds = (f"{sum(table['seconds'].values()):.0f}" for table in tables)
    return "\n".join([*lines, f"| seconds | {' | '.join(seconds)} |"])


def compared(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Two nets' curvature, sharpness and barriers in a sentence, from their summary tables."""
    ratio = other["spectrum"]["top_eigenvalue_1"] / one["spectrum"]["top_eigenvalue_1"]
    place = "flatter" if ratio < 1 else "sharper"
    rises = [table["sam"]["sharpness"] for table in (one, other)]
    straight, curved = ([t["mode_connectivity"][f"{path}_barrier"] for t in (one, other)] for path in ("linear", "curve"))
    return (
        f"On {one['data']} and after this little training, {other['net']} lies in a {place} place than {one['net']}: its largest "
        f"eigenvalue is {ratio:.2g} times as large, and one step uphill costs {rises[1]:.2g} instead of {rises[0]:.2g}; the "
        f"barrier to a second net is {straight[1]:.2g} on the straight line and {curved[1]:.2g} on the fitted curve, against "
        f"{straight[0]:.2g} and {curved[0]:.2g}."
    )


def _value(found: Mapping[str, float], name: str) -> str:
    """A number and its error, or a dash where it is not known."""
    if name not in found:
        return "–"
    error = found.get(f"{name}_standard_error")
    return f"{found[name]:.4g}" + ("" if error is None else f" ± {error:.2g}")
