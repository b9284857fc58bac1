from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from nets import cases, mlp, whole_batch
from torch import Tensor, nn
from torch.nn import functional as F

from loss_landscape import EmpiricalFisherOperator, GaussNewtonOperator, HessianOperator, LossSurface
from loss_landscape.operators.base import CurvatureOperator

ALL = {case.name: case for case in cases()}
OPERATORS = [HessianOperator, GaussNewtonOperator, EmpiricalFisherOperator]
WAYS = [*OPERATORS, *(partial(HessianOperator, method=method) for method in ("traced", "finite_differences"))]


def dense(operator: CurvatureOperator) -> Tensor:
    return operator @ torch.eye(operator.size, dtype=operator.dtype, device=operator.device)


def linear(outputs: int, bias: bool = False) -> tuple[nn.Linear, Tensor]:
    draw = torch.Generator().manual_seed(0)
    net = nn.Linear(4, outputs, bias=bias).double()
    return net, torch.randn(10, 4, generator=draw, dtype=torch.float64)


def cut(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    return list(zip(*(t.split([7, 3]) for t in tensors), strict=True))


# Closed forms


def test_linear_regression_has_the_hessian_of_its_inputs():
    net, x = linear(1)
    surface = LossSurface(net, nn.MSELoss(), cut(x, torch.ones(10, 1, dtype=torch.float64)))
    expected = 2 / 10 * x.T @ x
    torch.testing.assert_close(dense(HessianOperator(surface)), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(dense(GaussNewtonOperator(surface)), expected, rtol=1e-9, atol=0)


def test_logistic_regression():
    net, x = linear(1)
    surface = LossSurface(net, nn.BCEWithLogitsLoss(), cut(x, torch.ones(10, 1, dtype=torch.float64)))
    p = torch.sigmoid(net(x)).detach()
    torch.testing.assert_close(dense(HessianOperator(surface)), x.T @ (p * (1 - p) * x) / 10, rtol=1e-9, atol=1e-12)


def test_softmax_regression():
    net, x = linear(3)
    surface = LossSurface(net, nn.CrossEntropyLoss(), cut(x, torch.arange(10) % 3))
    p = net(x).softmax(dim=1).detach()
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    expected = torch.einsum("nab,ni,nj->aibj", middle, x, x).reshape(12, 12) / 10
    torch.testing.assert_close(dense(HessianOperator(surface)), expected, rtol=1e-9, atol=1e-12)


def test_a_loss_linear_in_the_parameters_has_no_curvature():
    net, x = linear(1)
    surface = LossSurface(net, batches=[x], batch_loss=lambda model, batch: model(batch).mean())
    assert torch.equal(dense(HessianOperator(surface)), torch.zeros(4, 4, dtype=torch.float64))


# Against definitions


def own_gradients(case, surface: LossSurface) -> tuple[Tensor, Tensor]:
    """Each example's gradient [n, P] and weight [n], by a backward pass for each."""
    inputs, targets = whole_batch(case)
    gradients, weights = [], []
    for i in range(len(targets)):
        one = {k: v[i : i + 1] for k, v in inputs.items()} if isinstance(inputs, dict) else inputs[i : i + 1]
        target = targets[i : i + 1]
        leaves = surface.leaves()
        loss = case.loss_fn.to(torch.float64)(surface.objective.outputs(leaves, (one, target)), target)
        if not loss.isfinite():  # an ignored target alone
            gradients.append(torch.zeros(surface.size, dtype=torch.float64))
            weights.append(0.0)
            continue
        gradients.append(surface.layout.flatten(torch.autograd.grad(loss, list(leaves.values()))))
        class_weights = getattr(case.loss_fn, "weight", None)
        weights.append(1.0 if class_weights is None or target.is_floating_point() else float(class_weights[target]))
    return torch.stack(gradients), torch.tensor(weights, dtype=torch.float64)


@pytest.mark.parametrize(
    "name", ["cross_entropy", "class_weights", "ignored_targets", "soft_targets", "mse", "bce", "conv", "sum"]
)
def test_the_empirical_fisher_weighs_examples_as_the_criterion_does(name):
    """Its scale is the Gauss–Newton's: gradients of sums over outputs, over what the criterion divides by."""
    case = copy.deepcopy(ALL[name])
    case.model.eval()
    surface = LossSurface(case.model, case.loss_fn, case.batches)
    gradients, weights = own_gradients(case, surface)
    total, outputs = 1.0 if name == "sum" else weights.sum(), 3 if name in ("mse", "bce") else 1
    expected = outputs * (gradients * weights[:, None]).T @ gradients / total
    torch.testing.assert_close(dense(EmpiricalFisherOperator(surface)), expected, rtol=1e-9, atol=1e-12)


class Sequence(nn.Sequential):
    """Outputs for each of three positions: [B, 3 positions, C], or [B, C, 3 positions] as cross entropy takes them."""

    def __init__(self, classes_first: bool):
        super().__init__(*mlp(inputs=2))
        self.classes_first = classes_first

    def forward(self, x: Tensor) -> Tensor:
        outputs = super().forward(x.view(-1, 3, 2))
        return outputs.transpose(1, 2) if self.classes_first else outputs


@pytest.mark.parametrize("loss_fn", [nn.CrossEntropyLoss(), nn.MSELoss()])
def test_outputs_may_be_sequences(loss_fn):
    entropy = isinstance(loss_fn, nn.CrossEntropyLoss)
    net, x = Sequence(entropy).double(), torch.linspace(-2, 2, 30, dtype=torch.float64).view(5, 6)
    targets = torch.arange(15).view(5, 3) % 3 if entropy else torch.cos(torch.arange(45.0)).view(5, 3, 3).double()
    surface = LossSurface(net, loss_fn, [(x[:2], targets[:2]), (x[2:], targets[2:])])

    def outputs(vector: Tensor) -> Tensor:
        return torch.func.functional_call(net, surface.layout.unflatten(vector), (x,))

    def losses(vector: Tensor) -> Tensor:
        return torch.stack([loss_fn(one[None], target[None]) for one, target in zip(outputs(vector), targets, strict=True)])

    point = outputs(surface.origin).detach()
    jacobian = torch.func.jacrev(outputs)(surface.origin).reshape(-1, surface.size)
    middle = torch.func.hessian(lambda flat: loss_fn(flat.view_as(point), targets))(point.reshape(-1))
    torch.testing.assert_close(dense(GaussNewtonOperator(surface)), jacobian.T @ middle @ jacobian, rtol=1e-9, atol=1e-12)
    own = torch.func.jacrev(losses)(surface.origin)
    divisors = 3 if entropy else 9  # of an example's sum: positions, and outputs of each
    torch.testing.assert_close(dense(EmpiricalFisherOperator(surface)), divisors * own.T @ own / 5, rtol=1e-9, atol=1e-12)

    def apart(vector: Tensor) -> Tensor:
        rows = outputs(vector).transpose(1, 2).reshape(15, 3) if entropy else outputs(vector).reshape(15, 3)
        summed = type(loss_fn)(reduction="none")(rows, targets.reshape(15, *targets.shape[2:]))
        return summed.reshape(15, -1).sum(dim=1)

    each = torch.func.jacrev(apart)(surface.origin)
    expected = each.T @ each / (15 if entropy else point.numel())
    torch.testing.assert_close(dense(EmpiricalFisherOperator(surface, per="position")), expected, rtol=1e-9, atol=1e-12)
    expected = torch.func.hessian(lambda vector: loss_fn(outputs(vector), targets))(surface.origin)
    torch.testing.assert_close(dense(HessianOperator(surface)), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", OPERATORS[1:])
def test_outputs_must_be_one_tensor(kind):
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.net(x), x

    batch = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    surface = LossSurface(Pair(), lambda outputs, targets: F.cross_entropy(outputs[0], targets), [batch])
    with pytest.raises(TypeError, match="need a net that gives one tensor, got tuple"):
        kind(surface) @ surface.origin


@pytest.mark.parametrize("name", [name for name in ALL if name != "tied"])
def test_gauss_newton_is_positive_semidefinite_and_symmetric(name):
    case = copy.deepcopy(ALL[name])
    matrix = dense(GaussNewtonOperator(LossSurface(case.model, case.loss_fn, case.batches)))
    torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-12)
    assert torch.linalg.eigvalsh(matrix)[0] > -1e-12


def test_the_hessian_is_gauss_newton_where_the_net_is_linear():
    net, x = linear(3, bias=True)
    surface = LossSurface(net, nn.CrossEntropyLoss(), cut(x, torch.arange(10) % 3))
    torch.testing.assert_close(dense(HessianOperator(surface)), dense(GaussNewtonOperator(surface)), rtol=0, atol=1e-14)


# Properties


def test_a_frozen_tensor_leaves_the_submatrix():
    case = copy.deepcopy(ALL["cross_entropy"])
    whole = dense(HessianOperator(LossSurface(case.model, case.loss_fn, case.batches)))
    case.model[0].bias.requires_grad_(False)
    part = dense(HessianOperator(LossSurface(case.model, case.loss_fn, case.batches)))
    kept = torch.tensor([*range(30), *range(35, 53)])
    torch.testing.assert_close(part, whole[kept][:, kept], rtol=1e-12, atol=1e-15)


def squared_norm(model: nn.Module) -> Tensor:
    return sum(parameter.square().sum() for parameter in model.parameters())


@pytest.mark.parametrize("kind", OPERATORS[:2])
@pytest.mark.parametrize("name", ["cross_entropy", "conv", "mse"])
def test_a_regulariser_lifts_every_eigenvalue_once(kind, name):
    case, strength = copy.deepcopy(ALL[name]), 0.3
    ingredients = case.model, case.loss_fn, case.batches
    plain = dense(kind(LossSurface(*ingredients)))
    lifted = dense(kind(LossSurface(*ingredients, regularizer=lambda model: strength * squared_norm(model))))
    torch.testing.assert_close(lifted, plain + 2 * strength * torch.eye(len(plain), dtype=torch.float64), rtol=0, atol=1e-12)
    assert float(lifted.trace() - plain.trace()) == pytest.approx(2 * strength * len(plain), rel=1e-10)
    values = [torch.linalg.eigvalsh(matrix) for matrix in (plain, lifted)]
    torch.testing.assert_close(values[1], values[0] + 2 * strength, rtol=0, atol=1e-10)


def test_the_empirical_fisher_leaves_the_regulariser_out():
    case = ALL["cross_entropy"]
    ingredients = case.model, case.loss_fn, case.batches
    with_one = EmpiricalFisherOperator(LossSurface(*ingredients, regularizer=squared_norm))
    assert torch.equal(dense(with_one), dense(EmpiricalFisherOperator(LossSurface(*ingredients))))


@pytest.mark.parametrize("kind", WAYS)
def test_a_regulariser_of_frozen_parameters_has_no_curvature(kind):
    case = ALL["cross_entropy"]
    ingredients = case.model, case.loss_fn, case.batches
    surface = LossSurface(*ingredients, regularizer=lambda model: model[0].weight.square().sum())
    expected = dense(kind(LossSurface(*ingredients).restricted("2.*")))
    torch.testing.assert_close(dense(kind(surface.restricted("2.*"))), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", OPERATORS)
def test_a_restricted_surface_has_a_diagonal_block(kind):
    case = ALL["cross_entropy"]
    surface = LossSurface(case.model, case.loss_fn, case.batches)
    whole, block = dense(kind(surface)), dense(kind(surface.restricted("2.*")))
    torch.testing.assert_close(block, whole[35:, 35:], rtol=1e-12, atol=1e-15)


class Routes(nn.Module):
    """Each batch goes through one of two nets."""

    def __init__(self):
        super().__init__()
        self.nets = nn.ModuleList([mlp(), mlp()])

    def forward(self, x: Tensor) -> Tensor:
        return self.nets[int(x[0, 0] > 0)](x)


@pytest.mark.parametrize("kind", WAYS)
def test_a_batch_without_the_moving_parameters_has_no_curvature_in_them(kind):
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).abs()
    labels = torch.arange(8) % 3
    surface = LossSurface(Routes().double(), nn.CrossEntropyLoss(), [(x[:4], labels[:4]), (-x[4:], labels[4:])])
    whole, block = dense(kind(surface)), dense(kind(surface.restricted("nets.0.*")))
    torch.testing.assert_close(block, whole[:53, :53], rtol=1e-7, atol=1e-7)
    assert block.norm() > 0.1


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("sizes", [[3, 4], [2, 6]])
def test_uneven_batches_are_one_batch_of_all(kind, sizes):
    case = ALL["class_weights"]
    inputs, targets = (t[: sum(sizes)] for t in whole_batch(case))
    together = LossSurface(case.model, case.loss_fn, [(inputs, targets)])
    apart = LossSurface(case.model, case.loss_fn, list(zip(inputs.split(sizes), targets.split(sizes), strict=True)))
    torch.testing.assert_close(dense(kind(apart)), dense(kind(together)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", OPERATORS)
def test_columns_are_products_with_single_vectors_and_are_counted(kind, device):
    case = copy.deepcopy(ALL["class_weights"]).to(device)
    operator = kind(LossSurface(case.model, case.loss_fn, case.batches))
    block = torch.randn(operator.size, 3, dtype=torch.float64, device=device)
    assert operator.num_products == 0
    columns = torch.stack([operator @ column for column in block.T], dim=1)
    assert operator.num_products == 3
    assert torch.equal(operator @ block, columns)
    assert operator.num_products == 6
    with pytest.raises(ValueError, match=r"expected a vector \[P\] or columns \[P, K\] with P = 53, got \[2\]"):
        operator @ torch.zeros(2)


@pytest.mark.parametrize("kind", OPERATORS[1:])
def test_outputs_and_loss_must_be_apart(kind):
    surface = LossSurface(mlp(), batches=[torch.randn(3, 6)], batch_loss=lambda model, batch: model(batch).square().mean())
    with pytest.raises(ValueError, match="needs outputs and loss apart"):
        kind(surface)


def test_scipy_gets_the_same_matrix():
    case = ALL["cross_entropy"]
    operator = HessianOperator(LossSurface(case.model, case.loss_fn, case.batches))
    matrix = dense(operator).numpy()
    linear_operator = operator.to_scipy()
    block = torch.randn(operator.size, 2, dtype=torch.float64).numpy()
    assert linear_operator.dtype == matrix.dtype
    assert abs(linear_operator @ block - matrix @ block).max() < 1e-12
    assert abs(linear_operator @ block[:, 0] - matrix @ block[:, 0]).max() < 1e-12


@pytest.mark.parametrize("operator", [HessianOperator, GaussNewtonOperator, EmpiricalFisherOperator])
def test_a_net_a_loss_and_batches_are_told_to_make_a_surface(operator):
    name = operator.__name__
    sentence = rf"{name} takes a surface, got .*, .*, .*; write {name}\(LossSurface\(net, loss_fn, batches\)\)"
    with pytest.raises(TypeError, match=sentence):
        operator(nn.Linear(2, 1), nn.MSELoss(), [(torch.ones(1, 2), torch.ones(1, 1))])
