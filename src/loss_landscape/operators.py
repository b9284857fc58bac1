"""The curvature matrices of a loss surface at its origin."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from loss_landscape.operator import CurvatureOperator
from loss_landscape.snapshot import undisturbed
from loss_landscape.surface import LossSurface

Graph = TypeVar("Graph")
TENSORS_KEPT_AN_ACTIVATION = 4  # by the forward pass, the backward pass, and functions that are no module


class HessianOperator(CurvatureOperator):
    """The Hessian of the surface's loss, by differentiating its gradient once more.

    Gradient graphs are kept between products as far as `memory_budget_mb` goes; the other batches' are rebuilt for each product.
    """

    def __init__(self, surface: LossSurface, *, memory_budget_mb: int = 2048):
        super().__init__(surface.size, surface.dtype, surface.device)
        self.surface = surface
        self._slopes = _Graphs(surface, _slopes, memory_budget_mb)
        _require_symmetry(self)

    def matmat(self, vectors: Tensor) -> Tensor:
        with undisturbed(self.device):
            total = torch.zeros_like(vectors)
            for weight, graph in self._slopes:
                for column, out in zip(vectors.T, total.T, strict=True):
                    out += weight * graph.pushed(self.surface.layout.unflatten(column.contiguous()))
            return total


class GaussNewtonOperator(CurvatureOperator):
    """The generalised Gauss–Newton matrix Σ Jᵀ∇²ℓ J: the net linearised, the loss of its outputs in full.

    Positive semi-definite where the loss is convex in the outputs, and the true Fisher matrix under cross entropy.
    """

    def __init__(self, surface: LossSurface, *, memory_budget_mb: int = 2048):
        super().__init__(surface.size, surface.dtype, surface.device)
        _require_criterion(surface, "the Gauss–Newton matrix")
        self.surface = surface
        self._graphs = _Graphs(surface, _gauss_newton, memory_budget_mb)

    def matmat(self, vectors: Tensor) -> Tensor:
        return _sandwiched(self, self._graphs, vectors)


class EmpiricalFisherOperator(CurvatureOperator):
    """Σ wᵢ gᵢgᵢᵀ / Σ wᵢ over examples: gᵢ the gradient of an example's own loss, wᵢ its share of the criterion's denominator."""

    def __init__(self, surface: LossSurface, *, memory_budget_mb: int = 2048):
        super().__init__(surface.size, surface.dtype, surface.device)
        _require_criterion(surface, "the empirical Fisher matrix")
        self.surface = surface
        self._graphs = _Graphs(surface, _fisher, memory_budget_mb)

    def matmat(self, vectors: Tensor) -> Tensor:
        return _sandwiched(self, self._graphs, vectors)


@dataclass
class _Slopes:
    """A batch's gradient with its graph; its derivative along a vector is a product with the Hessian."""

    leaves: list[Tensor]
    slopes: list[Tensor]
    names: tuple[str, ...]

    def pushed(self, vector: dict[str, Tensor]) -> Tensor:
        """The derivative of ⟨gradient, vector⟩, [P]."""
        live = [(slope, vector[name]) for slope, name in zip(self.slopes, self.names, strict=True) if slope.requires_grad]
        if not live:  # the loss is linear in the parameters
            return torch.cat([torch.zeros_like(leaf).reshape(-1) for leaf in self.leaves])
        slopes, parts = zip(*live, strict=True)
        return _flat(_grad(slopes, self.leaves, parts))


@dataclass
class _Linearised:
    """A map y(θ) with the graphs of its two products, and the matrix M in the middle of JᵀMJ."""

    leaves: list[Tensor]
    values: Tensor  # y
    dual: Tensor  # u, like y
    pulled: list[Tensor]  # Jᵀu as a function of u; its derivative along v is Jv
    middle: Callable[[Tensor], Tensor]  # M

    def product(self, vector: list[Tensor]) -> Tensor:
        """JᵀMJ · vector, [P]."""
        live = [(pulled, part) for pulled, part in zip(self.pulled, vector, strict=True) if pulled.requires_grad]
        pulled, parts = zip(*live, strict=True)
        (pushed,) = _grad(pulled, [self.dual], parts)
        return _flat(_grad([self.values], self.leaves, [self.middle(pushed)]))


class _Graphs(Generic[Graph]):
    """(weight, graph) for each batch: as many are kept as fit into the budget, the others are made anew on every pass."""

    def __init__(self, surface: LossSurface, make: Callable[[LossSurface, float, Any], Graph], memory_budget_mb: int):
        self._surface, self._make = surface, make
        self._kept: list[Graph] = []
        fitting = memory_budget_mb * 2**20 // (TENSORS_KEPT_AN_ACTIVATION * surface.activation_bytes)
        with undisturbed(surface.device):
            for weight, batch in itertools.islice(surface.weighted_batches(), fitting):
                self._kept.append(make(surface, weight, batch))

    def __iter__(self) -> Iterator[tuple[float, Graph]]:
        for index, (weight, batch) in enumerate(self._surface.weighted_batches()):
            yield weight, self._kept[index] if index < len(self._kept) else self._make(self._surface, weight, batch)


def _slopes(surface: LossSurface, weight: float, batch: Any) -> _Slopes:
    leaves = surface.leaves()
    with torch.enable_grad():
        loss = surface.batch_loss(leaves, batch)
        slopes = torch.autograd.grad(loss, list(leaves.values()), create_graph=True, allow_unused=True, materialize_grads=True)
    return _Slopes(list(leaves.values()), list(slopes), surface.layout.names)


def _gauss_newton(surface: LossSurface, weight: float, batch: Any) -> _Linearised:
    leaves = surface.leaves()
    with torch.enable_grad():
        outputs = surface.outputs(leaves, batch)
        point = outputs.detach().requires_grad_()
        (slope,) = torch.autograd.grad(surface.criterion(point, batch[1]), [point], create_graph=True)

    def middle(vector: Tensor) -> Tensor:
        return _grad([slope], [point], [vector])[0] if slope.requires_grad else torch.zeros_like(vector)

    return _linearised(leaves, outputs, middle)


def _fisher(surface: LossSurface, weight: float, batch: Any) -> _Linearised:
    leaves = surface.leaves()
    with torch.enable_grad():
        losses, shares = surface.criterion.example_losses(surface.outputs(leaves, batch), batch[1])
    if surface.criterion.reduction != "sum":
        shares = shares / shares.sum()
    return _linearised(leaves, losses, lambda vector: shares * vector)


def _linearised(leaves: dict[str, Tensor], values: Tensor, middle: Callable[[Tensor], Tensor]) -> _Linearised:
    dual = torch.zeros_like(values, requires_grad=True)
    with torch.enable_grad():
        pulled = torch.autograd.grad(
            values, list(leaves.values()), grad_outputs=dual, create_graph=True, allow_unused=True, materialize_grads=True
        )
    return _Linearised(list(leaves.values()), values, dual, list(pulled), middle)


def _sandwiched(operator: CurvatureOperator, graphs: _Graphs[_Linearised], vectors: Tensor) -> Tensor:
    with undisturbed(operator.device):
        total = torch.zeros_like(vectors)
        for weight, graph in graphs:
            for column, out in zip(vectors.T, total.T, strict=True):
                parts = operator.surface.layout.unflatten(column.contiguous())
                out += weight * graph.product(list(parts.values()))
        return total


def _grad(values: Any, leaves: list[Tensor], along: Any) -> tuple[Tensor, ...]:
    return torch.autograd.grad(values, leaves, grad_outputs=along, retain_graph=True, allow_unused=True, materialize_grads=True)


def _flat(parts: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])


def _require_symmetry(operator: HessianOperator) -> None:
    """Refuse a net with an operation whose second derivative is wrong, as that of torch's own `_weight_norm` is in silence."""
    draw = torch.Generator().manual_seed(0)
    pair = torch.randn(operator.size, 2, generator=draw, dtype=torch.float64).to(operator.device, operator.dtype)
    images = operator.matmat(pair).double()
    there, back = pair[:, 0].double() @ images[:, 1], pair[:, 1].double() @ images[:, 0]
    size = images.norm() * pair.double().norm() / operator.size**0.5  # of a product with an unrelated vector
    if bool((there - back).abs() > (1e-6 if operator.dtype == torch.float64 else 1e-2) * size):
        raise ValueError(
            f"the Hessian of this net is not symmetric (uᵀHv = {there:.6g}, vᵀHu = {back:.6g} for random u, v): one of its "
            "operations has a wrong second derivative; torch's weight_norm is known for it, write weight = g·v/‖v‖ out instead"
        )


def _require_criterion(surface: LossSurface, what: str) -> None:
    if surface.criterion is None:
        raise ValueError(f"{what} needs outputs and loss apart: build the surface with loss_fn(outputs, targets), not batch_loss")
