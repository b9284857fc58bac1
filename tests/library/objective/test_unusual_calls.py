"""Inputs, outputs and parameters of other kinds than tensors, and what the net does with them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence

from loss_landscape import GaussNewtonOperator, HessianOperator, LossSurface, evaluate_grid

DRAW = torch.Generator().manual_seed(0)
INPUTS, LABELS = torch.randn(12, 4, generator=DRAW), torch.arange(12) % 3
CE = nn.CrossEntropyLoss()


class OfPacked(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cells, self.head = nn.GRU(3, 4), nn.Linear(4, 2)

    def forward(self, packed: nn.utils.rnn.PackedSequence) -> Tensor:
        return self.head(self.cells(packed)[1][0])


class OfList(nn.Linear):
    def forward(self, images: list[Tensor]) -> Tensor:
        return super().forward(torch.stack(images))


class OfMapping(nn.Linear):
    def forward(self, data: dict[str, Tensor]) -> Tensor:
        return super().forward(data["x"] + data["shift"])


class OfTwo(nn.Linear):
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return super().forward(first + second)


SEQUENCES = [torch.randn(length, 3, generator=DRAW) for length in (5, 3, 2)]
PACKED = pack_sequence([SEQUENCES[1], SEQUENCES[0], SEQUENCES[2]], enforce_sorted=False)
ONE = {
    "a packed sequence": (OfPacked, PACKED, torch.tensor([0, 1, 1])),
    "a list": (lambda: OfList(4, 3), list(INPUTS), LABELS),
    "a mapping": (lambda: OfMapping(4, 3), {"x": INPUTS, "shift": INPUTS}, LABELS),
}


@pytest.mark.parametrize(("make", "inputs", "labels"), ONE.values(), ids=ONE)
def test_inputs_that_are_one_argument(make, inputs, labels):
    net = make()
    surface = LossSurface(net, CE, [(inputs, labels)])
    step = 0.3 * torch.randn(surface.size, generator=torch.Generator().manual_seed(1))
    twin = copy.deepcopy(net)
    nn.utils.vector_to_parameters(surface.origin + step, twin.parameters())
    with torch.no_grad():
        right = [float(F.cross_entropy(one(inputs), labels)) for one in (net, twin)]
    assert surface.losses(displacements=torch.stack([0 * step, step])).tolist() == pytest.approx(right, rel=1e-6)
    assert evaluate_grid(surface, [step], 3).losses[1:].tolist() == pytest.approx(right, rel=1e-6)
    exact = surface.in_dtype(torch.float64)
    numeric = (exact.gradient(1e-5 * step.double()) - exact.gradient(-1e-5 * step.double())) / 2e-5
    torch.testing.assert_close(HessianOperator(exact) @ step.double(), numeric, rtol=1e-6, atol=1e-8)


def test_a_list_or_tuple_that_is_several_arguments_stays_so():
    net = OfTwo(4, 3)
    with torch.no_grad():
        right = float(F.cross_entropy(net(INPUTS, INPUTS), LABELS))
    for inputs in ([INPUTS, INPUTS], (INPUTS, INPUTS), {"first": INPUTS, "second": INPUTS}):
        assert LossSurface(net, CE, [(inputs, LABELS)]).loss() == pytest.approx(right, rel=1e-6)


def test_inputs_that_fit_in_no_way_are_told_by_the_usual_one():
    with pytest.raises(ValueError, match=r"failed on the first batch .*takes 3 positional arguments but 4 were given"):
        LossSurface(OfTwo(4, 3), CE, [((INPUTS, INPUTS, INPUTS), LABELS)])


def test_a_loss_that_differentiates_the_parameters():
    net = nn.Linear(4, 3)

    def adapted(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        parameters = list(model.parameters())
        inner = F.cross_entropy(model(batch[0][:6]), batch[1][:6])
        slopes = torch.autograd.grad(inner, parameters, create_graph=True)
        weight, bias = (p - 0.5 * slope for p, slope in zip(parameters, slopes, strict=True))
        return F.cross_entropy(F.linear(batch[0][6:], weight, bias), batch[1][6:])

    surface = LossSurface(net, batch_loss=adapted, batches=[(INPUTS, LABELS)])
    right = adapted(net, (INPUTS, LABELS))
    assert surface.loss() == pytest.approx(right.item(), rel=1e-6)
    expected = torch.cat([g.reshape(-1) for g in torch.autograd.grad(right, list(net.parameters()))])
    torch.testing.assert_close(surface.gradient(), expected)
    step = torch.ones(surface.size)
    twin = copy.deepcopy(net)
    nn.utils.vector_to_parameters(surface.origin + step * torch.arange(surface.size) / 9, twin.parameters())
    moved = surface.plane([step * torch.arange(surface.size) / 9]).losses(torch.ones(1, 1))
    assert float(moved) == pytest.approx(adapted(twin, (INPUTS, LABELS)).item(), rel=1e-6)


class Waves(nn.Module):
    """A complex filter, kept as pairs of real numbers behind a parameter of odd size."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.shift, self.filter = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(x) * torch.view_as_complex(self.filter), n=4)[:, :3] + self.shift


def test_a_parameter_at_an_odd_place_can_be_looked_at_as_complex():
    net = Waves()
    surface = LossSurface(net, CE, [(INPUTS, LABELS)])
    with torch.no_grad():
        right = float(F.cross_entropy(net(INPUTS), LABELS))
    assert surface.loss() == pytest.approx(right, rel=1e-6)
    grid = evaluate_grid(surface, [torch.ones(surface.size)], 3)
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter += 1
        assert grid.losses[2] == pytest.approx(float(F.cross_entropy(twin(INPUTS), LABELS)), rel=1e-6)
    assert torch.isfinite(HessianOperator(surface) @ torch.ones(surface.size)).all()


def test_complex_parameters_are_told():
    net = nn.Linear(4, 3, dtype=torch.cfloat)
    with pytest.raises(ValueError, match=r"the parameter 'weight' is complex, .* torch.view_as_complex"):
        LossSurface(net, CE, [(INPUTS, LABELS)])


class OwnSparse(nn.Module):
    def __init__(self, sparse: bool):
        super().__init__()
        torch.manual_seed(0)
        self.weight, self.sparse = nn.Parameter(torch.randn(9, 3)), sparse

    def forward(self, ids: Tensor) -> Tensor:
        return torch.tanh(F.embedding(ids, self.weight, sparse=self.sparse)).mean(1)


def embedded(sparse: bool) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(9, 3, sparse=sparse), nn.Tanh(), nn.Flatten(), nn.Linear(6, 3))


@pytest.mark.parametrize("make", [OwnSparse, embedded])
def test_sparse_gradients_are_as_the_dense_ones(make):
    ids = torch.randint(0, 9, (12, 2), generator=torch.Generator().manual_seed(0))
    sparse, dense = (LossSurface(make(kind), CE, [(ids, LABELS)]) for kind in (True, False))
    step = torch.arange(sparse.size) / sparse.size
    torch.testing.assert_close(sparse.gradient(step), dense.gradient(step))
    torch.testing.assert_close(HessianOperator(sparse) @ step, HessianOperator(dense) @ step, rtol=1e-4, atol=1e-6)


# Operations without a second derivative


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.bag, self.head = nn.EmbeddingBag(9, 3), nn.Linear(3, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.bag(ids)))


class PlainBag(Bag):
    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.bag.weight[ids].mean(1)))


def hard(plain: bool) -> nn.Module:
    torch.manual_seed(0)
    middle = _HardSigmoid() if plain else nn.Hardsigmoid()
    return nn.Sequential(nn.Linear(4, 5), middle, nn.Linear(5, 3))


class _HardSigmoid(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x + 3).clamp(0, 6) / 6


IDS = torch.randint(0, 9, (12, 2), generator=torch.Generator().manual_seed(0))
LACKING = {"hardsigmoid": (hard(False), hard(True), INPUTS), "EmbeddingBag": (Bag(), PlainBag(), IDS)}


@pytest.mark.parametrize(("net", "plain", "inputs"), LACKING.values(), ids=LACKING)
@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.MSELoss()], ids=["classes", "numbers"])
def test_gauss_newton_and_fisher_take_the_next_way_where_a_derivative_is_missing(net, plain, inputs, loss):
    from loss_landscape import EmpiricalFisherOperator

    targets = LABELS if isinstance(loss, nn.CrossEntropyLoss) else F.one_hot(LABELS, 3).float()
    batches = [(inputs[:5], targets[:5]), (inputs[5:], targets[5:])]
    for operator in (GaussNewtonOperator, EmpiricalFisherOperator):
        found, expected = (operator(LossSurface(one, loss, batches)) for one in (net, plain))
        assert expected.method == "retained"
        assert found.method != "retained"
        assert found.note.startswith("not retained: ")
        step = torch.arange(found.size) / found.size
        torch.testing.assert_close(found @ step, expected @ step, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="not retained: .*; give method='auto'"):
        GaussNewtonOperator(LossSurface(net, loss, batches), method="retained")


def slope_norm(model: nn.Module) -> torch.Tensor:
    """½ ‖∇f‖² of f = Σ tanh w, by autograd on the model's own parameters."""
    weight = next(model.parameters())
    (slope,) = torch.autograd.grad(torch.tanh(weight).sum(), weight, create_graph=True)
    return slope.square().sum() / 2


@pytest.mark.parametrize("under", [torch.enable_grad, torch.no_grad])
def test_a_regularizer_that_differentiates_the_parameters(under):
    net = nn.Linear(3, 2, bias=False).double()
    batch = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    with under():
        surface = LossSurface(net, nn.MSELoss(), [batch], regularizer=slope_norm)
        loss = surface.loss()
    with torch.no_grad():
        expected = nn.functional.mse_loss(net(batch[0]), batch[1]) + (1 - torch.tanh(net.weight) ** 2).square().sum() / 2
    assert loss == pytest.approx(float(expected), rel=1e-12)


class Edges(nn.Module):
    """Sums along the edges of a graph: its batch's tensors have no rows in common."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        return self.layer(x).index_add(0, edges[1], self.layer(x)[edges[0]])


def test_a_graphs_batch_is_not_cut_into_rows_to_try_a_derivative():
    torch.manual_seed(0)
    net = Edges().double()
    inputs = torch.randn(6, 3, dtype=torch.float64), torch.tensor([[0, 5, 2], [4, 1, 3]])
    surface = LossSurface(net, nn.CrossEntropyLoss(), [(inputs, torch.arange(6) % 2)], dtype=torch.float64)

    def outputs(point: Tensor) -> Tensor:
        return torch.func.functional_call(net, surface.layout.unflatten(point), inputs)

    slopes, shares = torch.func.jacrev(outputs)(surface.origin), outputs(surface.origin).softmax(dim=1)
    middle = torch.stack([torch.diag(p) - torch.outer(p, p) for p in shares]) / 6
    dense = GaussNewtonOperator(surface) @ torch.eye(surface.size, dtype=torch.float64)
    torch.testing.assert_close(dense, torch.einsum("bkp,bkl,blq->pq", slopes, middle, slopes).detach())


def test_a_surface_changes_its_dtype_in_inference_mode():
    surface = LossSurface(nn.Linear(3, 2), nn.CrossEntropyLoss(), [(torch.randn(4, 3), torch.arange(4) % 2)])
    with torch.inference_mode():
        assert surface.in_dtype(torch.float64).loss() == pytest.approx(surface.loss(), rel=1e-6)
        assert surface.on("cpu").loss() == surface.loss()
