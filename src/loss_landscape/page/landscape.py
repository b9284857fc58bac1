"""The page of one landscape: what a Writer's folder or a landscape file holds."""

from __future__ import annotations

from collections.abc import Sequence

from loss_landscape.interpretation.evidence import Evidence
from loss_landscape.interpretation.hints import Hint, explained_each
from loss_landscape.page.content import (
    Chart,
    LineView,
    Moment,
    Page,
    Panel,
    PathView,
    PlaneView,
    RunView,
    Series,
    SpectrumView,
    Table,
)
from loss_landscape.page.landscape_cards import landscape_cards
from loss_landscape.page.words import told
from loss_landscape.results.grid import Grid
from loss_landscape.results.hessian_metrics import HessianMetrics
from loss_landscape.storage.records import LandscapeRecord


def landscape_page(record: LandscapeRecord) -> Page:
    """A page of all that `record` holds: answers with their evidence, the grids, the paths, the curvature, how it was made."""
    facts = record.metadata
    model = facts.get("model") if isinstance(facts.get("model"), dict) else {}
    name = str(facts.get("experiment") or (model or {}).get("name") or "loss landscape")
    evidence = Evidence.of(record)
    hints = explained_each(record, record.landscapes)
    run = RunView(
        name,
        _facts(record),
        clock="epoch",
        cards=landscape_cards(record, evidence, hints=hints),
        moments=(_moment(record, evidence.threshold),),
        over=tuple(_curvature_panels(record.hessians)),
        settings=tuple(_settings(record)),
        tables=(_hints_table(hints),),
    )
    return Page(name, (run,))


def _facts(record: LandscapeRecord) -> str:
    """The model, the loss and the data in a line."""
    if not record.grids:
        return ""
    extra = record.main_grid.info.extra
    count = extra.get("num_parameters")
    parts = [extra.get("model"), f"{count:,} parameters" if isinstance(count, int) else None, extra.get("loss")]
    batches = extra.get("num_batches")
    parts.append(f"{batches} batch{'' if batches == 1 else 'es'}" if batches else None)
    return " · ".join(str(part) for part in parts if part)


def _moment(record: LandscapeRecord, threshold: float | None) -> Moment:
    plane, line = record.grids.get("2d"), record.grids.get("1d")
    return Moment(
        number=record.hessians[-1].epoch if record.hessians else 0,
        planes=() if plane is None else (_plane(record, plane),),
        lines=() if line is None else (LineView(f"{line.info.directions.kind} direction", line),),
        volume=record.grids.get("3d"),
        spectrum=_spectrum(record.hessians, threshold),
    )


def _plane(record: LandscapeRecord, grid: Grid) -> PlaneView:
    paths = tuple(PathView.of(path) for path in record.paths_on(grid)) or PathView.along(grid)
    return PlaneView("plane", f"{grid.info.directions.kind} directions", grid, paths)


def _spectrum(hessians: Sequence[HessianMetrics], threshold: float | None) -> SpectrumView | None:
    if not hessians:
        return None
    metrics = hessians[-1]
    note = f"Trace {metrics.trace.value:.4g} ± {metrics.trace.standard_error:.2g}, at epoch {metrics.epoch:g}."
    return SpectrumView(
        metrics.eigenvalues, metrics.errors, metrics.converged, threshold=threshold, note=" ".join([note, *metrics.notes])
    )


def _curvature_panels(hessians: Sequence[HessianMetrics]) -> Sequence[Panel]:
    """Curvature over epochs, where it was measured at several."""
    if len(hessians) < 2:
        return ()
    epochs = tuple(float(metrics.epoch) for metrics in hessians)
    traces = [metrics.trace for metrics in hessians]
    largest = Series("λ_max", tuple(metrics.max_eigenvalue for metrics in hessians), epochs)
    lower, upper = (tuple(trace.value + sign * trace.standard_error for trace in traces) for sign in (-1, 1))
    trace = Series("trace", tuple(trace.value for trace in traces), epochs, lower, upper)
    charts = (Chart("Largest eigenvalue", (largest,), logarithmic=True), Chart("Trace of the Hessian", (trace,)))
    read = "How curved the loss is at the nets of these epochs; the band is one standard error."
    return (Panel("Curvature over training", charts, read, "Why it moved: λ and trace change when layers are rescaled."),)


# -- the tables


def _hints_table(hints: Sequence[Hint]) -> Table:
    columns = ("sight", "of", "answer", "evidence", "it may mean", "but", "to settle it")
    rows = tuple(
        (
            hint.row.sight,
            hint.source or "–",
            hint.answer,
            hint.evidence,
            f"{hint.row.meaning}; one may: {hint.row.action}",
            hint.row.caveat,
            hint.row.settled_by,
        )
        for hint in hints
    )
    return Table(
        "What the numbers say, row by row", columns, rows, "“Cannot tell” is an answer: the evidence speaks for neither side."
    )


def _settings(record: LandscapeRecord) -> Sequence[tuple[str, str]]:
    """All facts about the making, flat, in their order."""
    return list(_flat("", record.metadata))


def _flat(prefix: str, value: object) -> Sequence[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for name, entry in value.items() for pair in _flat(f"{prefix}.{name}" if prefix else str(name), entry)]
    if isinstance(value, list) and len(value) > 8:
        return [(prefix, f"{', '.join(map(str, value[:4]))} … {value[-1]} ({len(value)} values)")]
    return [(prefix, told(value) if isinstance(value, float) else "–" if value is None else str(value))]
