"""Paths between two nets, and nets with their units in another order."""

from __future__ import annotations

from typing import Any

from loss_landscape import (
    align,
    barrier,
    bezier,
    fit_bezier,
    fit_polychain,
    line,
    path_losses,
    polychain,
    repair,
    repaired_line,
    unit_groups,
)
from number_records import calls
from number_records.nets import Case
from number_records.record import Record
from number_records.surfaces import drawn


def connectivity(case: Case, record: Record) -> None:
    """Barriers, fitted curves, alignments and repaired mixtures of the case's two nets."""
    surface = case.like_other_nets()
    ends = (case.model, case.other)
    record.take("path/barrier", lambda: calls.of_path(barrier(surface, *ends, num_points=9)))
    record.take("path/barrier_of_a_state", lambda: calls.of_path(barrier(surface, case.checkpoints[0], case.model, num_points=5)))
    fits = {
        "bezier": lambda **how: fit_bezier(surface, *ends, steps=6, generator=drawn(41), **how),
        "polychain": lambda **how: fit_polychain(surface, *ends, steps=6, generator=drawn(42), **how),
    }
    curve = fits["bezier"]()
    for name, fit in fits.items():
        for between in (1, 2):

            def fitted(fit: Any = fit, between: int = between) -> dict[str, Any]:
                curve = fit(num_control_points=between + 2)
                return {"curve": calls.of_curve(curve), "path": calls.of_path(path_losses(surface, curve, num_points=7))}

            record.take(f"path/{name}_{between}", fitted)
    record.take("path/given", lambda: [calls.of_curve(c) for c in (bezier(curve.controls), polychain(curve.controls))])
    record.take("path/line", lambda: calls.of_curve(line(curve.start, curve.end)))
    units(case, record)


def units(case: Case, record: Record) -> None:
    """What may change places, the other net in this one's order, and mixtures of the two."""
    surface = case.like_other_nets()

    def groups() -> dict[str, Any]:
        found = unit_groups(case.model, case.inputs)
        return {"sizes": found.sizes, "parts": str(dict(found.parts)), "fixed": dict(found.fixed)}

    record.take("units/groups", groups)
    for method in ("weights", "activations"):
        aligned = record.take(
            f"units/{method}",
            lambda m=method: align(case.other, case.model, inputs=case.inputs, method=m, generator=drawn(43)),
            calls.of_alignment,
        )
        if aligned is not None:
            record.take(
                f"units/{method}/barrier",
                lambda aligned=aligned: calls.of_path(barrier(surface, case.model, aligned.state, num_points=5)),
            )
    record.take("units/repair", lambda: repair(surface, case.model, case.other, t=0.4))
    record.take("units/repaired_line", lambda: calls.of_path(repaired_line(surface, case.model, case.other, num_points=4)))
