"""How large a net's weights are, and how far they have come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


def mean_abs(tensors: Iterable[Tensor]) -> float:
    """Σ|w| / #w over all entries of all tensors."""
    tensors = list(tensors)
    return _total(tensor.abs().sum(dtype=torch.float64) for tensor in tensors) / sum(tensor.numel() for tensor in tensors)


def norm(tensors: Iterable[Tensor]) -> float:
    """√Σw², the Euclidean norm of all entries together."""
    return _total(tensor.double().square().sum() for tensor in tensors) ** 0.5


def distance(tensors: Mapping[str, Tensor], origin: Mapping[str, Tensor]) -> float:
    """‖w - w₀‖₂ over the entries of `tensors`, each against its namesake in `origin`."""
    return norm(tensor - origin[name].to(tensor) for name, tensor in tensors.items())


def _total(sums: Iterable[Tensor]) -> float:
    return torch.stack(list(sums)).sum().item()
