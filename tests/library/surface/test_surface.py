from __future__ import annotations

import copy
import functools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from nets import Case, Remembers, assert_leaves_net_untouched, cases, dense_loss, mlp, whole_batch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from loss_landscape import Grid, HessianOperator, LossSurface, evaluate_grid, random_directions, sam_sharpness
from loss_landscape.surface.cell_graph import BoundCells
from loss_landscape.surface.strategy import EvaluationStrategy

STRATEGIES = [EvaluationStrategy("eager", 1), EvaluationStrategy("traced", 16), EvaluationStrategy("vectorized", 4)]
ALL = {case.name: case for case in cases()}


@pytest.fixture(params=ALL)
def case(request: pytest.FixtureRequest, device: torch.device) -> Case:
    found = copy.deepcopy(ALL[request.param]).to(device)
    found.model.eval()
    return found


def surface_of(case: Case, **options) -> LossSurface:
    return LossSurface(case.model, case.loss_fn, case.batches, **options)


def data(count: int = 11, outputs: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, 6, generator=draw), torch.randint(0, outputs, (count,), generator=draw)


def uneven(inputs: Tensor, targets: Tensor, size: int = 4) -> list[tuple[Tensor, Tensor]]:
    return list(zip(inputs.split(size), targets.split(size), strict=True))


# The value


def test_uneven_batches_give_the_loss_of_all_data(case):
    surface = surface_of(case)
    expected = float(dense_loss(case, surface.layout.names, surface.origin))
    assert surface.loss() == pytest.approx(expected, rel=1e-12)
    one = LossSurface(case.model, case.loss_fn, [whole_batch(case)])
    assert one.loss() == pytest.approx(expected, rel=1e-12)


def test_the_loss_away_from_the_origin_is_that_of_all_data(case):
    surface = surface_of(case)
    moves = 0.1 * torch.randn(3, surface.size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    moves = moves.to(surface.device)
    expected = [float(dense_loss(case, surface.layout.names, surface.origin + move)) for move in moves]
    torch.testing.assert_close(
        surface.losses(displacements=moves).cpu(), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0
    )


def test_the_gradient_is_that_of_all_data(case):
    surface = surface_of(case)
    move = 0.1 * torch.randn(surface.size, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(surface.device)
    for displacement in (None, move):
        point = (surface.origin + (0 if displacement is None else displacement)).requires_grad_()
        (expected,) = torch.autograd.grad(dense_loss(case, surface.layout.names, point), point)
        torch.testing.assert_close(surface.gradient(displacement), expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("path", STRATEGIES, ids=lambda path: path.name)
def test_the_strategies_agree_with_the_plain_way(case, path):
    surface = surface_of(case)
    directions = torch.randn(2, surface.size, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).to(surface.device)
    coordinates = torch.tensor([[0.0, 0.0], [0.3, -0.2], [-0.1, 0.4], [0.2, 0.2], [-0.3, 0.0]], dtype=torch.float64)
    expected = surface.losses(displacements=coordinates.to(directions) @ directions)
    torch.testing.assert_close(surface.plane(directions).evaluate(coordinates, path), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("path", STRATEGIES, ids=lambda path: path.name)
def test_sam_values_are_one_normalised_step_up_the_gradient_at_each_point(case, path):
    surface = surface_of(case)
    directions = torch.randn(2, surface.size, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).to(surface.device)
    coordinates = torch.tensor([[0.0, 0.0], [0.3, -0.2], [-0.1, 0.4]], dtype=torch.float64)
    expected = []
    for move in coordinates.to(directions) @ directions:
        slope = surface.gradient(move)
        expected.append(surface.losses(displacements=(move + 0.05 * slope / slope.norm())[None])[0])
    actual = surface.plane(directions).evaluate(coordinates, path, 0.05)
    torch.testing.assert_close(actual, torch.stack(expected), rtol=1e-10, atol=1e-10)


def test_float32_paths_agree_within_the_stated_bound():
    surface = LossSurface(mlp(width=50), nn.CrossEntropyLoss(), uneven(*data(64)))
    draw = torch.Generator().manual_seed(0)
    directions, coordinates = torch.randn(2, surface.size, generator=draw), torch.randn(20, 2, generator=draw)
    expected = surface.losses(displacements=coordinates @ directions)
    for path in STRATEGIES:
        torch.testing.assert_close(surface.plane(directions).evaluate(coordinates, path), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("path", STRATEGIES, ids=lambda path: path.name)
def test_no_points_bits_depend_on_the_others(path):
    surface = LossSurface(mlp(width=50, activation=nn.ReLU), nn.CrossEntropyLoss(), uneven(*data(64)))
    draw = torch.Generator().manual_seed(0)
    directions, coordinates = torch.randn(2, surface.size, generator=draw), torch.randn(40, 2, generator=draw)
    together = surface.plane(directions).evaluate(coordinates, path)
    order = torch.randperm(40, generator=draw)
    assert torch.equal(surface.plane(directions).evaluate(coordinates[order], path), together[order])
    assert torch.equal(surface.plane(directions).evaluate(coordinates[7:8], path), together[7:8])


def test_batched_chunks_are_always_whole(monkeypatch):
    """A shorter chunk may take other SIMD remainders, hence other last bits."""
    surface, seen, original = LossSurface(mlp(), nn.CrossEntropyLoss(), [data()]), [], BoundCells.losses
    monkeypatch.setattr(BoundCells, "losses", lambda cells, rows, path: seen.append(len(rows)) or original(cells, rows, path))
    assert surface.plane([surface.origin]).evaluate(torch.randn(19, 1), EvaluationStrategy("vectorized", 8)).shape == (19,)
    assert seen == [8, 8, 8]


def test_mean_squared_error_keeps_real_targets():
    net = nn.Linear(6, 1)
    inputs, _ = data()
    targets = torch.full((11, 1), 0.5)
    expected = ((net(inputs).double() - 0.5) ** 2).mean().item()
    assert LossSurface(net, nn.MSELoss(), [(inputs, targets)]).loss() == pytest.approx(expected, rel=1e-6)


def test_a_nearly_perfect_fit_is_not_rounded_away():
    """In float32 cross entropy is 0 below 6e-8, and a plane at a trained minimum is rounding noise."""
    net = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[20.0], [-1.0]]))
    batch = (torch.ones(1, 1), torch.tensor([0]))
    assert nn.CrossEntropyLoss()(net(batch[0]), batch[1]).item() == 0.0
    assert LossSurface(net, nn.CrossEntropyLoss(), [batch]).loss() == pytest.approx(7.582560422e-10, rel=1e-8)


def test_dtype_is_settable_and_half_precision_is_widened():
    net, (inputs, targets) = mlp(), data()
    exact = LossSurface(copy.deepcopy(net).double(), nn.CrossEntropyLoss(), [(inputs.double(), targets)]).loss()
    in_double = LossSurface(net, nn.CrossEntropyLoss(), [(inputs, targets)], dtype=torch.float64)
    assert in_double.origin.dtype == in_double.gradient().dtype == torch.float64
    assert in_double.loss() == pytest.approx(exact, rel=1e-14)
    assert LossSurface(net, nn.CrossEntropyLoss(), [(inputs, targets)]).in_dtype(torch.float64).loss() == in_double.loss()
    half = LossSurface(copy.deepcopy(net).half(), nn.CrossEntropyLoss(), [(inputs.half(), targets)])
    assert half.dtype == torch.float32
    assert half.loss() == pytest.approx(exact, rel=1e-2)


# What batches weigh


def test_a_batch_in_which_nothing_counts_weighs_nothing():
    inputs, targets = data(8)
    ignored = torch.full((4,), -100)
    surface = LossSurface(mlp(), nn.CrossEntropyLoss(), [(inputs[:4], targets[:4]), (inputs[4:], ignored)])
    assert surface.objective.batch_weights.values == (1.0, 0.0)
    first = LossSurface(surface.objective.net.module, nn.CrossEntropyLoss(), [(inputs[:4], targets[:4])])
    assert surface.loss() == first.loss()
    assert torch.equal(surface.gradient(), first.gradient())
    with pytest.raises(ValueError, match="no example counts in the loss"):
        LossSurface(mlp(), nn.CrossEntropyLoss(), [(inputs[4:], ignored)])


@pytest.mark.parametrize(
    ("loss_fn", "weighting"),
    [
        (F.cross_entropy, "the criterion's own denominator"),
        (functools.partial(F.cross_entropy, weight=torch.tensor([0.2, 3.0, 1.0])), "the criterion's own denominator"),
        (functools.partial(F.cross_entropy, label_smoothing=0.2), "the criterion's own denominator"),
        (lambda outputs, targets: F.cross_entropy(outputs, targets), "examples"),
    ],
    ids=["function", "float32_weights", "partial", "closure"],
)
def test_functions_are_read_or_compared_in_pairs_of_batches(loss_fn, weighting):
    net, (inputs, targets) = mlp(), data()
    surface = LossSurface(net, loss_fn, uneven(inputs, targets))
    assert surface.objective.batch_weights.rule.startswith(weighting)
    assert surface.loss() == pytest.approx(loss_fn(net(inputs), targets).item(), rel=1e-6)


def test_a_criterion_that_does_not_obey_its_reduction_is_compared_in_pairs_of_batches():
    class Stubborn(nn.Module):
        reduction = "mean"

        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return F.cross_entropy(outputs, targets)

    net, (inputs, targets) = mlp(), data()
    surface = LossSurface(net, Stubborn(), uneven(inputs, targets))
    assert surface.objective.batch_weights.rule.startswith("examples")
    assert surface.loss() == pytest.approx(F.cross_entropy(net(inputs), targets).item(), rel=1e-6)


def test_a_loss_that_is_no_mean_needs_to_be_told_what_batches_weigh():
    def root(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="sum").sqrt()

    net, (inputs, targets) = mlp(), data()
    with pytest.raises(ValueError, match="give batch_weight="):
        LossSurface(net, root, uneven(inputs, targets))
    surface = LossSurface(net, root, uneven(inputs, targets), batch_weight=lambda batch: len(batch[1]))
    expected = sum(len(t) / 11 * root(net(i), t).item() for i, t in uneven(inputs, targets))
    assert surface.loss() == pytest.approx(expected, rel=1e-6)
    assert LossSurface(net, root, [(inputs, targets)]).loss() == pytest.approx(root(net(inputs), targets).item(), rel=1e-6)
    with pytest.raises(ValueError, match="batch weights must be finite"):
        LossSurface(net, root, uneven(inputs, targets), batch_weight=lambda batch: -1.0)


def test_weights_are_found_for_a_net_that_diverged():
    net = mlp()
    with torch.no_grad():
        net[2].bias.fill_(float("nan"))
    surface = LossSurface(net, nn.CrossEntropyLoss(), uneven(*data()))
    assert surface.objective.batch_weights.values == pytest.approx((4 / 11, 4 / 11, 3 / 11))
    assert surface.loss() != surface.loss()


# Losses of any shape


def test_batch_loss_takes_batches_of_any_shape():
    net = mlp(outputs=1).double()
    inputs = data(7)[0].double()
    points = [{"inside": inputs[:4]}, {"inside": inputs[4:]}]

    def residual(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        assert isinstance(model, nn.Module)
        inside = batch["inside"].clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(inside).sum(), inside, create_graph=True)
        return (slope.sum(dim=1) - 1).square().mean()

    surface = LossSurface(net, batches=points, batch_loss=residual)
    assert surface.loss() == pytest.approx(residual(net, {"inside": inputs}).item(), rel=1e-12)
    assert surface.gradient().norm() > 0
    v, step = torch.ones(surface.size, dtype=torch.float64), 1e-5
    numeric = (surface.gradient(step * v) - surface.gradient(-step * v)) / (2 * step)
    torch.testing.assert_close(HessianOperator(surface) @ v, numeric, rtol=1e-6, atol=1e-8)


def test_exactly_one_kind_of_loss_is_given():
    with pytest.raises(ValueError, match="exactly one of loss_fn"):
        LossSurface(mlp(), batches=[data()])
    with pytest.raises(ValueError, match="exactly one of loss_fn"):
        LossSurface(mlp(), nn.MSELoss(), [data()], batch_loss=lambda model, batch: 0)
    with pytest.raises(TypeError, match="each batch must be"):
        LossSurface(mlp(), nn.MSELoss(), [data()[0]])
    with pytest.raises(TypeError, match="batches must be a list"):
        LossSurface(mlp(), nn.MSELoss())


def test_a_loss_without_a_scalar_is_refused():
    with pytest.raises(ValueError, match="reduction='none'"):
        LossSurface(mlp(), nn.CrossEntropyLoss(reduction="none"), [data()])
    with pytest.raises(ValueError, match=r"must be a scalar tensor, got one \[11\]"):
        LossSurface(mlp(), lambda o, t: F.cross_entropy(o, t, reduction="none"), [data()])


def test_a_loss_that_holds_the_net_is_refused():
    class Holds(nn.Module):
        def __init__(self, net: nn.Module):
            super().__init__()
            self.net = net

        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return F.cross_entropy(outputs, targets) + self.net[0].weight.square().sum()

    net = mlp()
    with pytest.raises(ValueError, match="loss_fn holds parameters of the net"):
        LossSurface(net, Holds(net), [data()])


def test_a_net_without_a_free_parameter_is_refused():
    with pytest.raises(ValueError, match="no parameter with requires_grad=True"):
        LossSurface(mlp().requires_grad_(False), nn.CrossEntropyLoss(), [data()])


# Batches


def test_a_shuffling_loader_is_refused_and_a_plain_one_is_not():
    net, dataset = mlp(), TensorDataset(*data())
    with pytest.raises(ValueError, match="shuffle=False"):
        LossSurface(net, nn.CrossEntropyLoss(), DataLoader(dataset, batch_size=4, shuffle=True))
    draw = torch.Generator().manual_seed(5)
    before = draw.get_state()
    surface = LossSurface(net, nn.CrossEntropyLoss(), DataLoader(dataset, batch_size=4, generator=draw))
    assert surface.loss() == LossSurface(net, nn.CrossEntropyLoss(), uneven(*data())).loss()
    assert torch.equal(draw.get_state(), before)


def test_a_generator_is_kept_and_an_exhausted_one_is_refused():
    net, batches = mlp(), uneven(*data())
    once = (batch for batch in batches)
    surface = LossSurface(net, nn.CrossEntropyLoss(), once)
    assert surface.loss() == LossSurface(net, nn.CrossEntropyLoss(), batches).loss()
    assert surface.gradient().norm() > 0
    with pytest.raises(ValueError, match="expected at least one batch"):
        LossSurface(net, nn.CrossEntropyLoss(), once)


def test_batches_too_large_to_keep_are_read_again(monkeypatch):
    from loss_landscape.objective.batches import Batches

    monkeypatch.setattr(Batches.__init__, "__defaults__", (100,))
    net, batches = mlp(), uneven(*data())
    surface = LossSurface(net, nn.CrossEntropyLoss(), DataLoader(TensorDataset(*data()), batch_size=4))
    assert surface.loss() == LossSurface(net, nn.CrossEntropyLoss(), batches).loss()
    with pytest.raises(ValueError, match="can be read only once"):
        LossSurface(net, nn.CrossEntropyLoss(), (batch for batch in batches))


# Traces left


@pytest.mark.parametrize("training", [True, False])
def test_the_net_is_left_untouched(case, training):
    case.model.train(training)
    with assert_leaves_net_untouched(case.model):
        surface = surface_of(case)
        surface.loss(), surface.gradient()
        surface.plane([surface.origin]).losses(torch.tensor([[0.1]]))
        sam_sharpness(surface)
        HessianOperator(surface) @ surface.origin


def test_the_net_is_left_untouched_by_an_exception():
    class Fails(Remembers):
        calls_left = 8  # construction takes five

        def forward(self, x: Tensor) -> Tensor:
            Fails.calls_left -= 1
            torch.rand(3)
            if self.calls_left < 0:
                raise FloatingPointError("enough")
            return super().forward(x)

    model = Fails()
    with assert_leaves_net_untouched(model):
        surface = LossSurface(model, nn.CrossEntropyLoss(), [data()])
        with pytest.raises(FloatingPointError, match="enough"):
            surface.losses(displacements=torch.zeros(9, surface.size))


def test_training_on_does_not_move_the_surface():
    net, batch = Remembers().eval(), data()
    surface = LossSurface(net, nn.CrossEntropyLoss(), [batch])
    before = surface.losses(displacements=torch.zeros(1, surface.size))
    with torch.no_grad():
        for tensor in (net.first.weight, net.frozen, net.norm.running_mean):
            tensor.add_(1)
            assert torch.equal(surface.losses(displacements=torch.zeros(1, surface.size)), before)


def test_dropout_and_batch_norm_are_in_eval_mode():
    model = Remembers().train()
    batch = data()
    surface = LossSurface(model, nn.CrossEntropyLoss(), [batch])
    model.eval()
    assert surface.loss() == pytest.approx(F.cross_entropy(model(batch[0]), batch[1]).item(), rel=1e-6)
    assert torch.equal(
        surface.losses(displacements=torch.zeros(2, surface.size))[0],
        surface.losses(displacements=torch.zeros(1, surface.size))[0],
    )


def test_batch_norm_can_use_each_batchs_own_statistics():
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    batch = data()
    with assert_leaves_net_untouched(model):
        surface = LossSurface(model, nn.CrossEntropyLoss(), [batch], batch_norm="batch")
    assert surface.loss() == pytest.approx(F.cross_entropy(copy.deepcopy(model).train()(batch[0]), batch[1]).item(), rel=1e-6)
    with pytest.raises(ValueError, match="batch_norm must be"):
        LossSurface(model, nn.CrossEntropyLoss(), [batch], batch_norm="train")


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_the_callers_context_changes_nothing(context):
    net, batch = mlp(), data()
    plain = LossSurface(net, nn.CrossEntropyLoss(), [batch])
    v = plain.origin
    expected = plain.loss(), plain.gradient(), HessianOperator(plain) @ v, plain.plane([v]).losses(torch.ones(1, 1))
    with context():
        surface = LossSurface(net, nn.CrossEntropyLoss(), [batch])
        assert surface.loss() == expected[0]
        assert torch.equal(surface.gradient(), expected[1])
        assert torch.equal(HessianOperator(surface) @ v, expected[2])
        assert torch.equal(surface.plane([v]).losses(torch.ones(1, 1)), expected[3])


def test_threads_come_one_after_another_and_leave_settings_as_they_were():
    """Torch's settings and tracing are the process's."""
    net, batch = mlp(), data()
    names = ("flash_sdp_enabled", "mem_efficient_sdp_enabled", "math_sdp_enabled")

    def settings() -> tuple[bool, ...]:
        sdp = [getattr(torch.backends.cuda, name)() for name in names]
        return (torch.backends.mha.get_fastpath_enabled(), torch.backends.cudnn.allow_tf32, *sdp)

    def grid(seed: int) -> Grid:
        surface = LossSurface(net, nn.CrossEntropyLoss(), [batch])
        return evaluate_grid(surface, random_directions(surface, generator=seed), 9)

    before, alone = settings(), [grid(seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(grid, range(6)))
    assert settings() == before
    for one, other in zip(together, alone, strict=True):
        assert one.info.evaluation == other.info.evaluation
        assert one.losses.tobytes() == other.losses.tobytes()


# Nets of all kinds


class LastStep(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells, self.head = nn.LSTM(6, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x.unsqueeze(1).expand(-1, 3, -1))[0][:, -1])


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(torch.stack([x, x.flip(1), -x], dim=1)).mean(dim=1))


class Twice(nn.Sequential):
    """One layer under two names."""

    def __init__(self):
        layer = nn.Linear(6, 6)
        super().__init__(layer, nn.Tanh(), layer, nn.Linear(6, 3))


class Parametrised(nn.Sequential):
    def __init__(self):
        super().__init__(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 5)), nn.Tanh(), nn.Linear(5, 3))


@pytest.mark.parametrize("kind", [LastStep, Attends, Parametrised, Twice])
def test_recurrent_attention_and_parametrised_nets(kind):
    model = kind().double().eval()
    inputs, targets = data()
    surface = LossSurface(model, nn.CrossEntropyLoss(), [(inputs.double(), targets)])
    assert surface.loss() == pytest.approx(F.cross_entropy(model(inputs.double()), targets).item(), rel=1e-12)
    direction = torch.randn(surface.size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    product, step = HessianOperator(surface) @ direction, 1e-5
    numeric = (surface.gradient(step * direction) - surface.gradient(-step * direction)) / (2 * step)
    torch.testing.assert_close(product, numeric, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weight_norm_has_a_surface_but_its_wrong_second_derivative_is_noticed(norm):
    """The second derivative of torch's fused `_weight_norm` differs from the numeric one (gradgradcheck fails on it)."""
    model = nn.Sequential(norm(nn.Linear(6, 5)), nn.Tanh(), nn.Linear(5, 3)).double()
    inputs, targets = data()
    surface = LossSurface(model, nn.CrossEntropyLoss(), [(inputs.double(), targets)])
    assert surface.loss() == pytest.approx(F.cross_entropy(model(inputs.double()), targets).item(), rel=1e-12)
    operator = HessianOperator(surface)
    assert "not symmetric" in operator.note
    columns, v = [], torch.zeros(surface.size, dtype=torch.float64)
    for place in range(surface.size):
        v.zero_()[place] = 1.0
        up, down = (surface.gradient(sign * 1e-5 * v) for sign in (1, -1))
        columns.append((up - down) / 2e-5)
    found = operator @ torch.eye(surface.size, dtype=torch.float64)
    torch.testing.assert_close(found, torch.stack(columns, dim=1), rtol=0, atol=1e-6)


def test_a_net_that_keeps_its_last_activation_can_be_read():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x: Tensor) -> Tensor:
            self.last = self.net(x)
            return self.last

    model, batch = Keeps(), data()
    model(batch[0])
    kept = model.last
    surface = LossSurface(model, nn.CrossEntropyLoss(), [batch])
    surface.gradient()
    assert model.last is kept
    assert surface.loss() == pytest.approx(F.cross_entropy(model(batch[0]), batch[1]).item(), rel=1e-6)


def test_filter_rescaling_of_a_relu_net_leaves_the_loss():
    net, batch = mlp(activation=nn.ReLU), data()
    scaled = copy.deepcopy(net)
    with torch.no_grad():
        scaled[0].weight.mul_(3), scaled[0].bias.mul_(3), scaled[2].weight.div_(3)
    losses = [LossSurface(model, nn.CrossEntropyLoss(), [batch]).loss() for model in (net, scaled)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
