"""Batches weigh what their losses divide by, or the user is asked."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loss_landscape import LossSurface

DRAW = torch.Generator().manual_seed(0)
WORDS = 7
LONG, SHORT = (torch.randint(0, WORDS, (16, 10), generator=DRAW) for _ in range(2))
NEXT_LONG, NEXT_SHORT = (torch.randint(0, words, (16, 10), generator=DRAW) for words in (WORDS, 2))
NEXT_SHORT[:, 3:] = -100  # a bucket of short sentences
INPUTS, LABELS = torch.randn(21, 4, generator=DRAW), torch.arange(21) % 3


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.head = nn.Embedding(WORDS, 6), nn.Linear(6, WORDS)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.words(ids)))


def tokens(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=-100)


def uneven(inputs: Tensor = INPUTS, labels: Tensor = LABELS) -> list[tuple[Tensor, Tensor]]:
    return [(inputs[:10], labels[:10]), (inputs[10:], labels[10:])]


def test_batches_of_sentences_of_other_lengths_weigh_their_tokens():
    net, batches = Words(), [(LONG, NEXT_LONG), (SHORT, NEXT_SHORT)]
    surface = LossSurface(net, lambda outputs, targets: tokens(outputs, targets), batches)
    whole = (torch.cat([LONG, SHORT]), torch.cat([NEXT_LONG, NEXT_SHORT]))
    assert surface.objective.batch_weights.values == pytest.approx((160 / 208, 48 / 208), rel=1e-9)
    assert surface.objective.batch_weights.rule == "what the loss divides by, from pairs of batches"
    with torch.no_grad():
        assert surface.loss() == pytest.approx(float(tokens(net(whole[0]), whole[1])), rel=1e-6)


def test_a_batch_in_which_nothing_counts_weighs_nothing_for_a_function_too():
    batches = [(LONG, NEXT_LONG), (SHORT, torch.full_like(NEXT_SHORT, -100))]
    surface = LossSurface(Words(), lambda outputs, targets: tokens(outputs, targets), batches)
    assert surface.objective.batch_weights.values == (1.0, 0.0)
    assert surface.loss() == LossSurface(Words(), lambda o, t: tokens(o, t), batches[:1]).loss()


def test_a_head_that_begins_at_zero_hides_no_class_weights():
    weight, net = torch.tensor([0.1, 1.0, 8.0]), nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    nn.init.zeros_(net[2].weight)
    nn.init.zeros_(net[2].bias)
    labels = torch.cat([torch.zeros(10), torch.full((11,), 2)]).long()
    weighted = lambda outputs, targets: F.cross_entropy(outputs, targets, weight=weight.to(outputs))  # noqa: E731
    surface = LossSurface(net, weighted, uneven(labels=labels))
    assert surface.objective.batch_weights.values == pytest.approx((1 / 89, 88 / 89), rel=1e-7)
    torch.testing.assert_close(surface.gradient(), LossSurface(net, weighted, [(INPUTS, labels)]).gradient())


@pytest.mark.parametrize("lengths", [(10, 10), (10, 7)], ids=["padded alike", "other lengths"])
def test_a_batch_loss_by_tokens_asks_for_their_number(lengths):
    batches = [(LONG, NEXT_LONG), (SHORT[:, : lengths[1]], NEXT_SHORT[:, : lengths[1]])]
    of_model = {"batch_loss": lambda model, batch: tokens(model(batch[0]), batch[1]), "batches": batches}
    with pytest.raises(ValueError, match=r"so how batches weigh is unknown; give batch_weight=f\(batch\)"):
        LossSurface(Words(), **of_model)
    surface = LossSurface(Words(), **of_model, batch_weight=lambda batch: int((batch[1] != -100).sum()))
    assert surface.objective.batch_weights.values == pytest.approx((160 / 208, 48 / 208))


class Pair(NamedTuple):
    logits: Tensor
    aux: Tensor


class Outputs(dict):
    """A dict whose entries are attributes too, as those of many libraries are."""

    def __init__(self, **entries: Tensor):
        super().__init__(entries)
        self.__dict__.update(entries)

    def __setitem__(self, key: str, value: Tensor) -> None:
        super().__setitem__(key, value)
        self.__dict__[key] = value


class TwoHeads(nn.Module):
    def __init__(self, form: type):
        super().__init__()
        torch.manual_seed(0)
        self.form, self.first, self.second = form, nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Any:
        return self.form(logits=self.first(inputs), aux=self.second(inputs))


FORMS = {
    "namedtuple": (Pair, lambda o, t: F.cross_entropy(o.logits, t) + 0.4 * F.cross_entropy(o.aux, t)),
    "dict": (dict, lambda o, t: F.cross_entropy(o["logits"], t) + 0.4 * F.cross_entropy(o["aux"], t)),
    "attributes": (Outputs, lambda o, t: F.cross_entropy(o.logits, t) + 0.4 * F.cross_entropy(o.aux, t)),
}


@pytest.mark.parametrize(("form", "loss"), FORMS.values(), ids=FORMS)
def test_a_mean_of_any_outputs_is_found_to_be_one(form, loss):
    net = TwoHeads(form)
    surface = LossSurface(net, loss, uneven())
    with torch.no_grad():
        assert surface.loss() == pytest.approx(float(loss(net(INPUTS), LABELS)), rel=1e-6)
    assert surface.objective.batch_weights.rule.startswith("examples")


def test_a_function_that_sums_is_summed():
    net = nn.Linear(4, 3)
    surface = LossSurface(net, lambda o, t: F.cross_entropy(o, t, reduction="sum"), uneven())
    with torch.no_grad():
        assert surface.loss() == pytest.approx(float(F.cross_entropy(net(INPUTS), LABELS, reduction="sum")), rel=1e-6)
    assert surface.objective.batch_weights.values == (1.0, 1.0)


def test_inputs_of_other_sizes_need_not_be_put_together_where_outputs_can():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    batches = [(torch.randn(4, 1, size, size), torch.arange(4) % 3) for size in (6, 9)]
    surface = LossSurface(net, lambda o, t: F.cross_entropy(o, t), batches)
    with torch.no_grad():
        right = sum(float(F.cross_entropy(net(x), y)) for x, y in batches) / 2
    assert surface.loss() == pytest.approx(right, rel=1e-6)


def test_batches_that_can_not_be_put_together_are_told():
    contrast = lambda model, batch: torch.logsumexp(model(batch[0]) @ model(batch[0]).T, 1).mean()  # noqa: E731
    with pytest.raises(ValueError, match="the loss of two batches together is not the mean of theirs by examples"):
        LossSurface(nn.Linear(4, 3), batch_loss=contrast, batches=uneven())
    with pytest.raises(ValueError, match="two batches can't be put into one to compare their losses"):
        LossSurface(
            nn.Linear(4, 3),
            batch_loss=lambda m, b: m(b["x"]).square().mean(),
            batches=[{"x": INPUTS}, {"x": INPUTS, "y": LABELS}],
        )
