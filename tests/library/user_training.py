"""A user's own net, data and training, as the Writer meets them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def examples(count: int = 96, *, seed: int = 0) -> TensorDataset:
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 6, generator=draw)
    return TensorDataset(inputs, (inputs[:, :3].sum(dim=1) > 0).long() + (inputs[:, 3] > 0.5).long())


def loader_of(count: int = 96, **options) -> DataLoader:
    return DataLoader(examples(count), **{"batch_size": 32, "shuffle": False, **options})


def user_net(*, seed: int = 0, width: int = 8, norm: bool = False, dropout: float = 0.0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Linear(6, width), *[nn.BatchNorm1d(width)] * norm, nn.Tanh(), *[nn.Dropout(dropout)] * bool(dropout)]
        return nn.Sequential(*layers, nn.Linear(width, 3))


class Branching(nn.Module):
    """A net that looks at its own values, so that every cell calls it."""

    def __init__(self):
        super().__init__()
        self.net = user_net()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.net(inputs)
        return outputs if bool(outputs.sum() < 1e9) else 2 * outputs


def one_epoch(net: nn.Module, loader: DataLoader, *, lr: float = 0.5) -> float:
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    net.train()
    losses = []
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def mean_loss(net: nn.Module, dataset: TensorDataset) -> float:
    """The loss over all examples at once, in float64."""
    inputs, targets = dataset.tensors
    with torch.no_grad():
        return nn.functional.cross_entropy(net(inputs).double(), targets).item()


def everything_of(net: nn.Module) -> dict[str, Tensor | None]:
    """What must be as it was: parameters, buffers, gradients."""
    state = {name: tensor.clone() for name, tensor in net.state_dict(keep_vars=False).items()}
    grads = {f"{name}.grad": None if p.grad is None else p.grad.clone() for name, p in net.named_parameters()}
    return {**state, **grads}
