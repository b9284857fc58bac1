"""Nets whose derivatives by autograd are wrong, missing or not the loss's: the right number, and what it is, or a sentence."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from loss_landscape import (
    EmpiricalFisherOperator,
    GaussNewtonOperator,
    HessianOperator,
    LossSurface,
    MatrixOperator,
    evaluate_grid,
    trace,
)

DRAW = torch.Generator().manual_seed(0)
INPUTS, LABELS = torch.randn(30, 6, generator=DRAW), torch.arange(30) % 3
IDS = torch.randint(1, 9, (30, 7), generator=DRAW)
IDS[:15, 4:] = 0
ENTROPY = nn.CrossEntropyLoss()
NOT_THE_SLOPE = "autograd's gradient is not the loss's slope"


class TextNet(nn.Module):
    def __init__(self, padding_idx: int | None = None, convolution: bool = True, **options):
        super().__init__()
        torch.manual_seed(0)
        self.e, self.h = nn.Embedding(9, 5, padding_idx=padding_idx, **options), nn.Linear(4, 3)
        self.c: nn.Module = nn.Conv1d(5, 4, 3) if convolution else nn.Linear(5, 4)
        self.convolution = convolution
        nn.init.normal_(self.e.weight)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.e(ids)
        hidden = self.c(x.transpose(1, 2)).mean(2) if self.convolution else self.c(x.mean(1))
        return self.h(torch.tanh(hidden))


def hessian_of(net: nn.Module, loss, dtype: torch.dtype = torch.float64) -> Tensor:
    """Double backward over all parameters, in float64."""
    net = net.to(dtype)
    leaves = list(net.parameters())
    slopes = torch.autograd.grad(loss(net), leaves, create_graph=True)
    flat = torch.cat([slope.reshape(-1) for slope in slopes])
    rows = [torch.autograd.grad(one, leaves, retain_graph=True, materialize_grads=True) for one in flat]
    return torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])


def differences_of(net: nn.Module, loss) -> Tensor:
    """Central differences of the gradient over all parameters, in float64, made symmetric."""
    net, columns = net.double(), []
    for parameter in net.parameters():
        for index in range(parameter.numel()):
            ends = []
            for step in (1e-5, -2e-5):
                parameter.data.view(-1)[index] += step
                ends.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss(net), list(net.parameters()))]))
            parameter.data.view(-1)[index] += 1e-5
            columns.append((ends[0] - ends[1]) / 2e-5)
    matrix = torch.stack(columns)
    return (matrix + matrix.T) / 2


def dense(operator) -> Tensor:
    return (operator @ torch.eye(operator.size, dtype=operator.dtype)).double()


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_padding_row_stays_frozen_as_in_training_and_the_note_says_so(dtype):
    expected = hessian_of(TextNet(0), lambda net: F.cross_entropy(net(IDS), LABELS))
    surface = LossSurface(TextNet(0), ENTROPY, [(IDS, LABELS)], dtype=dtype)
    operator = HessianOperator(surface)
    assert operator.method == "retained"
    assert "not traced: its products are not symmetric" in operator.note
    assert NOT_THE_SLOPE in operator.note
    assert error(dense(operator), expected) < (1e-6 if dtype == torch.float32 else 1e-12)
    for method in ("traced", "finite_differences"):
        with pytest.raises(ValueError, match=f"not {method}: its products are not symmetric .*; give method='auto'"):
            HessianOperator(surface, method=method)


class WithTiedWords(nn.Module):
    """Next words by the embedding's own rows, of which that of the padding moves as an output alone."""

    def __init__(self, examples_first: bool = True, as_function: bool = False):
        super().__init__()
        self.dim, self.as_function = int(examples_first), as_function
        torch.manual_seed(0)
        self.e, self.c = nn.Embedding(9, 5, padding_idx=1), nn.Linear(5, 5)
        nn.init.normal_(self.e.weight)

    def forward(self, ids: Tensor) -> Tensor:
        words = F.embedding(ids, self.e.weight, padding_idx=1) if self.as_function else self.e(ids)
        return torch.tanh(self.c(words)).mean(self.dim) @ self.e.weight.T


@pytest.mark.parametrize("place", ["a late example", "a later batch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_padding_is_noticed_wherever_it_is(dtype, place):
    ids, labels = torch.randint(2, 9, (60, 7), generator=torch.Generator().manual_seed(1)), torch.arange(60) % 9
    ids[57, 5] = ids[59, 2:] = 1  # a batch's first 16 examples have none
    batches = [(ids, labels)] if place == "a late example" else [(ids[:30], labels[:30]), (ids[30:], labels[30:])]
    surface = LossSurface(WithTiedWords(), ENTROPY, batches, dtype=dtype)
    operator = HessianOperator(surface)
    assert NOT_THE_SLOPE in operator.note
    expected = hessian_of(WithTiedWords(), lambda net: F.cross_entropy(net(ids), labels))
    assert error(dense(operator), expected) < (1e-6 if dtype == torch.float32 else 1e-12)
    for method in ("traced", "finite_differences"):
        with pytest.raises(ValueError, match=f"not {method}: its products are not symmetric"):
            HessianOperator(surface, method=method)


@pytest.mark.parametrize("options", [{"as_function": True}, {"examples_first": False}], ids=str)
def test_padding_is_noticed_however_it_is_looked_up(options):
    net, labels = WithTiedWords(**options), torch.arange(60) % 9
    if net.as_function:
        net.e.padding_idx = None
    ids = torch.randint(2, 9, (60, 7), generator=torch.Generator().manual_seed(1))
    ids[59, 2:] = 1
    halves = zip(ids.split(30), labels.split(30), strict=True)
    batches = [(words if net.dim else words.T, wanted) for words, wanted in halves]
    surface = LossSurface(net, ENTROPY, batches, dtype=torch.float64)
    assert NOT_THE_SLOPE in surface.derivative_note
    operator = HessianOperator(surface)
    expected = hessian_of(net, lambda net: sum(F.cross_entropy(net(words), wanted) for words, wanted in batches) / 2)
    assert error(dense(operator), expected) < 1e-12


@pytest.mark.parametrize("kind", [GaussNewtonOperator, EmpiricalFisherOperator])
def test_the_other_matrices_are_symmetric_with_a_padding_row_too(kind):
    operator = kind(LossSurface(TextNet(0), ENTROPY, [(IDS, LABELS)], dtype=torch.float64))
    matrix = dense(operator)
    assert error(matrix, matrix.T) < 1e-12
    assert float(matrix[:5].norm()) == 0  # nothing goes into the padding row, and nothing comes from it
    assert NOT_THE_SLOPE in operator.note


def test_a_streamed_gauss_newton_product_that_is_not_symmetric_is_refused():
    surface = LossSurface(TextNet(0), ENTROPY, [(IDS, LABELS)], dtype=torch.float64)
    with pytest.raises(ValueError, match="not streamed: its products are not symmetric .*; give method='auto'"):
        GaussNewtonOperator(surface, method="streamed")


def test_gradients_divided_by_how_often_a_row_is_read_are_the_losses_own_here():
    by_frequency, plain = (TextNet(convolution=False, scale_grad_by_freq=scaled) for scaled in (True, False))
    surface = LossSurface(by_frequency, ENTROPY, [(IDS, LABELS)], dtype=torch.float64)
    expected = hessian_of(plain, lambda net: F.cross_entropy(net(IDS), LABELS))
    operator = HessianOperator(surface)
    assert (operator.method, operator.note) == ("retained", "")
    assert error(dense(operator), expected) < 1e-12
    assert by_frequency.e.scale_grad_by_freq


@pytest.mark.parametrize("seed", range(4))
def test_weight_norm_on_a_part_of_the_net_is_differentiated_rightly(seed):
    torch.manual_seed(seed)
    head = parametrizations.weight_norm(nn.Linear(24, 3))
    net = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), head)
    surface = LossSurface(net, ENTROPY, [(INPUTS, LABELS)])
    operator = HessianOperator(surface)
    assert operator.method == "finite_differences"
    assert "not retained: its products are not symmetric" in operator.note or "wrong second derivative" in operator.note
    expected = differences_of(net, lambda net: F.cross_entropy(net(INPUTS.double()), LABELS))
    assert error(dense(operator), expected) < 1e-5


class Quantised(nn.Module):
    """A straight-through estimator: the weights are rounded, their gradient is that of the weights."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.a.weight
        rounded = weight + (torch.round(weight * 8) / 8 - weight).detach()
        return self.b(torch.tanh(F.linear(x, rounded, self.a.bias)))


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx, slope: Tensor) -> Tensor:
        return -slope


class Adversarial(nn.Module):
    """Gradient reversal, as in domain-adversarial training."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(6, 4), nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.a(x).tanh()
        return self.b(hidden) + self.c(Reversed.apply(hidden))


def siamese(net: nn.Module, batch: tuple[Tensor]) -> Tensor:
    """Cosine similarity to a detached target."""
    one, other = net[0](batch[0]), net[0](batch[0] + 0.1)
    return -F.cosine_similarity(net[1](torch.tanh(one)), other.detach()).mean()


def clipped(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A loss weighed by itself, the weight held: focal losses and hard-example mining as they are often written."""
    losses = F.cross_entropy(net(batch[0]), batch[1], reduction="none")
    return (losses * losses.detach()).mean()


def detached_surfaces() -> dict[str, LossSurface]:
    torch.manual_seed(0)
    pair, mlp = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8)), nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    batches = [(INPUTS, LABELS)]
    return {
        "straight-through": LossSurface(Quantised(), ENTROPY, batches),
        "gradient reversal": LossSurface(Adversarial(), ENTROPY, batches),
        "siamese": LossSurface(pair, batch_loss=siamese, batches=[(INPUTS,)]),
        "held weights": LossSurface(mlp, batch_loss=clipped, batches=batches, batch_weight=lambda batch: len(batch[0])),
        "frozen half": LossSurface(mlp, ENTROPY, batches, regularizer=lambda net: net[0].weight.detach().square().sum()),
    }


@pytest.mark.parametrize("name", ["straight-through", "gradient reversal", "siamese", "held weights", "frozen half"])
def test_a_gradient_that_is_not_the_slope_is_told(name):
    surface = detached_surfaces()[name]
    assert surface.derivative_note.startswith(NOT_THE_SLOPE)
    operator = HessianOperator(surface)
    assert NOT_THE_SLOPE in operator.note
    matrix = dense(operator)
    assert error(matrix, matrix.T) < 1e-5
    moved = surface.moved_to(surface.origin + 0.1)
    assert moved.derivative_note.startswith(NOT_THE_SLOPE)
    line = [torch.ones(surface.size)]
    assert NOT_THE_SLOPE in evaluate_grid(surface, line, 3, rho=0.1).info.evaluation.derivative_note
    assert evaluate_grid(surface, line, 3).info.evaluation.derivative_note == ""  # no derivative goes into it


PLAIN_NETS = {
    "relu": lambda: nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 3)),
    "zero head": lambda: nn.Sequential(nn.Linear(6, 9), nn.ReLU(), zeroed(nn.Linear(9, 3))),
    "zero hidden": lambda: nn.Sequential(zeroed(nn.Linear(6, 9)), nn.ReLU(), nn.Linear(9, 3)),
    "pooling": lambda: nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(8, 3)),
    "norm": lambda: nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Hardswish(), nn.Linear(9, 3)),
    "large": lambda: nn.Sequential(nn.Linear(6, 30), nn.ReLU(), scaled(nn.Linear(30, 3), 1e3)),
    "small": lambda: nn.Sequential(nn.Linear(6, 30), nn.Tanh(), scaled(nn.Linear(30, 3), 1e-4)),
}


def zeroed(layer: nn.Linear) -> nn.Linear:
    return scaled(layer, 0.0)


def scaled(layer: nn.Linear, factor: float) -> nn.Linear:
    with torch.no_grad():
        layer.weight.mul_(factor)
        layer.bias.mul_(factor)
    return layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PLAIN_NETS)
def test_plain_nets_are_not_suspected(name, dtype):
    torch.manual_seed(0)
    surface = LossSurface(PLAIN_NETS[name](), ENTROPY, [(INPUTS, LABELS)], dtype=dtype)
    operator = HessianOperator(surface)
    assert (operator.method, operator.note) == ("traced" if name == "pooling" else "retained", "")


def test_a_trained_minimum_is_not_suspected():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 3))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(net(INPUTS), LABELS).backward()
        optimizer.step()
    surface = LossSurface(net, ENTROPY, [(INPUTS, LABELS)])
    assert surface.loss() < 5e-3
    assert HessianOperator(surface).note == ""


class CastsInside(nn.Module):
    def __init__(self, dtype: torch.dtype):
        super().__init__()
        torch.manual_seed(0)
        self.e, self.h, self.dtype = nn.EmbeddingBag(9, 5), nn.Linear(5, 3), dtype

    def forward(self, ids: Tensor) -> Tensor:
        return F.log_softmax(self.h(self.e(ids).tanh()), -1, dtype=self.dtype)


def test_differences_of_a_net_that_casts_to_float32_inside_take_a_step_for_that():
    surface = LossSurface(CastsInside(torch.float32), nn.NLLLoss(), [(IDS, LABELS)])
    operator = HessianOperator(surface)
    assert operator.method == "finite_differences"
    assert operator.note.endswith("differences with a step for float32, in which the net computes")
    exact = CastsInside(torch.float64)
    expected = differences_of(exact, lambda net: F.nll_loss(net(IDS), LABELS))
    assert error(dense(operator), expected) < 1e-3
    inside, beside = (LossSurface(CastsInside(dtype), ENTROPY, [(IDS, LABELS)]) for dtype in (torch.float32, torch.float64))
    assert error(dense(GaussNewtonOperator(inside)), dense(GaussNewtonOperator(beside))) < 1e-3


class RoundsInside(nn.Module):
    """Its layers work in bfloat16, as under autocast."""

    def __init__(self, sizes: tuple[int, ...] = (6, 8, 3)):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.linear(x.bfloat16().tanh(), layer.weight.bfloat16(), layer.bias.bfloat16())
        return x.to(self.layers[0].weight.dtype)


TARGETS = torch.randn(30, 3, generator=DRAW)


@pytest.mark.parametrize("kind", [HessianOperator, GaussNewtonOperator])
def test_a_net_that_rounds_inside_has_no_matrix_of_zeros_by_differences(kind):
    """At a step for float64 neither its outputs nor their gradient change."""
    surface = LossSurface(RoundsInside(), nn.MSELoss(), [(INPUTS, TARGETS)])
    with pytest.raises(
        ValueError, match=r"not finite_differences: differences of the .* change with the step: .* rounds its num"
    ):
        kind(surface, method="finite_differences")


def test_a_hessian_of_zeros_by_differences_is_one_where_the_loss_moves():
    surface = LossSurface(nn.Linear(6, 3), nn.L1Loss(), [(INPUTS, TARGETS)])
    assert float(dense(HessianOperator(surface, method="finite_differences")).norm()) == 0


class Branches(nn.Module):
    """A second layer that is 0, and a penalty on its size."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.z = nn.Linear(6, 3), zeroed(nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.z(x)


KINKS = {
    "norm": lambda net: net.z.weight.norm(),
    "root": lambda net: net.z.weight.square().sum().sqrt(),
    "power": lambda net: (net.z.weight.abs() ** 1.5).sum(),
}


@pytest.mark.parametrize("name", KINKS)
def test_a_loss_without_a_second_derivative_is_refused_in_a_sentence(name):
    surface = LossSurface(Branches(), ENTROPY, [(INPUTS, LABELS)], regularizer=KINKS[name])
    with pytest.raises(ValueError, match=r"not retained: its products are not finite though the loss is.*no Hessian here"):
        HessianOperator(surface)


def test_where_a_formula_alone_has_no_second_derivative_differences_are_taken():
    def spread(net: nn.Module, batch: tuple[Tensor]) -> Tensor:
        outputs = net(batch[0])
        return (outputs[:, None] - outputs[None]).norm(dim=-1).mean()  # 0 on the diagonal, wherever the net is

    net = nn.Linear(6, 3)
    operator = HessianOperator(LossSurface(net, batch_loss=spread, batches=[(INPUTS,)], batch_weight=lambda _: 1.0))
    assert operator.method == "finite_differences"
    assert "not retained: its products are not finite" in operator.note
    rows, columns = torch.triu_indices(30, 30, 1)

    def written_out(net: nn.Module) -> Tensor:
        outputs = net(INPUTS.double())
        return (outputs[rows] - outputs[columns]).norm(dim=-1).sum() * 2 / 900

    assert error(dense(operator), hessian_of(net, written_out)) < 1e-5


def test_a_trace_that_is_not_a_number_has_no_error_of_0():
    matrix = MatrixOperator(torch.full((9, 9), math.nan))
    for found in (trace(matrix), trace(matrix, num_products=3), trace(matrix, "hutch++", num_products=6)):
        assert math.isnan(found.value)
        assert math.isnan(found.standard_error)
