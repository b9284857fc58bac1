"""A net where a surface is wanted, as users of other tools give it first, is answered by every function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from surfaces import surface_of
from torch import nn

import loss_landscape
from loss_landscape import (
    Directions,
    HessianOperator,
    LossSurface,
    adam_directions,
    adam_preconditioner,
    as_directions,
    asam_sharpness,
    barrier,
    bezier,
    check_deterministic,
    custom_directions,
    difference_directions,
    eigenpairs,
    evaluate_grid,
    expected_sharpness,
    first_order_sharpness,
    fit_bezier,
    fit_curve,
    fit_polychain,
    gradient_directions,
    hessian_directions,
    keskar_sharpness,
    layer_curvature,
    line,
    path_losses,
    point_in,
    random_directions,
    repair,
    repaired_line,
    sam_sharpness,
    three_point_directions,
    trajectory_directions,
)

NET = nn.Linear(6, 3)
CALLS: dict[str, Callable[[Any], Any]] = {
    "adam_directions": lambda net: adam_directions(net, NET, torch.optim.Adam(NET.parameters())),
    "adam_preconditioner": lambda net: adam_preconditioner(net, NET, torch.optim.Adam(NET.parameters())),
    "as_directions": lambda net: as_directions(net, [torch.ones(21)]),
    "asam_sharpness": asam_sharpness,
    "barrier": lambda net: barrier(net, NET, NET),
    "check_deterministic": check_deterministic,
    "custom_directions": lambda net: custom_directions(net, torch.ones(21)),
    "difference_directions": lambda net: difference_directions(net, NET),
    "evaluate_grid": lambda net: evaluate_grid(net, nn.CrossEntropyLoss(), 11),
    "expected_sharpness": lambda net: expected_sharpness(net, 0.1),
    "first_order_sharpness": first_order_sharpness,
    "fit_bezier": lambda net: fit_bezier(net, NET, NET),
    "fit_curve": lambda net: fit_curve(net, bezier(torch.zeros(3, 21))),
    "fit_polychain": lambda net: fit_polychain(net, NET, NET),
    "gradient_directions": gradient_directions,
    "hessian_directions": lambda net: hessian_directions(net, eigenpairs(torch.eye(21), 2)),
    "keskar_sharpness": keskar_sharpness,
    "layer_curvature": layer_curvature,
    "path_losses": lambda net: path_losses(net, bezier(torch.zeros(3, 21))),
    "point_in": lambda net: point_in(net, NET),
    "random_directions": random_directions,
    "repair": lambda net: repair(net, NET, NET),
    "repaired_line": lambda net: repaired_line(net, NET, NET),
    "sam_sharpness": lambda net: sam_sharpness(net, 0.05),
    "three_point_directions": lambda net: three_point_directions(net, NET, NET),
    "trajectory_directions": lambda net: trajectory_directions(net, [NET, NET, NET]),
}


def test_every_function_of_a_surface_is_here():
    """By the first parameter's name."""
    functions = {name: getattr(loss_landscape, name) for name in loss_landscape.__all__ if name[0].islower()}
    assert {name for name, f in functions.items() if f.__code__.co_varnames[0] == "surface"} == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_a_net_in_place_of_a_surface_is_answered(name):
    with pytest.raises(TypeError, match=r"expected a surface, got a net; write LossSurface\(net, loss_fn, batches\)"):
        CALLS[name](NET)


OTHERS: dict[str, tuple[Callable[[LossSurface], Any], type[Exception], str]] = {
    "an operator for pairs": (lambda s: hessian_directions(s, HessianOperator(s)), TypeError, "got HessianOperator; eigenpairs"),
    "nets for points": (lambda s: line(s.origin, NET), TypeError, r"expected two points \[P\], got a Linear; barrier takes nets"),
    "a glob for files": (lambda s: trajectory_directions(s, "run/*.pt"), TypeError, r"a list of checkpoints, got 'run/\*\.pt'"),
    "lr below 0": (lambda s: fit_bezier(s, s.origin, -s.origin, lr=-1.0), ValueError, r"lr must be finite and > 0, got -1\.0"),
    "lengths": (lambda s: Directions((torch.ones(2), torch.ones(3))), ValueError, r"of one length, got \[\[2\], \[3\]\]"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_mixed_up_arguments_are_answered(case):
    call, kind, sentence = OTHERS[case]
    with pytest.raises(kind, match=sentence):
        call(surface_of())
