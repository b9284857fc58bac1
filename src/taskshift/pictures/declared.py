"""Panels that quantities declare: curves over a run's tasks, epochs or steps, a family's beside what is of all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

from loss_landscape.viewing.theme import BLUE, GREEN, INK, ORANGE, PURPLE, SKY
from taskshift.pictures.draw import Curve, Panel, figure_of, shades
from taskshift.pictures.written_run import WrittenRun
from taskshift.quantities import Quantity

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY)


def picture_of(*groups: str) -> Callable[[WrittenRun], Figure | None]:
    """A picture of the panels that these groups declare, see `_group`."""
    return partial(_draw, groups=groups)


def groups_with_panels(run: WrittenRun) -> list[str]:
    """The groups that declare a panel, each once."""
    return list(dict.fromkeys(_group(quantity) for quantity in run.quantities if quantity.panel is not None))


def declared_panels(run: WrittenRun, groups: Collection[str]) -> Iterator[Panel]:
    """A panel for each title, in the order in which they were declared."""
    shown: dict[tuple[str, str], list[Quantity]] = {}
    for quantity in run.quantities:
        if quantity.panel is not None and _group(quantity) in groups:
            shown.setdefault((_group(quantity), quantity.panel), []).append(quantity)
    for (_, title), quantities in shown.items():
        if run.epochs or not any(map(run.is_of_steps, _names(run, quantities))):
            yield _panel(run, title, quantities)


def _draw(run: WrittenRun, groups: Collection[str]) -> Figure | None:
    return figure_of(declared_panels(run, groups), run.heading)


def _panel(run: WrittenRun, title: str, quantities: Sequence[Quantity]) -> Panel:
    families = [quantity for quantity in quantities if quantity.placeholders]
    singles = [quantity for quantity in quantities if not quantity.placeholders]
    of_families = [curve for quantity in families for curve in _family(run, quantity)]
    of_singles = _single(run, *singles) if len(singles) == 1 and not families else _several(run, singles, beside=bool(families))
    return Panel(title, [*of_families, *of_singles], **_axis(run, _names(run, quantities)))


def _names(run: WrittenRun, quantities: Sequence[Quantity]) -> list[str]:
    return [name for one in quantities for name in run.named(one)]


def _axis(run: WrittenRun, names: Sequence[str]) -> dict[str, Any]:
    """What stands below a panel of these names: steps or epochs where some are of those, else tasks."""
    if any(run.is_of_steps(name) for name in names):
        return run.step_axis
    return run.epoch_axis if any(run.is_of_epochs(name) for name in names) else {}


def _family(run: WrittenRun, quantity: Quantity) -> Iterator[Curve]:
    """A thin curve for each name, in the order of the record, which is that of depth for layers."""
    names = run.named(quantity)
    for name, colour in zip(names, shades(len(names)), strict=True):
        label = " ".join(quantity.placed(name).values())
        yield run.curve(name, colour, label, error=quantity.error_of(name), width=1.0)


def _several(run: WrittenRun, quantities: Sequence[Quantity], *, beside: bool) -> Iterator[Curve]:
    """A curve for each; `beside` a family they are thick and dark."""
    look = {"width": 2.4} if beside else {}
    for quantity, colour in zip(quantities, cycle([INK] if beside else COLOURS), strict=False):
        label = quantity.label or quantity.pattern.rpartition("/")[2]
        yield run.curve(quantity.pattern, colour, label, error=quantity.error, **look)


def _single(run: WrittenRun, quantity: Quantity) -> list[Curve]:
    """The quantity at a task's end, and at its start where it was measured there; or after each epoch, or step."""
    name, error = quantity.pattern, quantity.error
    if run.is_of_epochs(name) or run.is_of_steps(name):
        return [run.curve(name, BLUE, quantity.label, error=error)]
    end = run.curve(name, BLUE, "at a task's end", error=error)
    start = run.curve(f"start/{name}", ORANGE, "at its start", error=error and f"start/{error}", style="--")
    return [end, start] if len(start.x) else [end]


def _group(quantity: Quantity) -> str:
    """What stands before the first slash of its name; `scores` where there is none, as of what a source judges a net by."""
    group, slash, _ = quantity.pattern.partition("/")
    return group if slash else "scores"
