"""The empirical Fisher matrix of a loss surface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

from torch import Tensor

from loss_landscape.objective.functional_net import Parameters
from loss_landscape.operators.batch_sum import BatchSum, DeviceFallback, WeightedTerm
from loss_landscape.operators.gauss_newton import METHODS, require_one_tensor
from loss_landscape.operators.jacobian_products import JacobianMethod, Middle, Values, first_that_works, jacobian_product
from loss_landscape.operators.surface_operator import SummedOperator, require_criterion, require_surface_alone
from loss_landscape.surface.surface import LossSurface

THE_MATRIX = "the empirical Fisher matrix"
Sample = Literal["example", "position"]


class EmpiricalFisherOperator(SummedOperator):
    """Σ gᵢgᵢᵀ / D over a `surface`'s examples: gᵢ the gradient of an example's summed loss, D what the criterion divides by.

    The scale of the Gauss–Newton matrix and of `SampledFisherOperator`, whose labels are drawn where these are the data's; a
    class weight counts once, gᵢgᵢᵀ/wᵢ. With `per="position"` each target of an example (a pixel, a token; of real targets their
    last dimension) has a gradient of its own, and with "example" these are added up first. A function that says not what it
    divides by counts as a mean over examples. A regulariser belongs to no example and is left out.

    Which derivatives it takes, `.method` and `.note` tell, as in `GaussNewtonOperator`. Memory is used as by `HessianOperator`:
    `memory_budget_mb`, in MiB, and `on_oom` are the same. Raises TypeError for what is no surface, something `beside` one, or a
    net that gives more than one tensor, ValueError for a surface with `batch_loss`.

    >>> EmpiricalFisherOperator(surface) @ torch.eye(2)  # the mean of gᵢgᵢᵀ, g = (8, 0) and (0, 2)
    tensor([[32.,  0.],
            [ 0.,  2.]])
    """

    def __init__(
        self,
        surface: LossSurface,
        *beside: object,
        per: Sample = "example",
        memory_budget_mb: int = 2048,
        on_oom: DeviceFallback = "error",
    ):
        require_surface_alone(surface, type(self), *beside)
        require_criterion(surface, THE_MATRIX)
        if per not in ("example", "position"):
            raise ValueError(f"per must be 'example' or 'position', got {per!r}")
        map_of = partial(_map_to_losses, per=per)
        self.method: JacobianMethod
        self.method, exact, self._reason = first_that_works(surface, map_of, METHODS)
        terms = partial(_terms, method=self.method, per=per)
        super().__init__(surface, BatchSum(exact, terms, memory_budget_mb, on_oom))

    @property
    def note(self) -> str:
        """Why the method is not the first choice, and what was done where memory ran out."""
        return "; ".join(filter(None, (self._reason, self._sum.note)))


def _terms(surface: LossSurface, method: JacobianMethod, per: Sample) -> Iterator[WeightedTerm]:
    """For each batch J the derivative of the examples' own losses and M the diagonal of what each counts."""
    for weight, batch in surface.objective.weighted_batches():
        prepared = partial(jacobian_product, surface, batch, partial(_map_to_losses, per=per), method)
        yield WeightedTerm(weight, prepared, prepared)


def _map_to_losses(surface: LossSurface, batch: Any, per: Sample) -> tuple[Values, Callable[[Tensor], Middle]]:
    criterion = require_criterion(surface, THE_MATRIX)
    counts: list[Tensor] = []  # of the last call

    def losses(parameters: Parameters) -> Tensor:
        outputs = surface.objective.outputs(parameters, batch)
        require_one_tensor(outputs)
        rows = (outputs, batch[1]) if per == "example" else _positions(outputs, batch[1])
        with surface.objective.batch_losses.drawing_on(batch):
            found, counts[:] = criterion.example_losses(*rows)
        return found

    return losses, lambda _: lambda vector: counts[0] * vector


def _positions(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and targets with a row for each position."""
    if outputs.dim() == targets.dim() + 1:  # classes, their scores in dimension 1
        return outputs.movedim(1, -1).reshape(-1, outputs.shape[1]), targets.reshape(-1)
    return outputs.reshape(-1, outputs.shape[-1]), targets.reshape(-1, targets.shape[-1])
