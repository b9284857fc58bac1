"""The generalised Gauss–Newton matrix of a loss surface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from loss_landscape.nested import tensors_in
from loss_landscape.objective.functional_net import Parameters, undisturbed
from loss_landscape.operators.batch_sum import BatchMatrix, BatchSum, DeviceFallback, WeightedTerm
from loss_landscape.operators.hessian_products import flat, retained_hessian, vjp
from loss_landscape.operators.jacobian_products import JacobianMethod, Middle, Values, first_that_works, jacobian_product
from loss_landscape.operators.surface_operator import SummedOperator, require_criterion, require_surface_alone
from loss_landscape.surface.surface import LossSurface

THE_MATRIX = "the Gauss–Newton matrix"
METHODS: tuple[JacobianMethod, ...] = ("retained", "streamed", "finite_differences")
MANY_OUTPUTS = 4096  # an example's; where there are more, they and not the activations fill the memory


class GaussNewtonOperator(SummedOperator):
    """The generalised Gauss–Newton matrix Σ Jᵀ∇²ℓ J of a `surface`: the net linearised, the loss of its outputs in full.

    Positive semi-definite where the loss is convex in the outputs, and the true Fisher matrix under cross entropy. A regulariser
    adds its own Hessian (Schraudolph 2002).

    `method` is one of `retained` (the graphs of the outputs and of Jᵀu, kept between products as far as `memory_budget_mb`, in
    MiB, goes) and `streamed` (Jv by forward differentiation, then one backward pass, a quarter of each batch at a time: about a
    training step's memory), and `finite_differences` (the same with Jv by a difference, in float64 where the net has that).
    `auto` retains, and streams where an example has more than 4096 outputs; where a derivative is missing it takes the next one.
    `.method` says what it took, `.note` why. Out of memory, `on_oom` decides as in `HessianOperator`.

    Raises TypeError for what is no surface, for something `beside` one, or a net that gives more than one tensor, ValueError for
    a surface with `batch_loss`, and for a `method` whose derivatives this net has not.

    >>> curvature = GaussNewtonOperator(surface)
    >>> curvature @ {"weight": torch.ones(1, 2)}
    {'weight': tensor([[4., 1.]])}
    >>> curvature.diagonal()
    tensor([4., 1.])
    """

    def __init__(
        self,
        surface: LossSurface,
        *beside: object,
        method: JacobianMethod | Literal["auto"] = "auto",
        memory_budget_mb: int = 2048,
        on_oom: DeviceFallback = "error",
    ):
        require_surface_alone(surface, type(self), *beside)
        require_criterion(surface, THE_MATRIX)
        if method != "auto" and method not in METHODS:
            raise ValueError(f"method must be 'auto', {', '.join(map(repr, METHODS))}, got {method!r}")
        candidates = _by_rule(surface) if method == "auto" else (method,)
        self.method, exact, self._reason = first_that_works(surface, map_to_outputs, candidates)
        parts = exact if self.method == "retained" else _in_quarters(exact)
        super().__init__(surface, BatchSum(parts, partial(_terms, method=self.method), memory_budget_mb, on_oom))

    @property
    def note(self) -> str:
        """Why the method is not what the shapes would choose, and what was done where memory ran out."""
        return "; ".join(filter(None, (self._reason, self._sum.note)))

    def diagonal(self) -> Tensor:
        """The diagonal [P], exact: Σ (Jᵀeᵢ) ∘ (JᵀMeᵢ) over all outputs i, two backward passes for each, example by example.

        Cheaper than P products where the data have fewer outputs in all than the net has parameters. ValueError where batches
        can't be cut into examples. A regulariser's part takes a product with its Hessian for each parameter.
        """
        with undisturbed(self.device):
            return _diagonal(self.surface)

    def __repr__(self) -> str:
        return self._told(f"method={self.method!r}")


def _terms(surface: LossSurface, method: JacobianMethod) -> Iterator[WeightedTerm]:
    """For each batch J the outputs' derivative and M the loss's Hessian in them; for the regulariser its own Hessian."""
    for weight, batch in surface.objective.weighted_batches():
        prepared = partial(jacobian_product, surface, batch, map_to_outputs, method)
        yield WeightedTerm(weight, prepared, prepared)
    if surface.objective.regularizer is not None:
        prepared = partial(retained_hessian, surface, surface.objective.penalty)
        yield WeightedTerm(1.0, prepared, prepared)


def _diagonal(surface: LossSurface) -> Tensor:
    total = torch.zeros_like(surface.origin)
    for weight, batch in _cut_into_examples(surface).objective.weighted_batches():
        total.add_(_batch_diagonal(surface, batch), alpha=weight)
    if surface.objective.regularizer is not None:
        total.add_(_diagonal_by_columns(retained_hessian(surface, surface.objective.penalty), total))
    return total


def _by_rule(surface: LossSurface) -> tuple[JacobianMethod, ...]:
    _, batch = next(surface.objective.weighted_batches())
    with undisturbed(surface.device), torch.no_grad():
        outputs = surface.objective.outputs(surface.layout.unflatten(surface.origin), batch)
    require_one_tensor(outputs)
    many = outputs.numel() > MANY_OUTPUTS * len(tensors_in(batch[0])[0])
    return ("streamed", "retained", "finite_differences") if many else METHODS


def _in_quarters(surface: LossSurface) -> LossSurface:
    """The surface with each batch cut in four, where that is the same loss: ∇²ℓ in float64 takes what four outputs do."""
    for _ in range(2):
        try:
            surface = surface.in_halves()
        except ValueError:
            break
    return surface


def map_to_outputs(surface: LossSurface, batch: Any) -> tuple[Values, Callable[[Tensor], Middle]]:
    """The net's outputs, and the Hessian of the batch's loss in them."""

    def outputs(parameters: Parameters) -> Tensor:
        made = surface.objective.outputs(parameters, batch)
        require_one_tensor(made)
        return made

    return outputs, partial(_loss_hessian, surface, batch)


def _loss_hessian(surface: LossSurface, batch: Any, outputs: Tensor) -> Middle:
    """Products with the Hessian of the batch's loss in the net's outputs."""
    criterion = require_criterion(surface, THE_MATRIX)
    with surface.objective.batch_losses.drawing_on(batch), torch.enable_grad():
        point = outputs.detach().requires_grad_()
        (slope,) = torch.autograd.grad(criterion(point, batch[1]), [point], create_graph=True)
    return lambda vector: vjp([slope], [point], [vector])[0] if slope.requires_grad else torch.zeros_like(vector)


def _cut_into_examples(surface: LossSurface) -> LossSurface:
    while any(len(tensors_in(batch[0])[0]) > 1 for batch in surface.objective.batches):
        surface = surface.in_halves()
    return surface


def _batch_diagonal(surface: LossSurface, batch: Any) -> Tensor:
    leaves = surface.leaves()
    with torch.enable_grad():
        outputs = surface.objective.outputs(leaves, batch)
        require_one_tensor(outputs)
    total, middle = torch.zeros_like(surface.origin), _loss_hessian(surface, batch, outputs)
    for index in range(outputs.numel() if outputs.requires_grad else 0):
        unit = torch.zeros_like(outputs)
        unit.view(-1)[index] = 1
        row, image = (flat(vjp([outputs], list(leaves.values()), [along])) for along in (unit, middle(unit)))
        total.addcmul_(row, image)
    return total


def _diagonal_by_columns(matrix: BatchMatrix, like: Tensor) -> Tensor:
    found = torch.zeros_like(like)
    for index in range(len(like)):
        unit = torch.zeros_like(like)
        unit[index] = 1
        found[index] = matrix.product(unit)[index]
    return found


def require_one_tensor(outputs: Any) -> None:
    """Raise TypeError where a net gives something else than one tensor."""
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"the Gauss–Newton and Fisher matrices need a net that gives one tensor, got {type(outputs).__name__}; wrap the net "
            "to give only what the loss depends on, or use HessianOperator"
        )
