"""The Fisher matrix over the labels that the net itself would give, sampled or Kronecker-factored, through curvlinops."""

from __future__ import annotations

import copy
import importlib
import math
from collections import Counter
from importlib import metadata
from itertools import chain
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loss_landscape.nested import tensors_in
from loss_landscape.objective.functional_net import called, spread, undisturbed
from loss_landscape.operators.surface_operator import SurfaceOperator, require_criterion, require_surface_alone
from loss_landscape.randomness import GeneratorLike, generator_from
from loss_landscape.surface.surface import LossSurface

TOO_NEW = 4  # curvlinops' major version
KNOWN = (nn.MSELoss, nn.CrossEntropyLoss, nn.BCEWithLogitsLoss)
FUNCTIONS = {
    F.mse_loss: nn.MSELoss,
    F.cross_entropy: nn.CrossEntropyLoss,
    F.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss,
}


class SampledFisherOperator(SurfaceOperator):
    """The Fisher matrix of a `surface` with `num_samples` labels an example drawn from the net's own predictions.

    Its mean over draws is the Gauss–Newton matrix. The draws are made once, from `generator` (None: the same ones at every call).
    For MSELoss (a Gaussian of variance 1/2), CrossEntropyLoss and BCEWithLogitsLoss without weights; a regulariser is left out.
    Needs the extra `curvature`. Raises TypeError for what is no surface, ValueError for another loss or other weights of batches,
    ImportError without curvlinops.

    >>> sampled = SampledFisherOperator(surface, num_samples=4)
    >>> sampled.columns([0, 1]).diagonal() >= 0
    tensor([True, True])
    """

    def __init__(self, surface: LossSurface, *, num_samples: int = 1, generator: GeneratorLike = None):
        require_surface_alone(surface, type(self))
        super().__init__(surface)
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        source = _Source(surface, "the sampled Fisher matrix")
        self._theirs = source.given_to("FisherMCLinearOperator", seed=_seed(generator), mc_samples=num_samples)

    def matmat(self, vectors: Tensor) -> Tensor:
        return _one_by_one(self._theirs, vectors)


class KroneckerFactoredOperator(SurfaceOperator):
    """K-FAC of a `surface`: a Kronecker product a layer, of the second moments of its inputs and of its outputs' gradients.

    Martens & Grosse 2015. Approximates the Gauss–Newton matrix block by block, weights and biases apart; shared positions
    (pixels, tokens) count as examples (Eschenhagen et al. 2023, "expand"). The gradients' moments are exact, by as many backward
    passes as there are outputs, or from `num_samples` labels drawn from the net's own predictions by `generator`. For nn.Linear
    and nn.Conv2d that are used once, and losses as in `SampledFisherOperator`; restrict the surface to such layers. It needs the
    extra `curvature`, and raises as that does.

    >>> (KroneckerFactoredOperator(surface) @ torch.eye(2)).round(decimals=3)  # one layer, one output: Gauss–Newton itself
    tensor([[4., 0.],
            [0., 1.]])
    """

    def __init__(self, surface: LossSurface, *, num_samples: int | None = None, generator: GeneratorLike = None):
        require_surface_alone(surface, type(self))
        super().__init__(surface)
        source = _Source(surface, "K-FAC")
        source.require_plain_layers()
        kind = {"fisher_type": "type-2"} if num_samples is None else {"fisher_type": "mc", "mc_samples": num_samples}
        self._theirs = source.given_to("KFACLinearOperator", seed=_seed(generator), **kind)
        with undisturbed(surface.device), torch.enable_grad():
            self._theirs.compute_kronecker_factors()

    def matmat(self, vectors: Tensor) -> Tensor:
        return _one_by_one(self._theirs, vectors)


class _Source:
    """A surface as curvlinops wants it: a real net at the origin, a loss it knows, the moving parameters in order, batches."""

    def __init__(self, surface: LossSurface, what: str):
        self.criterion = require_criterion(surface, what)
        self._curvlinops = _curvlinops()
        self.surface, self.what = surface, what
        self.loss_fn = self._known_loss()
        self.batches = [(batch[0], batch[1]) for _, batch in surface.objective.weighted_batches()]
        self._require_plain_targets()
        self._require_equal_weights()
        rules = surface.objective.net.rules
        if rules.outside:
            raise ValueError(f"{what} is not known for a net that reads its parameters by a closure; use GaussNewtonOperator")
        self.net = _OnInputs(_real_net(surface), whole=rules.whole_inputs)
        self.parameters = [self.net.net.get_parameter(name) for name in surface.layout.names]

    def given_to(self, kind: str, **options: Any) -> Any:
        """The operator of this name in curvlinops."""
        with undisturbed(self.surface.device):
            return getattr(self._curvlinops, kind)(
                self.net,
                self.loss_fn,
                self.parameters,
                self.batches,
                check_deterministic=False,
                num_data=sum(map(_count, self.batches)),
                batch_size_fn=_length,
                **options,
            )

    def require_plain_layers(self) -> None:
        """Raise ValueError unless every moving parameter is the weight or bias of a linear or convolution layer used once."""
        net = self.net.net
        owners = Counter(id(p) for _, p in net.named_parameters(remove_duplicate=False))
        calls = self._calls_of_one_pass()
        for name in self.surface.layout.names:
            owner, _, role = name.rpartition(".")
            layer = net.get_submodule(owner)
            known = type(layer) in (nn.Linear, nn.Conv2d) and role in ("weight", "bias") and getattr(layer, "groups", 1) == 1
            if not known or owners[id(net.get_parameter(name))] > 1 or calls[layer] > 1:
                raise ValueError(
                    f"K-FAC knows nn.Linear and ungrouped nn.Conv2d layers that are used once and share no parameter, but "
                    f"{name!r} belongs to another kind or use of {type(layer).__name__}; leave it out by surface.restricted(...)"
                )

    def _calls_of_one_pass(self) -> Counter[nn.Module]:
        calls: Counter[nn.Module] = Counter()
        hooks = [m.register_forward_hook(lambda module, *_: calls.update([module])) for m in self.net.net.modules()]
        with undisturbed(self.surface.device), torch.no_grad():
            self.net(self.batches[0][0])
        for hook in hooks:
            hook.remove()
        return calls

    def _known_loss(self) -> nn.Module:
        given = self.criterion.function
        kind = FUNCTIONS.get(given) if not isinstance(given, nn.Module) else type(given)
        plain = all(getattr(given, name, None) is None for name in ("weight", "pos_weight"))
        if kind not in KNOWN or not plain or getattr(given, "label_smoothing", 0.0) > 0:
            raise ValueError(
                f"{self.what} is known for MSELoss, CrossEntropyLoss and BCEWithLogitsLoss without weights or label smoothing, "
                f"got {given}; use GaussNewtonOperator, which is its mean over the net's own labels"
            )
        return kind(reduction=str(self.criterion.reduction))

    def _require_plain_targets(self) -> None:
        for _, targets in self.batches:
            if isinstance(self.loss_fn, nn.CrossEntropyLoss):
                ignored = getattr(self.criterion.function, "ignore_index", -100)
                plain = not targets.is_floating_point() and bool((targets != ignored).all())
            else:
                plain = isinstance(self.loss_fn, nn.MSELoss) or bool(((targets == 0) | (targets == 1)).all())
            if not plain:
                raise ValueError(
                    f"{self.what} needs targets that are classes, none ignored (0 or 1 for BCE); use GaussNewtonOperator"
                )

    def _require_equal_weights(self) -> None:
        total, rule = sum(map(_count, self.batches)), self.surface.objective.batch_weights.rule
        for (weight, _), batch in zip(self.surface.objective.weighted_batches(), self.batches, strict=True):
            expected = 1.0 if self.loss_fn.reduction == "sum" else _count(batch) / total
            if not math.isclose(weight, expected, rel_tol=1e-9):
                raise ValueError(
                    f"{self.what} weighs batches by their examples, but this surface's weights are by {rule}; "
                    "use GaussNewtonOperator"
                )


class _OnInputs(nn.Module):
    """A net that takes a batch's inputs as one argument."""

    def __init__(self, net: nn.Module, *, whole: bool):
        super().__init__()
        self.net, self.whole = net, whole

    def forward(self, inputs: Any) -> Any:
        state = {name: buffer.clone() for name, buffer in self.net.named_buffers()}  # it may count in them
        return called(self.net, state, *spread(inputs, whole=self.whole))


def _real_net(surface: LossSurface) -> nn.Module:
    """A copy of the net that holds the surface's own values, of which only the moving ones require a gradient."""
    net = copy.deepcopy(surface.objective.net.module)
    values = surface.objective.net.state(surface.layout.unflatten(surface.origin))
    for name, tensor in chain(net.named_parameters(), net.named_buffers()):
        tensor.data = values[name].clone()
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name in surface.layout.names)
    return net


def _curvlinops() -> ModuleType:
    try:
        module, version = importlib.import_module("curvlinops"), metadata.version("curvlinops-for-pytorch")
    except ImportError as error:
        raise ImportError(
            "the sampled Fisher matrix and K-FAC need curvlinops, which GaussNewtonOperator does not; install it with "
            "pip install 'taskshift[curvature]'"
        ) from error
    if int(version.partition(".")[0]) >= TOO_NEW:
        raise ImportError(
            f"the sampled Fisher matrix and K-FAC know curvlinops 3, and {version} is installed, whose operators take other "
            "arguments; install the one that is known with pip install 'taskshift[curvature]'"
        )
    return module


def _seed(generator: GeneratorLike) -> int:
    generator = generator_from(generator)
    return int(torch.randint(2**31, (), generator=generator, device=generator.device))


def _one_by_one(theirs: Any, vectors: Tensor) -> Tensor:
    with undisturbed(vectors.device):
        return torch.stack([(theirs @ column.contiguous()).detach() for column in vectors.T], dim=1)


def _count(batch: tuple[Any, Tensor]) -> int:
    return _length(batch[0])


def _length(inputs: Any) -> int:
    return len(tensors_in(inputs)[0])
