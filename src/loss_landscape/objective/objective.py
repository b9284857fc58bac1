"""What is minimised: net × criterion or batch loss × regulariser × batches."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from loss_landscape.objective.batch_loss import BatchLoss, ModelWithLoss, rehearsed_function
from loss_landscape.objective.batch_weights import BatchWeights, batch_weights
from loss_landscape.objective.batches import Batches
from loss_landscape.objective.criterion import Criterion, LossFunction
from loss_landscape.objective.functional_net import FunctionalNet, Parameters, check_callable_with_other_parameters, undisturbed
from loss_landscape.objective.own_modes import require_same_loss_in_own_eval_mode
from loss_landscape.objective.rehearsal import Rehearsal
from loss_landscape.objective.used_parameters import UsedParameters, used_parameters
from loss_landscape.randomness import GeneratorLike, generator_from

BatchNorm = Literal["running", "batch", "recompute"]


@dataclass(frozen=True, eq=False)
class Objective:
    """A weighted mean of `batch_losses` over fixed batches, plus a regulariser, as a function of parameters by name.

    It knows no point and no direction; parameters that are not given are the net's own. `used` are the trainable parameters that
    the loss depends on.
    """

    batch_losses: BatchLoss
    regularizer: ModelWithLoss | None
    batches: Batches
    batch_norm: BatchNorm
    batch_weights: BatchWeights
    used: UsedParameters

    @property
    def net(self) -> FunctionalNet:
        """The net as a function of its parameters."""
        return self.batch_losses.net

    @property
    def criterion(self) -> Criterion | None:
        """The criterion of outputs and targets, or None where the loss is one of model and batch."""
        return self.batch_losses.criterion

    @property
    def dtype(self) -> torch.dtype:
        """What the net is evaluated in."""
        return self.net.dtype

    @property
    def device(self) -> torch.device:
        """Where everything lies."""
        return self.net.device

    @property
    def activation_bytes(self) -> int:
        """What the net's modules give out for a batch."""
        return self.used.activation_bytes

    @property
    def batch_norm_note(self) -> str:
        """Where `batch_norm` was given and changes nothing, that in a sentence; else ""."""
        norms = (nn.modules.batchnorm._BatchNorm,)
        if self.batch_norm == "running" or any(isinstance(module, norms) for module in self.net.module.modules()):
            return ""
        return f"batch_norm={self.batch_norm!r} changes nothing: no module is a batch norm of torch's, and others are as they are"

    def unmoved(self, moved: Collection[str]) -> dict[str, str]:
        """What is not among the `moved` parameters, by name, and why: unused, frozen, left out on request, or outside the net."""
        reasons = {
            name: "left out" if name in self.used.names else "unused" if parameter.requires_grad else "frozen"
            for name, parameter in self.net.module.named_parameters()
        }
        shapes = Counter(stranger.shape for stranger in self.net.rules.strangers)
        outside = {f"{count} × {list(shape)}": "outside the net" for shape, count in shapes.items()}
        return {name: reason for name, reason in reasons.items() if name not in moved} | outside

    def outputs(self, parameters: Parameters, batch: Any, dtype: torch.dtype | None = None) -> Any:
        """What the net gives for a batch of (inputs, targets) at `parameters`, in `dtype`, the objective's unless given."""
        return self.batch_losses.outputs(parameters, batch, dtype)

    def batch_loss(self, parameters: Parameters, batch: Any, dtype: torch.dtype | None = None) -> Tensor:
        """The loss of one batch at `parameters`, a scalar to be differentiated; `dtype` is as in `outputs`."""
        return self.batch_losses(parameters, batch, dtype)

    def penalty(self, parameters: Parameters) -> Tensor:
        """The regulariser at `parameters`, a scalar to be differentiated; only where there is one."""
        if self.regularizer is None:
            raise ValueError("this objective has no regulariser")
        with self.net.drawing(()):
            return self.regularizer.at(self.net, parameters, None)

    def terms(self) -> Iterator[tuple[float, Callable[[Parameters], Tensor]]]:
        """The loss as a sum: a weight and a function of parameters, for each batch and the regulariser."""
        for weight, batch in self.weighted_batches():
            yield weight, functools.partial(self.batch_losses, batch=batch)
        if self.regularizer is not None:
            yield 1.0, self.penalty

    def weighted_batches(self) -> Iterator[tuple[float, Any]]:
        """Each batch with its weight in the loss; those that weigh nothing are left out."""
        pairs = zip(self.batch_weights.values, self.batches, strict=True)
        return ((weight, batch) for weight, batch in pairs if weight != 0)

    def loss(self, parameters: Parameters) -> Tensor:
        """The loss at `parameters`, without a gradient."""
        terms = [weight * term(parameters).detach() for weight, term in self.at(parameters).terms()]
        return sum(terms[1:], start=terms[0])

    def gradient(self, leaves: Mapping[str, Tensor]) -> list[Tensor]:
        """The gradient with respect to each of `leaves`, parameters that require one; batch norm's statistics are held fixed."""
        total = [torch.zeros_like(leaf) for leaf in leaves.values()]
        for weight, term in self.at({name: leaf.detach() for name, leaf in leaves.items()}).terms():
            with torch.enable_grad():
                loss = term(leaves)
            if loss.requires_grad:  # else this term depends on none of the parameters that move
                total = [part + weight * slope for part, slope in zip(total, gradients(loss, leaves.values()), strict=True)]
        return total

    def at(self, parameters: Parameters) -> Objective:
        """The objective to ask for the loss at `parameters`: with their own statistics where these are recomputed."""
        if self.batch_norm != "recompute":
            return self
        inputs = (batch[0] for batch in self.batches)
        return self._with_net(self.net.with_recomputed_statistics(parameters, inputs))

    def holding(self, parameters: Parameters) -> Objective:
        """The same objective with `parameters` as the net's own, which those hold that are not given."""
        return self._with_net(self.net.with_parameters(parameters))

    def in_dtype(self, dtype: torch.dtype, *, but: Collection[str] = ()) -> Objective:
        """The same objective, evaluated in another dtype; every call gives the parameters called `but`, in that dtype."""
        return replace(self._with_net(self.net.in_dtype(dtype, but=but)), batches=self.batches.in_dtype(dtype))

    def on(self, device: torch.device) -> Objective:
        """The same objective on another device."""
        return replace(self._with_net(self.net.on(device)), batches=self.batches.on(device))

    def with_batch_statistics(self) -> Objective:
        """The same objective with `batch_norm="batch"`."""
        if self.batch_norm == "batch":
            return self
        return replace(self._with_net(self.net.with_batch_statistics()), batch_norm="batch")

    def in_halves(self, parameters: Parameters) -> Objective:
        """The same objective with every batch cut in two, weighed at `parameters`; ValueError where that changes the loss."""
        if self.batch_norm != "running":
            raise ValueError(f"with batch_norm={self.batch_norm!r} the loss depends on how the data are cut into batches")
        if self.net.rules.draws:
            raise ValueError("the net draws random numbers, others for each batch")
        batches = self.batches.in_halves()
        with undisturbed(self.device):
            weights = batch_weights(self.batch_losses, batches, parameters, self.batch_weights.given)
        return replace(self, batches=batches, batch_weights=weights)

    def _with_net(self, net: FunctionalNet) -> Objective:
        regularizer = None if self.regularizer is None else self.regularizer.around(net)
        return replace(self, batch_losses=self.batch_losses.with_net(net), regularizer=regularizer)


def objective_of(
    model: nn.Module,
    loss_fn: LossFunction | None,
    batches: Any,
    *,
    batch_loss: Callable[[nn.Module, Any], Tensor] | None = None,
    batch_weight: Callable[[Any], float] | None = None,
    dtype: torch.dtype | None = None,
    batch_norm: BatchNorm = "running",
    regularizer: Callable[[nn.Module], Tensor] | None = None,
    generator: GeneratorLike = None,
) -> Objective:
    """The objective of a user's net as it is now; the arguments and the errors are those of `LossSurface`."""
    _check_choices(loss_fn, batch_loss, batch_norm)
    _check_types(loss_fn, dtype, {"batch_weight(batch)": batch_weight, "regularizer(model)": regularizer})
    check_callable_with_other_parameters(model)
    model = unwrapped(model)
    _check_that_it_moves(loss_fn, model)
    net = FunctionalNet.of(model, dtype)
    net = replace(net, rules=replace(net.rules, seed=_seed_from(generator_from(generator))))
    converted = any(p.dtype != net.dtype for p in model.parameters() if p.is_floating_point())
    if batch_norm == "batch":
        net = net.with_batch_statistics()
    with undisturbed(net.device):
        if loss_fn is not None and _is_one_batch(batches):
            batches = [batches]
        fixed = Batches(batches, net.device, net.dtype if converted else None)
        rehearsal = Rehearsal(model, next(iter(fixed)))
        losses = _losses(net, loss_fn, batch_loss, rehearsal)
        if batch_norm == "recompute":
            net = losses.net.with_recomputed_statistics({}, (batch[0] for batch in fixed))
            losses = losses.with_net(net)
        else:
            require_same_loss_in_own_eval_mode(model, losses, rehearsal.batch)
        penalty = None
        if regularizer is not None:
            net, penalty = rehearsed_function(losses.net, lambda net, _: regularizer(net), rehearsal)
            losses = losses.with_net(net)
        objective = _used_and_weighed(losses, penalty, fixed, batch_norm, batch_weight)
    return objective


def _seed_from(generator: torch.Generator) -> int:
    return int(torch.randint(2**32, (), generator=generator, device=generator.device))


def _losses(
    net: FunctionalNet, loss_fn: LossFunction | None, batch_loss: Callable[[nn.Module, Any], Tensor] | None, rehearsal: Rehearsal
) -> BatchLoss:
    if batch_loss is not None:
        return BatchLoss.of_function(net, batch_loss, rehearsal)
    assert loss_fn is not None  # one of the two is there
    return BatchLoss.of_criterion(net, loss_fn, rehearsal)


def _used_and_weighed(
    losses: BatchLoss,
    penalty: ModelWithLoss | None,
    batches: Batches,
    batch_norm: BatchNorm,
    batch_weight: Callable[[Any], float] | None,
) -> Objective:
    net = losses.net
    trainable = {name: net.parameters[name] for name, p in net.module.named_parameters() if p.requires_grad}
    added = None if penalty is None else functools.partial(penalty.at, net, batch=None)
    used = used_parameters(losses, batches, trainable, added)
    leaves = {name: trainable[name].clone().requires_grad_() for name in used.names}
    weights = batch_weights(losses, batches, leaves, batch_weight)
    return Objective(losses, penalty, batches, batch_norm, weights, used)


def unwrapped(model: nn.Module) -> nn.Module:
    """The net inside DataParallel and `torch.compile`, whose parameters have its own names; any other as it is."""
    while isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel) or "_orig_mod" in model._modules:
        (model,) = model.children()
    return model


def gradients(loss: Tensor, leaves: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """The gradient of a scalar with respect to each of `leaves`, zeros where it does not depend on one."""
    found = torch.autograd.grad(loss, list(leaves), allow_unused=True, materialize_grads=True)
    return tuple(slope.to_dense() if slope.is_sparse else slope for slope in found)


def _check_choices(loss_fn: LossFunction | None, batch_loss: Callable[..., Tensor] | None, batch_norm: str) -> None:
    if (loss_fn is None) == (batch_loss is None):
        raise ValueError("give exactly one of loss_fn(outputs, targets) and batch_loss(model, batch)")
    if batch_norm not in ("running", "batch", "recompute"):
        raise ValueError(f"batch_norm must be 'running', 'batch' or 'recompute', got {batch_norm!r}")
    if batch_norm == "recompute" and loss_fn is None:
        raise ValueError("batch_norm='recompute' needs to know a batch's inputs: give loss_fn(outputs, targets)")


def _check_types(loss_fn: Any, dtype: Any, functions: Mapping[str, Any]) -> None:
    if isinstance(loss_fn, type):
        raise TypeError(f"loss_fn is the class {loss_fn.__name__}; give an instance of it, {loss_fn.__name__}()")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"dtype must be a floating-point dtype of torch, such as torch.float64, got {dtype!r}")
    for call, function in functions.items():
        if function is not None and not callable(function):
            raise TypeError(f"expected a function, called as {call}, got {function!r}")


def _is_one_batch(batches: Any) -> bool:
    """Whether (inputs, targets) came in place of a list of such."""
    return isinstance(batches, tuple | list) and len(batches) == 2 and all(isinstance(part, Tensor) for part in batches)


def _check_that_it_moves(loss_fn: LossFunction | None, model: nn.Module) -> None:
    if isinstance(loss_fn, nn.Module) and {id(p) for p in loss_fn.parameters()} & {id(p) for p in model.parameters()}:
        raise ValueError(
            "loss_fn holds parameters of the net, which it would not see move; give batch_loss=f(model, batch), to the Writer "
            "custom_loss_fn="
        )
