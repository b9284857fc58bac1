"""Directions as people have them: each form gives the same vectors, or a sentence that says what to give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from loss_landscape import (
    Directions,
    LossSurface,
    as_directions,
    custom_directions,
    evaluate_grid,
    random_directions,
)

SIZE = 43


@pytest.fixture
def surface() -> LossSurface:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    return LossSurface(net, nn.CrossEntropyLoss(), [(torch.randn(20, 4), torch.arange(20) % 3)])


def named(surface, vector):
    return surface.layout.unflatten(vector)


FORMS = {
    "vectors": lambda s, d: [d[0], d[1]],
    "tuple": lambda s, d: (d[0], d[1]),
    "tensor [2, P]": lambda s, d: torch.stack(list(d)),
    "numpy": lambda s, d: [v.numpy() for v in d],
    "numpy [2, P]": lambda s, d: np.stack([v.numpy() for v in d]),
    "dicts": lambda s, d: [named(s, v) for v in d],
    "per-layer lists": lambda s, d: [list(named(s, v).values()) for v in d],
    "per-layer arrays": lambda s, d: [[part.numpy() for part in named(s, v).values()] for v in d],
    "Directions by hand": lambda s, d: Directions((d[0], d[1])),
    "Directions of a list": lambda s, d: Directions([d[0], d[1]]),
    "Directions of reversed arrays": lambda s, d: Directions([np.flip(np.flip(v.numpy()).copy()) for v in d]),
    "float64": lambda s, d: [v.double() for v in d],
    "require a gradient": lambda s, d: [v.clone().requires_grad_() for v in d],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_two_directions_is_the_same_plane(surface, form):
    axes = random_directions(surface, 2)
    found = as_directions(surface, FORMS[form](surface, axes))
    assert all(torch.equal(own, given) and not own.requires_grad for own, given in zip(found, axes, strict=True))
    assert found.info.kind == "custom"
    assert found.info.norms == pytest.approx([float(axis.norm()) for axis in axes])
    assert found.info.origin_norm == pytest.approx(float(surface.origin.norm()))
    grid = evaluate_grid(surface, FORMS[form](surface, axes), 3)
    assert np.array_equal(grid.losses, evaluate_grid(surface, axes, 3).losses)


@pytest.mark.parametrize("form", ["vector", "numpy", "dict", "per-layer list", "iterator", "tensor [1, P]"])
def test_a_single_direction_needs_no_list(surface, form):
    (axis,) = random_directions(surface, 1)
    forms = {
        "vector": lambda: axis,
        "numpy": lambda: axis.numpy(),
        "dict": lambda: named(surface, axis),
        "per-layer list": lambda: list(named(surface, axis).values()),
        "iterator": lambda: iter(named(surface, axis).values()),
        "tensor [1, P]": lambda: axis[None],
    }
    found = as_directions(surface, forms[form]())
    assert len(found) == 1
    assert torch.equal(found[0], axis)
    assert evaluate_grid(surface, forms[form](), 3).losses.shape == (3,)


def test_what_is_known_of_directions_stays(surface):
    axes = random_directions(surface, 2)
    assert as_directions(surface, axes).info is axes.info
    assert [torch.equal(a, b) for a, b in zip(custom_directions(surface, *axes), axes, strict=True)] == [True, True]


REFUSED = {
    "parallel": (lambda d: [d[0], -2 * d[0]], ValueError, r"two of the 2 directions are parallel \(cosine -1\), so the grid"),
    "zero": (lambda d: [d[0] * 0, d[1]], ValueError, r"norms \[0\.0, .*each must be > 0"),
    "columns": (lambda d: torch.stack(list(d)).T, ValueError, r"got \[43, 2\]; directions are its columns: give its transpose"),
    "column": (lambda d: [d[0][:, None], d[1]], ValueError, r"got \[43, 1\]; directions are its columns"),
    "size": (lambda d: [torch.ones(5)], ValueError, r"P = 43 parameters, or such in a list, got \[5\]; build one with"),
    "net": (lambda d: [nn.Linear(4, 5)], TypeError, "got Linear; a net is a point: difference_directions"),
    "number": (lambda d: 3, TypeError, "or such in a list, got int"),
    "word": (lambda d: "random", TypeError, "or such in a list, got str"),
    "complex": (lambda d: d[0] + 1j, ValueError, r"of real numbers, got complex ones; .* give direction\.real"),
    "names": (lambda d: {"0.weight": torch.ones(5, 4)}, ValueError, "got one without 0.bias, 2.weight, 2.bias"),
    "layers": (lambda d: [[torch.ones(5, 4)]], ValueError, "for each of the 4 parameters, got 1; they come in"),
}


@pytest.mark.parametrize("which", REFUSED)
def test_what_is_no_direction_is_answered(surface, which):
    given, kind, message = REFUSED[which]
    with pytest.raises(kind, match=message):
        as_directions(surface, given(random_directions(surface, 2)))


@pytest.mark.parametrize("count", [0, 4])
def test_a_grid_has_one_to_three_of_them(surface, count):
    axes = list(torch.eye(SIZE)[:count])
    with pytest.raises(ValueError, match=f"expected 1, 2 or 3 directions, got {count}"):
        evaluate_grid(surface, axes, 3)


def test_directions_can_be_saved_and_loaded(surface, tmp_path):
    axes = random_directions(surface, 2)
    axes.save(tmp_path / "axes.npz")
    loaded = Directions.load(tmp_path / "axes.npz")
    assert loaded.info == axes.info
    assert all(torch.equal(a, b) for a, b in zip(loaded, axes, strict=True))
    assert repr(axes).startswith(f"Directions(2 × [{SIZE}], random, norms ")
    assert len(repr(axes)) < 100
