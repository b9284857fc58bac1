"""Nets and losses that draw random numbers: one draw for a surface, at every cell, call and product."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from loss_landscape import (
    EmpiricalFisherOperator,
    Evaluation,
    GaussNewtonOperator,
    HessianOperator,
    LossSurface,
    barrier,
    evaluate_grid,
    random_directions,
)
from loss_landscape.objective.held_draws import held_draw

INPUTS, LABELS = torch.randn(24, 6, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3
BATCHES = [(INPUTS[:12], LABELS[:12]), (INPUTS[12:], LABELS[12:])]


class Noisy(nn.Module):
    def __init__(self, change):
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.head, self.change = nn.Linear(6, 16), nn.Linear(16, 3), change

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.change(self.hidden(x).tanh()))


class OwnGenerator(Noisy):
    """Draws from a generator that it holds, and that goes on from call to call."""

    def __init__(self, kind: str):
        super().__init__(None)
        self.drawn_from = {"torch": torch.Generator(), "NumPy": np.random.default_rng(0), "Python": random.Random(0)}[kind]
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.hidden(x).tanh()
        if self.kind == "torch":
            noise = torch.randn(16, generator=self.drawn_from, dtype=hidden.dtype)
        else:
            noise = self.drawn_from.random()
        return self.head(hidden * (1 + noise))


CHANGES = {
    "noise": lambda h: h + 0.5 * torch.randn_like(h),
    "scaled noise": lambda h: h * torch.rand(h.shape, dtype=h.dtype),
    "dropout": F.dropout,
    "sampled": lambda h: torch.distributions.Normal(h, h.exp()).rsample(),
    "shuffled": lambda h: h[:, torch.randperm(16)],
    "picked": lambda h: h * h[:, torch.randint(16, (1,))],
    "gumbel": lambda h: F.gumbel_softmax(h, tau=2.0),
    "NumPy": lambda h: h * (1 + np.random.rand()),
    "Python": lambda h: h * (1 + random.random()),
}
NETS = {name: Noisy(change) for name, change in CHANGES.items()}
NETS |= {f"own {kind}": OwnGenerator(kind) for kind in ("torch", "NumPy", "Python")}
ENTROPY = nn.CrossEntropyLoss()


@pytest.mark.parametrize("name", NETS)
def test_one_draw_holds_at_every_call_cell_and_product_whatever_the_users_seed_is(name):
    net = NETS[name]
    surface = LossSurface(net, ENTROPY, BATCHES)
    here = surface.loss()
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        assert LossSurface(net, ENTROPY, BATCHES).loss() == here
        assert surface.losses(displacements=torch.zeros(3, surface.size)).tolist() == [here] * 3
        assert surface.losses(points=surface.origin[None]).tolist() == [here]
        grid = evaluate_grid(surface, random_directions(surface), 3)
        assert grid.losses[1, 1] == here
        assert "one draw of random numbers" in grid.info.evaluation.strategy_note
        product = HessianOperator(surface, memory_budget_mb=0) @ torch.ones(surface.size)
        assert torch.equal(product, HessianOperator(surface) @ torch.ones(surface.size))
        assert torch.equal(states[0], torch.get_rng_state())
        assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]
    assert "one draw of random numbers" in repr(surface)
    assert "one draw of random numbers" in HessianOperator(surface).note


@pytest.mark.parametrize("name", ["noise", "dropout", "sampled", "NumPy", "own torch"])
def test_a_line_through_the_surface_is_smooth_and_its_derivatives_are_its_own(name):
    surface = LossSurface(NETS[name], ENTROPY, BATCHES, dtype=torch.float64)
    direction = random_directions(surface, 1, normalization="model")[0]
    step = 1e-4
    low, middle, high = surface.plane([direction]).losses(torch.tensor([[-step], [0.0], [step]])).tolist()
    assert (high - low) / (2 * step) == pytest.approx(float(surface.gradient() @ direction), rel=1e-5)
    curvature = float(direction @ (HessianOperator(surface) @ direction))
    assert (high - 2 * middle + low) / step**2 == pytest.approx(curvature, rel=1e-4)


DRAWS = {
    "permutation": lambda x: torch.randperm(5),
    "of a generator": lambda x: torch.randperm(5, generator=torch.default_generator),
    "integers": lambda x: torch.randint(9, (4,)),
    "from below": lambda x: torch.randint(3, 9, (4,)),
    "like integers": lambda x: torch.randint_like(LABELS, 9),
    "like reals": lambda x: torch.randint_like(x, 9),
    "asked for": lambda x: torch.randint(9, (4,), dtype=torch.int32),
    "asked for like reals": lambda x: torch.randint_like(x, 9, dtype=torch.int64),
    "classes": lambda x: torch.multinomial(x.softmax(1), 2),
    "coins": lambda x: torch.bernoulli(torch.full((3,), 0.5)),
    "of spreads": lambda x: torch.normal(0.0, x.double().abs()),
    "complex": lambda x: torch.randn(3, dtype=torch.complex64),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_held_draw_has_the_dtype_and_shape_of_torchs_own(name):
    draw = DRAWS[name]
    plain = draw(INPUTS)
    with held_draw(0, (INPUTS,), torch.device("cpu")):
        held = draw(INPUTS)
    assert (held.dtype, held.shape) == (plain.dtype, plain.shape)
    if name in ("permutation", "of a generator"):
        assert held.sort().values.tolist() == list(range(5))


@pytest.mark.parametrize("name", ["noise", "scaled noise", "dropout", "sampled", "gumbel", "shuffled", "picked", "NumPy"])
def test_the_draw_is_the_same_in_float64(name):
    surface = LossSurface(NETS[name], ENTROPY, BATCHES)
    assert surface.in_dtype(torch.float64).loss() == pytest.approx(surface.loss(), rel=1e-6)
    assert evaluate_grid(surface, random_directions(surface), 3).info.noise.floor < 1e-5


def test_the_draw_follows_from_the_generator_and_differs_from_batch_to_batch():
    losses = [LossSurface(NETS["noise"], ENTROPY, BATCHES, generator=seed).loss() for seed in (0, 0, 1, 2)]
    assert losses[0] == losses[1] == LossSurface(NETS["noise"], ENTROPY, BATCHES).loss()
    assert len(set(losses)) == 3
    drawn = []
    net = Noisy(lambda h: drawn.append(torch.randn(3)) or h + drawn[-1].sum())
    surface = LossSurface(net, ENTROPY, BATCHES)
    drawn.clear()
    surface.losses(points=torch.stack([surface.origin] * 2))
    assert len({tuple(each.tolist()) for each in drawn}) == 2  # of four calls, two on each batch


def test_the_expected_loss_over_many_draws_is_that_of_the_net():
    """Mean over generators against the plain loop over torch's own seeds, by their standard errors."""
    net = NETS["dropout"]
    found = torch.tensor([LossSurface(net, ENTROPY, BATCHES, generator=seed).loss() for seed in range(40)])
    plain = []
    for seed in range(40):
        torch.manual_seed(seed)
        with torch.no_grad():
            plain.append(float(torch.stack([F.cross_entropy(net(x), y) for x, y in BATCHES]).mean()))
    plain = torch.tensor(plain)
    error = float((found.var() / 40 + plain.var() / 40).sqrt())
    assert abs(float(found.mean() - plain.mean())) < 4 * error


def elbo(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
    mean, log_variance = model.encoder(batch[0]).chunk(2, 1)
    code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
    divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)
    return ((model.decoder(code) - batch[0]) ** 2).sum(1).mean() + divergence.mean()


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(2, 6)


def test_a_variational_autoencoder_has_a_smooth_line_and_a_barrier_that_repeats():
    net = Autoencoder()
    surface = LossSurface(net, batch_loss=elbo, batches=[(INPUTS,)], batch_weight=lambda _: 1.0)
    direction = random_directions(surface, 1)[0]
    line = surface.plane([direction]).losses(torch.linspace(-1e-3, 1e-3, 5, dtype=torch.float64)[:, None])
    assert float(line.diff().diff().abs().max()) < 1e-5
    other = [part + 0.1 for part in net.parameters()]
    paths = [barrier(surface, net, other, num_points=5) for _ in range(2)]
    assert paths[0].losses.tolist() == paths[1].losses.tolist()
    assert paths[0].losses[0] == surface.loss()


def test_a_regulariser_and_a_criterion_that_draw_are_held_too():
    def penalty(net: nn.Module) -> Tensor:
        return (net[0].weight * torch.randn_like(net[0].weight)).sum()

    def jittered(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs + torch.rand(3), targets)

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 3))
    for options in ({"regularizer": penalty}, {}):
        surface = LossSurface(net, ENTROPY if options else jittered, BATCHES, batch_weight=lambda _: 1.0, **options)
        torch.manual_seed(5)
        assert len(set(surface.losses(displacements=torch.zeros(3, surface.size)).tolist())) == 1
        plane = evaluate_grid(surface, random_directions(surface, exclude_bn_and_bias=False), 3)
        assert plane.losses[0, 0] == plane.info.noise.checked[0].loss or plane.info.noise.floor < 1e-5
        assert "one draw" in repr(surface)


def test_the_other_matrices_and_the_chunks_have_the_same_draw():
    surface = LossSurface(NETS["noise"], ENTROPY, BATCHES)
    first, second = (GaussNewtonOperator(surface, memory_budget_mb=budget) for budget in (2048, 0))
    ones = torch.ones(surface.size)
    assert torch.allclose(first @ ones, second @ ones, rtol=1e-5)
    directions = random_directions(surface)
    grids = [evaluate_grid(surface, directions, 5, evaluation=Evaluation(chunk=chunk)) for chunk in (1, 7)]
    assert grids[0].losses.tolist() == grids[1].losses.tolist()


def jittered_powers(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets - torch.randn_like(outputs)).pow(4).mean()


@pytest.mark.parametrize("net_draws", [False, True])
def test_the_gauss_newton_matrix_has_the_criterions_own_draw(net_draws):
    """Of a linear net it is the Hessian: the criterion draws after the net, as in the loss."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 1)) if net_draws else nn.Linear(6, 1)
    if net_draws:
        net[0].forward = F.dropout
    batches = [(inputs, labels[:, None].float()) for inputs, labels in BATCHES]
    surface = LossSurface(net, jittered_powers, batches, dtype=torch.float64, batch_weight=lambda _: 1.0)
    torch.manual_seed(3)
    eye = torch.eye(surface.size, dtype=torch.float64)
    torch.testing.assert_close(GaussNewtonOperator(surface) @ eye, HessianOperator(surface) @ eye)


def scaled_by_lot(outputs: Tensor, targets: Tensor) -> Tensor:
    return random.random() * (outputs - targets).square().mean()


def test_the_empirical_fisher_matrix_has_the_criterions_own_draw():
    """Its factor, c² / N Σ gᵢgᵢᵀ, is read from the loss: with the same c that has c Σ rᵢ² / N, r the residuals."""
    torch.manual_seed(0)
    net, targets = nn.Linear(6, 1, bias=False), LABELS[:, None].double()
    surface = LossSurface(net, scaled_by_lot, [(INPUTS, targets)], dtype=torch.float64, batch_weight=lambda _: 1.0)
    with torch.no_grad():
        residuals = net(INPUTS).double() - targets
    factor = surface.loss() / float(residuals.square().mean())
    slopes = 2 * factor * residuals * INPUTS.double()
    for seed in (1, 2):
        random.seed(seed)
        found = EmpiricalFisherOperator(surface) @ torch.eye(6, dtype=torch.float64)
        torch.testing.assert_close(found, slopes.T @ slopes / 24, rtol=1e-6, atol=0)


@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
def test_sparse_batches_have_a_draw_of_their_own(layout):
    def drawn(inputs: Tensor) -> list[float]:
        with held_draw(0, (inputs,), torch.device("cpu")):
            return torch.rand(3).tolist()

    form = {"coo": Tensor.to_sparse, "csr": Tensor.to_sparse_csr, "csc": Tensor.to_sparse_csc}[layout]
    kept, doubled, moved = (form(given) for given in (INPUTS.relu(), 2 * INPUTS.relu(), INPUTS.flip(0).relu()))
    assert drawn(kept) == drawn(form(INPUTS.relu()))
    assert len({tuple(drawn(each)) for each in (kept, doubled, moved)}) == 3


def test_a_net_that_draws_takes_sparse_batches():
    net = nn.Linear(6, 3)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        outputs = torch.sparse.mm(batch[0], model.weight.T)
        return F.cross_entropy(outputs + torch.rand_like(outputs), batch[1])

    batches = [(INPUTS.relu().to_sparse(), LABELS)]
    surface = LossSurface(net, batch_loss=loss, batches=batches, batch_weight=lambda _: 1.0)
    assert len(set(surface.losses(displacements=torch.zeros(3, surface.size)).tolist())) == 1


def test_points_far_away_have_the_draw_of_the_origin():
    """The noise of one draw, taken from the net itself, put into a plain loop in float64."""
    seen: list[Tensor] = []

    def noted(hidden: Tensor) -> Tensor:
        noise = torch.randn_like(hidden)
        seen.append(noise.detach().clone())
        return hidden + noise

    net = Noisy(noted)
    surface = LossSurface(net, ENTROPY, BATCHES[:1])
    seen.clear()
    step = random_directions(surface, 1)[0]
    found = surface.losses(displacements=torch.stack([step, -2 * step]))
    held = seen[-1].double()
    for coordinate, loss in zip((1, -2), found.tolist(), strict=True):
        twin = Noisy(lambda hidden: hidden + held).double()
        vector_to_parameters(parameters_to_vector(twin.parameters()).detach() + coordinate * step.double(), twin.parameters())
        assert loss == pytest.approx(F.cross_entropy(twin(INPUTS[:12].double()), LABELS[:12]).item(), rel=1e-5)
