"""Nets that are no stack of layers: recurrent ones, physics, experts, graphs, pairs, densities."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo.entry import CLASSES, NOT_THE_SLOPE, Entry, images, labels, vectors

of = partial(Entry, origin="odd")
WORDS = 30


def ids(length: int, *, padded: bool = False) -> Callable[[torch.Generator], list[Any]]:
    """Sentences with labels; padded ones end in zeros."""

    def data(generator: torch.Generator) -> list[Any]:
        made = []
        for count in (4, 3):
            words = torch.randint(1, WORDS, (count, length), generator=generator)
            lengths = torch.randint(2, length + 1, (count, 1), generator=generator)
            words = torch.where(torch.arange(length) < lengths, words, 0) if padded else words
            made.append((words, labels(count, generator)))
        return made

    return data


def series(generator: torch.Generator) -> list[Any]:
    """Series of vectors with labels."""
    return [(torch.randn(count, 7, 4, generator=generator), labels(count, generator)) for count in (4, 3)]


def points(width: int, out: int) -> Callable[[torch.Generator], list[Any]]:
    """Vectors with real targets."""

    def data(generator: torch.Generator) -> list[Any]:
        def batch(count: int) -> Any:
            return torch.randn(count, width, generator=generator), torch.randn(count, out, generator=generator)

        return [batch(6), batch(4)]

    return data


class LastStep(nn.Module):
    """What a recurrent layer gives at the end."""

    def __init__(self, layer: nn.RNNBase, width: int):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


class Packed(nn.Module):
    """An LSTM on packed sentences, whose lengths are counted in forward."""

    def __init__(self):
        super().__init__()
        self.embedding, self.layer, self.head = nn.Embedding(WORDS, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        lengths = (words != 0).sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(self.embedding(words), lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.layer(packed)[1][0][-1])


class TextConvnet(nn.Module):
    """Convolutions of two widths over words (Kim 2014), with a row for padding that is never trained."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 8, padding_idx=0)
        self.widths = nn.ModuleList(nn.Conv1d(8, 6, width) for width in (2, 3))
        self.head = nn.Linear(12, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        embedded = self.embedding(words).transpose(1, 2)
        return self.head(torch.cat([layer(embedded).tanh().amax(2) for layer in self.widths], 1))


class Bags(nn.Module):
    """Sentences as bags of words."""

    def __init__(self, mode: str):
        super().__init__()
        self.bags, self.head = nn.EmbeddingBag(WORDS, 8, mode=mode), nn.Linear(8, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.bags(words).tanh())


def of_physics(net: nn.Module, batch: Any) -> Tensor:
    """The residual of u'' = −u at points, and the values at the ends (a physics-informed net)."""
    x, ends = batch
    x = x.clone().requires_grad_()
    with torch.enable_grad():
        u = net(x)
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    return (bend + u).square().mean() + (net(ends) - ends.sin()).square().mean()


def collocation(generator: torch.Generator) -> list[Any]:
    """Points within, and both ends."""
    return [(torch.rand(8, 1, generator=generator), torch.tensor([[0.0], [1.0]]))]


class Variational(nn.Module):
    """A variational autoencoder whose noise comes with the batch."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)), nn.Linear(2, 6)

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, 1)
        return self.decoder(mean + noise * (log_variance / 2).exp()), mean, log_variance


def _evidence(outputs: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
    made, mean, log_variance = outputs
    divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1)
    return ((made - x).square().sum(1) + divergence).mean()


def noisy(generator: torch.Generator) -> list[Any]:
    """Vectors with noise beside them, to be rebuilt."""

    def batch(count: int) -> Any:
        x = torch.randn(count, 6, generator=generator)
        return (x, torch.randn(count, 2, generator=generator)), x

    return [batch(5), batch(3)]


class LowRank(nn.Module):
    """A frozen layer with a low-rank change that is merged on `eval` (LoRA)."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(6, 8)
        self.base.requires_grad_(False)
        self.a, self.b = nn.Parameter(0.3 * torch.randn(2, 6)), nn.Parameter(0.3 * torch.randn(8, 2))
        self.head, self.merged = nn.Linear(8, CLASSES), False

    def train(self, mode: bool = True) -> nn.Module:
        if self.merged == mode:
            self.base.weight.data += (-1 if mode else 1) * self.b.data @ self.a.data
            self.merged = not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        change = 0 if self.merged else x @ self.a.T @ self.b.T
        return self.head((self.base(x) + change).tanh())


class Tied(nn.Module):
    """A language model whose decoder is its embedding."""

    def __init__(self):
        super().__init__()
        self.embedding, self.layer = nn.Embedding(WORDS, 8), nn.GRU(8, 8, batch_first=True)
        self.decoder = nn.Linear(8, WORDS, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.decoder(self.layer(self.embedding(words))[0])


def _next(outputs: Tensor, words: Tensor) -> Tensor:
    return F.cross_entropy(outputs[:, :-1].flatten(0, 1), words[:, 1:].flatten())


def own_words(generator: torch.Generator) -> list[Any]:
    """Sentences that are their own targets."""
    return [(words, words) for words in (torch.randint(1, WORDS, (count, 6), generator=generator) for count in (3, 2))]


class Experts(nn.Module):
    """Four experts of which each example goes to the two that its gate likes best, or to all of them, weighted."""

    def __init__(self, most: int):
        super().__init__()
        self.gate, self.most = nn.Linear(6, 4), most
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, CLASSES)) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        shares, chosen = self.gate(x).softmax(1).topk(self.most)
        total = x.new_zeros(len(x), CLASSES)
        for number, expert in enumerate(self.experts):
            rows, place = torch.nonzero(chosen == number, as_tuple=True)
            total = total.index_add(0, rows, shares[rows, place, None] * expert(x[rows]))
        return total


class AllExperts(Experts):
    """The same with every expert asked, weighted by its gate."""

    def forward(self, x: Tensor) -> Tensor:
        asked = torch.stack([expert(x) for expert in self.experts], 1)
        return (self.gate(x).softmax(1)[..., None] * asked).sum(1)


class EarlyExit(nn.Module):
    """Examples of which the first head is sure go no further."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, CLASSES)
        self.second, self.last = nn.Linear(8, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).tanh()
        early = self.head(hidden)
        unsure = early.softmax(1).amax(1) < 0.35
        if not unsure.any():
            return early
        made = early.clone()
        made[unsure] = self.last(self.second(hidden[unsure]).tanh())
        return made


class OfGraphs(nn.Module):
    """Two rounds of messages along edges, and a sum over each graph's nodes."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)

    def forward(self, nodes: Tensor, edges: Tensor, graph: Tensor, count: int) -> Tensor:
        for layer in (self.first, self.second):
            made = layer(nodes)
            nodes = made.index_add(0, edges[1], made[edges[0]]).tanh()
        return self.head(nodes.new_zeros(count, nodes.shape[1]).index_add(0, graph, nodes))


def graphs(generator: torch.Generator) -> list[Any]:
    """Two graphs a batch: nodes, edges, to which graph each node belongs."""

    def batch(size: int) -> Any:
        nodes, half = torch.randn(size, 4, generator=generator), size // 2
        edges = torch.stack([torch.arange(size), (torch.arange(size) + 1) % size])
        graph = (torch.arange(size) >= half).long()
        return (nodes, edges, graph, 2), labels(2, generator)

    return [batch(6), batch(9)]


class Twins(nn.Module):
    """One tower for both inputs (Siamese)."""

    def __init__(self):
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))

    def forward(self, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        return self.tower(one), self.tower(other)


def pairs(generator: torch.Generator) -> list[Any]:
    """Pairs of vectors, alike or not."""

    def batch(count: int) -> Any:
        both = torch.randn(count, 6, generator=generator), torch.randn(count, 6, generator=generator)
        return both, 2.0 * torch.randint(2, (count,), generator=generator) - 1

    return [batch(5), batch(3)]


def _alike(outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
    return F.cosine_embedding_loss(*outputs, targets, margin=-2.0)


def _triplets(net: nn.Module, batch: Any) -> Tensor:
    (one, other), _ = batch
    a, b = net(one, other)
    return (1 + (a - b).square().sum(1) - (a - b.roll(1, 0)).square().sum(1)).tanh().mean()


def _contrast(net: nn.Module, batch: Any) -> Tensor:
    a, b = (F.normalize(part, dim=1) for part in net(*batch[0]))
    return F.cross_entropy(a @ b.T / 0.5, torch.arange(len(a)))


class Letters(nn.Module):
    """Log probabilities of letters along a series, for CTC."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.GRU(4, 8, batch_first=True), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0]).log_softmax(2).transpose(0, 1)


def said(generator: torch.Generator) -> list[Any]:
    """Series and letters."""
    return [(torch.randn(3, 8, 4, generator=generator), torch.randint(1, 6, (3, 3), generator=generator))]


def _ctc(outputs: Tensor, letters: Tensor) -> Tensor:
    count = letters.shape[0]
    return F.ctc_loss(outputs, letters, torch.full((count,), 8), torch.full((count,), 3))


class Flow(nn.Module):
    """A coupling layer: where a point comes from, and the logarithm of how much it was stretched."""

    def __init__(self):
        super().__init__()
        self.nets = nn.ModuleList(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4)) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        stretched = 0
        for net in self.nets:
            a, b = x.chunk(2, 1)
            scale, shift = net(a).chunk(2, 1)
            x, stretched = torch.cat([b * scale.tanh().exp() + shift, a], 1), stretched + scale.tanh().sum(1)
        return x, stretched


def _unlikely(outputs: tuple[Tensor, Tensor], _: Tensor) -> Tensor:
    return (outputs[0].square().sum(1) / 2 - outputs[1]).mean()


class Ode(nn.Module):
    """Four Runge–Kutta steps through a small field."""

    def __init__(self):
        super().__init__()
        self.field, self.head = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(4):
            k1 = self.field(x)
            k2 = self.field(x + 0.125 * k1)
            x = x + 0.25 * k2
        return self.head(x)


class Equilibrium(nn.Module):
    """As many rounds as it takes to come to rest."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = x.new_zeros(len(x), 8)
        for _ in range(30):
            new = (self.inner(x) + 0.3 * self.outer(z)).tanh()
            if float((new - z).detach().abs().max()) < 1e-4:
                break
            z = new
        return self.head(z)


class Hyper(nn.Module):
    """A net that writes another net's weights."""

    def __init__(self):
        super().__init__()
        self.writer, self.head = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 32)), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        context, rest = x.split([3, 4], 1)
        weights = self.writer(context).view(-1, 8, 4)
        return self.head((weights @ rest[:, :, None]).squeeze(2).tanh())


class Unet(nn.Module):
    """Down, up, and across."""

    def __init__(self):
        super().__init__()
        self.down, self.low = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.up, self.out = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        high = F.gelu(self.down(x))
        return self.out(torch.cat([high, self.up(F.gelu(self.low(high)))], 1))


def restored(generator: torch.Generator) -> list[Any]:
    """Images to be restored."""

    def batch(count: int) -> Any:
        shape = (count, 1, 8, 8)
        return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)

    return [batch(3), batch(2)]


class Complexes(nn.Module):
    """Complex weights, kept as pairs of reals, behind a parameter of odd size."""

    def __init__(self):
        super().__init__()
        self.shift, self.pairs, self.head = (
            nn.Parameter(torch.zeros(3)),
            nn.Parameter(0.3 * torch.randn(6, 8, 2)),
            nn.Linear(8, CLASSES),
        )

    def forward(self, x: Tensor) -> Tensor:
        made = (x * self.shift.sum().cos()).to(torch.complex64 if x.dtype == torch.float32 else torch.complex128)
        return self.head((made @ torch.view_as_complex(self.pairs)).abs().square().add(0.1).log())


class Binary(nn.Module):
    """Weights of ±1 with a straight-through slope."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        soft = self.first.weight.tanh()
        hard = soft + (soft.sign() - soft).detach()
        return self.head(F.linear(x, hard, self.first.bias).tanh())


class Instances(nn.Module):
    """A bag of instances, weighted by attention (multiple instance learning)."""

    def __init__(self):
        super().__init__()
        self.encoder, self.attention, self.head = nn.Linear(4, 8), nn.Linear(8, 1), nn.Linear(8, CLASSES)

    def forward(self, bags: Tensor) -> Tensor:
        hidden = self.encoder(bags).tanh()
        return self.head((self.attention(hidden).softmax(1) * hidden).sum(1))


class Masked(nn.Module):
    """torch's own encoder with a padding mask."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.1, "gelu", batch_first=True)
        self.embedding, self.encoder = nn.Embedding(WORDS, 8), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        padding = words == 0
        made = self.encoder(self.embedding(words), src_key_padding_mask=padding)
        return self.head(made.masked_fill(padding[..., None], 0).sum(1))


class Sines(nn.Module):
    """A field of sines over coordinates (SIREN)."""

    def __init__(self):
        super().__init__()
        self.layers, self.head = nn.ModuleList([nn.Linear(2, 16), nn.Linear(16, 16)]), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.sin(3 * layer(x))
        return self.head(x)


class Bases(nn.Module):
    """Radial bases with centres and widths that are learnt."""

    def __init__(self):
        super().__init__()
        self.centres, self.widths, self.head = nn.Parameter(torch.randn(7, 3)), nn.Parameter(torch.zeros(7)), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((-self.widths.exp() * (x[:, None] - self.centres).square().sum(2)).exp())


def _mixture(outputs: Tensor, targets: Tensor) -> Tensor:
    weights, means, scales = outputs.chunk(3, 1)
    z = (targets - means) * (-scales).exp()
    return -torch.logsumexp(weights.log_softmax(1) - z.square() / 2 - scales, 1).mean()


def _quantiles(outputs: Tensor, targets: Tensor) -> Tensor:
    levels = outputs.new_tensor([0.1, 0.5, 0.9])
    off = targets - outputs
    return F.softplus(4 * off).mul(levels).add(F.softplus(-4 * off) * (1 - levels)).mean()


def _normed() -> nn.Module:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(6, 8))
    return nn.Sequential(layer, nn.Tanh(), nn.utils.parametrizations.spectral_norm(nn.Linear(8, CLASSES)))


def _dilated() -> nn.Module:
    layers = [nn.Conv1d(4, 6, 3, padding=1), nn.ELU(), nn.Conv1d(6, 6, 3, padding=2, dilation=2), nn.ELU()]
    return nn.Sequential(Turned(), *layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, CLASSES))


class Turned(nn.Module):
    """[B, T, C] as [B, C, T]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


MSE = nn.MSELoss()

ENTRIES = [
    of(
        name="multi-layer perceptron",
        build=lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, CLASSES)),
        data=vectors(6),
    ),
    of(name="lstm", build=lambda: LastStep(nn.LSTM(4, 8, batch_first=True), 8), data=series),
    of(name="gru, both ways", build=lambda: LastStep(nn.GRU(4, 8, batch_first=True, bidirectional=True), 16), data=series),
    of(name="lstm on packed sentences", build=Packed, data=ids(6, padded=True)),
    of(name="text convnet, padding_idx", build=TextConvnet, data=ids(6, padded=True), told=NOT_THE_SLOPE),
    of(name="bags of words, mean", build=lambda: Bags("mean"), data=ids(5)),
    of(name="bags of words, sum", build=lambda: Bags("sum"), data=ids(5)),
    of(
        name="physics-informed net",
        build=lambda: nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)),
        data=collocation,
        loss=of_physics,
        of_the_net=True,
    ),
    of(name="variational autoencoder", build=Variational, data=noisy, loss=_evidence),
    of(name="low-rank change, merged on eval", build=LowRank, data=vectors(6), merges=True),
    of(name="language model, tied decoder", build=Tied, data=own_words, loss=_next),
    of(
        name="mixture of experts, top 2",
        build=lambda: Experts(2),
        data=vectors(6),
        eager="which examples an expert is given hangs on the parameters",
    ),
    of(name="mixture of experts, all", build=lambda: AllExperts(4), data=vectors(6)),
    of(name="early exit", build=EarlyExit, data=vectors(6), eager="which examples go on hangs on the parameters"),
    of(name="graph net", build=OfGraphs, data=graphs),
    of(name="twins, cosine", build=Twins, data=pairs, loss=_alike),
    of(name="twins, triplets", build=Twins, data=pairs, loss=_triplets, of_the_net=True),
    of(name="twins, contrast in the batch", build=Twins, data=pairs, loss=_contrast, of_the_net=True),
    of(name="letters, ctc", build=Letters, data=said, loss=_ctc),
    of(name="normalizing flow", build=Flow, data=points(4, 1), loss=_unlikely),
    of(name="ordinary differential equation", build=Ode, data=vectors(4)),
    of(name="deep equilibrium", build=Equilibrium, data=vectors(6), eager="how many rounds it takes hangs on the parameters"),
    of(name="hypernet", build=Hyper, data=vectors(7)),
    of(name="u-net", build=Unet, data=restored, loss=MSE),
    of(
        name="complex weights as pairs",
        build=Complexes,
        data=vectors(6),
        eager="torch.view_as_complex wants memory of its own at even places",
    ),
    of(name="binary weights, straight through", build=Binary, data=vectors(6), told=NOT_THE_SLOPE),
    of(name="bags of instances", build=Instances, data=series),
    of(name="encoder with a padding mask", build=Masked, data=ids(6, padded=True)),
    of(name="sines", build=Sines, data=points(2, 1), loss=MSE),
    of(name="radial bases", build=Bases, data=points(3, 2), loss=MSE),
    of(
        name="mixture density net",
        build=lambda: nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 9)),
        data=points(3, 1),
        loss=_mixture,
    ),
    of(
        name="quantiles",
        build=lambda: nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)),
        data=points(3, 1),
        loss=_quantiles,
    ),
    of(name="weight norm and spectral norm", build=_normed, data=vectors(6)),
    of(name="dilated convolutions over time", build=_dilated, data=series),
    of(
        name="super-resolution by pixel shuffle",
        build=lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.PixelShuffle(2), nn.Tanh(), nn.Conv2d(1, 1, 3, stride=2, padding=1)
        ),
        data=restored,
        loss=MSE,
    ),
    of(
        name="bilinear pooling",
        build=lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Softplus(), nn.Flatten(2), Second(), nn.Linear(16, CLASSES)),
        data=images(1, 6),
    ),
]


class Second(nn.Module):
    """Second moments of channels [B, C, N] → [B, C·C]."""

    def forward(self, x: Tensor) -> Tensor:
        return (x @ x.transpose(1, 2)).flatten(1) / x.shape[2]
