"""A small vision transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from taskshift.nets.activations import ActivationName, activated_width, activation_module
from taskshift.nets.initialisation import InitializationName, initialise
from taskshift.nets.layer_kinds import LayerName, convolution, linear
from taskshift.nets.layers import NormName, at_least_one, feature_norm, image_shape
from taskshift.nets.weights import load_checkpoint

POSITION_DEVIATION = 0.02


class Transformer(nn.Module):
    """Images cut into patches, `depth` blocks of attention and an MLP with pre-norm, a mean over the patches, a head.

    Dosovitskiy et al. 2021, with the mean in place of a class token (Beyer et al. 2022). `width` is that of a token, `mlp_width`
    that of the hidden layer in a block. Sides must be multiples of `patch`. Attention is written out, so that second
    derivatives exist.
    """

    smallest_side = 4

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_outputs: int,
        patch: int = 4,
        depth: int = 4,
        width: int = 64,
        heads: int = 4,
        mlp_width: int = 128,
        activation: ActivationName = "gelu",
        norm: NormName = "layer",
        layer: LayerName = "linear",
        initialization: InitializationName = "default",
        checkpoint: str | None = None,
    ):
        super().__init__()
        at_least_one(patch=patch, depth=depth, width=width, heads=heads, mlp_width=mlp_width)
        colours, height, breadth = image_shape(input_shape, patch, "transformer")
        _refuse_remainders(height, breadth, patch, width, heads, norm)
        self.patches = convolution(layer, colours, width, patch, stride=patch)
        self.positions = nn.Parameter(torch.randn(height * breadth // patch**2, width) * POSITION_DEVIATION)
        self.blocks = nn.Sequential(*(Block(width, heads, mlp_width, activation, norm, layer) for _ in range(depth)))
        self.norm = nn.Sequential(*feature_norm(norm, width))
        self.head = linear(layer, width, num_outputs)
        initialise(self, initialization, activation, head=self.head)
        load_checkpoint(self, checkpoint)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, C, H, W] → [B, num_outputs]."""
        tokens = self.patches(inputs).flatten(2).mT + self.positions  # [B, T, width]
        return self.head(self.norm(self.blocks(tokens)).mean(dim=1))


class Block(nn.Module):
    """Attention, then an MLP, each of normed tokens and each gone round. Hidden units come token by token, [B·T, mlp_width]."""

    def __init__(self, width: int, heads: int, mlp_width: int, activation: ActivationName, norm: NormName, layer: LayerName):
        super().__init__()
        self.norm_1 = nn.Sequential(*feature_norm(norm, width))
        self.attention = Attention(width, heads, layer)
        self.norm_2 = nn.Sequential(*feature_norm(norm, width))
        self.linear_1 = linear(layer, width, mlp_width)
        self.activation = activation_module(activation, mlp_width)
        self.linear_2 = linear(layer, activated_width(activation, mlp_width), width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T, width] → the same shape."""
        tokens = tokens + self.attention(self.norm_1(tokens))
        hidden = self.linear_1(self.norm_2(tokens))
        return tokens + self.linear_2(self.activation(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2]))


class Attention(nn.Module):
    """softmax(Q Kᵀ/√d) V for each of `heads` heads of d = width/heads dimensions; every token sees all (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int, layer: LayerName):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (linear(layer, width, width) for _ in range(4))

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T, width] → the same shape."""
        query, key, value = (self._by_head(made(tokens)) for made in (self.query, self.key, self.value))
        shares = (query @ key.mT * query.shape[-1] ** -0.5).softmax(dim=-1)
        return self.output((shares @ value).transpose(1, 2).flatten(2))

    def _by_head(self, tokens: Tensor) -> Tensor:
        """[B, T, width] → [B, heads, T, d]."""
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)


def _refuse_remainders(height: int, breadth: int, patch: int, width: int, heads: int, norm: NormName) -> None:
    if height % patch or breadth % patch:
        raise ValueError(f"patch={patch} does not divide the images' {height}×{breadth} pixels; give a divisor of both sides")
    if width % heads:
        raise ValueError(f"width={width} is no multiple of heads={heads}; each head takes the same share of a token")
    if norm in ("batch", "group", "online"):
        raise ValueError(f"norm={norm!r} is for features [B, C]; a transformer takes layer, rms or none")
