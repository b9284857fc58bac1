"""A page's content as what its template and its script are handed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from loss_landscape.page.blocks import Block
from loss_landscape.page.content import Card, Cell, Chart, MatrixView, Number, Page, Panel, PlaneView, RunView, Series, Table
from loss_landscape.page.figures import Facts, moment_text, scale_facts, shared_scales
from loss_landscape.page.words import plane_words, told
from loss_landscape.viewing.colour_scale import ColourScale

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
WIDTH, HEIGHT, EDGE = 84, 30, 3  # of a card's curve, in pixels
DRAWN = ("id", "title", "block", "labels", "scale")  # what the script needs of a matrix
SIDE_BY_SIDE = 2  # runs that are shown at once, the first ones to begin with
NAMED = 24  # nets up to which a matrix is a table as well


class Frame:
    """What one page's template needs: the runs, what the script is told (`head`), and its blocks by name."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.runs = list(page.runs)
        self.letters = [_letter(index) if len(self.runs) > 1 else "" for index in range(len(self.runs))]
        self.scales = shared_scales(view for run in self.runs for moment in run.moments for view in moment.planes)
        self.positions = sorted({moment.number for run in self.runs for moment in run.moments})
        self.blocks: dict[str, str] = {}

    def context(self) -> dict[str, Any]:
        """Everything by the name that the template has for it."""
        over, further = (self._panels(place) for place in ("over", "further"))
        matrices = [self._matrix(index, matrix) for index, run in enumerate(self.runs) for matrix in run.matrices]
        head = self._head([*over, *further], matrices)
        return {
            "page": self.page,
            "runs": [self._run(index, run) for index, run in enumerate(self.runs)],
            "cards": [_card(card) for card in self.page.cards],
            "tables": [_table(table) for table in self.page.tables],
            "clock": self._clock(),
            "num_positions": len(self.positions),
            "begin": head["begin"],
            "over": over,
            "further": further,
            "matrices": matrices,
            "kinds": head["kinds"],
            "has": self._has(),
            "settings": _settings(self.runs, self.letters),
            "head": head,
            "blocks": self.blocks,
        }

    def _head(self, panels: Sequence[Facts], matrices: Sequence[Facts]) -> Facts:
        """What the script reads at once; it reads a moment's block when one looks at it."""
        return {
            "clock": self._clock(),
            "positions": self.positions,
            "begin": self._begin(),
            "shown": list(range(len(self.runs)))[:SIDE_BY_SIDE],
            "runs": [self._moments(index, run) for index, run in enumerate(self.runs)],
            "kinds": [self._kind(view) for view in self._kinds()],
            "charts": [chart for panel in panels for chart in panel["charts"]],
            "matrices": [{name: matrix[name] for name in DRAWN} for matrix in matrices],
        }

    def _begin(self) -> int:
        """The position where one begins: the last at which most of the runs shown have a moment, of these one with planes."""
        shown = [{moment.number: moment for moment in run.moments} for run in self.runs[:SIDE_BY_SIDE]]

        def seen(index: int) -> tuple[int, int, int]:
            moments = [own[self.positions[index]] for own in shown if self.positions[index] in own]
            return len(moments), sum(bool(moment.planes) for moment in moments), index

        return max(range(len(self.positions)), key=seen, default=0)

    def _clock(self) -> str:
        return self.runs[0].clock if self.runs else ""

    def _run(self, index: int, run: RunView) -> Facts:
        cards, tables = [_card(card) for card in run.cards], [_table(table) for table in run.tables]
        return {"letter": self.letters[index], "name": run.name, "facts": run.facts, "cards": cards, "tables": tables}

    def _moments(self, index: int, run: RunView) -> Facts:
        """A run's moments at the slider's positions: the caption of each, and the name of its block; null where it has none."""
        at: dict[float, Facts] = {}
        for number, moment in enumerate(run.moments):
            name = f"block-r{index}m{number}"
            self.blocks[name] = moment_text(moment, self.scales)
            at[moment.number] = {"caption": moment.caption, "block": name}
        return {"letter": self.letters[index], "moments": [at.get(position) for position in self.positions]}

    def _kinds(self) -> list[PlaneView]:
        """The first plane of each kind."""
        first: dict[str, PlaneView] = {}
        for run in self.runs:
            for view in (view for moment in run.moments for view in moment.planes):
                first.setdefault(view.kind, view)
        return list(first.values())

    def _kind(self, view: PlaneView) -> Facts:
        read, cannot_tell = plane_words(view.grid)
        own = {"kind": view.kind, "label": view.label, "when": view.when, "scale": scale_facts(self.scales[view.kind])}
        return {**own, "read": read, "cannot_tell": cannot_tell}

    def _has(self) -> dict[str, bool]:
        """Which pictures of moments there are."""
        moments = [moment for run in self.runs for moment in run.moments]
        return {
            "planes": any(moment.planes for moment in moments),
            "paths": any(view.paths for moment in moments for view in moment.planes),
            "lines": any(moment.lines for moment in moments),
            "volume": any(moment.volume is not None for moment in moments),
            "spectrum": any(moment.spectrum is not None for moment in moments),
            "connection": any(moment.connection for moment in moments),
        }

    def _panels(self, place: str) -> list[Facts]:
        """The panels of all runs, those of one title laid over each other."""
        merged: dict[str, Facts] = {}
        numbers = itertools.count()
        for index, run in enumerate(self.runs):
            panels: Sequence[Panel] = getattr(run, place)
            for panel in panels:
                words = {"title": panel.title, "read": panel.read, "cannot_tell": panel.cannot_tell, "charts": {}}
                charts = merged.setdefault(panel.title, words)["charts"]
                for chart in panel.charts:
                    drawn = charts.setdefault(chart.title, _chart(chart, f"chart-{place}-{next(numbers)}"))
                    drawn["series"] += [_series(series, index) for series in chart.series]
        return [{**panel, "charts": list(panel["charts"].values())} for panel in merged.values()]

    def _matrix(self, index: int, matrix: MatrixView) -> Facts:
        block, name = Block(), f"block-r{index}x{len(self.blocks)}"
        at = block.add(matrix.values)
        self.blocks[name] = block.text({"z": at})
        words = {"title": matrix.title, "read": matrix.read, "cannot_tell": matrix.cannot_tell, "unit": matrix.unit}
        finite = matrix.values[np.isfinite(matrix.values)]
        low, high = float(finite.min(initial=0.0)), float(finite.max(initial=0.0))  # 0, where nothing is in the way, is in sight
        scale = scale_facts(ColourScale(low, high if high > low else 1.0))
        own = {"run": index, "letter": self.letters[index], "labels": matrix.labels, "block": name, "scale": scale}
        return {**words, **own, "table": _matrix_table(matrix), "id": f"matrix-{index}-{len(self.blocks)}"}


def _matrix_table(matrix: MatrixView) -> Facts | None:
    """Its numbers and whose they are, where they are few enough to be read."""
    if len(matrix.labels) > NAMED:
        return None
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (label, *map(float, row)) for label, row in zip(matrix.labels, matrix.values, strict=True)
    )
    return _table(Table("The numbers", ("", *matrix.labels), rows))


def _letter(index: int) -> str:
    return LETTERS[index] if index < len(LETTERS) else str(index + 1)


def _chart(chart: Chart, name: str) -> Facts:
    return {"id": name, "title": chart.title, "unit": chart.unit, "log": chart.logarithmic, "series": []}


def _series(series: Series, run: int) -> Facts:
    for part in (series.lower, series.upper, *series.members):
        if len(part) not in (0, len(series.values)):
            raise ValueError(f"series {series.name!r} has {len(series.values)} values but {len(part)} in a part of it")
    bounds = {"lower": series.lower, "upper": series.upper, "members": series.members}
    return {"run": run, "name": series.name, "x": series.x, "values": series.values, **bounds}


def _card(card: Card) -> Facts:
    tone = "open" if card.answer == "cannot tell" or card.worrying is None else "bad" if card.answer == card.worrying else "good"
    return {"card": card, "tone": tone, "curve": _curve(card)}


def _curve(card: Card) -> str:
    """The points of a card's curve as an SVG polyline takes them; gaps and what is not finite are passed over."""
    values = [math.nan if value is None else float(value) for value in card.series]
    if card.logarithmic:
        values = [math.log10(value) if value > 0 else math.nan for value in values]
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    low, high = min(finite), max(finite)
    across, up = (WIDTH - 2 * EDGE) / (len(values) - 1), (HEIGHT - 2 * EDGE) / ((high - low) or 1.0)
    places = (
        (EDGE + across * index, HEIGHT - EDGE - up * (value - low)) for index, value in enumerate(values) if math.isfinite(value)
    )
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _table(table: Table) -> Facts:
    numeric = [all(_is_number(row[column]) for row in table.rows) for column in range(len(table.columns))]
    rows = [[told(cell) for cell in row] for row in table.rows]
    return {
        "title": table.title,
        "columns": table.columns,
        "rows": rows,
        "numeric": numeric,
        "note": table.note,
        "folded": table.folded,
    }


def _is_number(cell: str | Number) -> bool:
    return cell is None or isinstance(cell, int | float | np.number)


def _settings(runs: Sequence[RunView], letters: Sequence[str]) -> Facts:
    """The settings of all runs by name: those that differ, and those that don't."""
    given = [dict(run.settings) for run in runs]
    names = list(dict.fromkeys(name for settings in given for name in settings))
    rows = [(name, [settings.get(name, "–") for settings in given]) for name in names]
    differ = [row for row in rows if len(set(row[1])) > 1]
    return {"differ": differ, "same": [(name, values[0]) for name, values in rows if len(set(values)) == 1], "letters": letters}
