"""Layers put together from what was found of their units, in pieces where parts of one go different ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from loss_landscape.units.labels import OTHERS, Unit
from loss_landscape.units.origins import Made, Origins, Use

UNREAD = "nothing reads them"
IN_ANOTHER_ORDER = "others' units are added to them in another order"
ADDED = "what is no unit is added to them"
SCATTERED = "a weight reads them in another order"


@dataclass(frozen=True, eq=False)
class Piece:
    """Neighbouring units of one layer that all go the same ways, `size` from `start` on."""

    name: str
    made: Made
    number: int  # of the layer
    start: int
    size: int
    lost: str  # why they cannot be followed; empty where they can
    group: int  # the same for pieces whose units meet

    def places(self, origins: Origins, labels: Sequence[int]) -> list[int]:
        """For each of a dimension's labels which of these units comes there; -1: none, -2: several."""
        mine = range(self.start, self.start + self.size)
        found = []
        for label in labels:
            here = [place for number, place in origins.labels.sets[label] if number == self.number and place in mine]
            found.append(-1 if not here else here[0] - self.start if len(here) == 1 else -2)
        return found

    def runs(self, origins: Origins, use: Use) -> list[tuple[int, int]]:
        """Offset and stride of each row of these units along a tensor's dimension."""
        return runs(self.places(origins, use.labels), self.size) or []


def runs(places: Sequence[int], size: int) -> list[tuple[int, int]] | None:
    """Offset and stride of each row of units 0, 1, … `size` - 1, as many places for each; None where they lie otherwise.

    >>> from loss_landscape.units.assembly import runs
    >>> runs([-1, 0, 0, 1, 1, 0, 1], 2)
    [(1, 2), (5, 1)]
    """
    found, at = [], 0
    while at < len(places):
        if places[at] == -1:
            at += 1
            continue
        stride = next((step for step in range(len(places) - at) if places[at + step] != 0), len(places) - at)
        end = at + size * stride
        if stride == 0 or list(places[at:end]) != [unit for unit in range(size) for _ in range(stride)]:
            return None
        found.append((at, stride))
        at = end
    return found


def pieces_of(origins: Origins) -> list[Piece]:
    """The pieces of every layer, those that share a fate put together in groups."""
    ways = _Ways(origins)
    pieces: list[Piece] = []
    for number, made in enumerate(origins.made):
        units = [(number, place) for place in range(made.size)]
        for way, together in groupby(units, ways.of):
            own = [place for _, place in together]
            whole = "" if len(own) == made.size else f"[{own[0]}:{own[-1] + 1}]"
            name = made.tensor.removesuffix(".weight") + whole
            pieces.append(Piece(name, made, number, own[0], len(own), way[0], len(pieces)))
    return _grouped(origins, ways, pieces)


class _Ways:
    """What becomes of each unit."""

    def __init__(self, origins: Origins):
        self._lost: dict[Unit, str] = {}
        for label, why in origins.lost.items():
            for unit in origins.labels.sets[label]:
                self._lost.setdefault(unit, why)
        uses: dict[int, set[int]] = {}
        for number, use in enumerate(origins.uses):
            for label in set(use.labels):
                uses.setdefault(label, set()).add(number)
        self.used = {label: origins.labels.sets[label] for label in uses if label}
        self._uses: dict[Unit, set[int]] = {}
        self._others: dict[Unit, set[tuple[int, int]]] = {}
        for label, units in self.used.items():
            for unit in units:
                self._uses.setdefault(unit, set()).update(uses[label])
                before = sum(number == unit[0] and place < unit[1] for number, place in units)  # of its own layer
                self._others.setdefault(unit, set()).update((number, before) for number, _ in units)
        self._read = {
            unit
            for use in origins.uses
            if use.role == "reads"
            for label in set(use.labels)
            for unit in origins.labels.sets[label]
        }

    def of(self, unit: Unit) -> tuple[str, frozenset[int], frozenset[tuple[int, int]]]:
        """Why it is lost, and which tensors and layers have to do with it."""
        why = self._lost.get(unit, "" if unit in self._read else UNREAD)
        return why, frozenset(self._uses.get(unit, ())), frozenset(self._others.get(unit, ()))


def _grouped(origins: Origins, ways: _Ways, pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces with their groups, and lost where one of their group is."""
    home = {(piece.number, place): piece for piece in pieces for place in range(piece.start, piece.start + piece.size)}
    group = list(range(len(pieces)))
    lost = {number: piece.lost for number, piece in enumerate(pieces) if piece.lost}
    index = {id(piece): number for number, piece in enumerate(pieces)}
    for units in set(ways.used.values()):
        here = [(index[id(home[unit])], unit[1] - home[unit].start) for unit in sorted(units - {OTHERS})]
        for number, place in here:
            if OTHERS in units:
                lost.setdefault(number, ADDED)
            if place != here[0][1] or pieces[number].size != pieces[here[0][0]].size:
                lost.setdefault(number, IN_ANOTHER_ORDER)
            group = [group[here[0][0]] if one == group[number] else one for one in group]
        if len({number for number, _ in here}) < len(here):
            lost.setdefault(here[0][0], IN_ANOTHER_ORDER)
    for number, piece in enumerate(pieces):
        for use in origins.uses_by_layer.get(piece.number, ()):
            if number not in lost and runs(piece.places(origins, use.labels), piece.size) is None:
                lost[number] = f"{SCATTERED}: {use.tensor}"
    whys = {group[number]: why for number, why in lost.items()}
    return [
        Piece(one.name, one.made, one.number, one.start, one.size, lost.get(number, whys.get(group[number], "")), group[number])
        for number, one in enumerate(pieces)
    ]
