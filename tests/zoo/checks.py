"""What is checked of every model: the library's numbers against loops, and that nothing of the user's changed."""

from __future__ import annotations

import copy
import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from zoo.entry import Entry, outputs_of
from zoo.plain import PlainLoss, Vector, by_formulas, flat, in_dtype, leaves, shifted, slopes

from loss_landscape import Evaluation, GaussNewtonOperator, Grid, HessianOperator, LossSurface, evaluate_grid
from loss_landscape.surface.plane import Plane

EPS32 = torch.finfo(torch.float32).eps
NOISE_FACTOR = 4  # times what a plain float32 loop is off itself
RADIUS = 0.4
CELLS = torch.tensor(list(itertools.product((-RADIUS, 0.0, RADIUS), repeat=2)), dtype=torch.float64)
MANY = 2 * torch.rand(128, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
"""Cells for times: a vectorized chunk is always whole."""


@dataclass(frozen=True)
class Comparison:
    """A number or a vector of the library's beside the right one; `allowed` is the largest difference by norm."""

    what: str
    found: Tensor
    right: Tensor
    allowed: float

    @property
    def error(self) -> float:
        """The largest difference of a list of losses, the norm of the difference of two vectors: as `allowed` is meant."""
        return float((self.found.double() - self.right).norm())

    def __str__(self) -> str:
        return f"{self.what}: off by {self.error:.3g} of {float(self.right.norm()):.3g}, allowed {self.allowed:.3g}"


class Specimen:
    """A model of the zoo with its surfaces and its plain loop, made once for all checks."""

    def __init__(self, entry: Entry):
        self.entry, self.net, self.batches = entry, entry.model(), entry.batches()
        self.loop: PlainLoss = entry.plain(self.net, self.batches)
        self.surface: LossSurface = entry.surface(self.net, self.batches)

    @cached_property
    def exact_surface(self) -> LossSurface:
        """The same in float64."""
        return self.entry.surface(self.net, self.batches, torch.float64)

    @cached_property
    def directions(self) -> tuple[Vector, Vector]:
        """Two directions, each tensor of them as long as the parameter, but at least 0.1."""
        return self._drawn(2), self._drawn(3)

    @cached_property
    def plane(self) -> Plane:
        """The surface along both."""
        return self.surface.plane([self.surface.layout.flatten(direction) for direction in self.directions])

    @cached_property
    def hessian(self) -> HessianOperator:
        """The Hessian by the method that the library takes."""
        return HessianOperator(self.surface)

    @cached_property
    def grid(self) -> Grid:
        """The losses at `CELLS`, and how they were evaluated."""
        directions = [self.surface.layout.flatten(direction) for direction in self.directions]
        return evaluate_grid(self.surface, directions, 3, RADIUS, evaluation=Evaluation(noise_cells=0))

    def at(self, row: Sequence[float]) -> dict[str, Tensor]:
        """The displacement of a cell, float64."""
        first, second = self.directions
        return {name: row[0] * first[name].double() + row[1] * second[name].double() for name in first}

    @cached_property
    def losses(self) -> tuple[Tensor, Tensor]:
        """The plain loop's losses of all cells in float64 and in float32, [K] float64."""
        made = [[self.loop.value(dtype, self.at(row)) for row in CELLS.tolist()] for dtype in (torch.float64, torch.float32)]
        right, rough = (torch.tensor(values, dtype=torch.float64) for values in made)
        return right, rough

    def vector(self, seed: int) -> Vector:
        """A vector to multiply by."""
        return self._drawn(seed)

    def _drawn(self, seed: int) -> dict[str, Tensor]:
        generator, drawn = torch.Generator().manual_seed(seed), dict[str, Tensor]()
        for name, tensor in self.surface.layout.unflatten(self.surface.origin).items():
            noise = torch.randn(tensor.shape, generator=generator)
            drawn[name] = noise * max(float(tensor.norm()), 0.1) / max(float(noise.norm()), 1e-6)
        return drawn


def plane_cells(specimen: Specimen) -> list[Comparison]:
    """Every cell in float32, and a cross of them in float64, each against both loops."""
    right, rough = specimen.losses
    found = torch.from_numpy(specimen.grid.losses.reshape(-1).copy())
    noise = float((rough - right).abs().max())
    allowed = NOISE_FACTOR * noise + 16 * EPS32 * float(right.abs().max())
    each = [
        Comparison(f"cell {row.tolist()} against a {kind} loop", found[i : i + 1], loop[i : i + 1], allowed)
        for kind, loop in (("float64", right), ("float32", rough))
        for i, row in enumerate(CELLS)
    ]
    exact = specimen.exact_surface
    plane = exact.plane([exact.layout.flatten({k: v.double() for k, v in d.items()}) for d in specimen.directions])
    tight = (noise if specimen.entry.single_inside else 0) + 1e-10 * float(right.abs().max())
    return [*each, Comparison("cells in float64", plane.losses(CELLS), right, 5 * tight)]


def gradient_at_a_displacement(specimen: Specimen) -> list[Comparison]:
    """The gradient at a cell off both axes, in both dtypes, and its slope along a vector against differences of the loss."""
    point = specimen.at([0.3, -0.2])
    right, rough = (specimen.loop.gradient(dtype, point).double() for dtype in (torch.float64, torch.float32))
    noise = float((rough - right).norm())
    found = specimen.surface.gradient(specimen.surface.layout.flatten({k: v.float() for k, v in point.items()}))
    exact = specimen.exact_surface
    in_double = exact.gradient(exact.layout.flatten(point))
    tight = (NOISE_FACTOR * noise if specimen.entry.single_inside else 0) + 1e-9 * float(right.norm())
    return [
        Comparison("gradient", found, right, NOISE_FACTOR * noise + 16 * EPS32 * float(right.norm())),
        Comparison("gradient in float64", in_double, right, tight),
        *_slope(specimen, point, in_double),
    ]


def _slope(specimen: Specimen, point: Vector, gradient: Tensor) -> list[Comparison]:
    """Along a vector, of a loss that is differentiable by autograd and in float64; else nothing."""
    if specimen.entry.told or specimen.entry.single_inside:
        return []
    vector = {name: part.double() for name, part in specimen.vector(6).items()}
    there, back = (specimen.loop.value(torch.float64, shifted(point, vector, step)) for step in (1e-6, -1e-6))
    right = torch.tensor([(there - back) / 2e-6], dtype=torch.float64)
    allowed = 1e-4 * abs(float(right)) + 1e-6 * float(gradient.norm() * flat(list(vector.values())).norm())
    return [Comparison("slope in float64", gradient @ flat(list(vector.values()))[:, None], right, allowed)]


def hessian_products(specimen: Specimen) -> list[Comparison]:
    """Two products by the method that `auto` takes, in both dtypes, against double backward, and that against differences."""
    operator, exact = specimen.hessian, HessianOperator(specimen.exact_surface)
    made = list[Comparison]()
    for seed in (4, 5):
        vector = specimen.vector(seed)
        right, noise, uncertain = right_product(specimen, vector)
        size = float(right.norm())
        allowed = NOISE_FACTOR * noise + 32 * EPS32 * size + uncertain
        flat32 = specimen.surface.layout.flatten(vector)
        flat64 = flat32.double()
        made.append(Comparison(f"product, {operator.method}", operator @ flat32, right, allowed + _slack(operator, size)))
        tight = (NOISE_FACTOR * noise if specimen.entry.single_inside else 0) + 1e-8 * size + uncertain
        made.append(Comparison(f"product in float64, {exact.method}", exact @ flat64, right, tight + _slack(exact, size)))
    return made


def _slack(operator: HessianOperator | GaussNewtonOperator, size: float) -> float:
    """What a difference of gradients or outputs may be off, in float64: rounding over its step."""
    return 1e-5 * size if operator.method == "finite_differences" else 0.0


def right_product(specimen: Specimen, vector: Vector) -> tuple[Tensor, float, float]:
    """The Hessian times `vector` in float64, float32's noise in it, and how uncertain it is.

    It is the double backward's, unless differences of gradients say otherwise by more than they differ among themselves: then
    one of the net's operations has a wrong second derivative, and theirs is right. Where the gradient is not the loss's slope, as
    is told, the matrix is autograd's.
    """
    here = {name: torch.zeros_like(part, dtype=torch.float64) for name, part in vector.items()}
    coarse, fine = (specimen.loop.difference(here, vector, step) for step in (2e-6, 1e-6))
    uncertain = float((coarse - fine).norm())
    try:
        right, rough = (specimen.loop.product(dtype, here, vector).double() for dtype in (torch.float64, torch.float32))
    except RuntimeError as error:
        if "not implemented" not in str(error):
            raise
        return fine, uncertain, 10 * uncertain
    noise = float((rough - right).norm())
    if specimen.entry.told:
        return right, noise, 0.0
    smooth = uncertain < 1e-4 * float(fine.norm())
    if smooth and float((fine - right).norm()) > 10 * uncertain + 1e-4 * float(fine.norm()):
        return fine, noise, 10 * uncertain
    return right, noise, 0.0


def gauss_newton_products(specimen: Specimen) -> list[Comparison]:
    """A product with Jᵀ∇²ℓJ, of nets that give one tensor to a cross entropy or a squared error; else none."""
    hessian = KNOWN.get(type(specimen.entry.loss))
    if hessian is None or specimen.entry.of_the_net:
        return []
    vector = specimen.vector(4)
    right, rough = (gauss_newton(specimen, dtype, vector, hessian).double() for dtype in (torch.float64, torch.float32))
    noise, size = float((rough - right).norm()), float(right.norm())
    made = list[Comparison]()
    for surface, allowed in (
        (specimen.surface, NOISE_FACTOR * noise + 32 * EPS32 * size),
        (specimen.exact_surface, 1e-8 * size),
    ):
        operator = GaussNewtonOperator(surface)
        product = operator @ surface.layout.flatten({k: v.to(surface.dtype) for k, v in vector.items()})
        what = f"Gauss–Newton in {surface.dtype}, {operator.method}"
        made.append(Comparison(what, product, right, allowed + _slack(operator, size)))
    return made


OutputHessian = Callable[[Tensor, Tensor], Tensor]
"""(outputs, along) → the Hessian of a batch's mean in the outputs, times `along`."""


def _of_cross_entropy(outputs: Tensor, along: Tensor) -> Tensor:
    p = outputs.softmax(1)
    return (p * along - p * (p * along).sum(1, keepdim=True)) / len(outputs)


def _of_squares(outputs: Tensor, along: Tensor) -> Tensor:
    return 2 * along / outputs.numel()


KNOWN: dict[type, OutputHessian] = {nn.CrossEntropyLoss: _of_cross_entropy, nn.MSELoss: _of_squares}


def gauss_newton(specimen: Specimen, dtype: torch.dtype, vector: Vector, hessian: OutputHessian) -> Tensor:
    """Σ share · JᵀMJ v with M in closed form, J by vector–Jacobian products alone."""
    net = specimen.loop.moved(dtype, {})
    parts = leaves(net, vector)
    total: Any = 0
    for share, batch in zip(specimen.loop.shares, specimen.loop.batches, strict=True):
        inputs = in_dtype(batch[0], dtype)
        pushed = _pushed(specimen, dtype, vector, inputs)
        with by_formulas():
            outputs = outputs_of(net, inputs)
            total = total + share * flat(slopes((outputs * hessian(outputs.detach(), pushed)).sum(), parts))
    return total


def _pushed(specimen: Specimen, dtype: torch.dtype, vector: Vector, inputs: Any) -> Tensor:
    """J v, by a vector–Jacobian product of a vector–Jacobian product; by differences where torch lacks the second."""
    net = specimen.loop.moved(dtype, {})
    parts = leaves(net, vector)
    try:
        with by_formulas():
            outputs = outputs_of(net, inputs)
            dummy = torch.zeros_like(outputs, requires_grad=True)
            pulled = torch.autograd.grad(outputs, parts, dummy, create_graph=True, allow_unused=True, materialize_grads=True)
            paired = sum((part * vector[name].to(dtype)).sum() for part, name in zip(pulled, vector, strict=True))
            (pushed,) = torch.autograd.grad(paired, dummy)
        return pushed
    except RuntimeError as error:
        if "not implemented" not in str(error):
            raise
        here = {name: torch.zeros_like(part, dtype=torch.float64) for name, part in vector.items()}
        exact = in_dtype(inputs, torch.float64)
        with torch.no_grad(), by_formulas():
            there, back = (
                outputs_of(specimen.loop.moved(torch.float64, shifted(here, vector, step)), exact) for step in (1e-7, -1e-7)
            )
        return ((there - back) / 2e-7).to(dtype)  # of a larger step, kinks that are crossed are 1e-6 of the product


class UsersThings:
    """All that is the user's, as it was: to be held against what it is after the library was asked everything."""

    def __init__(self, net: nn.Module, batches: Sequence[Any]):
        self.net, self.batches = net, batches
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.full_like(parameter, 0.5)
        self.state, self.batches_then = copy.deepcopy(net.state_dict()), copy.deepcopy(list(batches))
        self.facts = self._facts()

    def _facts(self) -> list[Any]:
        modules = [(name, module.training, len(module._forward_hooks)) for name, module in self.net.named_modules()]
        own = [
            (name, p.requires_grad, p._version, id(p), p.grad is None or p.grad.unique().tolist())
            for name, p in self.net.named_parameters()
        ]
        buffers = [(name, id(buffer)) for name, buffer in self.net.named_buffers()]
        states = [torch.get_rng_state().tolist(), random.getstate(), [str(part) for part in np.random.get_state()]]
        return [modules, own, buffers, states, torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled()]

    def changed(self) -> list[str]:
        """What is not as it was."""
        found = [name for name, tensor in self.net.state_dict().items() if not torch.equal(tensor, self.state[name])]
        kinds = ("modes or hooks", "parameters", "buffers", "random numbers", "grad mode", "fast path")
        found += [kind for kind, now, then in zip(kinds, self._facts(), self.facts, strict=True) if now != then]
        pairs = zip(_tensors(self.batches), _tensors(self.batches_then), strict=True)
        return found + ["a batch" for now, then in pairs if not torch.equal(now, then)]


def _tensors(part: Any) -> list[Tensor]:
    if isinstance(part, Tensor):
        return [part]
    parts = part.values() if hasattr(part, "values") else part if isinstance(part, tuple | list) else ()
    return [tensor for one in parts for tensor in _tensors(one)]


def ratio(specimen: Specimen, rounds: int = 3) -> float:
    """How many times as fast a cell is as in a plain loop: medians of processor times taken in turn, set-up left out."""
    few, many = RADIUS * MANY[:4], RADIUS * MANY
    small = specimen.surface.size < 1 << 17
    timed = many if small else many[:16]
    specimen.plane.losses(timed)  # set up, and checked
    loop, plane = list[float](), list[float]()
    for _ in range(rounds):
        started = time.process_time()
        for row in few.tolist():
            specimen.loop.value(torch.float32, specimen.at(row))
        between = time.process_time()
        specimen.plane.losses(timed)
        loop.append((between - started) / len(few))
        plane.append((time.process_time() - between) / len(timed))
    return float(np.median(loop) / np.median(plane))
