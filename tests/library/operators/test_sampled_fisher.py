"""The sampled Fisher matrix and K-FAC, against the dense Gauss–Newton matrix where they are it, in the mean or exactly."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from nets import Remembers, assert_leaves_net_untouched, cases, mlp
from torch import Tensor, nn
from torch.nn import functional as F

from loss_landscape import LossSurface
from loss_landscape.operators.sampled_fisher import KroneckerFactoredOperator, SampledFisherOperator

pytest.importorskip("curvlinops")
pytestmark = pytest.mark.filterwarnings("ignore:.*jit.script:FutureWarning")
ALL = {case.name: case for case in cases()}
OPERATORS = [SampledFisherOperator, KroneckerFactoredOperator]


def dense(operator) -> Tensor:
    return operator @ torch.eye(operator.size, dtype=operator.dtype)


def gauss_newton(surface: LossSurface) -> Tensor:
    """Σ weight · JᵀMJ with the dense J and M of each batch."""
    return sum(weight * block(surface, batch) for weight, batch in surface.objective.weighted_batches())


def block(surface: LossSurface, batch) -> Tensor:
    def outputs(vector: Tensor) -> Tensor:
        return surface.objective.outputs(surface.layout.unflatten(vector), batch)

    point = outputs(surface.origin).detach()
    jacobian = torch.func.jacrev(outputs)(surface.origin).reshape(-1, surface.size)
    middle = torch.func.hessian(lambda flat: surface.objective.criterion(flat.view_as(point), batch[1]))(point.reshape(-1))
    return jacobian.T @ middle @ jacobian


def binary() -> list[tuple[Tensor, Tensor]]:
    return [(inputs, (targets > 1 / 3).double()) for inputs, targets in ALL["bce"].batches]


def surface_of(name: str) -> LossSurface:
    case = copy.deepcopy(ALL[name if name != "functional" else "cross_entropy"])
    loss_fn = {"bce": nn.BCEWithLogitsLoss(), "functional": F.cross_entropy}.get(name, case.loss_fn)
    return LossSurface(case.model, loss_fn, binary() if name == "bce" else case.batches)


@pytest.mark.parametrize("name", ["cross_entropy", "sum", "mse", "bce", "conv", "dict_inputs", "tied", "remembers", "functional"])
def test_the_sampled_fisher_is_gauss_newton_in_the_mean(name):
    surface = surface_of(name)
    draw = torch.Generator().manual_seed(0)
    vector = torch.randn(surface.size, generator=draw, dtype=torch.float64)
    expected = gauss_newton(surface) @ vector
    found = torch.stack([SampledFisherOperator(surface, num_samples=20, generator=draw) @ vector for _ in range(12)])
    spread = found.std(dim=0).square().sum().sqrt() / 12**0.5
    assert 0.3 * spread < (found.mean(dim=0) - expected).norm() < 2.5 * spread < expected.norm()


def test_the_sampled_fisher_is_symmetric_and_positive_semidefinite():
    matrix = dense(SampledFisherOperator(surface_of("cross_entropy").restricted("2.*"), num_samples=2))
    torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-12)
    assert torch.linalg.eigvalsh(matrix)[0] > -1e-12


@pytest.mark.parametrize("kind", OPERATORS)
def test_the_draws_are_the_generators(kind):
    surface = surface_of("cross_entropy")
    generators = [torch.Generator().manual_seed(5), torch.Generator().manual_seed(5), None, None]
    products = [kind(surface, num_samples=3, generator=generator) @ surface.origin for generator in generators]
    assert torch.equal(products[0], products[1])
    assert torch.equal(products[2], products[3])
    assert not torch.equal(products[0], products[2])
    once = kind(surface, num_samples=3, generator=generators[0])
    assert torch.equal(once @ surface.origin, once @ surface.origin)
    assert not torch.equal(once @ surface.origin, products[0])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_kfac_is_exact_for_deep_linear_nets_and_squares(reduction):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 5, bias=False), nn.Linear(5, 3)).double()
    surface = LossSurface(net, nn.MSELoss(reduction=reduction), ALL["mse"].batches)
    expected = gauss_newton(surface)
    found = dense(KroneckerFactoredOperator(surface))
    start = 0
    for size in surface.layout.sizes:
        block = slice(start, start + size)
        torch.testing.assert_close(found[block, block], expected[block, block], rtol=1e-9, atol=1e-12)
        found[block, block] = 0
        start += size
    assert not found.any()


def test_kfac_of_labels_drawn_is_near_the_exact_one():
    surface = surface_of("bce")
    exact, drawn = dense(KroneckerFactoredOperator(surface)), dense(KroneckerFactoredOperator(surface, num_samples=300))
    assert 0 < (drawn - exact).norm() < 0.2 * exact.norm()


@pytest.mark.parametrize("kind", OPERATORS)
def test_frozen_parameters_have_no_place(kind):
    case = copy.deepcopy(ALL["cross_entropy"])
    vector = torch.randn(53, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vector[30:35] = 0
    whole = kind(LossSurface(case.model, case.loss_fn, case.batches)) @ vector
    case.model[0].bias.requires_grad_(False)
    surface = LossSurface(case.model, case.loss_fn, case.batches)
    kept = torch.tensor([*range(30), *range(35, 53)])
    torch.testing.assert_close(kind(surface) @ vector[kept], whole[kept], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", OPERATORS)
def test_the_net_is_read_once_and_left_untouched(kind):
    model, case = mlp().double(), ALL["cross_entropy"]
    surface = LossSurface(model, case.loss_fn, case.batches)
    before = kind(surface) @ surface.origin
    with assert_leaves_net_untouched(model):
        kind(surface) @ surface.origin
    with torch.no_grad():
        model[0].weight.add_(1)
    assert torch.equal(kind(surface) @ surface.origin, before)


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "huber",
            "is known for MSELoss, CrossEntropyLoss and BCEWithLogitsLoss without weights or label smoothing, got SmoothL1",
        ),
        ("class_weights", "without weights or label smoothing"),
        ("smoothed_labels", "without weights or label smoothing"),
        ("ignored_targets", "needs targets that are classes, none ignored"),
        ("soft_targets", "needs targets that are classes, none ignored"),
    ],
)
def test_another_loss_is_refused(kind, name, message):
    case = ALL[name]
    with pytest.raises(ValueError, match=message):
        kind(LossSurface(case.model, case.loss_fn, case.batches))


@pytest.mark.parametrize("kind", OPERATORS)
def test_other_surfaces_are_refused(kind):
    case = ALL["cross_entropy"]
    with pytest.raises(ValueError, match="weighs batches by their examples, but this surface's weights are by batch_weight"):
        kind(LossSurface(case.model, case.loss_fn, case.batches, batch_weight=lambda batch: 1.0))
    with pytest.raises(ValueError, match="needs outputs and loss apart"):
        kind(LossSurface(mlp(), batches=[torch.randn(3, 6)], batch_loss=lambda model, batch: model(batch).square().mean()))
    with pytest.raises(ValueError, match="needs targets that are classes"):
        kind(LossSurface(ALL["bce"].model, nn.BCEWithLogitsLoss(), ALL["bce"].batches))


@pytest.mark.parametrize(("name", "parameter"), [("conv", "1.weight"), ("tied", "first.weight"), ("remembers", "norm.weight")])
def test_kfac_names_a_parameter_it_does_not_know(name, parameter):
    surface = surface_of(name)
    with pytest.raises(ValueError, match=rf"but '{parameter}' belongs to another kind or use of .*surface.restricted"):
        KroneckerFactoredOperator(surface)


def test_kfac_takes_the_layers_it_knows():
    surface = LossSurface(Remembers().double(), nn.CrossEntropyLoss(), ALL["remembers"].batches).restricted("first.*", "head.*")
    assert dense(KroneckerFactoredOperator(surface)).trace() > 0


@pytest.mark.parametrize("kind", OPERATORS)
def test_without_curvlinops_the_extra_is_named(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "curvlinops", None)
    with pytest.raises(ImportError, match=r"pip install 'taskshift\[curvature\]'"):
        kind(surface_of("cross_entropy"))


@pytest.mark.parametrize("kind", OPERATORS)
def test_a_curvlinops_that_is_not_known_is_told(kind, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "4.0.0")
    with pytest.raises(ImportError, match="know curvlinops 3, and 4.0.0 is installed"):
        kind(surface_of("cross_entropy"))


def test_at_least_one_sample_is_drawn():
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        SampledFisherOperator(surface_of("cross_entropy"), num_samples=0)
