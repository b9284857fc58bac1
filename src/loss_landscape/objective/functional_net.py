"""A net as a function of its parameters and buffers, which leaves no trace on the user's."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import PackedSequence

from loss_landscape.nested import copied, map_tensors
from loss_landscape.objective.checkpointed_blocks import plain_checkpoints
from loss_landscape.objective.held_draws import held_draw
from loss_landscape.objective.norm_layouts import norms_in_any_layout
from loss_landscape.objective.outside_reads import replaced
from loss_landscape.objective.private_copy import GivenAttributes, evaluating_clone, private_clone, with_modes

Parameters = Mapping[str, Tensor]

_turn = threading.RLock()  # settings and torch's random numbers are the process's: threads come one after another
_entered = threading.local()  # whether this thread is inside `undisturbed`


@dataclass(frozen=True, eq=False)
class CallRules:
    """How a net has to be called, as its first calls showed.

    With `whole_inputs` a tuple, list or mapping is one argument. Each call gets copies of the parameters in `copied`, which it
    writes into or wants in memory of their own, and with `copied_batch` of its batch. `outside` are the user's own tensors that
    a call reads by another way than the net's attributes, each with the name under which it moves. `strangers` are parameters
    that it reads and that are none of the net's. `draws` are the sources of the random numbers that it draws (torch, NumPy,
    Python), which follow from `seed` and the batch.
    """

    whole_inputs: bool = False
    copied: frozenset[str] = frozenset()
    copied_batch: bool = False
    outside: tuple[tuple[Tensor, str], ...] = ()
    strangers: tuple[Tensor, ...] = ()
    draws: tuple[str, ...] = ()
    seed: int = 0

    @property
    def draw_note(self) -> str:
        """In words that random numbers are held; "" where none are drawn."""
        return f"one draw of random numbers ({', '.join(self.draws)}) is held" if self.draws else ""

    def with_strangers(self, parameters: Iterable[Tensor]) -> CallRules:
        """The same with more of them."""
        return replace(self, strangers=tuple({id(each): each for each in (*self.strangers, *parameters)}.values()))

    def with_draws(self, sources: Iterable[str]) -> CallRules:
        """The same with more sources of random numbers."""
        return replace(self, draws=tuple(dict.fromkeys((*self.draws, *sources))))


@dataclass(frozen=True, eq=False)
class FunctionalNet:
    """A private clone of a net, with copies of all its parameters and buffers by name; what moves is given at each call.

    What a call leaves in the modules (modes, caches, states) is gone after it.
    """

    module: nn.Module
    parameters: Parameters
    buffers: Parameters
    dtype: torch.dtype
    device: torch.device
    rules: CallRules = CallRules()
    given: GivenAttributes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "given", GivenAttributes(self.module))

    @classmethod
    def of(cls, model: nn.Module, dtype: torch.dtype | None = None) -> FunctionalNet:
        """`model` as it is now, in eval mode and in `dtype`, its own widest one unless given; ValueError without parameters."""
        return cls.of_clone(evaluating_clone(model), dtype)

    @classmethod
    def of_clone(cls, module: nn.Module, dtype: torch.dtype | None = None) -> FunctionalNet:
        """The same of a private clone that has its modes."""
        own = dict(module.named_parameters())
        dtype = dtype or common_dtype(own.values())
        converted = any(p.dtype != dtype for p in own.values() if p.is_floating_point())
        parameters = {name: snapshot(p, dtype) for name, p in own.items()}
        buffers = {name: snapshot(b, dtype if converted else None) for name, b in module.named_buffers()}
        return cls(module, parameters, buffers, dtype, next(iter(own.values())).device)

    def __call__(self, parameters: Parameters, inputs: Any, dtype: torch.dtype | None = None) -> Any:
        """What the net gives for `inputs`, a tensor, a tuple or a mapping, with `parameters` in place of its own, in `dtype`."""
        state = self.state(parameters)
        if dtype is not None:
            inputs, state = map_tensors(lambda t: _cast(t, dtype), inputs), {name: _cast(t, dtype) for name, t in state.items()}
        return self.run(state, *spread(inputs, whole=self.rules.whole_inputs))

    def run(
        self,
        state: Mapping[str, Tensor],
        positional: tuple[Any, ...],
        keywords: Mapping[str, Any] | None = None,
        *,
        inside: nn.Module | None = None,
    ) -> Any:
        """What the net gives with `state`, or a module that it is `inside` of as `net`; nothing is left behind."""
        named = state if inside is None else {f"net.{name}": tensor for name, tensor in state.items()}
        with self.given.kept(), replaced([(tensor, state[name]) for tensor, name in self.rules.outside]):
            return called(inside or self.module, named, positional, keywords)

    def drawing(self, batch: Any) -> AbstractContextManager[None]:
        """A context for a call on `batch`: inside, the random numbers that the net draws are those that are held."""
        return held_draw(self.rules.seed, batch, self.device) if self.rules.draws else contextlib.nullcontext()

    def lent(self, batch: Any) -> Any:
        """A batch, or a copy of it where a call would write into it; a tensor that is there twice is so again."""
        return copied(batch) if self.rules.copied_batch else batch

    def state(self, parameters: Parameters) -> dict[str, Tensor]:
        """Everything the net holds, by name, with `parameters` in place of its own; buffers are clones, to be counted in."""
        state = {**self.parameters, **{name: b.clone() for name, b in self.buffers.items()}, **parameters}
        return state | {name: state[name].clone() for name in self.rules.copied}

    def with_parameters(self, parameters: Parameters) -> FunctionalNet:
        """The same net with `parameters` as its own."""
        return replace(self, parameters={**self.parameters, **parameters})

    def in_dtype(self, dtype: torch.dtype, *, but: Collection[str] = ()) -> FunctionalNet:
        """The same net in another dtype; the parameters called `but` stay as they are, for they are given at each call."""
        parameters = {name: p if name in but else snapshot(p, dtype) for name, p in self.parameters.items()}
        buffers = {name: snapshot(b, dtype) for name, b in self.buffers.items()}
        return replace(self, parameters=parameters, buffers=buffers, dtype=dtype)

    def on(self, device: torch.device) -> FunctionalNet:
        """The same net on another device."""
        parameters = {name: p.to(device) for name, p in self.parameters.items()}
        buffers = {name: b.to(device) for name, b in self.buffers.items()}
        return replace(self, parameters=parameters, buffers=buffers, device=device)

    def with_batch_statistics(self) -> FunctionalNet:
        """The same net whose batch norms normalise by each batch's own statistics."""
        modes = {name: module.training for name, module in self.module.named_modules()}
        module = with_modes(private_clone(self.module), modes)
        use_batch_statistics(module)
        return replace(self, module=module, buffers={name: self.buffers[name] for name, _ in module.named_buffers()})

    def with_recomputed_statistics(self, parameters: Parameters, inputs: Iterable[Any]) -> FunctionalNet:
        """The same net with batch norm's running statistics taken anew at `parameters`, as means over the batches' inputs."""
        return replace(self, buffers=recomputed_statistics(self, parameters, inputs))


def called(
    net: nn.Module, state: Mapping[str, Tensor], positional: tuple[Any, ...], keywords: Mapping[str, Any] | None = None
) -> Any:
    """What `net` gives with the parameters and buffers of `state`, each under its first name; one that is shared is so again.

    torch's own tying of weights puts a module that is registered twice back with plain tensors in place of its parameters.
    """
    first: dict[int, str] = {}
    completed = dict(state)
    for prefix, module in net.named_modules():  # each once, whatever it is registered as
        for local, tensor in chain(module._parameters.items(), module._buffers.items()):
            name = f"{prefix}.{local}" if prefix else local
            if tensor is not None and (known := first.setdefault(id(tensor), name)) in state:
                completed[name] = state[known]
    return torch.func.functional_call(net, completed, positional, dict(keywords or {}), tie_weights=False)


def spread(inputs: Any, *, whole: bool = False) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """A batch's inputs as a net's arguments: a mapping by keyword, a tuple or list one by one, else or `whole` as they are."""
    if whole or isinstance(inputs, Tensor | PackedSequence) or not isinstance(inputs, Mapping | tuple | list):
        return (inputs,), {}
    return ((), inputs) if isinstance(inputs, Mapping) else (tuple(inputs), {})


def use_batch_statistics(net: nn.Module) -> None:
    """Let the batch norms of `net` normalise by each batch's own statistics, in eval mode, and record nothing."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean = module.running_var = module.num_batches_tracked = None


def recomputed_statistics(net: FunctionalNet, parameters: Parameters, inputs: Iterable[Any]) -> dict[str, Tensor]:
    """The buffers of `net` with batch norm's running statistics taken anew, as means over the batches (Izmailov et al. 2018)."""
    training = copy.deepcopy(net.module, {id(t): t for t in chain(net.module.parameters(), net.module.buffers())})
    buffers = {name: buffer.clone() for name, buffer in net.buffers.items()}
    for name, module in training.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            module.training = True
            module.momentum = None  # the plain mean
            buffers[f"{name}.num_batches_tracked"].zero_()
    twin = replace(net, module=training)
    with torch.no_grad():
        for one in inputs:
            with twin.drawing(one):
                twin.run(twin.state(parameters) | buffers, *spread(twin.lent(one), whole=twin.rules.whole_inputs))
    return buffers


def check_callable_with_other_parameters(model: nn.Module) -> None:
    """Raise, saying what to give instead, for what is no net whose numbers can be read and replaced."""
    if not isinstance(model, nn.Module):
        is_class = isinstance(model, type) and issubclass(model, nn.Module)
        advice = f"; give an instance of the class {model.__name__}" if is_class else ""
        if isinstance(model, Mapping | str | Path):
            advice = "; build the net and load into it: net.load_state_dict(torch.load(file))"
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}{advice}")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise TypeError("a scripted module can't be called with other parameters; give the module that it was scripted from")
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters()):
        raise ValueError("the model has lazy layers that have not run yet; call model(inputs) once before")
    if (name := next((name for name, p in model.named_parameters() if p.is_complex()), None)) is not None:
        raise ValueError(
            f"the parameter {name!r} is complex, and displacements are real; keep its real and imaginary parts in a parameter "
            "[..., 2] and make it complex in forward by torch.view_as_complex"
        )
    if any(p.is_meta for p in model.parameters()):
        raise ValueError("the model is on the meta device and has no numbers; load its weights before")


def common_dtype(parameters: Iterable[Tensor]) -> torch.dtype:
    """The widest dtype among the parameters, at least float32: a displacement of half precision would be lost in rounding."""
    found = torch.float32
    parameters = list(parameters)
    if not parameters:
        raise ValueError("the model has no parameters")
    for parameter in parameters:
        found = torch.promote_types(found, parameter.dtype) if parameter.is_floating_point() else found
    return found


def snapshot(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A copy of `tensor`, in `dtype` where that is given and the tensor's a floating-point one."""
    return tensor.detach().to(dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype, copy=True)


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


@contextlib.contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Exact arithmetic inside, nobody's settings or random numbers changed outside.

    No autocast and no TF32, attention by its plain formula (the fused ones have no second derivative), outside inference mode,
    no activation checkpoints, and batch norms whose gradients do not hang on layouts. Inside another one, only random numbers
    are left to do: each draws the same. Other threads wait at the outermost one.
    """
    if getattr(_entered, "already", False):
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
        return
    cuda = [device] if device.type == "cuda" else []
    with _turn, contextlib.ExitStack() as stack:
        fastpath = torch.backends.mha.get_fastpath_enabled()
        tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.random.fork_rng(devices=cuda))
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(plain_checkpoints())
        stack.enter_context(norms_in_any_layout())
        try:
            _entered.already = True
            torch.backends.mha.set_fastpath_enabled(False)
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
            yield
        finally:
            _entered.already = False
            torch.backends.mha.set_fastpath_enabled(fastpath)
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32
