"""The Explorer's numbers against closed forms, dense autograd and sums by hand, and that it leaves no trace."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from user_training import everything_of, examples, loader_of, mean_loss, one_epoch, user_net

from loss_landscape import Directions, Explorer, LandscapeStorage, trace
from loss_landscape.storage.records import Checkpoint


def trained(folder, *, epochs: int = 6, norm: bool = False):
    """A net, and its checkpoints as they were on the way."""
    net, checkpoints = user_net(norm=norm), []
    for epoch in range(epochs):
        torch.save(net.state_dict(), folder / f"{epoch}.pt")
        checkpoints.append(Checkpoint(epoch, folder / f"{epoch}.pt", train_loss=float(epoch)))
        if epoch < epochs - 1:
            one_epoch(net, loader_of())
    return net, checkpoints


def parameters_of(net: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().double().reshape(-1) for p in net.parameters()])


def dense_hessian(net: nn.Module, dataset, penalty: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    """The Hessian of the mean loss by autograd, in float64."""
    twin = copy.deepcopy(net).double().eval()
    names = [name for name, _ in twin.named_parameters()]
    shapes = [p.shape for p in twin.parameters()]
    inputs, targets = dataset.tensors

    def loss(vector: torch.Tensor) -> torch.Tensor:
        parts = [part.reshape(shape) for part, shape in zip(vector.split([s.numel() for s in shapes]), shapes, strict=True)]
        outputs = torch.func.functional_call(twin, dict(zip(names, parts, strict=True)), (scale * inputs.double(),))
        return F.cross_entropy(outputs, targets) + penalty * vector.square().sum()

    return torch.func.hessian(loss)(parameters_of(net))


# -- lines, planes, volumes


def test_a_tenth_is_a_tenth_of_each_filters_norm():
    """At (0.1, 0) every filter has moved by a tenth of its norm, at (0, 0.1) too, up to what orthogonality takes."""
    net = user_net(width=64)
    explorer = Explorer(net, F.cross_entropy, loader_of())
    landscape = explorer.build_surface(grid_size=3)
    assert landscape.range_scale == landscape["range_scale"] == 0.1
    axes = explorer.directions(2)
    assert abs(float(axes[0].double() @ axes[1].double())) < 1e-6 * float(axes[0].norm() * axes[1].norm())
    for axis, allowed in zip(axes, (1e-5, landscape.grid.info.directions.filter_norm_error + 1e-5), strict=True):
        moved = explorer.surface.layout.unflatten(0.1 * axis)
        for name, weight in net.named_parameters():
            if weight.dim() > 1:
                ratio = moved[name].norm(dim=1) / weight.norm(dim=1)
                assert torch.allclose(ratio, torch.full_like(ratio, 0.1), rtol=allowed, atol=0)
            else:
                assert not moved[name].any()


@pytest.mark.parametrize(("dimensions", "build"), [(1, "build_line"), (2, "build_surface"), (3, "build_volume")])
@pytest.mark.parametrize("grid_size", [2, 3, 4])
def test_each_cell_has_the_loss_of_the_net_moved_there(dimensions, build, grid_size):
    net = user_net()
    explorer = Explorer(net, F.cross_entropy, loader_of(70), seed=3)
    landscape = getattr(explorer, build)(grid_size=grid_size, range_scale=0.5)
    axis = np.linspace(-0.5, 0.5, grid_size)
    assert all(np.allclose(one, axis, rtol=0, atol=1e-15) for one in landscape.grid.coordinates), "evenly spaced, also if even"
    moved, axes = copy.deepcopy(net), explorer.directions(dimensions)
    for cell in np.ndindex(landscape.grid.losses.shape):
        step = sum(axis[at] * direction for at, direction in zip(cell, axes, strict=True))
        torch.nn.utils.vector_to_parameters(parameters_of(net).float() + step, moved.parameters())
        assert landscape.grid.losses[cell] == pytest.approx(mean_loss(moved, examples(70)), rel=2e-6)
    assert landscape.baseline_loss == pytest.approx(mean_loss(net, examples(70)), rel=1e-6)


def test_documented_keys():
    explorer = Explorer(user_net(), F.cross_entropy, loader_of())
    line, plane = explorer.build_line(grid_size=4), explorer.build_surface(grid_size=3)
    volume = explorer.build_volume(grid_size=2)
    shared = {"baseline_loss", "grid_size", "range_scale", "mode"}
    assert set(line) == {"X", "loss_line_1d"} | shared
    assert set(plane) == {"X", "Y", "loss_grid_2d"} | shared
    assert set(volume) == {"X", "Y", "Z", "loss_grid_3d"} | shared
    assert [one["mode"] for one in (line, plane, volume)] == ["1d", "2d", "3d"]
    assert plane["X"][2, 0] == plane["X"][2, 1] == 0.1, "X[i, j] is the first coordinate of cell i, j"
    assert plane["Y"][0, 2] == 0.1
    assert len(dict(plane)) == len(plane) == 7
    with pytest.raises(KeyError, match="Landscape has no 'loss'; it has X, Y, loss_grid_2d"):
        plane["loss"]


def test_the_same_seed_is_the_same_plane_whatever_was_drawn():
    draws = []
    for _ in range(2):
        draws.append(Explorer(user_net(), F.cross_entropy, loader_of(), seed=5).build_line(grid_size=3).grid.losses)
        torch.manual_seed(99)
    assert np.array_equal(*draws)
    other = Explorer(user_net(), F.cross_entropy, loader_of(), seed=6).build_line(grid_size=3)
    assert not np.array_equal(other.grid.losses, draws[0])


def test_a_net_of_biases_alone_moves():
    class Shift(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return x[:, :3] + self.shift

    landscape = Explorer(Shift(), F.cross_entropy, loader_of()).build_line(grid_size=3, range_scale=1.0)
    assert np.ptp(landscape.grid.losses) > 0


@pytest.mark.parametrize("grid_size", [1, 0, -3, 2.5, True, "50"])
def test_a_grid_size_below_two_is_refused(grid_size):
    with pytest.raises(ValueError, match="grid_size must be a whole number of 2 or more cells a side"):
        Explorer(user_net(), F.cross_entropy, loader_of()).build_surface(grid_size=grid_size)


def test_other_numbers_of_directions_are_refused():
    explorer = Explorer(user_net(), F.cross_entropy, loader_of())
    with pytest.raises(ValueError, match="a landscape of 2 dimensions takes as many directions, got 1"):
        explorer.build_surface(directions=explorer.directions(1))
    with pytest.raises(ValueError, match="range_scale must be a finite number above 0 .* got -1"):
        explorer.build_surface(range_scale=-1)


# -- the regulariser, in the loss and in the curvature


def test_the_regulariser_is_added_once_everywhere():
    """λ‖θ‖² raises each cell by λ‖θ + αd‖², each eigenvalue by 2λ, the trace by 2λP."""
    net, weight = user_net(), 0.05
    squares = {"regularizer": lambda model: sum(p.norm() ** 2 for p in model.parameters()), "regularizer_weight": weight}
    plain, with_it = (Explorer(net, F.cross_entropy, loader_of(70), **options) for options in ({}, squares))
    axis = plain.directions(1)[0].double()
    rise = with_it.build_line(grid_size=5).grid.losses - plain.build_line(grid_size=5).grid.losses
    wanted = [weight * float((parameters_of(net) + alpha * axis).square().sum()) for alpha in np.linspace(-0.1, 0.1, 5)]
    assert np.allclose(rise, wanted, rtol=1e-5, atol=1e-6)
    before, after = (explorer.compute_hessian_metrics(num_probes=1000) for explorer in (plain, with_it))
    assert np.allclose(np.subtract(after.eigenvalues, before.eigenvalues), 2 * weight, atol=1e-4)
    assert after.trace.value - before.trace.value == pytest.approx(2 * weight * before.size, rel=1e-3)
    assert (before.trace.standard_error, after.trace.standard_error) == (0.0, 0.0), "as many products as parameters: exact"


def test_curvature_is_that_of_a_dense_hessian():
    """Each eigenvalue once: a power iteration that deflates nothing tells the first one five times."""
    net = user_net()
    dense = torch.linalg.eigvalsh(dense_hessian(net, examples(70)))
    metrics = Explorer(net, F.cross_entropy, loader_of(70)).compute_hessian_metrics(top_k=4, epoch=7, num_probes=20)
    assert metrics.top_eigenvalues == pytest.approx(dense.flip(0)[:4].tolist(), rel=1e-3)
    assert metrics.min_eigenvalue == pytest.approx(float(dense[0]), rel=1e-2, abs=1e-5)
    assert metrics.max_eigenvalue == metrics["max_eigenvalue"][0] == metrics["top_eigenvalues"][0][0]
    assert all(metrics.converged)
    assert max(metrics.residuals) < 1e-4
    assert abs(metrics.trace.value - float(dense.sum())) < 4 * metrics.trace.standard_error
    assert set(metrics) >= {"epochs", "max_eigenvalue", "trace", "top_eigenvalues"}
    assert metrics["epochs"] == [7]


def test_the_trace_tells_its_error_over_seeds():
    """A fixed number of probes without an error bar was off by a fifth and did not say so."""
    net = user_net()
    exact = float(dense_hessian(net, examples(70)).trace())
    runs = [Explorer(net, F.cross_entropy, loader_of(70), seed=seed).compute_hessian_metrics(num_probes=30) for seed in range(6)]
    misses = [(run.trace.value - exact) / run.trace.standard_error for run in runs]
    assert np.abs(misses).max() < 4
    assert 0.3 < np.std(misses) < 2.5


def test_curvature_heeds_the_hook_and_the_frozen_and_unused():
    net = user_net()
    net.register_parameter("unused", nn.Parameter(torch.ones(4)))
    doubled = {"pre_batch_hook": lambda batch: (2 * batch[0], batch[1])}
    found = Explorer(net, F.cross_entropy, loader_of(70), **doubled).compute_hessian_metrics(top_k=2)
    dense = torch.linalg.eigvalsh(dense_hessian(user_net(), examples(70), scale=2.0))
    assert found.top_eigenvalues == pytest.approx(dense.flip(0)[:2].tolist(), rel=1e-3)
    assert found.size == len(dense)


def test_no_eigenvalue_is_told_twice():
    """More are asked for than there are: each of the P once. Lanczos without reorthogonalisation gave sixty of a net of 49."""
    net = user_net(width=2)
    dense = torch.linalg.eigvalsh(dense_hessian(net, examples(70)))
    metrics = Explorer(net, F.cross_entropy, loader_of(70)).compute_hessian_metrics(top_k=60)
    assert len(metrics.eigenvalues) == metrics.size == len(dense) == 23
    assert np.allclose(np.sort(metrics.eigenvalues), dense, atol=1e-5)


@pytest.mark.parametrize("top_k", [0, -1, 1.5, True])
def test_a_largest_eigenvalue_is_always_asked_for(top_k):
    with pytest.raises(ValueError, match="top_k must be a whole number of 1 or more"):
        Explorer(user_net(), F.cross_entropy, loader_of()).compute_hessian_metrics(top_k=top_k)


def test_curvature_heeds_the_training_mode():
    """The mean over three equal batches, each normalised by its own statistics."""
    net = user_net(norm=True, width=4)
    twin = copy.deepcopy(net).double().train()
    names, shapes = zip(*[(name, p.shape) for name, p in twin.named_parameters()], strict=True)

    def loss(vector: torch.Tensor) -> torch.Tensor:
        parts = [part.reshape(shape) for part, shape in zip(vector.split([s.numel() for s in shapes]), shapes, strict=True)]
        given = {**dict(zip(names, parts, strict=True)), **{name: b.clone() for name, b in twin.named_buffers()}}
        outputs = [torch.func.functional_call(twin, given, (x.double(),)) for x, _ in loader_of()]
        return sum(F.cross_entropy(o, y) for o, (_, y) in zip(outputs, loader_of(), strict=True)) / len(outputs)

    dense = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, parameters_of(net)))
    found = Explorer(net, F.cross_entropy, loader_of(), model_mode="train").compute_hessian_metrics(top_k=3)
    assert found.top_eigenvalues == pytest.approx(dense.flip(0)[:3].tolist(), rel=1e-3)


# -- training mode


def test_training_mode_is_batch_statistics_and_one_draw_of_dropout():
    net = user_net(norm=True)
    one_epoch(net, loader_of())
    plain, training = (Explorer(net, F.cross_entropy, loader_of(), model_mode=mode) for mode in ("eval", "train"))
    twin = copy.deepcopy(net).train()
    inputs, targets = zip(*loader_of(), strict=True)
    with torch.no_grad():
        by_batch = [F.cross_entropy(twin(x), y).item() for x, y in zip(inputs, targets, strict=True)]
    assert training.surface.loss() == pytest.approx(np.mean(by_batch), rel=1e-5)
    assert plain.surface.loss() == pytest.approx(mean_loss(copy.deepcopy(net).eval(), examples()), rel=1e-5)
    dropping = user_net(dropout=0.5)
    explorer = Explorer(dropping, F.cross_entropy, loader_of(), model_mode="train")
    assert explorer.surface.loss() != pytest.approx(mean_loss(dropping.eval(), examples()), rel=1e-3)
    assert explorer.build_line(grid_size=3).notes == [
        "model_mode='train' with dropout: the landscape is that of one draw of its masks"
    ]


# -- paths


def test_the_plane_of_a_path_has_its_principal_axes(tmp_path):
    """Against NumPy's SVD; the last checkpoint, the net itself, is at the origin."""
    net, checkpoints = trained(tmp_path)
    explorer = Explorer(net, F.cross_entropy, loader_of())
    axes = explorer.path_directions(checkpoints)
    states = [torch.load(point.file) for point in checkpoints]
    steps = torch.stack([torch.cat([p.double().reshape(-1) for p in state.values()]) for state in states]) - parameters_of(net)
    _, sizes, rows = np.linalg.svd(steps.numpy(), full_matrices=False)
    for axis, row in zip(axes, rows, strict=False):
        assert abs(float(axis.double() @ torch.from_numpy(row))) == pytest.approx(float(parameters_of(net).norm()), rel=1e-5)
    path = explorer.build_trajectory(checkpoints)
    assert path.coordinates[-1] == pytest.approx([0, 0], abs=1e-9)
    length = float(parameters_of(net).norm())
    for at, step in enumerate(steps.numpy()):
        inside = rows[:2] @ step
        assert np.abs(path.coordinates[at]) * length == pytest.approx(np.abs(inside), rel=1e-4, abs=1e-5)
        assert path.residuals[at] == pytest.approx(np.linalg.norm(step - inside @ rows[:2]), rel=1e-3, abs=1e-5)
    assert path.directions.explained_variance == pytest.approx((sizes**2 / (sizes**2).sum())[:2], rel=1e-6)


@pytest.mark.parametrize("norm", [False, True])
def test_a_path_has_its_own_losses_beside_the_planes(tmp_path, norm):
    """Each checkpoint by its own parameters and batch norm statistics, and the plane's loss under it."""
    net, checkpoints = trained(tmp_path, norm=norm)
    explorer = Explorer(net, F.cross_entropy, loader_of())
    path = explorer.build_trajectory(checkpoints)
    axes = explorer.path_directions(checkpoints)
    for at, checkpoint in enumerate(checkpoints):
        then = user_net(norm=norm)
        then.load_state_dict(torch.load(checkpoint.file))
        assert path.losses[at] == pytest.approx(mean_loss(then.eval(), examples()), rel=1e-5)
        below = copy.deepcopy(net).eval()
        step = sum(place * axis for place, axis in zip(path.coordinates[at].tolist(), axes, strict=True))
        torch.nn.utils.vector_to_parameters(parameters_of(net).float() + step.float(), below.parameters())
        assert path.plane_losses[at] == pytest.approx(mean_loss(below, examples()), rel=1e-5)
    assert path.losses != pytest.approx(path.plane_losses, rel=1e-4), "else the test tells nothing"
    assert path["traj_3"] is None
    assert path["epochs"] == list(range(6))
    assert path["train_losses"] == [float(epoch) for epoch in range(6)]
    assert set(path) >= {"traj_1", "traj_2", "traj_3", "epochs", "losses", "val_losses"}


def test_a_checkpoint_of_a_compiled_net_is_one_of_the_net(tmp_path):
    net, checkpoints = trained(tmp_path, norm=True)
    plain = Explorer(net, F.cross_entropy, loader_of()).build_trajectory(checkpoints)
    compiled = torch.compile(net).state_dict()
    assert all(name.startswith("_orig_mod.") for name in compiled)
    torch.save(compiled, checkpoints[-1].file)
    assert Explorer(net, F.cross_entropy, loader_of()).build_trajectory(checkpoints).losses == plain.losses


def test_paths_of_several_runs_lie_on_one_plane(tmp_path):
    """Oblique directions too: by least squares, so that the residual is at right angles to both."""
    net, checkpoints = trained(tmp_path)
    explorer = Explorer(net, F.cross_entropy, loader_of())
    first, second = explorer.directions(2)
    oblique = Directions((first, first + second))
    path = explorer.build_trajectory(checkpoints, mode="fixed", directions=oblique, name="sgd")
    for point, place, residual in zip(checkpoints, path.coordinates, path.residuals, strict=True):
        there = torch.cat([p.double().reshape(-1) for p in torch.load(point.file).values()])
        rest = there - parameters_of(net) - place[0] * oblique[0].double() - place[1] * oblique[1].double()
        assert float(rest.norm()) == pytest.approx(residual, rel=1e-6, abs=1e-9)
        assert max(abs(float(rest @ axis.double())) for axis in oblique) < 1e-5
    assert path.plane == explorer.build_surface(grid_size=2, directions=oblique).plane
    assert path.name == "sgd"
    with pytest.raises(ValueError, match="mode='fixed' takes directions="):
        explorer.build_trajectory(checkpoints, mode="fixed")
    with pytest.raises(ValueError, match="mode must be 'pca' or 'fixed', got 'tsne'"):
        explorer.build_trajectory(checkpoints, mode="tsne")


def test_a_path_of_files_is_one_too(tmp_path):
    net, checkpoints = trained(tmp_path)
    explorer = Explorer(net, F.cross_entropy, loader_of())
    by_file = explorer.build_trajectory([str(point.file) for point in checkpoints])
    assert by_file.losses == explorer.build_trajectory(checkpoints).losses
    assert by_file["epochs"] == list(range(6))


def test_a_landscape_of_a_path_holds_it(tmp_path):
    net, checkpoints = trained(tmp_path)
    explorer = Explorer(net, F.cross_entropy, loader_of())
    axes, path = explorer.path_directions(checkpoints), explorer.build_trajectory(checkpoints)
    landscape = explorer.build_surface(grid_size=3, directions=axes)
    assert landscape.range_scale == pytest.approx(np.abs(path.coordinates).max() / 0.9)
    assert landscape.plane == path.plane
    assert explorer.build_surface(grid_size=3, directions=axes, range_scale=0.1).range_scale == 0.1


# -- no trace


def use_everything(explorer: Explorer, checkpoints: list[Checkpoint]) -> None:
    explorer.build_line(grid_size=3)
    explorer.build_surface(grid_size=3)
    explorer.build_volume(grid_size=2)
    explorer.build_trajectory(checkpoints)
    explorer.compute_hessian_metrics(top_k=1, num_probes=2)


@pytest.mark.parametrize("model_mode", ["eval", "train"])
@pytest.mark.parametrize("training", [True, False])
def test_nothing_of_the_users_is_changed(tmp_path, model_mode, training):
    net, checkpoints = trained(tmp_path, norm=True)
    net.train(training)
    net[1].eval()
    F.cross_entropy(net(examples().tensors[0]), examples().tensors[1]).backward()
    net[0].bias.requires_grad_(False)
    modes = [module.training for module in net.modules()]
    before, wants = everything_of(net), [p.requires_grad for p in net.parameters()]

    def noisy(batch):
        noise = torch.randn(1).item() + np.random.rand() + random.random()
        return batch[0] + noise, batch[1]

    loader = loader_of(shuffle=True, generator=torch.Generator().manual_seed(1))
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), loader.generator.get_state()
    with Explorer(net, F.cross_entropy, loader, model_mode=model_mode, pre_batch_hook=noisy) as explorer:
        use_everything(explorer, checkpoints)
    after = everything_of(net)
    assert all(torch.equal(before[name], after[name]) if before[name] is not None else after[name] is None for name in before)
    assert [module.training for module in net.modules()] == modes
    assert [p.requires_grad for p in net.parameters()] == wants
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    assert torch.equal(loader.generator.get_state(), states[3])


def test_random_state_is_kept_when_a_hook_fails():
    def failing(batch):
        torch.randn(1), np.random.rand(), random.random()
        raise RuntimeError("the hook's own")

    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with pytest.raises(RuntimeError, match="the hook's own"):
        Explorer(user_net(), F.cross_entropy, loader_of(), pre_batch_hook=failing)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


# -- data


def test_a_shuffling_loader_is_read_once_and_that_is_said():
    shuffling = loader_of(96, shuffle=True)
    landscapes = []
    for _ in range(2):
        landscapes.append(Explorer(user_net(), F.cross_entropy, shuffling, max_batches=2, seed=1).build_line(grid_size=3))
        torch.manual_seed(123)
    assert np.array_equal(landscapes[0].grid.losses, landscapes[1].grid.losses)
    assert landscapes[0].notes == [
        "the first 2 of 3 batches are used",
        "the loader shuffles: these are the batches of seed 1, read once and kept",
    ]
    for hook in (None, lambda batch: batch):
        with pytest.raises(
            ValueError,
            match=r"data_loader shuffles, so each pass .*; give DataLoader\(…, shuffle=False\), or max_batches=",
        ):
            Explorer(user_net(), F.cross_entropy, shuffling, max_batches=None, pre_batch_hook=hook)


def test_max_batches_takes_the_first():
    net = user_net()
    some = Explorer(net, F.cross_entropy, loader_of(96), max_batches=2)
    assert some.surface.loss() == pytest.approx(mean_loss(net, torch.utils.data.TensorDataset(*examples(96)[:64])), rel=1e-6)
    for whole in (loader_of(96), examples(96), list(loader_of(96)), examples(96).tensors):
        assert Explorer(net, F.cross_entropy, whole, max_batches=None).surface.loss() == pytest.approx(
            mean_loss(net, examples(96)), rel=1e-6
        )


def test_a_random_hook_over_all_data_draws_the_same_each_time():
    def noisy(batch):
        return batch[0] + torch.randn(1) + np.random.rand() + random.random(), batch[1]

    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        losses.append(Explorer(user_net(), F.cross_entropy, loader_of(96), max_batches=None, pre_batch_hook=noisy).surface.loss())
    assert losses[0] == losses[1]


def vector_loss(model, inputs, targets):
    return F.cross_entropy(model(inputs), targets, reduction="none")


PAIRS = r"each batch must be \(inputs, targets\) for a loss_fn, got a"
NO_BATCH = "expected at least one batch, got none; an iterator that was already used up has none left"
BAD_INPUT = {
    "unlabelled": (user_net(), [torch.randn(4, 6)], F.cross_entropy, f"{PAIRS} Tensor"),
    "a dict": (user_net(), [{"x": torch.randn(4, 6)}], F.cross_entropy, f"{PAIRS} dict"),
    "unlabelled, of the model": (user_net(), [torch.randn(4, 6)], lambda m, x, y: m(x), r"needs batches of .*, got Tensor"),
    "a dict, of the model": (user_net(), [{"x": 1}], lambda m, x, y: m(x), "got dict; turn them into pairs by pre_batch_hook="),
    "a used up iterator": (user_net(), iter([]), F.cross_entropy, NO_BATCH),
    "no batches": (user_net(), [], F.cross_entropy, NO_BATCH),
    "a vector": (user_net(), loader_of(), vector_loss, "scalar"),
    "no reduction": (user_net(), loader_of(), nn.CrossEntropyLoss(reduction="none"), "reduction='none' and gives no scalar"),
    "no parameters": (nn.Tanh(), loader_of(), F.cross_entropy, "the model has no parameters"),
    "NaN": (user_net(), [(torch.full((4, 6), torch.nan), torch.zeros(4).long())], F.cross_entropy, "the loss at .* is nan, so"),
}


@pytest.mark.parametrize(("model", "loader", "loss_fn", "sentence"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_ends_in_a_sentence(model, loader, loss_fn, sentence):
    before, modes, drawn = everything_of(model), [module.training for module in model.modules()], torch.get_rng_state()
    with pytest.raises((ValueError, TypeError), match=sentence) as caught:
        Explorer(model, loss_fn, loader)
    assert "\n" not in str(caught.value)
    assert [module.training for module in model.modules()] == modes
    assert all(
        before[name] is None if now is None else torch.equal(before[name], now) for name, now in everything_of(model).items()
    )
    assert torch.equal(torch.get_rng_state(), drawn)


def test_no_data_and_no_net_end_in_a_sentence():
    with pytest.raises(TypeError, match="data_loader must be a DataLoader, a data set or a list of batches, got NoneType"):
        Explorer(user_net(), F.cross_entropy)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got function"):
        Explorer(lambda x: x, F.cross_entropy, loader_of())


def test_cells_that_are_not_finite_are_kept():
    """Far out the loss overflows; the centre is finite."""

    class Exploding(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, 1))

        def forward(self, x):
            return torch.exp(200 * (self.weight - 1)) * x

    landscape = Explorer(Exploding(), F.mse_loss, [(torch.ones(2, 1), torch.zeros(2, 1))]).build_line(
        grid_size=3, range_scale=4.0
    )
    assert np.isinf(landscape.grid.losses).sum() == 1
    assert landscape.baseline_loss == 1.0


# -- with a storage, and closed


def test_a_storage_keeps_all_and_what_is_closed_says_so(tmp_path):
    net, checkpoints = trained(tmp_path)
    storage = LandscapeStorage(tmp_path / "l.duckdb")
    with Explorer(net, F.cross_entropy, loader_of(), storage=storage) as explorer:
        use_everything(explorer, checkpoints)
    record = storage.record()
    assert list(record.grids) == ["1d", "2d", "3d"]
    assert (len(record.trajectories), len(record.hessians)) == (1, 1)
    assert storage.interrupted() == []
    assert sorted(path.suffix for path in tmp_path.iterdir() if "partial" in path.name) == []
    with pytest.raises(ValueError, match="this Explorer is closed; make another one"):
        explorer.build_line()


def test_the_librarys_own_calls_agree():
    """One set of numerics: the surface is the library's."""
    explorer = Explorer(user_net(), F.cross_entropy, loader_of())
    metrics = explorer.compute_hessian_metrics(num_probes=10)
    from loss_landscape import HessianOperator

    assert metrics.trace.value == trace(HessianOperator(explorer.surface), num_products=10, generator=42).value


def test_a_result_is_itself_and_no_other():
    """Their entries are arrays, whose equality has no one answer."""
    with Explorer(user_net(), F.cross_entropy, loader_of()) as explorer:
        one, other = (explorer.build_line(grid_size=3) for _ in range(2))
    assert one == one
    assert one != other
    assert {one: 1}[one] == 1


def test_a_bar_with_the_time_left_is_shown_on_a_terminal(monkeypatch, capsys):
    """And elsewhere, such as in a log, nothing."""
    explorer = Explorer(user_net(), F.cross_entropy, loader_of())
    explorer.build_surface(grid_size=3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    explorer.build_surface(grid_size=3)
    text = capsys.readouterr().err
    assert "2d" in text
    assert "s left" in text
