"""Our curvature against torch.func.hessian in full, SciPy's eigsh, and curvlinops."""

from __future__ import annotations

import copy

import pytest
import torch
from nets import Case, cases, dense_loss, whole_batch
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn

from loss_landscape import (
    EmpiricalFisherOperator,
    GaussNewtonOperator,
    HessianOperator,
    LossSurface,
    MatrixOperator,
    eigenpairs,
    trace,
)

ALL = {case.name: case for case in cases()}
CURVLINOPS = ["cross_entropy", "mse", "bce", "conv", "tied", "class_weights"]


@pytest.fixture(params=ALL)
def case(request: pytest.FixtureRequest, device: torch.device) -> Case:
    found = copy.deepcopy(ALL[request.param]).to(device)
    found.model.eval()
    return found


def columns(operator) -> Tensor:
    return operator @ torch.eye(operator.size, dtype=operator.dtype, device=operator.device)


def dense_hessian(case: Case, surface: LossSurface) -> Tensor:
    return torch.func.hessian(lambda vector: dense_loss(case, surface.layout.names, vector))(surface.origin)


def test_products_are_those_of_the_dense_hessian(case):
    surface = LossSurface(case.model, case.loss_fn, case.batches)
    expected = dense_hessian(case, surface)
    error = (columns(HessianOperator(surface)) - expected).abs().max() / expected.abs().max()
    assert error < 1e-9


def test_eigenpairs_are_those_of_the_dense_hessian(case):
    surface = LossSurface(case.model, case.loss_fn, case.batches)
    matrix = dense_hessian(case, surface)
    values = torch.linalg.eigvalsh(matrix).cpu()
    pairs = eigenpairs(HessianOperator(surface), 4, 3, tolerance=1e-9, generator=torch.Generator().manual_seed(0))
    expected = torch.cat([values.flip(0)[:4], values[:3]])
    assert pairs.converged.all()
    assert (pairs.values - expected).abs().max() / values.abs().max() < 1e-7
    residuals = (matrix @ pairs.vectors - pairs.vectors * pairs.values.to(matrix)).norm(dim=0).cpu() / values.abs().max()
    assert (residuals <= 1e-8).all()


def test_the_trace_is_that_of_the_dense_hessian(case):
    surface = LossSurface(case.model, case.loss_fn, case.batches)
    exact = dense_hessian(case, surface).trace().item()
    operator = HessianOperator(surface)
    assert trace(operator, num_products=operator.size).value == pytest.approx(exact, rel=1e-9)
    estimate = trace(operator, num_products=40, generator=torch.Generator().manual_seed(0))
    assert abs(estimate.value - exact) < 4 * estimate.standard_error


def test_gauss_newton_is_the_dense_one(case):
    surface = LossSurface(case.model, case.loss_fn, case.batches)
    inputs, targets = whole_batch(case)

    def outputs(vector: Tensor) -> Tensor:
        return surface.objective.outputs(surface.layout.unflatten(vector), (inputs, targets))

    jacobian = torch.func.jacrev(outputs)(surface.origin).flatten(0, -2)
    shape = outputs(surface.origin).shape
    point = outputs(surface.origin).reshape(-1)
    middle = torch.func.hessian(lambda flat: case.loss_fn.to(flat)(flat.view(shape), targets))(point)
    expected = jacobian.T @ middle @ jacobian
    torch.testing.assert_close(columns(GaussNewtonOperator(surface)), expected, rtol=1e-9, atol=1e-11)


def test_scipy_finds_the_same_eigenvalues():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 4)).double()
    batch = torch.randn(64, 8, dtype=torch.float64), torch.randint(0, 4, (64,))
    operator = HessianOperator(LossSurface(net, nn.CrossEntropyLoss(), [batch]))
    pairs = eigenpairs(operator, 5, 2, tolerance=1e-9, generator=torch.Generator().manual_seed(0))
    top = eigsh(operator.to_scipy(), k=5, which="LA", return_eigenvectors=False, tol=1e-12)
    bottom = eigsh(operator.to_scipy(), k=2, which="SA", return_eigenvectors=False, tol=1e-12)
    expected = [*sorted(top, reverse=True), *sorted(bottom)]
    assert pairs.values.tolist() == pytest.approx(expected, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("name", CURVLINOPS)
@pytest.mark.parametrize("kind", ["HessianLinearOperator", "GGNLinearOperator", "EFLinearOperator"])
@pytest.mark.filterwarnings("ignore")
def test_curvlinops_has_the_same_products(name, kind):
    curvlinops = pytest.importorskip("curvlinops")
    case = copy.deepcopy(ALL[name])
    case.model.eval()
    if name == "class_weights" and kind == "EFLinearOperator":
        case = Case(name, case.model, nn.CrossEntropyLoss(), case.batches)  # it weighs all examples alike
    loss_fn = {"bce": nn.BCEWithLogitsLoss()}.get(name, case.loss_fn).double()
    surface = LossSurface(case.model, loss_fn, [whole_batch(case)])
    parameters = [case.model.get_parameter(n) for n in surface.layout.names]
    theirs = getattr(curvlinops, kind)(case.model, loss_fn, parameters, [whole_batch(case)], check_deterministic=False)
    kinds = {
        "HessianLinearOperator": HessianOperator,
        "GGNLinearOperator": GaussNewtonOperator,
        "EFLinearOperator": EmpiricalFisherOperator,
    }
    expected = theirs @ torch.eye(surface.size, dtype=torch.float64)
    torch.testing.assert_close(columns(kinds[kind](surface)), expected, rtol=1e-6, atol=1e-9)


def test_curvlinops_weighs_uneven_batches_the_same():
    curvlinops = pytest.importorskip("curvlinops")
    case = ALL["cross_entropy"]
    surface = LossSurface(case.model, case.loss_fn, case.batches)
    parameters = [case.model.get_parameter(n) for n in surface.layout.names]
    theirs = curvlinops.HessianLinearOperator(case.model, case.loss_fn, parameters, case.batches)
    vector = torch.randn(surface.size, dtype=torch.float64)
    torch.testing.assert_close(HessianOperator(surface) @ vector, theirs @ vector, rtol=1e-9, atol=1e-12)


def test_xtrace_is_the_naive_leave_one_out_formula():
    draw = torch.Generator().manual_seed(0)
    matrix = torch.randn(30, 30, generator=draw, dtype=torch.float64)
    matrix = matrix @ matrix.T + matrix + matrix.T
    ours = trace(MatrixOperator(matrix), "xtrace", num_products=16, generator=torch.Generator().manual_seed(3))
    same_draws = torch.Generator().manual_seed(3)
    drawn = [torch.randn(30, generator=same_draws, dtype=torch.float64) for _ in range(8)]
    probes = torch.stack([vector * 30**0.5 / vector.norm() for vector in drawn], dim=1)
    samples = []
    for i in range(8):
        others = [j for j in range(8) if j != i]
        basis = torch.linalg.qr(matrix @ probes[:, others])[0]
        rest = probes[:, i] - basis @ (basis.T @ probes[:, i])
        rest = rest * ((30 - 7) ** 0.5 / rest.norm())
        samples.append((basis * (matrix @ basis)).sum() + rest @ matrix @ rest)
    samples = torch.stack(samples)
    assert ours.value == pytest.approx(float(samples.mean()), rel=1e-10)
    assert ours.standard_error == pytest.approx(1.3 * float(samples.std()) / 8**0.5, rel=1e-8)


def test_float32_products_are_close_to_float64_ones():
    case = ALL["cross_entropy"]
    exact = HessianOperator(LossSurface(case.model, case.loss_fn, case.batches))
    single = [(inputs.float(), targets) for inputs, targets in case.batches]
    rough = HessianOperator(LossSurface(copy.deepcopy(case.model).float(), case.loss_fn, single))
    vector = torch.randn(exact.size, dtype=torch.float64)
    expected = exact @ vector
    assert ((rough @ vector.float()).double() - expected).norm() < 1e-5 * expected.norm()
