"""A net as a function of its tensors, which leaves the net itself alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from taskshift.learners.part import INPUT_OF, Tensors


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by name, detached, not copied; a tied one once."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.detach() for name, tensor in named}


def show(module: nn.Module, net: Tensors) -> None:
    """Make the module's parameters and buffers windows onto these tensors: nothing is copied."""
    for name, place, key in _places(module):
        if isinstance(place[key], nn.Parameter):
            place[key].data = net[name]
        else:
            place[key] = net[name]


class Forward:
    """`forward(net, inputs)`: the module's outputs with these tensors, its buffers after the pass, and features.

    Buffers go in as copies, so that what a norm layer writes comes back as values. The module's own hooks run as ever. It does
    what `torch.func.functional_call` does, whose search for each name costs a small net a tenth of its step.
    """

    def __init__(self, module: nn.Module):
        self.module = module
        self.buffers = frozenset(name for name, _ in module.named_buffers())
        self._places = _places(module)

    def __call__(
        self, net: Tensors, inputs: Tensor, reads: Sequence[str] = ()
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Outputs, buffers by name, and the outputs or inputs of the modules that `reads` names."""
        # contiguous: torch.vmap's batch norm writes the running statistics of other buffers into a copy, which is lost
        buffers = {name: net[name].clone(memory_format=torch.contiguous_format) for name in self.buffers}
        given = {**net, **buffers} if buffers else net
        features: dict[str, Tensor] = {}
        handles = [
            self.module.get_submodule(name.removeprefix(INPUT_OF)).register_forward_hook(_keep_in(features, name))
            for name in reads
        ]
        own = [place[key] for _, place, key in self._places]
        try:
            for name, place, key in self._places:
                place[key] = given[name]
            outputs = self.module(inputs)
            after = {name: place[key] for name, place, key in self._places if name in self.buffers}
        finally:
            for tensor, (_, place, key) in zip(own, self._places, strict=True):
                place[key] = tensor
            for handle in handles:
                handle.remove()
        return outputs, after, features

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


def watched_pass(net: nn.Module, inputs: Tensor, handles: Iterable[RemovableHandle]) -> Tensor:
    """The net's outputs in eval mode, without gradients; the hooks behind `handles` see the pass and are then removed."""
    try:
        with torch.no_grad(), eval_mode(net):
            return net(inputs)
    finally:
        for handle in handles:
            handle.remove()


def _keep_in(kept: dict[str, Tensor], name: str):
    def hook(module: nn.Module, given: tuple, output: Tensor) -> None:
        if name in kept:
            raise ValueError(f"the module {name} is called twice in a forward pass, so a learner's part cannot read its output")
        kept[name] = given[0] if name.startswith(INPUT_OF) else output

    return hook


def detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same values, out of autograd's sight."""
    return {name: tensor.detach() for name, tensor in tensors.items()}


def _places(module: nn.Module) -> list[tuple[str, dict, str]]:
    """(name, where a module keeps it, under which key) for every parameter and buffer; a tied one has several places."""
    names: dict[int, str] = {}
    found = []
    for path, owner in module.named_modules(remove_duplicate=False):
        for kept in (owner._parameters, owner._buffers):
            for key, tensor in kept.items():
                if tensor is not None:
                    name = names.setdefault(id(tensor), f"{path}.{key}" if path else key)
                    found.append((name, kept, key))
    return found
