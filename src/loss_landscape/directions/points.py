"""Other nets, as people have them, in a surface's layout."""

from __future__ import annotations

import itertools
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from loss_landscape.nested import as_tensor
from loss_landscape.objective.layout import ParameterLayout
from loss_landscape.objective.objective import unwrapped
from loss_landscape.surface.surface import LossSurface, require_surface

PointLike = nn.Module | Mapping[str, Any] | Tensor | np.ndarray | Iterable[Tensor] | str | Path
"""Where a net is: the net itself, its state dict, a file of that, its moving parameters [P], or a tensor a parameter."""

PREFIXES = ("module.", "_orig_mod.", "model.", "net.")  # of DataParallel, torch.compile, Lightning, and a holder of ours
HOLDERS = ("state_dict", "model_state_dict", "model_state", "model", "net")  # of a state dict, in a checkpoint


def point_in(surface: LossSurface, point: PointLike) -> Tensor:
    """A net's moving parameters [P] in the layout, dtype and on the device of `surface`.

    `point` is the net (DataParallel and compiled ones too), its state dict (with the prefixes that those put before names, or
    inside a checkpoint), a file of that, a vector [P], or a tensor for each parameter in the layout's order. Raises ValueError
    or TypeError, saying what to give, for another net, and FileNotFoundError for no file.

    >>> point_in(surface, {"module.weight": torch.tensor([[1.0, 2.0]])})
    tensor([1., 2.])
    """
    parameters = parameters_at(surface, point)
    vector = surface.layout.flatten(parameters)
    if vector.is_complex():
        raise ValueError("expected a net of real parameters, got complex ones")
    return vector.to(surface.origin)


def parameters_at(surface: LossSurface, point: PointLike) -> dict[str, Tensor]:
    """The moving parameters of a net like the surface's own, by name; a file's stay on disk until they are read."""
    require_surface(surface)
    layout = surface.layout
    if isinstance(point, str | Path):
        point = read_state(Path(point))
    point = as_tensor(point)
    if isinstance(point, Tensor):
        if point.dim() != 1 or len(point) != layout.size:
            raise ValueError(f"expected a vector [P] with P = {layout.size} parameters, got {list(point.shape)}")
        return layout.unflatten(point.detach())
    if isinstance(point, nn.Module):
        point = dict(unwrapped(point).named_parameters(remove_duplicate=False))
        _require_no_more(surface, point)
    if not isinstance(point, Mapping):
        return layout.unflatten(layout.flatten(_listed(point)))
    state = _state_dict(layout, point)
    require_fit(layout, state)
    return {name: as_tensor(state[name]).detach() for name in layout.names}


def not_moved(surface: LossSurface, *points: PointLike) -> tuple[str, ...]:
    """What the surface holds where it is though these nets have it otherwise, by name: buffers, and parameters that don't move.

    At a net's own parameters the loss is then not that net's. Batch norm's running statistics do not count where the surface
    takes them anew or from each batch, nor does what a vector or a state dict without buffers does not tell.
    """
    net = surface.objective.net
    held = {**net.parameters, **net.buffers}
    recomputed = surface.objective.batch_norm == "recompute"
    states = [_whole_state(surface, point) for point in points]
    found = dict.fromkeys(name for state in states for name in state if name in held)
    norms = [name for name, module in net.module.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    ignored = {*surface.layout.names} | {name for name in found if recomputed and name in net.buffers and _owner(name) in norms}
    return tuple(
        name
        for name in found
        if name not in ignored and any(name in state and _differ(state[name], held[name]) for state in states)
    )


def _whole_state(surface: LossSurface, point: PointLike) -> Mapping[str, Any]:
    """All that a net or a state dict says of a net, by the surface's names; nothing for vectors."""
    if isinstance(point, str | Path):
        point = read_state(Path(point))
    if isinstance(point, nn.Module):
        inner = unwrapped(point)
        return dict(inner.named_parameters(remove_duplicate=False)) | dict(inner.named_buffers(remove_duplicate=False))
    return _state_dict(surface.layout, point) if isinstance(point, Mapping) else {}


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _differ(given: Any, held: Tensor) -> bool:
    """Whether a real tensor is another one, by more than rounding; counts, such as of batches seen, change no loss."""
    if not isinstance(given, Tensor | np.ndarray) or not held.is_floating_point() or tuple(given.shape) != tuple(held.shape):
        return False
    return not torch.allclose(as_tensor(given).detach().to(held), held, rtol=1e-5, atol=1e-8, equal_nan=True)


def require_fit(layout: ParameterLayout, state: Mapping[str, Tensor]) -> None:
    """Refuse a state dict that lacks parameters, or has them in other shapes."""
    absent = [name for name in layout.names if name not in state]
    if absent:
        raise ValueError(f"expected a state dict of the surface's net, got one without {_first(absent)}; it has {_first(state)}")
    untold = [name for name in layout.names if not isinstance(state[name], Tensor | np.ndarray)]
    if untold:
        raise TypeError(f"expected a tensor by the name {untold[0]}, got {type(state[untold[0]]).__name__}")
    shapes = zip(layout.names, layout.shapes, strict=True)
    other = [
        f"{name} {list(state[name].shape)}, not {list(shape)}" for name, shape in shapes if tuple(state[name].shape) != shape
    ]
    if other:
        raise ValueError(f"expected a state dict of the surface's net, got one of other shapes: {_first(other)}")


def _require_no_more(surface: LossSurface, parameters: Mapping[str, Tensor]) -> None:
    """Refuse a net that has all parameters of the surface's, and others: it computes something else."""
    own = dict(surface.objective.net.module.named_parameters(remove_duplicate=False))
    more = [name for name in parameters if name not in own]
    if more and all(name in parameters for name in surface.layout.names):
        raise ValueError(f"expected a net like the surface's own, got one that has {_first(more)} as well")


def read_state(file: Path) -> Any:
    """What a file of a state dict holds, on disk until it is read; ValueError for another file, FileNotFoundError for none."""
    try:
        return torch.load(file, map_location="cpu", mmap=zipfile.is_zipfile(file), weights_only=True)
    except FileNotFoundError:
        raise
    except (RuntimeError, pickle.UnpicklingError, EOFError, LookupError) as error:
        raise ValueError(
            f"{file} holds no state dict that torch.load(…, weights_only=True) reads; if it is a whole net that you trust, give "
            "torch.load(file, weights_only=False) in place of the file"
        ) from error


def _listed(point: Any) -> list[Tensor]:
    parts = list(point) if isinstance(point, Iterable) else [point]
    if not parts or not all(isinstance(part, Tensor | np.ndarray) for part in parts):
        raise TypeError(
            f"expected a net, its state dict, a file of that, a vector [P], or a tensor for each parameter, got "
            f"{type(point).__name__}"
        )
    return [as_tensor(part).detach() for part in parts]


def _state_dict(layout: ParameterLayout, state: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """A state dict by the layout's own names: out of the checkpoint that holds it, without prefixes."""
    held = [state[name] for name in HOLDERS if isinstance(state.get(name), Mapping | nn.Module)]
    if held and layout.names[0] not in state:
        inside = dict(held[0].named_parameters()) if isinstance(held[0], nn.Module) else held[0]
        return _state_dict(layout, inside)
    if all(name in state for name in layout.names):
        return state
    for prefix in PREFIXES:
        stripped = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        if any(name.startswith(prefix) for name in state):
            if all(name in stripped for name in layout.names):
                return stripped
            inner = _state_dict(layout, stripped)
            if all(name in inner for name in layout.names):
                return inner
    return state


def _first(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join([*itertools.islice(names, 3), *["…"] * (len(names) > 3)]) or "nothing"
