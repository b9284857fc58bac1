"""Nets drawn layer by layer: dense ones, convolutional ones, ones of sequences."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

SMOOTH = [nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.Softplus, nn.ELU, nn.Mish, nn.CELU, nn.Tanhshrink, nn.Softsign, nn.LogSigmoid]
KINKED = [nn.ReLU, nn.LeakyReLU, nn.Hardtanh, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.PReLU, nn.SELU, nn.Softshrink]


class Block(nn.Module):
    """Layers one after another, with what is around them: a residual, a gate, a concatenation, or a scale that is learnt."""

    def __init__(self, layers: nn.Module, around: str):
        super().__init__()
        self.layers, self.around = layers, around
        if around == "scaled":
            self.scale = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        made = self.layers(x)
        if self.around == "residual":
            return x + made
        if self.around == "gate":
            return x * torch.sigmoid(made)
        if self.around == "concat":
            return torch.cat([x, made], dim=1)
        return made * self.scale if self.around == "scaled" else made


class OfSequences(nn.Module):
    """Ids, or vectors, [B, T], perhaps with a mask of what counts → one row an example, or one a position."""

    def __init__(self, embedding: nn.Module, body: nn.Module, head: nn.Module, pooling: str):
        super().__init__()
        self.embedding, self.body, self.head, self.pooling = embedding, body, head, pooling

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        made = self.body(self.embedding(x), mask)
        counted = torch.ones_like(made[..., :1]) if mask is None else mask[..., None].to(made.dtype)
        if self.pooling == "mean":
            made = (made * counted).sum(1) / counted.sum(1)
        elif self.pooling == "max":
            made = made.masked_fill(counted == 0, -1e4).amax(1)
        elif self.pooling == "last":
            made = made[torch.arange(len(made)), counted[..., 0].sum(1).long() - 1]
        return self.head(made)


class Recurrent(nn.Module):
    """An LSTM, GRU or RNN, on packed sequences where there is a mask."""

    def __init__(self, layer: nn.RNNBase):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return self.layer(x)[0]
        lengths = mask.sum(1).long().cpu()
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0], batch_first=True, total_length=x.shape[1])[0]


class Attention(nn.Module):
    """Encoder layers with a padding mask."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.layer(x, src_key_padding_mask=None if mask is None else ~mask)


class AlongPositions(nn.Module):
    """A layer of channels [B, C, T]."""

    def __init__(self, layers: nn.Module):
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.layers(x.transpose(1, 2)).transpose(1, 2)


class Architecture:
    """A net, whether it is smooth, and what makes a batch of `count` inputs for it; `classes` is the length of its rows.

    `positions` is T where there is a row for each position, else 0.
    """

    def __init__(self, net: nn.Module, inputs: Callable[[int, torch.Generator], Any], classes: int, *, positions: int = 0):
        self.net, self.inputs, self.classes, self.positions = net, inputs, classes, positions
        self.smooth = not any(isinstance(module, (*KINKED, nn.MaxPool2d, nn.AdaptiveMaxPool2d)) for module in net.modules())


def architecture(draw: random.Random) -> Architecture:
    """Any of them, with parameters and running statistics that are not those of a new net."""
    made = draw.choice([dense, dense, convolutional, convolutional, of_sequences, of_sequences])(draw)
    with torch.no_grad():
        for module in made.net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
        for parameter in made.net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    frozen = [p for p in made.net.parameters() if draw.random() < 0.05]
    for parameter in frozen[:-1]:
        parameter.requires_grad_(False)
    return made


def activation(draw: random.Random) -> nn.Module:
    kind = draw.choice(SMOOTH if draw.random() < 0.6 else KINKED)
    return kind(inplace=True) if kind in (nn.ReLU, nn.SiLU, nn.ELU, nn.Hardswish) and draw.random() < 0.5 else kind()


def dense(draw: random.Random) -> Architecture:
    """Linear layers with norms and dropout; now and then one is used twice."""
    inputs, classes = draw.randint(2, 6), draw.randint(1, 4)
    width, layers = inputs, list[nn.Module]()
    for _ in range(draw.randint(0, 3)):
        around = draw.choice(["plain", "plain", "residual", "gate", "concat", "scaled"])
        after = width if around in ("residual", "gate") else draw.randint(2, 6)
        inner: list[nn.Module] = [_linear(draw, width, after)]
        inner += [norm] if (norm := draw.choice([None, None, nn.LayerNorm(after), nn.BatchNorm1d(after)])) is not None else []
        inner += [activation(draw), *([nn.Dropout(0.3)] if draw.random() < 0.2 else [])]
        layers.append(Block(nn.Sequential(*inner), around))
        width = width + after if around == "concat" else after
    if layers and draw.random() < 0.15:
        square = nn.Sequential(nn.Linear(width, width), nn.Tanh())
        layers += [square, square]
    layers.append(nn.Linear(width, classes, bias=draw.random() < 0.8))
    return Architecture(nn.Sequential(*layers), lambda count, g: torch.randn(count, inputs, generator=g), classes)


def _linear(draw: random.Random, width: int, after: int) -> nn.Module:
    layer = nn.Linear(width, after, bias=draw.random() < 0.8)
    kind = draw.random()
    if kind < 0.06:
        return nn.utils.parametrizations.weight_norm(layer)
    return nn.utils.parametrizations.spectral_norm(layer) if kind < 0.09 else layer


def convolutional(draw: random.Random) -> Architecture:
    """Convolutions with every option, norms, poolings, residuals and concatenations."""
    channels, size, classes = draw.randint(1, 3), draw.randint(5, 8), draw.randint(1, 4)
    first, layers = channels, list[nn.Module]()
    for _ in range(draw.randint(1, 3)):
        around = draw.choice(["plain", "plain", "residual", "gate", "concat", "scaled"])
        after = channels if around in ("residual", "gate") else draw.randint(2, 4)
        inner = [_convolution(draw, channels, after, keeps=around != "plain" and around != "scaled")]
        norms = [None, None, nn.BatchNorm2d(after), nn.GroupNorm(1, after), nn.InstanceNorm2d(after, affine=True)]
        inner += [norm] if (norm := draw.choice(norms)) is not None else []
        layers.append(Block(nn.Sequential(*inner, activation(draw)), around))
        channels = channels + after if around == "concat" else after
        layers += [pool] if (pool := _pooling(draw)) is not None else []
    layers += [draw.choice([nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1), nn.AdaptiveAvgPool2d(2)]), nn.Flatten()]
    width = channels * (4 if layers[-2].output_size == 2 else 1)
    net = nn.Sequential(*layers, nn.Linear(width, classes))
    return Architecture(net, lambda count, g: torch.randn(count, first, size, size, generator=g), classes)


def _convolution(draw: random.Random, channels: int, after: int, *, keeps: bool) -> nn.Module:
    kernel = draw.choice([1, 3])
    stride = 1 if keeps else draw.choice([1, 1, 2])
    groups = channels if after % channels == 0 and draw.random() < 0.3 else 1
    mode = draw.choice(["zeros", "zeros", "reflect", "circular", "replicate"])
    dilation = draw.choice([1, 2]) if kernel == 3 and keeps else 1
    padding = dilation * (kernel // 2)
    bias = draw.random() < 0.7
    return nn.Conv2d(channels, after, kernel, stride, padding, dilation=dilation, groups=groups, bias=bias, padding_mode=mode)


def _pooling(draw: random.Random) -> nn.Module | None:
    return draw.choice(
        [
            None,
            None,
            nn.MaxPool2d(2, ceil_mode=True),
            nn.MaxPool2d(3, 1, padding=1),
            nn.AvgPool2d(2, ceil_mode=True, count_include_pad=draw.random() < 0.5),
            nn.AvgPool2d(3, 1, padding=1),
            nn.Upsample(scale_factor=2, mode=draw.choice(["nearest", "bilinear"])),
            nn.Dropout2d(0.2),
        ]
    )


def of_sequences(draw: random.Random) -> Architecture:
    """Embeddings, recurrent layers, attention or convolutions over positions; with a mask in two of three."""
    words, width, length, classes = draw.randint(5, 12), draw.choice([2, 4]), draw.randint(3, 6), draw.randint(2, 4)
    of_ids, masked = draw.random() < 0.7, draw.random() < 0.65
    padding = 0 if masked and draw.random() < 0.3 else None
    embedding = nn.Embedding(words, width, padding_idx=padding) if of_ids else nn.Linear(3, width)
    body, given = _body(draw, width)
    pooling = draw.choice(["mean", "mean", "max", "last", "none"])
    head = nn.Sequential(activation(draw), nn.Linear(given, classes))
    net = OfSequences(embedding, body, head, pooling)
    form = draw.choice(["dict", "tuple"])

    def inputs(count: int, g: torch.Generator) -> Any:
        ids = torch.randint(1, words, (count, length), generator=g)
        x = ids if of_ids else torch.randn(count, length, 3, generator=g)
        if not masked:
            return x
        lengths = torch.randint(1, length + 1, (count,), generator=g)
        mask = torch.arange(length) < lengths[:, None]
        x = torch.where(mask, x, 0) if of_ids else x
        return {"x": x, "mask": mask} if form == "dict" else (x, mask)

    made = Architecture(net, inputs, classes, positions=length if pooling == "none" else 0)
    made.smooth = made.smooth and pooling != "max"
    return made


def _body(draw: random.Random, width: int) -> tuple[nn.Module, int]:
    """A layer of positions, and how wide it gives them."""
    kind, hidden = draw.choice(["lstm", "gru", "rnn", "attention", "attention", "convolution"]), draw.randint(2, 4)
    if kind == "attention":
        smooth = draw.random() < 0.6
        layer = nn.TransformerEncoderLayer(
            width, 2, 4, 0.1, "gelu" if smooth else "relu", batch_first=True, norm_first=draw.random() < 0.5
        )
        body = Attention(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False) if draw.random() < 0.3 else layer)
        return body, width
    if kind == "convolution":
        return AlongPositions(nn.Sequential(nn.Conv1d(width, hidden, 3, padding=1), activation(draw))), hidden
    both = draw.random() < 0.3
    recurrent = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[kind]
    return Recurrent(recurrent(width, hidden, batch_first=True, bidirectional=both)), hidden * (2 if both else 1)
