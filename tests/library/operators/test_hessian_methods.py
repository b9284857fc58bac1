"""The three ways to a product with the Hessian, against torch.func.hessian in full."""

from __future__ import annotations

import copy

import pytest
import torch
from nets import Case, assert_leaves_net_untouched, cases, dense_loss, mlp
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from loss_landscape import EmpiricalFisherOperator, GaussNewtonOperator, HessianOperator, LossSurface
from loss_landscape.graphs.recording import Recording

ALL = {case.name: case for case in cases()}
NO_FORWARD_DERIVATIVE = {"mse"}  # in torch 2.15


def dense(operator: HessianOperator) -> Tensor:
    return operator @ torch.eye(operator.size, dtype=operator.dtype)


def exact(case: Case, surface: LossSurface) -> Tensor:
    model = copy.deepcopy(case.model).eval()
    same = Case(case.name, model, case.loss_fn, case.batches)
    return torch.func.hessian(lambda vector: dense_loss(same, surface.layout.names, vector))(surface.origin)


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("method", ["traced", "retained", "finite_differences"])
@pytest.mark.parametrize("name", ALL)
def test_every_method_gives_the_dense_hessian(name, method):
    case = copy.deepcopy(ALL[name])
    surface = LossSurface(case.model, case.loss_fn, case.batches)
    if method == "traced" and name in NO_FORWARD_DERIVATIVE:
        with pytest.raises(ValueError, match=r"not traced: the gradient has no forward derivative .* give method='auto'"):
            HessianOperator(surface, method=method)
        return
    operator = HessianOperator(surface, method=method)
    assert (operator.method, operator.note) == (method, "")
    assert error(dense(operator), exact(case, surface)) < (1e-7 if method == "finite_differences" else 1e-12)


@pytest.mark.parametrize("name", ["conv", "cross_entropy"])
def test_a_traced_float32_product_is_as_exact_as_a_retained_one(name):
    case = copy.deepcopy(ALL[name])
    expected = exact(case, LossSurface(case.model, case.loss_fn, case.batches))
    single = [(inputs.float(), targets) for inputs, targets in case.batches]
    surface = LossSurface(case.model.float(), case.loss_fn, single)
    traced, retained = (error(dense(HessianOperator(surface, method=m)), expected) for m in ("traced", "retained"))
    assert traced < 1.5 * retained < 1e-5


def test_products_are_the_same_bits_every_time():
    case = copy.deepcopy(ALL["conv"])
    surface = LossSurface(case.model, case.loss_fn, case.batches)
    vectors = torch.randn(surface.size, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for method in ("traced", "retained", "finite_differences"):
        operator, other = (HessianOperator(surface, method=method) for _ in range(2))
        first = operator @ vectors
        assert torch.equal(first, torch.stack([other @ vector for vector in vectors.T], dim=1))
        operator.release()
        assert torch.equal(first, operator @ vectors)


class WritesInPlace(nn.Module):
    """A residual convolution net with in-place sums, activations and a masked constant."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1), nn.Linear(72, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.first(x), inplace=True)
        y = self.second(x)
        y += x
        mask = torch.zeros_like(y)
        mask[:, 0] = 1
        mask *= 2
        return self.head((F.elu(y.clone(), inplace=True) * mask + y.sigmoid_()).flatten(1))


class Branches(nn.Module):
    """Its path depends on the values of its parameters."""

    def __init__(self):
        super().__init__()
        self.net = nn.Conv1d(1, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.net(x[:, None]).flatten(1)[:, :3]
        return out.tanh() if self.net.weight.detach().sum().item() > 100 else out.square()


@pytest.mark.parametrize(("kind", "shape"), [(WritesInPlace, (5, 1, 6, 6)), (Branches, (5, 6))])
def test_nets_that_write_in_place_or_branch_are_traced(kind, shape):
    draw = torch.Generator().manual_seed(0)
    batch = torch.randn(shape, generator=draw, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    case = Case(kind.__name__, kind().double(), nn.CrossEntropyLoss(), [batch])
    surface = LossSurface(case.model, case.loss_fn, case.batches)
    operator = HessianOperator(surface)
    assert (operator.method, operator.note) == ("traced", "")
    assert error(dense(operator), exact(case, surface)) < 1e-12


# The rule


def test_small_convolution_nets_are_traced_and_others_retained(monkeypatch):
    methods = {}
    for name in ("conv", "cross_entropy", "tied"):
        case = copy.deepcopy(ALL[name])
        methods[name] = HessianOperator(LossSurface(case.model, case.loss_fn, case.batches)).method
    assert methods == {"conv": "traced", "cross_entropy": "retained", "tied": "retained"}
    monkeypatch.setattr("loss_landscape.operators.hessian.MAX_PARAMETERS_TRACED", 10)
    case = ALL["conv"]
    assert HessianOperator(LossSurface(case.model, case.loss_fn, case.batches)).method == "retained"


def test_a_net_that_has_diverged_is_traced_all_the_same():
    case = copy.deepcopy(ALL["conv"])
    with torch.no_grad():
        case.model[0].weight[0] = float("nan")
    operator = HessianOperator(LossSurface(case.model, case.loss_fn, case.batches))
    assert operator.method == "traced"
    assert (operator @ torch.ones(operator.size)).isnan().any()


def test_a_loss_without_forward_derivative_falls_back_to_the_graph():
    case = copy.deepcopy(ALL["conv"])
    targets = [torch.ones(len(labels), 3, dtype=torch.float64) for _, labels in case.batches]
    batches = [(inputs, target) for (inputs, _), target in zip(case.batches, targets, strict=True)]
    case = Case("conv and mse", case.model, nn.MSELoss(), batches)
    surface = LossSurface(case.model, case.loss_fn, case.batches)
    operator = HessianOperator(surface)
    assert operator.method == "retained"
    assert operator.note.startswith("not traced: the gradient has no forward derivative that can be traced (ZeroTensors are")
    assert error(dense(operator), exact(case, surface)) < 1e-12


class CubeOnce(torch.autograd.Function):
    """x³, whose gradient has no derivative, as that of fused attention and recurrent kernels."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @once_differentiable
    def backward(ctx, slope: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * slope


class SingleCubeOnce(CubeOnce):
    """The same without a float64 kernel."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        if x.dtype == torch.float64:
            raise NotImplementedError("no kernel for float64")
        return CubeOnce.forward(ctx, x)


class Cubes(nn.Module):
    def __init__(self, function=None):
        super().__init__()
        self.first, self.last, self.function = nn.Linear(6, 4), nn.Linear(4, 3), function

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.last(hidden**3 if self.function is None else self.function(hidden))


def cubes(function, dtype: torch.dtype) -> tuple[Case, LossSurface, Tensor]:
    """A net with the function, its surface, and the dense float64 Hessian of the same net written out."""
    torch.manual_seed(0)
    plain = Cubes().double()
    case = ALL["cross_entropy"]
    expected = exact(Case("", plain, case.loss_fn, case.batches), LossSurface(plain, case.loss_fn, case.batches))
    model = Cubes(function)
    model.load_state_dict(plain.state_dict())
    case = Case("", model.to(dtype), case.loss_fn, [(inputs.to(dtype), targets) for inputs, targets in case.batches])
    return case, LossSurface(case.model, case.loss_fn, case.batches), expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_where_no_second_derivative_exists_differences_are_taken(dtype):
    case, surface, expected = cubes(CubeOnce.apply, dtype)
    with assert_leaves_net_untouched(case.model):
        operator = HessianOperator(surface)
        found = dense(operator)
    assert operator.method == "finite_differences"
    assert "not retained: one of the net's functions is marked once_differentiable" in operator.note
    assert found.dtype == dtype
    assert error(found, expected) < 1e-6
    with pytest.raises(ValueError, match=r"not retained: one of the net's functions .*; give method='auto'"):
        HessianOperator(surface, method="retained")


@pytest.mark.parametrize("kind", [GaussNewtonOperator, EmpiricalFisherOperator])
def test_the_other_matrices_take_differences_as_well(kind):
    case, surface, _ = cubes(CubeOnce.apply, torch.float64)
    plain = Cubes().double()
    plain.load_state_dict(case.model.state_dict())
    operator = kind(surface)
    assert operator.method == "finite_differences"
    assert "not retained: one of the net's functions is marked once_differentiable" in operator.note
    assert error(dense(operator), dense(kind(LossSurface(plain, case.loss_fn, case.batches)))) < 1e-6


def test_an_operation_without_second_derivative_is_named():
    torch.manual_seed(0)
    net = nn.Sequential(nn.EmbeddingBag(9, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    tokens = torch.randint(0, 9, (11, 5))
    operator = HessianOperator(LossSurface(net, nn.CrossEntropyLoss(), [(tokens, torch.arange(11) % 3)]))
    assert operator.method == "finite_differences"
    assert operator.note == "not retained: the derivative for '_embedding_bag_backward' is not implemented."
    counts = F.one_hot(tokens, 9).double().mean(dim=1)  # the same net, its bags as a product
    written_out = nn.Sequential(nn.Linear(9, 4, bias=False), nn.Tanh(), nn.Linear(4, 3)).double()
    written_out.load_state_dict({**net.state_dict(), "0.weight": net[0].weight.T})
    expected = dense(HessianOperator(LossSurface(written_out, nn.CrossEntropyLoss(), [(counts, torch.arange(11) % 3)])))
    order = torch.cat([torch.arange(36).view(4, 9).T.reshape(-1), torch.arange(36, 51)])
    assert error(dense(operator), expected[order][:, order]) < 1e-6


def test_differences_without_float64_are_rougher_and_say_so():
    _, surface, expected = cubes(SingleCubeOnce.apply, torch.float32)
    operator = HessianOperator(surface)
    assert "differences in torch.float32: wrong where they cross a kink" in operator.note
    assert 1e-6 < error(dense(operator), expected) < 1e-3


def test_differences_of_a_float32_net_with_kinks_are_taken_in_float64():
    torch.manual_seed(0)
    model = mlp(width=200, activation=nn.ReLU).double()
    batch = torch.randn(40, 6, dtype=torch.float64), torch.arange(40) % 3
    loss_fn = nn.CrossEntropyLoss()
    v = torch.randn(LossSurface(model, loss_fn, [batch]).size, dtype=torch.float64)
    expected = HessianOperator(LossSurface(model, loss_fn, [batch]), method="retained") @ v
    surface = LossSurface(model.float(), loss_fn, [(batch[0].float(), batch[1])])
    assert error(HessianOperator(surface, method="finite_differences") @ v, expected) < 1e-4


def test_the_step_follows_the_length_of_the_vector():
    case = ALL["cross_entropy"]
    surface = LossSurface(case.model, case.loss_fn, case.batches)
    operator, v = HessianOperator(surface, method="finite_differences"), torch.ones(surface.size, dtype=torch.float64)
    for scale in (1e-12, 1e12):
        torch.testing.assert_close(operator @ (scale * v) / scale, operator @ v, rtol=1e-6, atol=1e-9)
    assert torch.equal(operator @ (0 * v), 0 * v)


def test_an_exception_inside_a_difference_leaves_the_net_untouched():
    class Fails(nn.Sequential):
        left = 100

        def forward(self, x: Tensor) -> Tensor:
            Fails.left -= 1
            if Fails.left < 0:
                raise FloatingPointError("enough")
            return super().forward(x)

    model = Fails(*mlp()).double()
    case = ALL["cross_entropy"]
    operator = HessianOperator(LossSurface(model, case.loss_fn, case.batches), method="finite_differences")
    Fails.left = 1
    with assert_leaves_net_untouched(model), pytest.raises(FloatingPointError, match="enough"):
        operator @ torch.ones(operator.size)


def test_a_wrong_second_derivative_is_stepped_round():
    torch.manual_seed(0)
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)), nn.Tanh(), nn.Linear(5, 3)).double()
    case = ALL["cross_entropy"]
    surface = LossSurface(model, case.loss_fn, case.batches)
    with pytest.raises(ValueError, match=r"not retained: its products are not symmetric .*; give method='auto'"):
        HessianOperator(surface, method="retained")
    operator = HessianOperator(surface)
    assert operator.method == "finite_differences"
    matrix = dense(operator)
    torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-6)


def test_an_unknown_method_is_refused():
    case = ALL["cross_entropy"]
    with pytest.raises(ValueError, match="method must be 'auto', 'traced', 'retained', 'finite_differences', got 'exact'"):
        HessianOperator(LossSurface(case.model, case.loss_fn, case.batches), method="exact")


def test_out_of_memory_while_recording_is_no_missing_derivative(monkeypatch):
    def fails(*_):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(Recording, "__init__", fails)
    case = ALL["conv"]
    surface = LossSurface(case.model, case.loss_fn, [(inputs[:1], labels[:1]) for inputs, labels in case.batches])
    with pytest.raises(torch.OutOfMemoryError, match="does not fit into memory"):
        HessianOperator(surface)
