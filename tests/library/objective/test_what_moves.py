"""What the loss depends on moves, by whichever way it is read; what does not move is told."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from nets import assert_leaves_net_untouched
from torch import Tensor, nn
from torch.nn import functional as F

from loss_landscape import Grid, HessianOperator, LossSurface, SampledFisherOperator, evaluate_grid

DRAW = torch.Generator().manual_seed(0)
INPUTS, LABELS = torch.randn(40, 6, generator=DRAW), torch.arange(40) % 3
BATCHES = [(INPUTS, LABELS)]


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def put_in(net: nn.Module, surface: LossSurface, displacement: Tensor, loss: Callable[[], Tensor]) -> float:
    """The loss with the displacement put into the user's net itself, which is put back."""
    kept = copy.deepcopy(net.state_dict())
    try:
        for name, part in surface.layout.unflatten(displacement).items():
            net.get_parameter(name).data += part
        with torch.no_grad():
            return float(loss())
    finally:
        net.load_state_dict(kept)


def assert_follows(net: nn.Module, surface: LossSurface, loss: Callable[[], Tensor]) -> None:
    """Losses, planes, gradients and products are those of the net with the displacement put in."""
    step = 0.3 * torch.randn(surface.size, generator=torch.Generator().manual_seed(1))
    right = [put_in(net, surface, t * step, loss) for t in (0.0, 1.0, -1.0)]
    moves = torch.tensor([[0.0], [1.0], [-1.0]])
    assert surface.losses(displacements=moves * step).tolist() == pytest.approx(right, rel=2e-6)
    assert surface.plane([step]).losses(moves).tolist() == pytest.approx(right, rel=2e-6)
    exact = surface.in_dtype(torch.float64)
    along, h = step.double(), 1e-4
    up, here, down = exact.losses(displacements=torch.tensor([[h], [0.0], [-h]]).double() * along).tolist()
    assert float(exact.gradient() @ along) == pytest.approx((up - down) / (2 * h), rel=1e-5)
    assert float(along @ (HessianOperator(exact) @ along)) == pytest.approx((up - 2 * here + down) / h**2, rel=1e-4)


class Applies(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, hidden: Tensor) -> Tensor:
        return self.function(hidden)


def tied() -> tuple[nn.Module, Callable[[], Tensor], dict]:
    torch.manual_seed(0)
    encoder = nn.Linear(6, 4)
    net = nn.Sequential(encoder, nn.Tanh(), Applies(lambda hidden: F.linear(hidden, encoder.weight.t())))
    return net, lambda: F.mse_loss(net(INPUTS), INPUTS), {"loss_fn": nn.MSELoss(), "batches": [(INPUTS, INPUTS)]}


def decay(net: nn.Module) -> Tensor:
    return 0.05 * sum(p.square().sum() for p in net.parameters())


def decayed_batch_loss() -> tuple[nn.Module, Callable[[], Tensor], dict]:
    net = mlp()
    loss = lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]) + decay(net)  # noqa: E731
    return net, lambda: loss(net, BATCHES[0]), {"batch_loss": loss, "batches": BATCHES}


def decay_as_regularizer() -> tuple[nn.Module, Callable[[], Tensor], dict]:
    net = mlp()
    right = lambda: F.cross_entropy(net(INPUTS), LABELS) + decay(net)  # noqa: E731
    return net, right, {"loss_fn": nn.CrossEntropyLoss(), "batches": BATCHES, "regularizer": lambda _: decay(net)}


def of_net(net: nn.Module) -> tuple[nn.Module, Callable[[], Tensor], dict]:
    return net, lambda: F.cross_entropy(net(INPUTS), LABELS), {"loss_fn": nn.CrossEntropyLoss(), "batches": BATCHES}


def patched() -> tuple[nn.Module, Callable[[], Tensor], dict]:
    net = mlp()
    own = net.forward
    net.forward = lambda inputs: 2 * own(inputs)
    return of_net(net)


def hooked() -> tuple[nn.Module, Callable[[], Tensor], dict]:
    net = mlp()
    net[0].register_forward_hook(lambda module, inputs, outputs: outputs + net[2].weight.mean())
    return of_net(net)


class Lists(nn.Module):
    """Keeps its weight in a plain list as well, and uses it from there."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 6, generator=torch.Generator().manual_seed(0)))
        self.weights = [self.weight]

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tanh(inputs @ self.weights[0].t())


def listed() -> tuple[nn.Module, Callable[[], Tensor], dict]:
    return of_net(Lists())


def normed_in_closure() -> tuple[nn.Module, Callable[[], Tensor], dict]:
    """A batch norm in eval mode, whose buffers a closure reads."""
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(6)
    norm(INPUTS)
    net = nn.Sequential(norm, nn.Linear(6, 6), Applies(lambda hidden: norm(hidden)), nn.Linear(6, 3)).eval()
    return of_net(net)


WAYS = [tied, decayed_batch_loss, decay_as_regularizer, patched, hooked, listed, normed_in_closure]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_net_that_a_closure_reads_moves(way):
    net, loss, given = way()
    with assert_leaves_net_untouched(net):
        surface = LossSurface(net, **given)
    assert_follows(net, surface, loss)


def test_a_closure_that_calls_the_net_in_training_mode_is_refused():
    net = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5)).train()
    with pytest.raises(ValueError, match=r"1 of the net itself, in training mode, is called by a closure"):
        LossSurface(net, batch_loss=lambda _, batch: F.cross_entropy(net(batch[0]), batch[1]), batches=BATCHES)


def test_a_loss_of_outputs_that_reads_the_net_is_refused_by_name():
    net = mlp()
    with pytest.raises(ValueError, match="loss_fn reads '0.weight', '0.bias', '2.weight', '2.bias' of the net itself"):
        LossSurface(net, lambda outputs, targets: F.cross_entropy(outputs, targets) + decay(net), BATCHES)


def test_a_view_that_was_made_outside_is_refused_by_name_and_a_clone_is_not():
    net = mlp()
    view, clone = net[0].weight.detach(), net[0].weight.detach().clone()

    def surface_towards(anchor: Tensor) -> LossSurface:
        return LossSurface(
            net, nn.CrossEntropyLoss(), BATCHES, regularizer=lambda model: (model[0].weight - anchor).square().sum()
        )

    with pytest.raises(ValueError, match=r"'0.weight' of the net itself is read by a view or a copy"):
        surface_towards(view)
    surface = surface_towards(clone)
    assert float(surface.losses(displacements=torch.ones(1, surface.size))) > 48


def test_a_sampled_fisher_of_a_net_that_reads_itself_by_a_closure_is_refused():
    pytest.importorskip("curvlinops")
    net, _, given = hooked()
    with pytest.raises(ValueError, match="is not known for a net that reads its parameters by a closure"):
        SampledFisherOperator(LossSurface(net, **given))


class HidesSlope(nn.Module):
    """Its scale is read without a gradient, its bias in a cache that the first pass under no_grad would fill."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.scale, self.bias = nn.Linear(6, 3), nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
        self.unused, self.frozen = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3), requires_grad=False)
        self.cache: dict[str, Tensor] = {}

    def forward(self, inputs: Tensor) -> Tensor:
        if "bias" not in self.cache:
            self.cache["bias"] = 2 * self.bias
        return self.layer(inputs) * self.scale.detach() * self.frozen + self.cache["bias"]


def test_what_matters_moves_and_the_rest_is_told(tmp_path):
    net = HidesSlope()
    surface = LossSurface(net, nn.CrossEntropyLoss(), BATCHES)
    assert surface.layout.names == ("scale", "bias", "layer.weight", "layer.bias")
    assert surface.objective.used.without_slope == ("scale",)
    assert surface.unmoved == {"unused": "unused", "frozen": "frozen"}
    assert repr(surface).endswith("float32, cpu, unused: unused, frozen: frozen, no derivative in scale)")
    step = surface.layout.flatten({name: torch.full_like(net.get_parameter(name), 0.1) for name in surface.layout.names})
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for name in surface.layout.names:
            twin.get_parameter(name).add_(0.1)
        right = float(F.cross_entropy(twin(INPUTS), LABELS))
    grid = evaluate_grid(surface, [step], 3)
    assert grid.losses[2] == pytest.approx(right, rel=1e-6)
    grid.save(tmp_path / "grid")
    told = Grid.load(tmp_path / "grid").info.evaluation
    assert told.unmoved == {"unused": "unused", "frozen": "frozen"}
    assert told.without_slope == ("scale",)
    part = surface.restricted("layer.*")
    assert part.unmoved == {"scale": "left out", "bias": "left out", "unused": "unused", "frozen": "frozen"}
    assert "left out: scale, bias" in repr(part)


def test_what_only_the_regulariser_depends_on_moves():
    net = HidesSlope()
    surface = LossSurface(net, nn.CrossEntropyLoss(), BATCHES, regularizer=decay)
    assert "unused" in surface.layout.names
    step = surface.layout.flatten({n: torch.full_like(p, float(n == "unused")) for n, p in net.named_parameters()})
    here, there = surface.losses(displacements=torch.stack([0 * step, step])).tolist()
    assert there - here == pytest.approx(0.05 * 2 * (2**2 - 1), rel=1e-5)


class Forgets(nn.Module):
    """Keeps a layer in a plain list, which registers nothing."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers, self.head = [nn.Linear(6, 5)], nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.tanh(self.layers[0](inputs)))


def test_parameters_that_no_module_registers_are_told():
    surface = LossSurface(Forgets(), nn.CrossEntropyLoss(), BATCHES)
    assert surface.unmoved == {"1 × [5, 6]": "outside the net", "1 × [5]": "outside the net"}
    assert "outside the net: 1 × [5, 6], 1 × [5]" in repr(surface)
    assert LossSurface(mlp(), nn.CrossEntropyLoss(), BATCHES).unmoved == {}


def test_parameters_of_the_loss_are_told():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor([2.0]))

        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return F.cross_entropy(self.scale * outputs, targets)

    assert LossSurface(mlp(), Scaled(), BATCHES).unmoved == {"1 × [1]": "outside the net"}
