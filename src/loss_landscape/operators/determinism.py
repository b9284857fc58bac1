"""Whether a surface gives the same numbers each time, and what is to blame where it does not."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from loss_landscape.nested import tensors_in
from loss_landscape.objective.functional_net import undisturbed
from loss_landscape.operators.hessian import HessianOperator
from loss_landscape.surface.surface import LossSurface, require_surface

DROPOUTS = (nn.modules.dropout._DropoutNd,)


def check_deterministic(surface: LossSurface) -> None:
    """Check that a `surface`'s batches, loss, gradient and products with its Hessian are the same twice.

    Otherwise it raises a ValueError that names the culprit: batches that differ between passes, a dropout that is active in eval
    mode, a batch norm in training mode, another module that draws random numbers, or, where none of them is found, how far two
    evaluations differ. Costs three passes over the data for the loss, two for the gradient and two products, so it is run on
    request: what it finds changes a number in silence, an operator's own kept graphs do not.

    >>> check_deterministic(surface)
    >>> class Noisy(nn.Linear):
    ...     def forward(self, inputs):
    ...         return nn.functional.dropout(super().forward(inputs))
    >>> check_deterministic(LossSurface(Noisy(2, 1), nn.MSELoss(), batches))
    Traceback (most recent call last):
    ...
    ValueError: the net (Noisy) draws random numbers (aten...), and the loss is that of one draw, which the surface holds; ...
    """
    require_surface(surface)
    _require_same_batches(surface)
    _require_no_randomness(surface)
    direction = torch.ones_like(surface.origin)
    _require_same("loss", lambda: surface.losses(points=surface.origin[None]))
    _require_same("gradient", surface.gradient)
    operator = HessianOperator(surface, memory_budget_mb=0)  # computes its graphs anew for each product
    _require_same("product with the Hessian", lambda: operator @ direction)


class _RandomnessDetector(TorchDispatchMode):
    """A context that raises where a module of the net draws random numbers, or normalises by the batch unasked."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self._names = {module: name or "the net" for name, module in net.named_modules()}
        self._inside: list[nn.Module] = []
        self._hooks: list[Any] = []

    def __enter__(self) -> _RandomnessDetector:
        for module in self._names:
            self._hooks.append(module.register_forward_pre_hook(lambda module, _: self._inside.append(module), prepend=True))
            self._hooks.append(module.register_forward_hook(lambda *_: self._leave(), always_call=True))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in function.tags:
            raise ValueError(self._draws(function))
        given = dict(zip((argument.name for argument in function._schema.arguments), args, strict=False)) | kwargs
        if given.get("training") and given.get("running_mean") is not None:
            raise ValueError(
                f"{self._here} normalises by each batch's own statistics though the surface was built with "
                "batch_norm='running', so the loss depends on how the data are cut into batches: a module is put into training "
                "mode inside forward; take that out, or give batch_norm='batch'"
            )
        return function(*args, **kwargs)

    def _leave(self) -> None:
        self._inside.pop()

    def _draws(self, function: Any) -> str:
        if self._inside and isinstance(self._inside[-1], DROPOUTS):
            return (
                f"{self._here} is active though the net is in eval mode, and the loss is that of one draw, which the surface "
                "holds: a module is put into training mode inside forward, or overrides train(); take that out"
            )
        return (
            f"{self._here} draws random numbers ({function}), and the loss is that of one draw, which the surface holds; let it "
            "draw in training mode only (F.dropout needs training=self.training), or from a generator that forward seeds"
        )

    @property
    def _here(self) -> str:
        if not self._inside:
            return "the loss"
        module = self._inside[-1]
        return f"{self._names[module]} ({type(module).__name__})"


def _require_same_batches(surface: LossSurface) -> None:
    for index, (first, second) in enumerate(zip_longest(surface.objective.batches, surface.objective.batches)):
        if first is None or second is None or not _equal(first, second):
            raise ValueError(
                f"batch {index} is another one in the second pass over the data: the loader shuffles or augments at random; give "
                "a list of batches, or a loader with a fixed order and fixed transforms"
            )


def _equal(first: Any, second: Any) -> bool:
    pairs = list(zip_longest(tensors_in(first), tensors_in(second)))
    return all(a is not None and b is not None and a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


def _require_no_randomness(surface: LossSurface) -> None:
    parameters = surface.layout.unflatten(surface.origin)
    with undisturbed(surface.device), torch.no_grad(), _RandomnessDetector(surface.objective.net.module):
        for _, loss in surface.objective.terms():
            loss(parameters)
    if sources := [source for source in surface.objective.net.rules.draws if source != "torch"]:
        raise ValueError(
            f"the net or the loss draws random numbers of {' and '.join(sources)}, and the loss is that of one draw, which the "
            "surface holds; let it draw in training mode only"
        )


def _require_same(what: str, evaluate: Callable[[], Tensor]) -> None:
    first, second = evaluate(), evaluate()
    difference = float((first - second).double().norm() / first.double().norm().clamp(min=1e-300))
    if difference > (1e-9 if first.dtype == torch.float64 else 1e-5):
        raise ValueError(
            f"the {what} differs by {difference:.1e}, relatively, between two evaluations at the same point: the net or the loss "
            "remembers its calls or draws from a generator of its own, or an operation is not "
            "deterministic here (see torch.use_deterministic_algorithms)"
        )
