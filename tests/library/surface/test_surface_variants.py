"""A surface with a regulariser, recomputed batch norms, fewer parameters, smaller batches."""

from __future__ import annotations

import copy

import pytest
import torch
from nets import assert_leaves_net_untouched, mlp
from torch import Tensor, nn
from torch.nn import functional as F

from loss_landscape import HessianOperator, LossSurface, trace
from loss_landscape.surface.strategy import Evaluation, EvaluationStrategy

STRATEGIES = [EvaluationStrategy("eager", 16), EvaluationStrategy("traced", 16), EvaluationStrategy("vectorized", 4)]


def data(sizes: tuple[int, ...] = (6, 5), dtype: torch.dtype = torch.float64) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(0)
    return [(torch.randn(n, 6, generator=draw, dtype=dtype), torch.randint(0, 3, (n,), generator=draw)) for n in sizes]


def squared_norm(model: nn.Module) -> Tensor:
    return 0.3 * sum(p.square().sum() for p in model.parameters())


def net(seed: int = 0, norm: bool = False) -> nn.Module:
    torch.manual_seed(seed)
    return (nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)) if norm else mlp()).double()


# A regulariser


def test_a_regulariser_is_added_once():
    model = net()
    with assert_leaves_net_untouched(model):
        plain = LossSurface(model, nn.CrossEntropyLoss(), data())
        surface = LossSurface(model, nn.CrossEntropyLoss(), data(), regularizer=squared_norm)
        move = 0.1 * torch.ones(surface.size, dtype=torch.float64)
        added = 0.3 * (surface.origin + move).square().sum()
        torch.testing.assert_close(
            surface.losses(displacements=move[None])[0], plain.losses(displacements=move[None])[0] + added, rtol=1e-12, atol=0
        )
        slope = plain.gradient(move) + 0.6 * (surface.origin + move)
        torch.testing.assert_close(surface.gradient(move), slope, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("path", STRATEGIES, ids=lambda path: path.name)
def test_a_regulariser_is_on_every_path(path):
    surface = LossSurface(net(), nn.CrossEntropyLoss(), data(), regularizer=squared_norm)
    draw = torch.Generator().manual_seed(1)
    directions = torch.randn(2, surface.size, generator=draw, dtype=torch.float64)
    coordinates = torch.randn(5, 2, generator=draw, dtype=torch.float64)
    moves = coordinates @ directions
    torch.testing.assert_close(
        surface.plane(directions).evaluate(coordinates, path), surface.losses(displacements=moves), rtol=1e-10, atol=1e-10
    )
    slopes = torch.stack([surface.gradient(move) for move in moves])
    ascended = surface.losses(displacements=moves + 0.1 * slopes / slopes.norm(dim=1, keepdim=True))
    torch.testing.assert_close(surface.plane(directions).evaluate(coordinates, path, 0.1), ascended, rtol=1e-10, atol=1e-10)


def test_a_squared_norm_raises_every_eigenvalue_by_twice_its_factor():
    plain = LossSurface(net(), nn.CrossEntropyLoss(), data())
    surface = LossSurface(net(), nn.CrossEntropyLoss(), data(), regularizer=squared_norm)
    eye = torch.eye(surface.size, dtype=torch.float64)
    expected = HessianOperator(plain) @ eye + 0.6 * eye
    torch.testing.assert_close(HessianOperator(surface) @ eye, expected, rtol=1e-10, atol=1e-10)
    traces = [trace(HessianOperator(s), num_products=s.size).value for s in (plain, surface)]
    assert traces[1] - traces[0] == pytest.approx(0.6 * surface.size, rel=1e-10)


# Batch norm's statistics, recomputed


def with_own_statistics(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> nn.Module:
    """A copy after torch's own recipe, as in swa_utils.update_bn."""
    model = copy.deepcopy(model)
    torch.optim.swa_utils.update_bn([inputs for inputs, _ in batches], model)
    return model.eval()


def test_recomputed_statistics_are_torchs_own_at_every_point():
    model, batches = net(norm=True), data((6, 6))
    with assert_leaves_net_untouched(model):
        surface = LossSurface(model, nn.CrossEntropyLoss(), batches, batch_norm="recompute")
        moves = 0.3 * torch.randn(3, surface.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        losses = surface.losses(displacements=moves)
    for move, loss in zip(moves, losses, strict=True):
        other = copy.deepcopy(model)
        nn.utils.vector_to_parameters(surface.origin + move, other.parameters())
        other = with_own_statistics(other, batches)
        expected = sum(F.cross_entropy(other(x), y) for x, y in batches) / 2
        assert float(loss) == pytest.approx(expected.item(), rel=1e-12)


def test_a_gradient_holds_recomputed_statistics_fixed():
    model, batches = net(norm=True), data((6, 6))
    surface = LossSurface(model, nn.CrossEntropyLoss(), batches, batch_norm="recompute")
    fixed = LossSurface(with_own_statistics(model, batches), nn.CrossEntropyLoss(), batches)
    torch.testing.assert_close(surface.gradient(), fixed.gradient(), rtol=1e-12, atol=1e-14)
    v = torch.ones(surface.size, dtype=torch.float64)
    torch.testing.assert_close(HessianOperator(surface) @ v, HessianOperator(fixed) @ v, rtol=1e-12, atol=1e-14)


def test_recomputing_takes_the_plain_path_and_says_so():
    surface = LossSurface(net(norm=True), nn.CrossEntropyLoss(), data(), batch_norm="recompute")
    assert surface.plane([surface.origin]).strategy() == EvaluationStrategy(
        "eager", 16, note="batch norm's statistics are taken anew at each point"
    )
    with pytest.raises(ValueError, match="needs to know a batch's inputs"):
        LossSurface(net(), batches=data(), batch_loss=lambda m, b: F.cross_entropy(m(b[0]), b[1]), batch_norm="recompute")


# Some of the parameters


def test_a_restricted_surface_moves_what_the_globs_name():
    model = net()
    surface = LossSurface(model, nn.CrossEntropyLoss(), data())
    part = surface.restricted("0.*")
    assert part.layout.names == ("0.weight", "0.bias")
    assert part.loss() == surface.loss()
    full = HessianOperator(surface) @ torch.eye(surface.size, dtype=torch.float64)
    block = HessianOperator(part) @ torch.eye(part.size, dtype=torch.float64)
    torch.testing.assert_close(block, full[: part.size, : part.size], rtol=1e-10, atol=1e-12)
    step = torch.ones(1, part.size, dtype=torch.float64)
    whole = torch.cat([step, torch.zeros(1, surface.size - part.size, dtype=torch.float64)], dim=1)
    for path in STRATEGIES:
        torch.testing.assert_close(
            part.plane(step).evaluate(torch.ones(2, 1), path), surface.losses(displacements=whole).expand(2), rtol=1e-10, atol=0
        )


def test_a_glob_that_names_nothing_is_refused():
    surface = LossSurface(net(), nn.CrossEntropyLoss(), data())
    with pytest.raises(ValueError, match=r"no parameter matches 'conv\*'; there are 0.weight, 0.bias, 2.weight, 2.bias"):
        surface.restricted("conv*")


# Other cuts, dtypes and devices


@pytest.mark.parametrize(
    "loss_fn", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weight=torch.tensor([0.2, 3.0, 1.0]), ignore_index=1)]
)
def test_halves_are_the_same_loss(loss_fn):
    surface = LossSurface(net(), loss_fn, data())
    halves = surface.in_halves()
    assert [len(targets) for _, targets in halves.objective.batches] == [3, 3, 2, 3]
    assert halves.loss() == pytest.approx(surface.loss(), rel=1e-12)
    torch.testing.assert_close(halves.gradient(), surface.gradient(), rtol=1e-10, atol=1e-14)
    assert halves.in_halves().loss() == pytest.approx(surface.loss(), rel=1e-12)


def test_what_can_not_be_halved_is_refused():
    with pytest.raises(ValueError, match="how the data are cut"):
        LossSurface(net(norm=True), nn.CrossEntropyLoss(), data(), batch_norm="batch").in_halves()
    with pytest.raises(ValueError, match="batches of one example can't be cut in two"):
        LossSurface(net(), nn.CrossEntropyLoss(), data((1, 1))).in_halves()
    some = LossSurface(net(), nn.CrossEntropyLoss(), data((6, 1)))
    assert [len(targets) for _, targets in some.in_halves().objective.batches] == [3, 3, 1]
    assert some.in_halves().loss() == pytest.approx(some.loss(), rel=1e-12)


def test_another_radius_is_noticed():
    surface = LossSurface(net(), nn.CrossEntropyLoss(), data())
    v, where = torch.zeros(surface.size, dtype=torch.float64), torch.zeros(1, 1)
    slope = surface.gradient()
    for path in STRATEGIES:
        for rho in (0.0, 0.1, 0.5):
            expected = surface.losses(displacements=(rho * slope / slope.norm())[None])
            torch.testing.assert_close(surface.plane([v]).evaluate(where, path, rho), expected, rtol=1e-12, atol=0)


def test_bfloat16_is_close_and_is_no_float32():
    surface = LossSurface(net().float(), nn.CrossEntropyLoss(), data(dtype=torch.float32))
    v, where = torch.ones(surface.size), torch.linspace(-0.5, 0.5, 8)[:, None]
    strategy = surface.plane([v]).strategy(evaluation=Evaluation(precision="bfloat16"))
    assert strategy.precision == "bfloat16"
    exact, rough = surface.plane([v]).losses(where), surface.plane([v]).evaluate(where, strategy)
    assert 1e-5 < float(((rough - exact) / exact).abs().max()) < 3e-2
    other = LossSurface(net(), batches=data(), batch_loss=lambda m, b: F.cross_entropy(m(b[0]), b[1]))
    with pytest.raises(ValueError, match="needs outputs and loss apart"):
        other.plane([other.origin]).strategy(evaluation=Evaluation(precision="bfloat16"))


def test_the_same_surface_on_a_device(device):
    surface = LossSurface(net(), nn.CrossEntropyLoss(weight=torch.tensor([0.2, 3.0, 1.0])), data())
    moved = surface.on(device)
    assert moved.loss() == pytest.approx(surface.loss(), rel=1e-12)
    torch.testing.assert_close(moved.gradient().cpu(), surface.gradient(), rtol=1e-10, atol=1e-14)


class Recurrent(nn.Module):
    """One step of a GRU and a linear layer."""

    def __init__(self):
        super().__init__()
        self.cells, self.head = nn.GRU(6, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.cells(x[:, None])[0][:, -1])


@pytest.mark.parametrize("batch_norm", ["running", "recompute"])
def test_recurrent_layers_keep_off_cudnn(batch_norm, monkeypatch):
    """Its kernels refuse a gradient in eval mode."""
    allowed = {nn.GRU: [], nn.Linear: []}
    for layer, seen in allowed.items():
        monkeypatch.setattr(layer, "forward", _watched(layer.forward, seen))
    model = Recurrent().double()
    surface = LossSurface(model, nn.CrossEntropyLoss(), data(), batch_norm=batch_norm)
    surface.losses(displacements=torch.zeros(1, surface.size, dtype=torch.float64))
    surface.gradient()
    assert set(allowed[nn.GRU]) == {False}
    assert set(allowed[nn.Linear]) == {True}
    model(data()[0][0])
    assert allowed[nn.GRU][-1]


def _watched(forward, seen):
    def watched(self, *positional, **keywords):
        seen.append(torch.backends.cudnn.enabled)
        return forward(self, *positional, **keywords)

    return watched
