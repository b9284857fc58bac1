"""How large the terms are that an entry of a gradient is the sum of: what rounding is relative to."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def terms_before_norms(net: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Σ |δ| |x| for each entry of a weight whose outputs a batch norm takes, Σ |δ| for its bias, in the net's training mode.

    Such a gradient is Σ δ x over all examples and places, x the layer's input and δ the slope at its output. A batch norm takes
    two means out of δ, so that Σ δ is zero, and Σ δ x small beside its terms: two sums of u-rounded terms in other orders differ
    by some u Σ |δ| |x|, however small they themselves are (Higham 2002, §4.2).
    """
    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d)]
    before = {one for one, norm in zip(layers, layers[1:], strict=False) if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)}
    names, seen = {module: name for name, module in net.named_modules()}, {}

    def see(module, given, output):
        output.retain_grad()
        seen[module] = given[0].detach().abs(), output

    handles = [module.register_forward_hook(see) for module in before]
    F.cross_entropy(net(inputs), targets).backward()
    for handle in handles:
        handle.remove()
    found = {}
    for module, (x, output) in seen.items():
        slope = output.grad.abs()
        found[f"{names[module]}.bias"] = slope.transpose(0, 1).flatten(1).sum(dim=1)
        found[f"{names[module]}.weight"] = _weights(module, x, slope)
    return found


def _weights(module: nn.Module, x: Tensor, slope: Tensor) -> Tensor:
    if isinstance(module, nn.Linear):
        return slope.T @ x
    return torch.nn.grad.conv2d_weight(x, module.weight.shape, slope, stride=module.stride, padding=module.padding)
