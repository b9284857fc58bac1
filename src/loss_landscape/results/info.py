"""What is known of a grid and of its directions, beside the numbers themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

AXES = ("alpha", "beta", "gamma")
DERIVED = (
    *("relative_norms", "resolution", "span", "relative_span", "coordinates"),
    *("num_cells", "num_evaluated", "num_nonfinite", "rho_relative", "not_moved_note"),
)
"""Entries of the JSON form that follow from others, or from a grid's arrays."""

NOISE_MARGIN = 10.0
"""How many times the float noise a difference of losses must have to be one."""


@dataclass(frozen=True)
class PlanePoint:
    """A net's place on a line, a plane or in a volume.

    `coordinates` are those along the axes, `step` the training step it was at, `residual` its distance from the plane. `loss` is
    its own, `plane_loss` that of its projection on the plane.
    """

    coordinates: tuple[float, ...]
    step: float | None = None
    residual: float | None = None
    loss: float | None = None
    plane_loss: float | None = None

    def to_json(self) -> dict[str, float]:
        """Its entries by name, the coordinates as alpha, beta and gamma."""
        after = {"residual": self.residual, "loss": self.loss, "plane_loss": self.plane_loss}
        named = {"step": self.step, **dict(zip(AXES, self.coordinates, strict=False)), **after}
        return {name: value for name, value in named.items() if value is not None}

    @classmethod
    def from_json(cls, entries: Mapping[str, float]) -> PlanePoint:
        """The point of which `to_json` made these `entries`."""
        coordinates = tuple(entries[name] for name in AXES if name in entries)
        return cls(coordinates, *(entries.get(name) for name in ("step", "residual", "loss", "plane_loss")))


@dataclass(frozen=True)
class DirectionInfo:
    """How directions came about, and how long they are.

    `kind` names the function that made them. `norms` are their lengths, `origin_norm` that of the parameters (None: unknown),
    `cosine` the one of the largest size between two of them. `normalization` is what scaled them, `excluded` the parameters that
    they leave where they are, `filter_norm_error` how far a filter's norm is from the net's. The rest is of some kinds alone:
    `eigenvalues` with their `eigenvalue_residuals`, the nets at `points` of a plane, the `trajectory` with the share of its
    variance along each axis (`explained_variance`) about the point it is `centred_on`, the `num_control_points` of a curve, and
    what the surface holds though the nets given have it otherwise (`not_moved`: batch norm's running statistics, for one).

    >>> random_directions(surface, 1, normalization="model").info.kind
    'random'
    >>> DirectionInfo(norms=(3.0,), origin_norm=2.0).relative_norms
    (1.5,)
    """

    kind: str = "custom"
    norms: tuple[float, ...] = ()
    origin_norm: float | None = None
    cosine: float = 0.0
    normalization: str = "none"
    excluded: tuple[str, ...] = ()
    filter_norm_error: float | None = None
    eigenvalues: tuple[float, ...] | None = None
    eigenvalue_residuals: tuple[float, ...] | None = None
    points: tuple[PlanePoint, ...] | None = None
    trajectory: tuple[PlanePoint, ...] | None = None
    centred_on: str | None = None
    explained_variance: tuple[float, ...] | None = None
    num_control_points: int | None = None
    not_moved: tuple[str, ...] = ()

    @property
    def not_moved_note(self) -> str:
        """In a sentence that the losses are not the given nets' own; "" where they are, as far as is known."""
        if not self.not_moved:
            return ""
        names = ", ".join(self.not_moved[:3]) + (f" and {len(self.not_moved) - 3} more" if len(self.not_moved) > 3 else "")
        return (
            f"not the nets' own losses: the surface holds {names}, which the nets given have otherwise; "
            "batch_norm='recompute' takes batch norm's statistics anew at each point"
        )

    @property
    def relative_norms(self) -> tuple[float, ...] | None:
        """The norms beside the parameters' own, where that is known and not 0."""
        return tuple(norm / self.origin_norm for norm in self.norms) if self.origin_norm else None

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold; entries that this kind of directions has not are left out."""
        entries: dict[str, Any] = {
            "kind": self.kind,
            "direction_norms": list(self.norms),
            "origin_norm": self.origin_norm,
            "relative_norms": None if self.relative_norms is None else list(self.relative_norms),
            "cosine": self.cosine,
            "normalization": self.normalization,
            "excluded": list(self.excluded),
            "filter_norm_error": self.filter_norm_error,
        }
        for name in ("eigenvalues", "eigenvalue_residuals", "explained_variance"):
            entries[name] = _listed(getattr(self, name))
        for name in ("points", "trajectory"):
            entries[name] = _listed(getattr(self, name), PlanePoint.to_json)
        entries |= {"centred_on": self.centred_on, "num_control_points": self.num_control_points}
        if self.not_moved:
            entries |= {"not_moved": list(self.not_moved), "not_moved_note": self.not_moved_note}
        kept = ("origin_norm", "relative_norms", "filter_norm_error")
        return {name: entry for name, entry in entries.items() if entry is not None or name in kept}

    @classmethod
    def from_json(cls, entries: Mapping[str, Any]) -> DirectionInfo:
        """The info of which `to_json` made these `entries`; what is not there has its default, others are passed over."""
        given = {each.name: entries[each.name] for each in fields(cls) if entries.get(each.name) is not None}
        given["norms"] = entries.get("direction_norms", ())
        for name in ("norms", "excluded", "eigenvalues", "eigenvalue_residuals", "explained_variance", "not_moved"):
            if name in given:
                given[name] = tuple(given[name])
        for name in ("points", "trajectory"):
            if name in given:
                given[name] = tuple(PlanePoint.from_json(point) for point in given[name])
        return cls(**given)


@dataclass(frozen=True)
class CheckedCell:
    """A cell beside the same one in another precision: `cell` is its index, `why` it was chosen, `reference` the other loss."""

    cell: tuple[int, ...]
    why: str
    loss: float
    reference: float
    absolute_error: float
    relative_error: float


@dataclass(frozen=True)
class PrecisionError:
    """The largest errors of a net evaluated in lower precision, beside its own dtype, over `num_cells` cells."""

    absolute: float
    relative: float
    num_cells: int


@dataclass(frozen=True)
class FloatNoise:
    """What a grid's losses are worth: cells `checked` against `reference_dtype`.

    `floor` is the largest absolute error of these, None where none was checked. `note` says why none could be. `precision_error`
    is there where the net was evaluated in a lower precision than its surface's.
    """

    floor: float | None = None
    checked: tuple[CheckedCell, ...] = ()
    reference_dtype: str = "float64"
    note: str = ""
    precision_error: PrecisionError | None = None

    def to_json(self) -> dict[str, Any]:
        """The entries of a grid's meta that tell of it."""
        error = None if self.precision_error is None else asdict(self.precision_error)
        note = {"noise_note": self.note} if self.note else {}
        return {"noise_floor": self.floor, "noise": [self._row(cell) for cell in self.checked], "precision_error": error, **note}

    @classmethod
    def from_json(cls, meta: Mapping[str, Any]) -> FloatNoise:
        """What a grid's `meta` says of it."""
        rows, error = meta.get("noise", ()), meta.get("precision_error")
        known = [each.name for each in fields(CheckedCell)]
        dtype = next((name for row in rows for name in row if name not in known), "float64")
        checked = tuple(
            CheckedCell(tuple(row["cell"]), row["why"], row["loss"], row[dtype], row["absolute_error"], row["relative_error"])
            for row in rows
        )
        precision_error = None if error is None else PrecisionError(**error)
        return cls(meta.get("noise_floor"), checked, dtype, meta.get("noise_note", ""), precision_error)

    def _row(self, cell: CheckedCell) -> dict[str, Any]:
        errors = {"absolute_error": cell.absolute_error, "relative_error": cell.relative_error}
        return {"cell": list(cell.cell), "why": cell.why, "loss": cell.loss, self.reference_dtype: cell.reference, **errors}


@dataclass(frozen=True)
class LevelErrors:
    """How far predictions were off, |L̂ − L|/|L|, at the largest.

    `new_cells`: of the cells that came with this level, of `cells_a_side`, predicted from the one before. `held_out`: of
    `num_held_out` cells of the next level, predicted from this one, as the rest would be.
    """

    cells_a_side: int
    new_cells: float
    held_out: float
    num_held_out: int

    def within(self, tolerance: float) -> bool:
        """Whether both errors keep to `tolerance`."""
        return self.new_cells <= tolerance and self.held_out <= tolerance  # NaN does not


@dataclass(frozen=True)
class SpanSearch:
    """How span="auto" found its span: `median_rises` of the loss by half-width, and whether the `target_rise` was `reached`."""

    target_rise: float
    reached: bool
    median_rises: tuple[tuple[float, float], ...]

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {**asdict(self), "median_rises": [list(pair) for pair in self.median_rises]}

    @classmethod
    def from_json(cls, entries: Mapping[str, Any]) -> SpanSearch:
        """The search of which `to_json` made these `entries`."""
        return cls(entries["target_rise"], entries["reached"], tuple((at, rise) for at, rise in entries["median_rises"]))


@dataclass(frozen=True)
class StrategyInfo:
    """How a grid's cells were evaluated.

    `strategy` is "vectorized", "traced" or "eager", and `strategy_note` says why it is not what the rule would choose. `chunk` is
    how many cells were taken at a time, `compiled` whether the loss was, `precision` what the net computed in where that is not
    `dtype`, `weighting` the rule by which batches count, `versions` those of Python, torch and numpy. `unmoved` are the net's
    parameters that the surface leaves where they are, by name, and why; `without_slope` those that move it though autograd gives
    them no derivative. `derivative_note` says, where the cells are an ascent step away, why that step is not up the loss's slope.
    """

    strategy: str
    strategy_note: str
    chunk: int
    compiled: bool
    precision: str | None
    dtype: str
    weighting: str
    versions: Mapping[str, str]
    unmoved: Mapping[str, str] = field(default_factory=dict)
    without_slope: tuple[str, ...] = ()
    derivative_note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The entries of a grid's meta that tell of it."""
        return {**asdict(self), "without_slope": list(self.without_slope)}

    @classmethod
    def from_json(cls, meta: Mapping[str, Any]) -> StrategyInfo | None:
        """What a grid's meta says of it; None where it says nothing. What came with later versions may be missing."""
        given = {each.name: meta[each.name] for each in fields(cls) if each.name in meta}
        if "strategy" not in given or "versions" not in given:
            return None
        return cls(**given | {"without_slope": tuple(given.get("without_slope", ()))})


@dataclass(frozen=True)
class GridInfo:
    """What is known of a grid beside its losses; a grid made by hand knows nothing, and that is no fault.

    `directions` are its axes. `baseline_loss` is the surface's own at the origin, `centre_difference` how far the grid's value
    there was from it. `rho` is the length of the ascent step, None for the loss itself. `span_found` tells of span="auto".
    `noise` says what the losses are worth. With a `tolerance`, `refinement` has the errors measured, level by level, and
    `largest_held_out_error` that of the cells left to prediction. `evaluation` says how, `seconds` how long it took. `extra` are
    entries of the caller's own.

    >>> info = evaluate_grid(surface, torch.eye(2), 3, rho=0.5).info
    >>> info.rho, info.directions.norms
    (0.5, (1.0, 1.0))
    >>> GridInfo.from_json(info.to_json()) == info
    True
    """

    directions: DirectionInfo = DirectionInfo()
    baseline_loss: float | None = None
    centre_difference: float | None = None
    rho: float | None = None
    span_found: SpanSearch | None = None
    noise: FloatNoise = FloatNoise()
    tolerance: float | None = None
    refinement: tuple[LevelErrors, ...] = ()
    largest_held_out_error: float | None = None
    evaluation: StrategyInfo | None = None
    seconds: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rho_relative(self) -> float | None:
        """ρ beside the norm of the parameters, where both are known."""
        norm = self.directions.origin_norm
        return self.rho / norm if self.rho is not None and norm else None

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold, flat: the meta.json of a saved grid but for what follows from its arrays."""
        return {
            **self.directions.to_json(),
            "baseline_loss": self.baseline_loss,
            "centre_difference": self.centre_difference,
            **self.noise.to_json(),
            "tolerance": self.tolerance,
            "refinement": [asdict(errors) for errors in self.refinement],
            "largest_held_out_error": self.largest_held_out_error,
            **({} if self.evaluation is None else self.evaluation.to_json()),
            **({} if self.span_found is None else {"span_found": self.span_found.to_json()}),
            **({} if self.rho is None else {"rho_absolute": self.rho, "rho_relative": self.rho_relative}),
            **self.extra,
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, meta: Mapping[str, Any]) -> GridInfo:
        """The info of which `to_json` made `meta`; what is not there has its default, unknown entries become `extra`."""
        evaluation = StrategyInfo.from_json(meta)
        search = meta.get("span_found")
        info = cls(
            DirectionInfo.from_json(meta),
            meta.get("baseline_loss"),
            meta.get("centre_difference"),
            meta.get("rho_absolute"),
            None if search is None else SpanSearch.from_json(search),
            FloatNoise.from_json(meta),
            meta.get("tolerance"),
            tuple(LevelErrors(**errors) for errors in meta.get("refinement", ())),
            meta.get("largest_held_out_error"),
            evaluation,
            meta.get("seconds"),
        )
        known = info.to_json().keys() | {"noise_note", *DERIVED}
        extra = {name: entry for name, entry in meta.items() if name not in known}
        return cls(**{**{each.name: getattr(info, each.name) for each in fields(cls)}, "extra": extra})


def _listed(entries: Sequence[Any] | None, of: Any = lambda entry: entry) -> list[Any] | None:
    return None if entries is None else [of(entry) for entry in entries]
