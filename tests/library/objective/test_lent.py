"""Nothing of the user's is changed, and one point has one loss at every call."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from nets import assert_leaves_net_untouched
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from loss_landscape import HessianOperator, LossSurface, evaluate_grid

INPUTS = torch.rand(20, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(20) % 3
IDS = torch.randint(0, 9, (20, 4), generator=torch.Generator().manual_seed(1))


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.head = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.hidden(x)))


def copy_loss(net: nn.Module, displacement: Tensor | None = None, inputs: Tensor = INPUTS) -> float:
    """The plain loop: a copy of the net with the displacement put in, on a copy of the batch."""
    twin = copy.deepcopy(net)
    if displacement is not None:
        vector_to_parameters(parameters_to_vector(twin.parameters()).detach() + displacement, twin.parameters())
    with torch.no_grad():
        return float(F.cross_entropy(twin(inputs.clone()).double(), LABELS))


def assert_one_loss_everywhere(net: nn.Module, surface: LossSurface, inputs: Tensor = INPUTS) -> None:
    """Every way to a loss gives the plain loop's at the origin and at a displacement, again and again."""
    draw = torch.Generator().manual_seed(2)
    step = 0.5 * torch.randn(surface.size, generator=draw)
    origin = surface.origin.clone()
    here, there = copy_loss(net, inputs=inputs), copy_loss(net, step, inputs)
    for _ in range(2):
        plane = surface.plane([step]).losses(torch.tensor([[0.0], [1.0], [-1.0]]))
        points = surface.losses(points=torch.stack([surface.origin, surface.origin + step]))
        moved = surface.losses(displacements=torch.stack([0 * step, step]))
        HessianOperator(surface, method="retained") @ step
        surface.gradient(step)
        for found in (plane[:2], points, moved):
            assert found.tolist() == pytest.approx([here, there], rel=2e-6)
    assert torch.equal(surface.origin, origin)
    assert evaluate_grid(surface, [step], 3).losses.tolist() == pytest.approx([float(plane[2]), here, there], rel=2e-6)


class Normalises(Head):
    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.5).div_(0.25)
        return super().forward(x)


class NormalisesData(Head):
    def forward(self, x: Tensor) -> Tensor:
        x.data.mul_(2)
        return super().forward(x)


class Clamps(Head):
    def forward(self, x: Tensor) -> Tensor:
        self.hidden.weight.data.clamp_(-0.2, 0.2)
        return super().forward(x)


class Leaky(Head):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.leaky_relu(x - 0.5, inplace=True))


class Caches(Head):
    """Computes its weight once in eval mode, to be fast."""

    ready = None

    def train(self, mode: bool = True) -> Caches:
        self.ready = None
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        if self.training or self.ready is None:
            self.ready = F.normalize(self.hidden.weight, dim=1)
        return self.head(torch.tanh(x @ self.ready.T + self.hidden.bias))


class Appends(Head):
    def __init__(self):
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return super().forward(x)


class ReturnsNothing(Head):
    def train(self, mode: bool = True) -> None:
        super().train(mode)


NETS = [Normalises, NormalisesData, Clamps, Leaky, Caches, Appends, ReturnsNothing]


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("whole", [False, True], ids=["loss_fn", "batch_loss"])
def test_a_net_that_writes_where_it_should_not_has_one_loss_and_changes_nothing(kind, whole):
    net, inputs, labels = kind(), INPUTS.clone(), LABELS.clone()
    given = {"batch_loss": lambda model, batch: F.cross_entropy(model(batch[0]), batch[1])} if whole else {}
    with assert_leaves_net_untouched(net):
        surface = LossSurface(net, None if whole else nn.CrossEntropyLoss(), [(inputs, labels)], **given)
        assert_one_loss_everywhere(Caches().train() if kind is Caches else net, surface)
    assert torch.equal(inputs, INPUTS)
    assert torch.equal(labels, LABELS)


class Renormed(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.head = nn.Embedding(9, 5, max_norm=1.0), nn.Linear(5, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.words(ids).mean(1)))


def test_an_embedding_that_norms_its_own_weight_moves_neither_net_nor_origin():
    net = Renormed()
    with assert_leaves_net_untouched(net):
        surface = LossSurface(net, nn.CrossEntropyLoss(), [(IDS, LABELS)])
        assert_one_loss_everywhere(net, surface, IDS)


def test_users_own_points_and_targets_stay():
    net, ignored = Clamps(), torch.where(LABELS == 2, 255, LABELS)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        targets[targets == 255] = -100
        outputs.mul_(2)
        return F.cross_entropy(outputs, targets)

    targets = ignored.clone()
    for dtype in (torch.float32, torch.float64):
        surface = LossSurface(net, loss, [(INPUTS, targets)], dtype=dtype, batch_weight=len)
        with torch.no_grad():
            doubled = 2 * copy.deepcopy(net).double()(INPUTS.double())
            right = float(F.cross_entropy(doubled, torch.where(ignored == 255, -100, ignored)))
        points = 3 * torch.ones(2, surface.size)
        before = points.clone()
        surface.losses(points=points)
        assert [surface.loss(), float(surface.losses(points=surface.origin[None]))] == pytest.approx([right] * 2, rel=1e-6)
        assert torch.equal(points, before)
        assert torch.equal(targets, ignored)


class Reuses:
    """A loader that writes each batch over the last one."""

    def __init__(self):
        self.inputs, self.labels = torch.empty(10, 6), torch.empty(10, dtype=torch.long)

    def __iter__(self):
        for part in (slice(0, 10), slice(10, 20)):
            yield self.inputs.copy_(INPUTS[part]), self.labels.copy_(LABELS[part])


def test_a_loader_that_uses_its_memory_again_is_read_by_copies():
    net = Head()
    surface = LossSurface(net, nn.CrossEntropyLoss(), Reuses())
    assert surface.loss() == pytest.approx(copy_loss(net), rel=1e-6)
    with pytest.raises(ValueError, match="a generator that writes each batch over the last one; give a list of copies"):
        LossSurface(net, nn.CrossEntropyLoss(), iter(Reuses()))


def test_a_batch_that_somebody_writes_into_later_is_told():
    inputs = INPUTS.clone()
    surface = LossSurface(Head(), nn.CrossEntropyLoss(), [(inputs, LABELS)])
    inputs.mul_(2)
    with pytest.raises(ValueError, match="batch 0 was written into since the surface was made"):
        surface.loss()


# Modes


class Merges(nn.Linear):
    """A low-rank part that is added to the weight in eval mode, as loralib does."""

    def __init__(self, inputs: int, outputs: int, *, zero: bool = False):
        super().__init__(inputs, outputs)
        self.down, self.up = nn.Parameter(torch.randn(2, inputs)), nn.Parameter(torch.randn(outputs, 2) * (not zero))
        self.weight.requires_grad_(False)
        self.merged = False

    def train(self, mode: bool = True) -> Merges:
        super().train(mode)
        if mode == self.merged:
            self.weight.data += (-1 if mode else 1) * self.up @ self.down
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        out = F.linear(x, self.weight, self.bias)
        return out if self.merged else out + x @ self.down.T @ self.up.T


@pytest.mark.parametrize("zero", [False, True], ids=["trained", "as it begins"])
@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_weights_that_eval_merges_stay_and_their_parts_move(mode, zero):
    torch.manual_seed(0)
    net = nn.Sequential(Merges(6, 4, zero=zero), nn.Tanh(), Merges(4, 3, zero=zero)).train(mode)
    right = copy_loss(net)
    with assert_leaves_net_untouched(net):
        surface = LossSurface(net, nn.CrossEntropyLoss(), [(INPUTS, LABELS)])
        assert surface.loss() == pytest.approx(right, rel=1e-5)
    assert [module.merged for module in net.modules() if isinstance(module, Merges)] == [not mode] * 2
    assert surface.layout.names == ("0.bias", "0.down", "0.up", "2.bias", "2.down", "2.up")
    assert surface.unmoved == {"0.weight": "frozen", "2.weight": "frozen"}


class SwapsIn(Head):
    """Other weights in eval mode, as with a running average of them."""

    def train(self, mode: bool = True) -> SwapsIn:
        if mode != self.training:
            self.head.weight.data.neg_()
        return super().train(mode)


def test_a_net_whose_own_eval_changes_its_loss_is_refused_and_stays():
    net = SwapsIn()
    with (
        assert_leaves_net_untouched(net),
        pytest.raises(ValueError, match=r"own train\(\) and eval\(\) change more than its mode"),
    ):
        LossSurface(net, nn.CrossEntropyLoss(), [(INPUTS, LABELS)])


class KeepsDropping(Head):
    """Keeps its dropout active in eval mode on purpose."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def train(self, mode: bool = True) -> KeepsDropping:
        super().train(mode)
        self.drop.train()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.drop(x))


def test_modes_are_those_that_the_nets_own_method_sets():
    surface = LossSurface(KeepsDropping(), nn.CrossEntropyLoss(), [(INPUTS, LABELS)])
    modes = {name: module.training for name, module in surface.objective.net.module.named_modules()}
    assert modes == {"": False, "hidden": False, "head": False, "drop": True}


def test_a_mode_that_a_loss_sets_is_that_of_its_call_alone():
    net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).eval()

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        found = F.cross_entropy(model(batch[0]), batch[1])
        model.train()
        return found

    with assert_leaves_net_untouched(net):
        surface = LossSurface(net, batch_loss=loss, batches=[(INPUTS, LABELS)])
        losses = surface.losses(displacements=torch.zeros(3, surface.size))
    assert losses.tolist() == pytest.approx([copy_loss(net)] * 3, rel=1e-6)


# Memory between calls


class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells, self.head, self.state = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 3), None

    def forward(self, x: Tensor) -> Tensor:
        out, state = self.cells(x, self.state)
        self.state = state.detach()
        return self.head(out[:, -1])


def test_a_net_whose_outputs_depend_on_its_earlier_calls_is_refused_by_name():
    batches = [(INPUTS.view(20, 2, 3), LABELS)]
    with pytest.raises(ValueError, match="the net remembers its calls: state of it changed in a call"):
        LossSurface(Stateful(), nn.CrossEntropyLoss(), batches)

    def fresh(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        model.state = None
        return F.cross_entropy(model(batch[0]), batch[1])

    torch.manual_seed(0)
    net = Stateful()
    with torch.no_grad():
        right = float(F.cross_entropy(copy.deepcopy(net)(batches[0][0]), LABELS))
    surface = LossSurface(net, batch_loss=fresh, batches=batches)
    assert surface.losses(displacements=torch.zeros(3, surface.size)).tolist() == pytest.approx([right] * 3, rel=1e-6)
    assert net.state is None


# Checkpoints


class Checkpointed(Head):
    def __init__(self, reentrant: bool):
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        block = lambda t: torch.tanh(self.hidden(t))  # noqa: E731
        return self.head(torch.utils.checkpoint.checkpoint(block, x, use_reentrant=self.reentrant))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_checkpointed_block_has_the_derivatives_of_the_plain_one(reentrant, dtype):
    plain, checkpointed = (
        LossSurface(net, nn.CrossEntropyLoss(), [(INPUTS, LABELS)], dtype=dtype) for net in (Head(), Checkpointed(reentrant))
    )
    step = 0.3 * torch.ones(plain.size, dtype=dtype)
    torch.testing.assert_close(checkpointed.gradient(step), plain.gradient(step))
    there = plain.origin + step
    torch.testing.assert_close(
        HessianOperator(checkpointed.moved_to(there)) @ step, HessianOperator(plain.moved_to(there)) @ step
    )
    x = INPUTS.clone().requires_grad_()
    assert torch.utils.checkpoint.checkpoint(torch.tanh, x, use_reentrant=True).grad_fn.name() == "CheckpointFunctionBackward"


class CachesWeights(Head):
    """Keeps what its first call computed of the weights, as a net that is faster the second time does."""

    kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.kept is None:
            self.kept = self.hidden.weight * 1
        return self.head(torch.tanh(F.linear(x, self.kept, self.hidden.bias)))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda surface: pickle.loads(pickle.dumps(surface))])
def test_a_surface_that_was_copied_still_forgets_what_a_call_keeps(again):
    surface = LossSurface(CachesWeights(), nn.CrossEntropyLoss(), [(INPUTS, LABELS)])
    twin, step = again(surface), torch.full((surface.size,), 0.3)
    expected = surface.losses(displacements=torch.stack([0 * step, step]))
    assert abs(expected[1] - expected[0]) > 1e-3
    for _ in range(2):
        assert torch.equal(twin.losses(displacements=torch.stack([0 * step, step])), expected)
