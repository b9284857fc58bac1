"""A user's net with its loss and its data, as a surface around the net or around one of its checkpoints."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from loss_landscape.arguments import as_number
from loss_landscape.explorer.kept_batches import KeptBatches
from loss_landscape.explorer.loss_choice import ChosenLoss
from loss_landscape.explorer.loss_options import LossOptions
from loss_landscape.objective.functional_net import check_callable_with_other_parameters
from loss_landscape.objective.objective import BatchNorm
from loss_landscape.objective.private_copy import private_clone
from loss_landscape.surface.surface import LossSurface

COMPILED = "_orig_mod."
"""What torch.compile puts before a parameter's name."""


@dataclass(frozen=True, eq=False)
class UserLoss:
    """What is minimised: a `model`, a chosen `loss` of it over `data`, and the `options` around both."""

    model: nn.Module
    loss: ChosenLoss
    data: KeptBatches
    options: LossOptions

    def surface(self, state: Mapping[str, Tensor] | None = None) -> LossSurface:
        """The surface around the model, or around it with the parameters and buffers of `state` in place of its own."""
        check_callable_with_other_parameters(self.model)
        net = self.model if state is None else _with_state(self.model, state)
        training = self.options.model_mode == "train"
        batch_norm: BatchNorm = "batch" if training else "running"
        return LossSurface(
            _always_training(net) if training else net,
            self.loss.criterion,
            self.data.batches,
            batch_loss=self.loss.batch_loss,
            batch_weight=self.options.batch_weight,
            batch_norm=batch_norm,
            regularizer=None if self.options.regularizer is None else self._penalty,
        )

    def _penalty(self, net: nn.Module) -> Tensor:
        assert self.options.regularizer is not None  # only where there is one
        given = self.options.regularizer(net)
        value = given if isinstance(given, Tensor) else torch.as_tensor(as_number(given, "what regularizer(model) returns"))
        if value.numel() != 1:
            raise ValueError(f"regularizer(model) must return a scalar, got {list(value.shape)}")
        return self.options.regularizer_weight * value.reshape(())

    @property
    def notes(self) -> list[str]:
        """What must be known of it."""
        said = [*self.loss.notes, *self.data.notes]
        modules = self.model.modules() if self.options.model_mode == "train" else ()
        if any(isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 for module in modules):
            said.append("model_mode='train' with dropout: the landscape is that of one draw of its masks")
        return said


def _with_state(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A clone with other parameters and buffers, which shares none with the user's; either may be of a compiled net."""
    twin = private_clone(model)
    given = {name.replace(COMPILED, ""): tensor for name, tensor in state.items()}
    own = {
        name: given[plain].to(tensor.device)
        for name, tensor in twin.state_dict().items()
        if (plain := name.replace(COMPILED, "")) in given
    }
    twin.load_state_dict(own, assign=True)
    return twin


def _always_training(model: nn.Module) -> nn.Module:
    """A clone in training mode that stays in it."""
    clone = private_clone(model, own_memory=True).train()  # the user's own `train` may write
    clone.eval = types.MethodType(_itself, clone)  # type: ignore[method-assign]
    return clone


def _itself(model: Any) -> Any:
    return model
