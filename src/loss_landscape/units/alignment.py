"""Permuting one net's units so that it lies close to another: two nets may differ in no more than the order of their units."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from loss_landscape.objective.functional_net import undisturbed
from loss_landscape.randomness import GeneratorLike, generator_from
from loss_landscape.results.result import Result, array
from loss_landscape.units.graph import UnitGraph, require_net_and_inputs
from loss_landscape.units.permutations import State, UnitGroups

MAX_SWEEPS = 100
MIN_GAIN = 1e-12  # beside the largest agreement there could be


@dataclass(frozen=True)
class AlignmentInfo:
    """How units were matched: by which `method`, and, by weights, in how many `sweeps` and whether they `converged`.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> align(net, net, inputs=torch.ones(1, 2)).info.method
    'weights'
    """

    method: str
    sweeps: int | None = None
    converged: bool | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Alignment(Result):
    """A net whose units were put into the order of another's; it computes what it did before.

    `state` is the permuted state dict, `permutations` has for each of the `groups` the unit that came to each place. `distance`
    and `distance_before` are ‖θ − θ_reference‖ over the parameters, with the units permuted and as they were. `info` tells how
    they were matched.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> state = {name: tensor.flip(1 if name == "2.weight" else 0) for name, tensor in net.state_dict().items()}
    >>> twin = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> _ = twin.load_state_dict(state)
    >>> found = align(twin, net, inputs=torch.ones(1, 2))
    >>> found.distance, found.permutations
    (0.0, (tensor([1, 0]),))
    """

    state: dict[str, Tensor]
    permutations: tuple[Tensor, ...]
    groups: UnitGroups
    distance_before: float
    distance: float
    info: AlignmentInfo = AlignmentInfo("custom")

    @property
    def meta(self) -> dict[str, Any]:
        """`info` in its JSON form."""
        return {name: value for name, value in asdict(self.info).items() if value is not None}

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The state's tensors and the permutations by name and number, the distances, and the rest as JSON."""
        tensors = {f"state/{name}": array(tensor) for name, tensor in self.state.items()}
        orders = {f"permutations/{number}": array(order) for number, order in enumerate(self.permutations)}
        distances = {"distance_before": np.array(self.distance_before), "distance": np.array(self.distance)}
        words = {"groups": np.array(json.dumps(self.groups.to_json())), "info": np.array(json.dumps(asdict(self.info)))}
        return {**tensors, **orders, **distances, **words}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Alignment:
        """The alignment of which `to_arrays` made these `arrays`, on the CPU."""
        groups = UnitGroups.from_json(json.loads(str(arrays["groups"])))
        state = {
            name.removeprefix("state/"): torch.from_numpy(part) for name, part in arrays.items() if name.startswith("state/")
        }
        orders = tuple(torch.from_numpy(arrays[f"permutations/{number}"]) for number in range(len(groups.sizes)))
        distances = float(arrays["distance_before"]), float(arrays["distance"])
        return cls(state, orders, groups, *distances, AlignmentInfo(**json.loads(str(arrays["info"]))))

    def __repr__(self) -> str:
        moved = sum(int((order != torch.arange(len(order), device=order.device)).sum()) for order in self.permutations)
        units = f"{moved} of {sum(self.groups.sizes)} units moved in {len(self.groups.sizes)} groups"
        return f"Alignment({self.info.method}, {units}, distance {self.distance_before:.4g} → {self.distance:.4g})"


def align(
    model: nn.Module,
    reference: nn.Module | State,
    *,
    inputs: Any,
    method: Literal["weights", "activations"] = "weights",
    generator: GeneratorLike = None,
) -> Alignment:
    """`model` with its units permuted to be close to `reference`, a net of the same architecture or its state dict.

    The names in a state dict may have a prefix, as those of DataParallel and compiled nets have. `method` "weights" needs
    `inputs`, one batch, only to trace the net: it maximises Σ ⟨W_reference, P W Pᵀ⟩ over all parameters, one group of units
    after the other in an order drawn from the generator (None: the same one every time), each by a linear assignment, until none
    gains (git re-basin, Ainsworth et al. 2023, algorithm 1). "activations" puts those units in one place whose activations on
    `inputs` correlate most, in one pass. What can't be permuted is in `groups.fixed`, with the reason.
    Raises ValueError for nets of two architectures, and where nothing can be permuted.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> other = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> found = align(other, net, inputs=torch.ones(1, 2))
    >>> found.distance <= found.distance_before
    True
    """
    if method not in ("weights", "activations"):
        raise ValueError(f"method must be 'weights' or 'activations', got {method!r}")
    require_net_and_inputs(model, inputs)
    own = _state(model)
    other = _without_prefix(_state(reference), next(iter(own)))
    _require_same_shapes(own, other)
    other = {name: other[name].to(tensor) for name, tensor in own.items()}
    graph = UnitGraph.of(model, inputs)
    groups = graph.groups
    if not groups.sizes:
        raise ValueError(f"no units of this net can be permuted: {_reasons(groups)}")
    trained = [name for name, _ in model.named_parameters()]
    with undisturbed(next(iter(own.values())).device), torch.no_grad():
        if method == "weights":
            match = _Matching(groups, {name: own[name] for name in trained}, {name: other[name] for name in trained})
            permutations, sweeps = match.by_weights(generator_from(generator))
            info = AlignmentInfo(method, sweeps, sweeps < MAX_SWEEPS)
        else:
            outside = dict(model.named_buffers())  # those that are in no state dict
            permutations, info = _by_activations(graph, outside | own, outside | other), AlignmentInfo(method)
        state = groups.permuted(own, permutations)
    before, after = (_distance(one, other, trained) for one in (own, state))
    return Alignment(state, tuple(permutations), groups, before, after, info)


class _Matching:
    """The parameters of two nets, unfolded, in float64."""

    def __init__(self, groups: UnitGroups, own: State, other: State):
        self.groups = groups
        self.own = {name: tensor.double() for name, tensor in own.items()}
        self.other = {name: groups.unfolded(name, tensor.double()) for name, tensor in other.items()}
        count = range(len(groups.sizes))
        self.members = [[(name, place) for name, place in groups.members(group) if name in own] for group in count]
        self.scales = [sum(float(self.other[name].norm() * self.own[name].norm()) for name, _ in one) for one in self.members]
        names = [{name for name, _ in one} for one in self.members]
        self.neighbours = [{other for other in count if other != group and names[other] & names[group]} for group in count]
        self.appears_twice = [len(names[group]) < len(self.members[group]) for group in count]

    def by_weights(self, generator: torch.Generator) -> tuple[list[Tensor], int]:
        """The permutations after coordinate descent, and how many sweeps over the groups gained something."""
        permutations = self.groups.identity()
        pending = set(range(len(permutations)))  # the groups that a change may have given a better order
        for sweep in range(MAX_SWEEPS):
            gained = False
            for group in torch.randperm(len(permutations), generator=generator, device=generator.device).tolist():
                if group in pending:
                    pending.discard(group)
                    if self._improve(group, permutations):
                        gained = True
                        pending |= self.neighbours[group] | ({group} if self.appears_twice[group] else set())
            if not gained:
                return permutations, sweep
        return permutations, MAX_SWEEPS

    def _improve(self, group: int, permutations: list[Tensor]) -> bool:
        """Put the best order of a group, the others' held fast, in its place in `permutations`; whether that is better."""
        similarity = self._similarity(group, permutations)
        before, after = permutations[group], assigned(similarity)
        places = torch.arange(len(before))
        gain = float((similarity[places, after] - similarity[places, before]).sum())
        if self.appears_twice[group]:  # then the order is on both sides of a product, and the similarity only a guide
            gain = self._agreement(group, [*permutations[:group], after, *permutations[group + 1 :]])
            gain -= self._agreement(group, permutations)
        if gain <= MIN_GAIN * self.scales[group]:
            return False
        permutations[group] = after
        return True

    def _similarity(self, group: int, permutations: Sequence[Tensor]) -> Tensor:
        """How well each of the net's units would do in each place, [places, units]."""
        total = torch.zeros(())
        for name, place in self.members[group]:
            mine = self.groups.reordered(name, self.own[name], permutations, but=place)
            total = total.to(self.other[name]) + _rows(self.other[name], place) @ _rows(mine, place).T
        return total.cpu()

    def _agreement(self, group: int, permutations: Sequence[Tensor]) -> float:
        """Σ ⟨W_reference, W⟩ over the tensors with units of a group."""
        names = dict.fromkeys(name for name, _ in self.members[group])  # in order: a sum's last bits depend on it
        return float(sum((self.other[name] * self.groups.reordered(name, self.own[name], permutations)).sum() for name in names))


def _rows(tensor: Tensor, place: int) -> Tensor:
    """A row for each unit that dimension `place` counts."""
    return tensor.movedim(place, 0).reshape(tensor.shape[place], -1)


def assigned(similarity: Tensor) -> Tensor:
    """For each place of [places, units] the unit that comes there, each once, so that the similarities add up to the most."""
    from scipy.optimize import linear_sum_assignment  # slow to import, and seldom needed

    return torch.from_numpy(linear_sum_assignment(similarity.numpy(), maximize=True)[1])


def _by_activations(graph: UnitGraph, own: State, other: State) -> list[Tensor]:
    """The permutations under which units correlate most, summed over all that is computed of each group."""
    groups = graph.groups
    similarities = [torch.zeros(size, size, dtype=torch.float64) for size in groups.sizes]
    for parts, (mine, theirs) in graph.activations(own, other):
        for place, part in enumerate(parts):
            if part.group is not None:
                rows = [_standardised(tensor.reshape([p.size for p in parts]), place) for tensor in (theirs, mine)]
                similarities[part.group] += (rows[0] @ rows[1].T).cpu()
    return [assigned(similarity) for similarity in similarities]


def _standardised(activations: Tensor, place: int) -> Tensor:
    """What each unit gave over all examples and places, [units, n] with rows of mean 0 and length 1; of a constant unit 0."""
    rows = _rows(activations.double(), place)
    rows = rows - rows.mean(dim=1, keepdim=True)
    return torch.nan_to_num(rows / rows.norm(dim=1, keepdim=True), nan=0.0)


def _state(point: nn.Module | State) -> dict[str, Tensor]:
    state = point.state_dict() if isinstance(point, nn.Module) else point
    if not isinstance(state, Mapping):
        raise TypeError(f"expected a net of the same architecture or its state dict as reference, got {type(point).__name__}")
    return {name: tensor.detach() for name, tensor in state.items()}


def _without_prefix(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """A state by names among which `name` is, if all of its names have one prefix more."""
    prefix = "" if name in state else next((longer.removesuffix(name) for longer in state if longer.endswith(name)), "")
    return {longer[len(prefix) :]: tensor for longer, tensor in state.items() if longer.startswith(prefix)}


def _require_same_shapes(own: State, other: State) -> None:
    wrong = [name for name in own if name not in other or own[name].shape != other[name].shape]
    wrong += [name for name in other if name not in own]
    if wrong:
        raise ValueError(
            f"expected two nets of one architecture, but they differ in {', '.join(wrong[:3])}{' …' * (len(wrong) > 3)}"
        )


def _reasons(groups: UnitGroups) -> str:
    return "; ".join(f"{name}: {why}" for name, why in list(groups.fixed.items())[:3])


def _distance(one: State, other: State, names: Sequence[str]) -> float:
    return float(sum((one[name].double() - other[name].double()).square().sum() for name in names)) ** 0.5
