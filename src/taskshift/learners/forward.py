"""A net as a function of its tensors, which leaves the net itself alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.func import functional_call

from taskshift.learners.part import Tensors


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by name, detached, not copied; a tied one once."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.detach() for name, tensor in named}


def show(module: nn.Module, net: Tensors) -> None:
    """Make the module's parameters and buffers windows onto these tensors: nothing is copied."""
    for name, parameter in module.named_parameters():
        parameter.data = net[name]
    for name, _ in list(module.named_buffers()):
        owner, _, own = name.rpartition(".")
        module.get_submodule(owner)._buffers[own] = net[name]


class Forward:
    """`forward(net, inputs)`: the module's outputs with these tensors, its buffers after the pass, and features.

    Buffers go in as copies, so that what a norm layer writes comes back as values. The module's own hooks run as ever.
    """

    def __init__(self, module: nn.Module):
        self.module = module
        self.buffers = tuple(name for name, _ in module.named_buffers())
        self._tied = len(tensors_of(module)) < _count(module)

    def __call__(
        self, net: Tensors, inputs: Tensor, reads: Sequence[str] = ()
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Outputs, buffers by name, and the outputs of the modules that `reads` names."""
        given = dict(net)
        for name in self.buffers:
            given[name] = given[name].clone()
        with _outputs_of(self.module, reads) as features:
            outputs = functional_call(self.module, given, (inputs,), tie_weights=self._tied)
        return outputs, {name: given[name] for name in self.buffers}, features

    def evaluated(self, net: Tensors, inputs: Tensor, reads: Sequence[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        """Outputs and features in eval mode."""
        with eval_mode(self.module):
            outputs, _, features = self(net, inputs, reads)
        return outputs, features


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[None]:
    """Put every module into eval mode, and each back into its own mode afterwards."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _outputs_of(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """What the named modules return while this is open. Hooks that the user put on are left as they are, and run before."""
    kept: dict[str, Tensor] = {}
    handles = [module.get_submodule(name).register_forward_hook(_keep_in(kept, name)) for name in names]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def _keep_in(kept: dict[str, Tensor], name: str):
    def hook(module: nn.Module, given: tuple, output: Tensor) -> None:
        if name in kept:
            raise ValueError(f"the module {name} is called twice in a forward pass, so a learner's part cannot read its output")
        kept[name] = output

    return hook


def detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same values, out of autograd's sight."""
    return {name: tensor.detach() for name, tensor in tensors.items()}


def _count(module: nn.Module) -> int:
    duplicated = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return len(duplicated)
