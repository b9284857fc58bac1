"""Nets, losses and data that the library's tests run on, and what they check of all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """A surface's ingredients, with batches of different sizes."""

    name: str
    model: nn.Module
    loss_fn: nn.Module
    batches: list[tuple[Any, Tensor]]

    def to(self, device: torch.device) -> Case:
        move = {key: value.to(device) for key, value in {"model": self.model, "loss_fn": self.loss_fn}.items()}
        return Case(self.name, **move, batches=[tuple(_placed(part, device) for part in batch) for batch in self.batches])


class TakesADict(nn.Module):
    """Batches whose inputs are a dict."""

    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        return self.net(x + shift)


class SharesWeights(nn.Module):
    """One square layer used twice, its weight tied to a third one's."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        self.last.weight = self.first.weight
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.last(torch.tanh(self.first(torch.tanh(self.first(x)))))))


class Remembers(nn.Module):
    """Counts its calls in a buffer, has a batch norm, a dropout, a frozen and an unused parameter."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.drop, self.head = nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3)
        self.unused, self.frozen = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(5), requires_grad=False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.head(torch.tanh(self.drop(self.norm(self.first(x))) * self.frozen))


def mlp(inputs: int = 6, width: int = 5, outputs: int = 3, activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), activation(), nn.Linear(width, outputs))


def cases() -> list[Case]:
    """Small smooth nets in float64, 11 examples in batches of 4, 4 and 3."""
    draw = torch.Generator().manual_seed(7)
    x = torch.randn(11, 6, generator=draw, dtype=torch.float64)
    labels = torch.tensor([0, 2, 1, 1, 0, 2, 2, 2, 1, 0, 2])
    some = torch.where(torch.tensor([0, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0], dtype=torch.bool), -100, labels)
    real = torch.randn(11, 3, generator=draw, dtype=torch.float64)
    soft = real.softmax(dim=1)
    weight = torch.tensor([0.2, 3.0, 1.0])
    image = torch.randn(11, 1, 6, 6, generator=draw, dtype=torch.float64)
    conv = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    both = {"x": x, "shift": torch.randn(11, 6, generator=draw, dtype=torch.float64)}
    entropy = nn.CrossEntropyLoss
    made = [
        ("cross_entropy", mlp(), entropy(), x, labels),
        ("class_weights", mlp(), entropy(weight=weight), x, labels),
        ("ignored_targets", mlp(), entropy(), x, some),
        ("smoothed_labels", mlp(), entropy(weight=weight, label_smoothing=0.1), x, labels),
        ("soft_targets", mlp(), entropy(), x, soft),
        ("sum", mlp(), entropy(reduction="sum"), x, labels),
        ("mse", mlp(), nn.MSELoss(), x, real),
        ("bce", mlp(), nn.BCEWithLogitsLoss(pos_weight=weight), x, soft),
        ("huber", mlp(), nn.SmoothL1Loss(), x, real),
        ("conv", conv, entropy(), image, labels),
        ("dict_inputs", TakesADict(), entropy(), both, labels),
        ("tied", SharesWeights(), entropy(), x, labels),
        ("remembers", Remembers(), entropy(), x, labels),
    ]
    return [_case(*ingredients) for ingredients in made]


def _case(name: str, model: nn.Module, loss_fn: nn.Module, inputs: Any, targets: Tensor) -> Case:
    draw = torch.Generator().manual_seed(3)
    model = model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64) * 0.7)
    parts = [slice(0, 4), slice(4, 8), slice(8, 11)]
    return Case(name, model, loss_fn, [(_cut(inputs, part), targets[part]) for part in parts])


def _cut(inputs: Any, part: slice) -> Any:
    return {key: value[part] for key, value in inputs.items()} if isinstance(inputs, dict) else inputs[part]


def _placed(part: Any, device: torch.device) -> Any:
    return {key: value.to(device) for key, value in part.items()} if isinstance(part, dict) else part.to(device)


def whole_batch(case: Case) -> tuple[Any, Tensor]:
    """The data of a case in one batch."""
    inputs, targets = zip(*case.batches, strict=True)
    if isinstance(inputs[0], dict):
        return {key: torch.cat([part[key] for part in inputs]) for key in inputs[0]}, torch.cat(targets)
    return torch.cat(inputs), torch.cat(targets)


def dense_loss(case: Case, names: tuple[str, ...], vector: Tensor) -> Tensor:
    """The loss of all data in one pass at the parameters in `vector`, by functional_call and the criterion itself."""
    parameters, start = {}, 0
    for name in names:
        shape = case.model.get_parameter(name).shape
        parameters[name] = vector[start : start + shape.numel()].view(shape)
        start += shape.numel()
    inputs, targets = whole_batch(case)
    arguments, keywords = ((), inputs) if isinstance(inputs, dict) else ((inputs,), {})
    buffers = {name: buffer.clone() for name, buffer in case.model.named_buffers()}
    outputs = torch.func.functional_call(case.model, {**buffers, **parameters}, arguments, keywords)
    return case.loss_fn.to(outputs)(outputs, targets)


@contextlib.contextmanager
def assert_leaves_net_untouched(model: nn.Module) -> Iterator[None]:
    """Parameters, buffers, gradients, modes, requires_grad, hooks and random state are the same after as before."""
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, float(number))
    before, versions = _state(model), [t._version for t in [*model.parameters(), *model.buffers()]]
    yield
    after = _state(model)
    assert [t._version for t in [*model.parameters(), *model.buffers()]] == versions, "something was written in place"
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(value, after[key]) if isinstance(value, Tensor) else value == after[key], f"{key} changed"


def _state(model: nn.Module) -> dict[str, Any]:
    state: dict[str, Any] = {f"value of {name}": t.detach().clone() for name, t in model.state_dict().items()}
    state |= {f"gradient of {name}": p.grad.clone() for name, p in model.named_parameters()}
    state |= {f"requires_grad of {name}": p.requires_grad for name, p in model.named_parameters()}
    state |= {f"identity of {name}": id(p) for name, p in model.named_parameters()}
    state |= {f"mode of {name}": module.training for name, module in model.named_modules()}
    state |= {f"hooks of {name}": len(module._forward_hooks) for name, module in model.named_modules()}
    return state | {"random state": torch.get_rng_state()}
