"""Traced losses against the net itself, called point by point."""

from __future__ import annotations

import itertools

import pytest
import torch
from nets import assert_leaves_net_untouched
from torch import Tensor, nn
from torch.nn import functional as F

from loss_landscape import LossSurface, evaluate_grid, random_directions
from loss_landscape.graphs.tracing import UntraceableError, traced
from loss_landscape.surface.cell_graph import CellGraph
from loss_landscape.surface.strategy import EvaluationStrategy
from loss_landscape.surface.traced_loss import TracedLoss

STRATEGIES = [EvaluationStrategy("traced", 16), EvaluationStrategy("vectorized", 4)]


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.inner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(inplace=True))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        made = self.stem(x)
        made = made + self.inner(made)
        return self.head(F.max_pool2d(made, 2).mean(dim=(2, 3)))


class Upwards(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.ConvTranspose2d(3, 2, 2, stride=2), nn.LeakyReLU(0.1, inplace=True), nn.AvgPool2d(4))
        self.head = nn.Linear(18, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).flatten(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells, self.head = nn.GRU(18, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x.reshape(len(x), 6, 18))[0][:, -1])


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.lift, self.layer = nn.Linear(18, 6), nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, dropout=0.3)
        self.place, self.head = nn.Embedding(6, 6), nn.Linear(6, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.lift(x.reshape(len(x), 6, 18)) + self.place.weight).mean(dim=1))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(108, 108), nn.Linear(108, 108)
        self.second.weight = self.first.weight
        self.head = nn.Linear(108, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(torch.sigmoid(self.first(x.flatten(1))))))


def plain() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 3))


def normed() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 20), nn.BatchNorm1d(20), nn.SiLU(), nn.LayerNorm(20), nn.Linear(20, 3))


NETS = [Residual, Upwards, Recurrent, Attentive, Tied, plain, normed]


def batches(dtype: torch.dtype = torch.float64, sizes: tuple[int, ...] = (5, 5, 3)) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(0)
    return [(torch.randn(n, 3, 6, 6, generator=draw, dtype=dtype), torch.randint(0, 3, (n,), generator=draw)) for n in sizes]


def surface_of(make, dtype: torch.dtype = torch.float64, **options) -> LossSurface:
    torch.manual_seed(0)
    return LossSurface(make().to(dtype), nn.CrossEntropyLoss(), options.pop("batches", batches(dtype)), **options)


def plane(surface: LossSurface, count: int = 2) -> tuple[list[Tensor], Tensor]:
    draw = torch.Generator().manual_seed(1)
    directions = [0.3 * torch.randn(surface.size, generator=draw, dtype=surface.dtype) for _ in range(count)]
    return directions, torch.randn(6, count, generator=draw, dtype=torch.float64)


# Agreement with the plain way


@pytest.mark.parametrize("path", STRATEGIES, ids=lambda path: path.name)
@pytest.mark.parametrize("make", NETS)
def test_losses_are_the_nets_own(make, path):
    surface = surface_of(make)
    directions, coordinates = plane(surface)
    expected = surface.losses(displacements=coordinates @ torch.stack(directions))
    torch.testing.assert_close(surface.plane(directions).evaluate(coordinates, path), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("path", STRATEGIES, ids=lambda path: path.name)
@pytest.mark.parametrize("count", [1, 3])
def test_lines_and_volumes(path, count):
    surface = surface_of(plain)
    directions, coordinates = plane(surface, count)
    expected = surface.losses(displacements=coordinates @ torch.stack(directions))
    torch.testing.assert_close(surface.plane(directions).evaluate(coordinates, path), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("path", STRATEGIES, ids=lambda path: path.name)
@pytest.mark.parametrize("make", NETS)
def test_ascended_losses_are_the_nets_own(make, path):
    surface = surface_of(make)
    directions, coordinates = plane(surface)
    expected = []
    for move in coordinates[:3] @ torch.stack(directions):
        slope = surface.gradient(move)
        expected.append(surface.losses(displacements=(move + 0.05 * slope / slope.norm())[None])[0])
    actual = surface.plane(directions).evaluate(coordinates[:3], path, 0.05)
    torch.testing.assert_close(actual, torch.stack(expected), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("make", NETS)
def test_float32_losses_agree_within_the_stated_bound(make):
    surface = surface_of(make, torch.float32)
    directions, coordinates = plane(surface)
    expected = surface.losses(displacements=coordinates.float() @ torch.stack(directions))
    for path in STRATEGIES:
        torch.testing.assert_close(surface.plane(directions).evaluate(coordinates, path), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("path", STRATEGIES, ids=lambda path: path.name)
@pytest.mark.parametrize(
    "loss_fn",
    [
        nn.CrossEntropyLoss(weight=torch.tensor([0.2, 3.0, 1.0])),
        nn.CrossEntropyLoss(ignore_index=1),
        nn.CrossEntropyLoss(reduction="sum", ignore_index=0),
        nn.CrossEntropyLoss(label_smoothing=0.2),
        nn.NLLLoss(),
        nn.NLLLoss(reduction="sum"),
    ],
    ids=str,
)
def test_criteria_of_all_kinds(loss_fn, path):
    torch.manual_seed(0)
    surface = LossSurface(plain().double(), loss_fn, batches())
    directions, coordinates = plane(surface)
    expected = surface.losses(displacements=coordinates @ torch.stack(directions))
    torch.testing.assert_close(surface.plane(directions).evaluate(coordinates, path), expected, rtol=1e-10, atol=1e-10)


def test_an_ignored_example_with_an_infinite_loss_does_not_count():
    inputs, targets = torch.tensor([[1e308, -1e308], [0.5, 0.2]], dtype=torch.float64), torch.tensor([1, 0])
    net = nn.Linear(2, 2, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.eye(2) * 10)
    surface = LossSurface(net, nn.CrossEntropyLoss(ignore_index=1), [(inputs, targets)])
    values = surface.plane([torch.zeros(4, dtype=torch.float64)]).evaluate(torch.zeros(2, 1), EvaluationStrategy("vectorized", 2))
    assert torch.isfinite(values).all()
    torch.testing.assert_close(values, surface.losses(displacements=torch.zeros(2, 4)))


def test_directions_that_leave_parameters_where_they_are():
    surface = surface_of(Residual)
    directions = random_directions(surface, 2, exclude_bn_and_bias=True)
    coordinates = torch.randn(5, 2, dtype=torch.float64)
    expected = surface.losses(displacements=coordinates @ torch.stack(tuple(directions)))
    for path in STRATEGIES:
        torch.testing.assert_close(surface.plane(directions).evaluate(coordinates, path), expected, rtol=1e-10, atol=1e-10)


def test_another_plane_and_a_changed_direction_are_noticed():
    surface = surface_of(plain)
    directions, coordinates = plane(surface)
    for path in STRATEGIES:
        surface.plane(directions).evaluate(coordinates, path)
        directions[0].mul_(2)
        expected = surface.losses(displacements=coordinates @ torch.stack(directions))
        torch.testing.assert_close(surface.plane(directions).evaluate(coordinates, path), expected, rtol=1e-10, atol=1e-10)
        swapped = [directions[1], directions[0]]
        torch.testing.assert_close(surface.plane(swapped).evaluate(coordinates.flip(1), path), expected, rtol=1e-10, atol=1e-10)


def test_batches_beyond_the_memory_bound_are_bound_anew(monkeypatch):
    monkeypatch.setattr("loss_landscape.surface.plane_losses.KEPT_BYTES", 6_000)
    surface = surface_of(plain)
    directions, coordinates = plane(surface)
    expected = surface.losses(displacements=coordinates @ torch.stack(directions))
    whole = surface.plane(directions)
    for _ in range(2):
        torch.testing.assert_close(whole.evaluate(coordinates, STRATEGIES[1]), expected, rtol=1e-10, atol=1e-10)
    (bound,) = whole._bound.values()
    assert 0 < len(bound._bound) < 3


# What is computed once


def roles(make, count: int = 2, kind="loss", **options) -> CellGraph:
    surface = surface_of(make, **options)
    graphs = TracedLoss(surface.objective, surface.layout.unflatten(surface.origin), kind, None)
    return graphs.cell_graph(next(graphs.terms(0.05)), (True,) * len(surface.layout.names), count)


def targets_of(nodes) -> list[str]:
    return [str(node.target) for node in nodes]


def products_of(graph: CellGraph) -> list[torch.Size]:
    return [node.meta["val"].shape for node in graph.varying if node.target is torch.ops.aten.mm.default]


def test_a_first_dense_layer_is_computed_once():
    graph = roles(plain)
    assert targets_of(graph.varying).count("aten.addmm.default") == 1, "only the second layer is made for each cell"
    assert "aten.addmm.default" in targets_of(graph.frontier)


def test_a_first_layer_with_few_inputs_is_made_for_each_cell():
    narrow = lambda: nn.Sequential(nn.Flatten(), nn.Linear(108, 5), nn.ReLU(), nn.Linear(5, 3))  # noqa: E731
    assert targets_of(roles(narrow, 1).frontier).count("aten.addmm.default") == 1
    assert targets_of(roles(narrow, 9).frontier).count("aten.addmm.default") == 0, "ten images cost more than 108 products"
    assert targets_of(roles(Residual).varying).count("aten.convolution.default") == 2


def test_a_step_along_the_first_layers_gradient_takes_its_gram_matrix():
    few = roles(plain, kind="ascent", batches=batches(sizes=(5,)))
    assert torch.Size([20, 108]) not in products_of(few), "no gradient of the first weight is made"
    many = roles(plain, kind="ascent", batches=batches(sizes=(300,)))
    assert torch.Size([20, 108]) in products_of(many), "the Gram matrix of 300 examples costs more"


# Losses that are no fixed graph


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(108, 3)

    def forward(self, x: Tensor) -> Tensor:
        made = self.head(x.flatten(1))
        return made if made.sum() > 0 else 2 * made


class Draws(Branches):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(x.flatten(1), 0.5, training=True))


class Clamps(Branches):
    """Writes to its own weight behind autograd's back."""

    def forward(self, x: Tensor) -> Tensor:
        self.head.weight.data.clamp_(-0.05, 0.05)
        return self.head(x.flatten(1))


@pytest.mark.parametrize("kind", [Branches, Draws])
def test_a_net_without_a_fixed_graph_is_called_point_by_point(kind):
    surface = surface_of(kind)
    path = surface.plane([surface.origin]).strategy()
    assert path.name == "eager"
    held = "one draw of random numbers (torch) is held"
    assert path.note.startswith(held if kind is Draws else "the loss can't be traced: ")


@pytest.mark.parametrize("kind", [Branches, Clamps])
def test_a_grid_of_such_a_net_has_the_nets_own_values(kind):
    surface = surface_of(kind)
    directions, _ = plane(surface)
    with assert_leaves_net_untouched(surface.objective.net.module):
        grid = evaluate_grid(surface, directions, resolution=3)
    assert (grid.meta["strategy"] == "eager") == (kind is Branches) == bool(grid.meta["strategy_note"])
    cells = torch.tensor(list(itertools.product([-1.0, 0.0, 1.0], repeat=2)), dtype=torch.float64)
    expected = surface.losses(displacements=cells @ torch.stack(directions)).reshape(3, 3)
    torch.testing.assert_close(torch.from_numpy(grid.losses), expected, rtol=1e-12, atol=0)


class ExitsEarly(Branches):
    """Only the examples that are not sure yet go through a second layer, if there are any."""

    def __init__(self):
        super().__init__()
        self.more = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        made = self.head(x.flatten(1))
        unsure = (made.softmax(1).amax(1) < 0.8).nonzero()[:, 0]
        return made if unsure.numel() == 0 else made.index_copy(0, unsure, self.more(made[unsure]))


def hard_examples(outputs: Tensor, targets: Tensor) -> Tensor:
    losses = F.cross_entropy(outputs, targets, reduction="none")
    hard = losses[losses > 1.0]
    return hard.sum() / max(hard.numel(), 1)


def by_numpy(outputs: Tensor, targets: Tensor) -> Tensor:
    weights = torch.from_numpy(outputs.detach().softmax(1).amax(1).numpy().copy())
    return (F.cross_entropy(outputs, targets, reduction="none") * weights).mean()


def by_list(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets) * max(outputs.detach().flatten().tolist())


SELECTS = {
    "an early exit": (ExitsEarly, nn.CrossEntropyLoss(), "the shape that aten.nonzero.default gives depends on values"),
    "hard examples": (plain, hard_examples, "the shape that aten.index.Tensor gives depends on values"),
    "NumPy": (plain, by_numpy, "a tensor that depends on the inputs goes through NumPy or a list"),
    "a list": (plain, by_list, "a tensor that depends on the inputs goes through NumPy or a list"),
}


@pytest.mark.parametrize(("make", "loss", "note"), SELECTS.values(), ids=SELECTS)
def test_counts_and_values_are_not_baked_into_a_graph(make, loss, note):
    torch.manual_seed(0)
    (batch,) = batches(sizes=(20,))
    surface = LossSurface(make().double(), loss, [batch])
    generator = torch.Generator().manual_seed(0)
    along = surface.plane([3 * torch.randn(surface.size, dtype=torch.float64, generator=generator)])
    strategy, cells = along.strategy(), torch.linspace(-1, 1, 9)[:, None]
    assert strategy.name == "eager"
    assert strategy.note == f"the loss can't be traced: {note}"
    expected = surface.losses(displacements=cells.double() * along.directions[0])
    torch.testing.assert_close(along.evaluate(cells, strategy), expected, rtol=1e-12, atol=0)


def masked(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    images, labels = batch
    kept = labels > 0
    return F.cross_entropy(model(images)[kept], labels[kept])


def whole_or_masked(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1]) if bool((batch[1] > 0).all()) else masked(model, batch)


def by_list_of_labels(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return model(batch[0]).square().mean() * max(batch[1].tolist())


@pytest.mark.parametrize("loss", [masked, whole_or_masked, by_list_of_labels])
def test_what_the_batch_alone_decides_is_traced_for_each_batch(loss):
    first, second = batches(sizes=(20, 20))
    third = first[0].flip(0), first[1].clamp_min(1)
    net = plain().double()
    for given in ([first], [first, second, third]):
        surface = LossSurface(net, batch_loss=loss, batches=given, batch_weight=lambda batch: int((batch[1] > 0).sum()))
        line = surface.plane([surface.origin])
        assert line.strategy().name == "vectorized"
        cells = torch.tensor([[0.0], [-0.5]])
        expected = surface.losses(displacements=cells.double() * surface.origin)
        torch.testing.assert_close(line.evaluate(cells, line.strategy()), expected, rtol=1e-10, atol=0)


def test_batches_of_which_the_same_was_seen_share_a_graph():
    images = torch.randn(4, 3, dtype=torch.float64)
    calls = []

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        calls.append(1)
        return model(batch[0]).square().mean() * (1 if bool(batch[1].all()) else 2)

    masks = [torch.tensor([True, True]), torch.tensor([True, False]), torch.tensor([False, False]), torch.tensor([True, True])]
    surface = LossSurface(nn.Linear(3, 2).double(), batch_loss=loss, batches=[(images, mask) for mask in masks], batch_weight=len)
    plane, cells = surface.plane([surface.origin]), torch.tensor([[0.3]])
    strategy = plane.strategy()
    calls.clear()
    found = plane.evaluate(cells, strategy)
    assert len(calls) == 1  # all true was traced for the strategy, not all true is now
    torch.testing.assert_close(found, plane.plain_losses(cells), rtol=1e-12, atol=0)


def test_batches_that_decide_in_too_many_ways_are_evaluated_by_the_net():
    given = [(torch.randn(12, 3, dtype=torch.float64), torch.arange(12) < count) for count in range(1, 11)]

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return model(batch[0][batch[1]]).square().mean()

    surface = LossSurface(
        nn.Linear(3, 2).double(), batch_loss=loss, batches=given, batch_weight=lambda batch: int(batch[1].sum())
    )
    grid = evaluate_grid(surface, [surface.origin], resolution=3)
    assert grid.meta["strategy"] == "eager"
    assert "the values of the batches decide its operations, in more than 8 ways" in grid.meta["strategy_note"]


def test_lengths_and_packed_sentences_are_of_the_batch_alone():
    layer, lengths = nn.GRU(3, 4, batch_first=True).double(), [torch.tensor([2, 4, 1]), torch.tensor([3, 3, 2])]

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(2 * batch[0], batch[1], batch_first=True, enforce_sorted=False)
        return model(packed)[1].square().mean()

    surface = LossSurface(
        layer, batch_loss=loss, batches=[(torch.randn(3, 4, 3, dtype=torch.float64), of) for of in lengths], batch_weight=len
    )
    plane, cells = surface.plane([surface.origin]), torch.tensor([[0.3], [-0.7]])
    assert plane.strategy().name != "eager"
    torch.testing.assert_close(plane.evaluate(cells, plane.strategy()), plane.plain_losses(cells), rtol=1e-10, atol=0)


# The tools


def test_a_traced_function_writes_nothing_and_gives_the_same():
    def function(x: Tensor, y: Tensor) -> Tensor:
        made = x.clone()
        made[0] += y.sum()
        made.mul_(2)
        return made.relu_().sum()

    x, y = torch.randn(4, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    graph = traced(function, [x, y])
    kept = x.clone()
    other = torch.randn(4, dtype=torch.float64)
    assert float(graph(other, y)) == pytest.approx(float(function(other, y)), rel=1e-14)
    assert torch.equal(x, kept)


def test_a_function_of_values_can_not_be_traced():
    with pytest.raises(UntraceableError):
        traced(lambda x: x if x.sum() > 0 else -x, [torch.ones(2)])
    with pytest.raises(UntraceableError, match="random"):
        traced(lambda x: x * torch.rand_like(x), [torch.ones(2)])


def test_a_batch_norm_with_running_statistics_becomes_part_of_its_convolution():
    assert "aten.native_batch_norm.default" not in targets_of(roles(Residual).varying)
    own = roles(Residual, batch_norm="batch")
    assert "aten.native_batch_norm.default" in targets_of(own.varying)
