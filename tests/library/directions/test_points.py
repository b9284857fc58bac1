"""The other net as people have it: each form gives the same parameters, or a sentence that names the way."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from loss_landscape import LossSurface, barrier, difference_directions, point_in


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


def flat(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])


@pytest.fixture
def surface() -> LossSurface:
    draw = torch.Generator().manual_seed(0)
    return LossSurface(net(0), nn.CrossEntropyLoss(), [(torch.randn(20, 4, generator=draw), torch.arange(20) % 2)])


def in_file(thing: object, folder: Path, **options: bool) -> Path:
    torch.save(thing, folder / "net.pt", **options)
    return folder / "net.pt"


def backwards(array: np.ndarray) -> np.ndarray:
    """The same entries, in memory from the last to the first: a view of negative strides."""
    return np.flip(np.flip(array).copy())


def prefixed(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}


FORMS = {
    "net": lambda b, _: b,
    "state dict": lambda b, _: b.state_dict(),
    "file": lambda b, folder: in_file(b.state_dict(), folder),
    "file's name": lambda b, folder: str(in_file(b.state_dict(), folder)),
    "file of an older torch": lambda b, folder: in_file(b.state_dict(), folder, _use_new_zipfile_serialization=False),
    "DataParallel": lambda b, _: nn.DataParallel(b),
    "compiled": lambda b, _: torch.compile(b, backend="eager"),
    "compiled DataParallel's": lambda b, _: prefixed("_orig_mod.module.", b),
    "module. dict": lambda b, _: prefixed("module.", b),
    "module. file": lambda b, folder: in_file(prefixed("module.", b), folder),
    "Lightning": lambda b, folder: in_file({"state_dict": prefixed("model.", b), "epoch": 3}, folder),
    "checkpoint": lambda b, folder: in_file({"epoch": 3, "model": b.state_dict(), "optimizer": {}}, folder),
    "checkpoint with a net": lambda b, _: {"epoch": 3, "model": b},
    "parameters": lambda b, _: list(b.parameters()),
    "parameters()": lambda b, _: b.parameters(),
    "arrays": lambda b, _: [parameter.detach().numpy() for parameter in b.parameters()],
    "arrays by name": lambda b, _: {name: tensor.numpy() for name, tensor in b.state_dict().items()},
    "vector": lambda b, _: flat(b),
    "numpy vector": lambda b, _: flat(b).numpy(),
    "reversed vector": lambda b, _: backwards(flat(b).numpy()),
    "reversed arrays": lambda b, _: [backwards(parameter.detach().numpy()) for parameter in b.parameters()],
    "reversed arrays by name": lambda b, _: {name: backwards(tensor.numpy()) for name, tensor in b.state_dict().items()},
    "float64": lambda b, _: copy.deepcopy(b).double(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_net_is_the_same_point(surface, tmp_path: Path, form):
    other = net(1)
    point = point_in(surface, FORMS[form](other, tmp_path))
    torch.testing.assert_close(point, flat(other), rtol=0, atol=0)
    assert not point.requires_grad
    step = difference_directions(surface, FORMS[form](other, tmp_path))
    torch.testing.assert_close(step[0], flat(other) - surface.origin, rtol=0, atol=1e-7)


WRAPPERS = {
    "compiled": lambda net: torch.compile(net, backend="eager"),
    "parallel": nn.DataParallel,
    "compiled and parallel": lambda net: nn.DataParallel(torch.compile(net, backend="eager")),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_surface_of_a_wrapped_net_knows_parameters_by_the_nets_own_names(surface, wrapper):
    plain, other = net(0), net(1)
    wrapped = LossSurface(WRAPPERS[wrapper](plain), nn.CrossEntropyLoss(), list(surface.objective.batches))
    assert wrapped.layout.names == surface.layout.names
    assert wrapped.loss() == surface.loss()
    for form in (other, other.state_dict(), WRAPPERS[wrapper](other)):
        assert torch.equal(point_in(wrapped, form), flat(other))


def test_ends_of_a_path_are_such_points(surface):
    other = net(1)
    losses = barrier(surface, surface.origin, prefixed("module.", other), num_points=5).losses
    assert losses[-1] == surface.moved_to(flat(other)).loss()


REFUSED = {
    "whole net": (lambda folder: in_file(net(1), folder), ValueError, r"net\.pt holds no state dict .*weights_only=False\)"),
    "text": (lambda folder: write(folder / "text.pt"), ValueError, r"text\.pt holds no state dict that torch\.load"),
    "no file": (lambda folder: folder / "none.pt", FileNotFoundError, "none.pt"),
    "another net": (lambda _: nn.Linear(4, 2), ValueError, "got one without 0.weight, 0.bias, 2.weight, …; it has weight, bias"),
    "shapes": (lambda _: wider(), ValueError, r"of other shapes: 0.weight \[6, 4\], not \[5, 4\]"),
    "some tensors": (
        lambda _: list(net(1).parameters())[:3],
        ValueError,
        "for each of the 4 parameters, got 3",
    ),
    "vector": (lambda _: torch.ones(3), ValueError, r"expected a vector \[P\] with P = 37 parameters, got \[3\]"),
    "number": (lambda _: 3, TypeError, "expected a net, its state dict, a file of that, a vector .* got int"),
    "with more layers": (lambda _: with_norm(), ValueError, "like the surface's own, got one that has 1.weight, 1.bias as well"),
    "complex": (lambda _: torch.ones(37) + 1j, ValueError, "expected a net of real parameters, got complex ones"),
    "no tensors": (
        lambda _: dict.fromkeys(net(1).state_dict()),
        TypeError,
        "expected a tensor by the name 0.weight, got NoneType",
    ),
    "nothing": (lambda _: [], TypeError, "or a tensor for each parameter, got list"),
}


def with_norm() -> nn.Module:
    """As many layers with parameters under the same names, and one more."""
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))


def write(file: Path) -> Path:
    file.write_text("hello")
    return file


def wider() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


@pytest.mark.parametrize("which", REFUSED)
def test_what_is_no_such_net_is_answered(surface, tmp_path: Path, which):
    point, kind, message = REFUSED[which]
    with pytest.raises(kind, match=message):
        point_in(surface, point(tmp_path))


def test_a_surface_of_a_part_takes_the_whole_nets_state(surface):
    other = net(1)
    part = surface.restricted("2.*")
    torch.testing.assert_close(point_in(part, other.state_dict()), flat(other)[25:], rtol=0, atol=0)
    assert np.isfinite(difference_directions(part, other).info.norms[0])
