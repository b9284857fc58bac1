"""Products with the Hessians of a surface's terms, by differentiating their gradients once more."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.func import grad, jvp

from loss_landscape.graphs.recording import Recording
from loss_landscape.graphs.tracing import UntraceableError
from loss_landscape.objective.functional_net import Parameters
from loss_landscape.operators.batch_sum import TENSORS_KEPT_AN_ACTIVATION, BatchMatrix, WeightedTerm
from loss_landscape.surface.surface import LossSurface

TermLoss = Callable[[Parameters], Tensor]


def traced_terms(surface: LossSurface) -> Iterator[WeightedTerm]:
    """Forward over reverse: the gradient's derivative along a vector, with all that does not depend on the vector kept."""
    for weight, loss in surface.objective.terms():
        yield WeightedTerm(weight, partial(_traced, surface, loss), partial(retained_hessian, surface, loss))


def retained_terms(surface: LossSurface) -> Iterator[WeightedTerm]:
    """Reverse over reverse: the gradient with its graph, differentiated backwards."""
    for weight, loss in surface.objective.terms():
        prepared = partial(retained_hessian, surface, loss)
        yield WeightedTerm(weight, prepared, prepared)


def forward_products(surface: LossSurface, loss: TermLoss, vectors: Tensor) -> Tensor:
    """The products of a term's Hessian with `vectors` [P, K], by the derivatives that `traced_terms` records."""
    point, layout = surface.layout.unflatten(surface.origin), surface.layout
    columns = [jvp(grad(loss), (point,), (layout.unflatten(vector.contiguous()),))[1] for vector in vectors.T]
    return torch.stack([layout.flatten(column) for column in columns], dim=1)


def retained_products(surface: LossSurface, loss: TermLoss, vectors: Tensor) -> Tensor:
    """The same by the derivatives of `retained_terms`."""
    matrix = retained_hessian(surface, loss)
    return torch.stack([matrix.product(vector.contiguous()) for vector in vectors.T], dim=1)


def retained_hessian(surface: LossSurface, loss: TermLoss) -> BatchMatrix:
    """A term's Hessian by the graph of its gradient."""
    leaves = surface.leaves()
    with torch.enable_grad():
        value = loss(leaves)
        parts = list(leaves.values())
        slopes = (
            torch.autograd.grad(value, parts, create_graph=True, allow_unused=True, materialize_grads=True)
            if value.requires_grad
            else [torch.zeros_like(part) for part in parts]
        )
    require_twice_differentiable(slopes)
    graph = GradientGraph(parts, list(slopes), surface.layout.names)
    held = TENSORS_KEPT_AN_ACTIVATION * surface.objective.activation_bytes
    return BatchMatrix(lambda vector: graph.hvp(surface.layout.unflatten(vector)), held)


@dataclass
class GradientGraph:
    """A term's gradient with its graph; its derivative along a vector is a product with the Hessian."""

    leaves: list[Tensor]
    slopes: list[Tensor]
    names: tuple[str, ...]

    def hvp(self, vector: Parameters) -> Tensor:
        """The Hessian–vector product, the derivative of ⟨gradient, vector⟩, [P]."""
        live = [(slope, vector[name]) for slope, name in zip(self.slopes, self.names, strict=True) if slope.requires_grad]
        if not live:  # the term is linear in the parameters
            return torch.cat([torch.zeros_like(leaf).reshape(-1) for leaf in self.leaves])
        slopes, parts = zip(*live, strict=True)
        return flat(vjp(slopes, self.leaves, parts))


def require_twice_differentiable(slopes: Iterable[Tensor]) -> None:
    """Raise RuntimeError where a gradient has been through a function that is differentiable only once.

    torch.autograd.grad takes such a function's gradient for a constant, without a word, and the matrix would lack a part.
    """
    slopes = list(slopes)
    if any(slope.is_sparse for slope in slopes):
        raise RuntimeError("a sparse gradient has no second derivative")
    waiting = [slope.grad_fn for slope in slopes if slope.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node.name() == "torch::autograd::Error":
            raise RuntimeError("one of the net's functions is marked once_differentiable")
        new = {following for following, _ in node.next_functions if following is not None} - seen
        seen |= new
        waiting += new


def vjp(values: Sequence[Tensor], leaves: Sequence[Tensor], along: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The vector–Jacobian product: the derivative of ⟨values, along⟩ in `leaves`, with the graph kept for the next one."""
    return torch.autograd.grad(values, leaves, grad_outputs=along, retain_graph=True, allow_unused=True, materialize_grads=True)


def flat(parts: tuple[Tensor, ...]) -> Tensor:
    """The parts in one vector."""
    return torch.cat([part.reshape(-1) for part in parts])


def _traced(surface: LossSurface, loss: TermLoss) -> BatchMatrix:
    point = surface.layout.unflatten(surface.origin)

    def product(*parts: Tensor) -> tuple[Tensor, ...]:
        vector = dict(zip(surface.layout.names, parts, strict=True))
        return tuple(jvp(grad(loss), (point,), (vector,))[1].values())

    recording = _recorded(product, list(point.values()))
    return BatchMatrix(lambda vector: flat(recording(*surface.layout.unflatten(vector).values())), recording.num_bytes)


def _recorded(product: Callable[..., tuple[Tensor, ...]], like: list[Tensor]) -> Recording:
    draw = torch.Generator().manual_seed(0)
    probe = [torch.randn(part.shape, generator=draw, dtype=torch.float64).to(part) for part in like]
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)  # torch's own, at the first jvp
            product(*probe)  # what raises here would crash Python while it is recorded, MSELoss's backward does in torch 2.15
            return Recording(product, probe)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise UntraceableError(f"the gradient has no forward derivative that can be traced ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
