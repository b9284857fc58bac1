from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from nets import mlp
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from loss_landscape import HessianOperator, LossSurface, MatrixOperator, eigenpairs
from loss_landscape.operators.preconditioned import PreconditionedOperator
from loss_landscape.spectra.stability import adam_preconditioner, stability_thresholds

BATCH = torch.randn(32, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.arange(32) % 3


class Quadratic(nn.Module):
    """½ xᵀHx, very near its minimum."""

    def __init__(self, seed: int = 0):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        root = torch.randn(6, 6, generator=draw, dtype=torch.float64)
        self.register_buffer("matrix", root @ root.T)
        # so close that what grows does not reach the size at which Adam takes note
        self.x = nn.Parameter(1e-9 * torch.randn(6, generator=draw, dtype=torch.float64))

    def forward(self) -> Tensor:
        return 0.5 * self.x @ self.matrix @ self.x

    def surface(self) -> LossSurface:
        return LossSurface(self, batches=[0], batch_loss=lambda model, _: model())


def grows(model: Quadratic, optimizer: Optimizer) -> bool:
    """Whether 120 steps end farther from the minimum than 60 do."""
    distances = []
    for _ in range(120):
        optimizer.zero_grad()
        model().backward()
        optimizer.step()
        distances.append(float(model.x.detach().norm()))
    return distances[119] > distances[59]


@pytest.mark.parametrize("relative", [0.99, 1.01])
@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": 0.5}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.6, "dampening": 0.3}],
    ids=str,
)
def test_gradient_descent_on_a_quadratic_diverges_above_the_threshold_alone(options, relative):
    model = Quadratic()
    (sharpness,) = eigenpairs(HessianOperator(model.surface())).values.tolist()
    (unit,) = stability_thresholds(SGD([model.x], lr=1.0, **options))
    optimizer = SGD([model.x], lr=relative * unit / sharpness, **options)
    assert stability_thresholds(optimizer) == pytest.approx([sharpness / relative])
    assert grows(model, optimizer) == (relative > 1)


def with_frozen_moments(kind: type[Optimizer], model: Quadratic, **options: float) -> Optimizer:
    """An Adam so old that its mean of squares hardly changes, of another size in each direction."""
    optimizer = kind([model.x], betas=(options.pop("beta"), 1 - 1e-12), **options)
    squares = torch.logspace(-3, 1, 6, dtype=torch.float64)
    optimizer.state[model.x] = {"step": torch.tensor(1e16), "exp_avg": torch.zeros_like(model.x), "exp_avg_sq": squares}
    return optimizer


@pytest.mark.parametrize("relative", [0.99, 1.01])
@pytest.mark.parametrize(
    ("kind", "options"),
    [(Adam, {"beta": 0.0}), (Adam, {"beta": 0.9, "eps": 0.1}), (AdamW, {"beta": 0.9, "weight_decay": 0.3})],
    ids=str,
)
def test_adam_with_a_frozen_preconditioner_diverges_above_its_threshold_alone(kind, options, relative):
    model = Quadratic()
    surface, (low, high) = model.surface(), (0.0, 1.0)
    probe = with_frozen_moments(kind, model, lr=1.0, **options)
    operator = PreconditionedOperator(HessianOperator(surface), adam_preconditioner(surface, model, probe))
    (sharpness,) = eigenpairs(operator, tolerance=1e-9).values.tolist()
    for _ in range(60):  # the step size whose threshold is the sharpness
        middle = (low + high) / 2
        (threshold,) = stability_thresholds(with_frozen_moments(kind, model, lr=middle, **options))
        low, high = (middle, high) if threshold > sharpness else (low, middle)
    assert grows(model, with_frozen_moments(kind, model, lr=relative * low, **options)) == (relative > 1)


def test_thresholds_are_the_published_ones():
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    rates = {0: 0.1, 1: torch.tensor(0.02), 2: 0.0}
    for options, expected in (({}, [20, 100, math.inf]), ({"momentum": 0.9}, [38, 190, math.inf])):
        groups = [{"params": [weights[index]], "lr": rate} for index, rate in rates.items()]
        assert stability_thresholds(SGD(groups, lr=0.1, foreach=False, **options)) == pytest.approx(expected)
    assert stability_thresholds(SGD(weights, lr=0.1, momentum=0.9, nesterov=True)) == pytest.approx([3.8 / 0.28])
    assert stability_thresholds(Adam(weights, lr=0.1)) == pytest.approx([380])
    assert stability_thresholds(AdamW(weights, lr=0.1, weight_decay=0.0)) == pytest.approx([380])


@pytest.fixture
def trained() -> tuple[nn.Module, LossSurface, Callable[..., tuple[Optimizer, Tensor]]]:
    torch.manual_seed(0)
    model = mlp().double()

    def after_steps(**options: object) -> tuple[Optimizer, Tensor]:
        """Adam after four steps, and what the last one moved."""
        first, second = [p for n, p in model.named_parameters() if "weight" in n], [model[0].bias, model[2].bias]
        optimizer = Adam([{"params": first}, {"params": second, "eps": 1e-3}], lr=0.03, betas=(0.8, 0.95), **options)
        for _ in range(4):
            before = nn.utils.parameters_to_vector(model.parameters()).detach()
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(BATCH[0]), BATCH[1]).backward()
            optimizer.step()
        return optimizer, nn.utils.parameters_to_vector(model.parameters()).detach() - before

    return model, LossSurface(model, nn.CrossEntropyLoss(), [BATCH]), after_steps


@pytest.mark.parametrize("amsgrad", [False, True])
def test_adams_step_is_its_moment_over_the_preconditioner(trained, amsgrad):
    model, surface, after_steps = trained
    optimizer, moved = after_steps(amsgrad=amsgrad)
    moment = torch.cat([optimizer.state[p]["exp_avg"].reshape(-1) for p in model.parameters()])
    torch.testing.assert_close(adam_preconditioner(surface, model, optimizer), -0.03 * moment / moved, rtol=1e-9, atol=0)


def test_the_preconditioned_operator_has_the_eigenvalues_of_the_quotient():
    draw = torch.Generator().manual_seed(1)
    root = torch.randn(12, 12, generator=draw, dtype=torch.float64)
    matrix, diagonal = root + root.T, torch.rand(12, generator=draw, dtype=torch.float64) + 0.1
    inner = MatrixOperator(matrix)
    operator = PreconditionedOperator(inner, diagonal)
    true = torch.linalg.eigvals(matrix / diagonal[:, None]).real.sort(descending=True).values
    pairs = eigenpairs(operator, 2, 1, tolerance=1e-9)
    assert pairs.values.tolist() == pytest.approx([*true[:2].tolist(), float(true[-1])], rel=1e-8)
    assert inner.num_products == operator.num_products


def test_what_gives_no_threshold_or_preconditioner_is_refused(trained):
    model, surface, after_steps = trained
    with pytest.raises(ValueError, match="known here for SGD, Adam and AdamW, got RMSprop"):
        stability_thresholds(RMSprop(model.parameters()))
    with pytest.raises(ValueError, match="known here for SGD, Adam and AdamW, got SGD"):
        adam_preconditioner(surface, model, SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="no exp_avg and exp_avg_sq for '0.weight'.*after its first step"):
        adam_preconditioner(surface, model, Adam(model.parameters()))
    optimizer, _ = after_steps()
    with pytest.raises(ValueError, match="give the net that the surface was made from"):
        adam_preconditioner(surface, mlp(), optimizer)
    inner = MatrixOperator(torch.eye(3))
    with pytest.raises(ValueError, match=r"3 entries > 0, got \[2\] with a smallest of 1"):
        PreconditionedOperator(inner, torch.ones(2))
    with pytest.raises(ValueError, match=r"3 entries > 0, got \[3\] with a smallest of 0"):
        PreconditionedOperator(inner, torch.tensor([1.0, 0.0, 2.0]))
