"""How deep in a net a parameter lies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from torch import Tensor, nn

from taskshift.learners.forward import watched_pass


def depths_of(net: nn.Module, inputs: Tensor, names: tuple[str, ...]) -> Mapping[str, float]:
    """The parameters `names` → how deep they lie, from 0 in the first layer to 1 in the last.

    A layer begins with a module that has a matrix or a kernel, in the order in which a forward pass enters them; norms and other
    vectors after it belong to it. What a module holds beside the modules in it, such as a table of positions, belongs to the
    layer that is entered next, and what the pass never enters to that of the module around it. Of one layer alone the depth is 1.
    """
    numbers: dict[str, int] = {}  # of the modules that are entered
    order, layer = _entered(net, inputs), -1
    around = {module.rpartition(".")[0] for module in order if module}
    for module in order:
        if module not in around and any(net.get_parameter(name).dim() > 1 for name in names if _holder(name) == module):
            layer += 1
        numbers[module] = layer + 1 if module in around else max(layer, 0)
    last = max(layer, 0)
    return {name: min(numbers[_nearest(_holder(name), numbers)], last) / last if last else 1.0 for name in names}


def _nearest(module: str, entered: Collection[str]) -> str:
    """The module, or the nearest one around it that is entered; the net itself is."""
    while module not in entered:
        module = module.rpartition(".")[0]
    return module


def _holder(name: str) -> str:
    """The layer that a parameter makes, also where it does by a parametrisation."""
    return name.partition(".parametrizations.")[0] if ".parametrizations." in name else name.rpartition(".")[0]


def _entered(net: nn.Module, inputs: Tensor) -> list[str]:
    """The names of the modules in the order in which a forward pass first enters them."""
    order: dict[str, None] = {}

    def noting(name: str) -> Callable[..., None]:
        return lambda *_: order.setdefault(name, None)

    handles = [module.register_forward_pre_hook(noting(name)) for name, module in net.named_modules()]
    watched_pass(net, inputs, handles)
    return list(order)
