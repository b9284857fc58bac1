"""Which loss was meant: by the number of required arguments, and never by guessing."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from user_training import examples, loader_of, mean_loss, user_net

from loss_landscape import Explorer
from loss_landscape.explorer.loss_choice import chosen_loss
from loss_landscape.explorer.loss_options import LossKeywords, LossOptions


def of_the_model(model, x, y):
    return F.cross_entropy(model(x), y)


def of_a_batch(model, batch):
    return F.cross_entropy(model(batch["x"]), batch["y"])


@pytest.mark.parametrize(
    "loss_fn",
    [
        nn.CrossEntropyLoss(),
        F.cross_entropy,
        lambda outputs, targets: F.cross_entropy(outputs, targets),
        lambda model, inputs, targets: F.cross_entropy(model(inputs), targets),
        functools.partial(F.cross_entropy, label_smoothing=0.0),
    ],
    ids=["module", "function", "two", "three", "partial"],
)
def test_all_ways_to_write_a_loss_give_the_same_mean(loss_fn):
    """Over batches of 32, 32 and 6: the mean over the 70 examples, not over the batches."""
    net = user_net()
    explorer = Explorer(net, loss_fn, loader_of(70))
    assert explorer.surface.loss() == pytest.approx(mean_loss(net, examples(70)), rel=1e-6)


def test_custom_losses_and_hooks_are_the_loss():
    net, wanted = user_net(), mean_loss(user_net(), examples())
    dicts = [{"x": x, "y": y} for x, y in loader_of()]
    given: list[tuple[object, dict]] = [
        (loader_of(), {"custom_loss_fn": of_the_model}),
        (dicts, {"custom_loss_fn": of_a_batch}),
        (loader_of(), {"post_batch_hook": lambda outputs, x, y: F.cross_entropy(outputs, y)}),
        (dicts, {"loss_fn": F.cross_entropy, "pre_batch_hook": lambda batch: (batch["x"], batch["y"])}),
    ]
    for loader, options in given:
        loss_fn = options.pop("loss_fn", None)
        assert Explorer(net, loss_fn, loader, **options).surface.loss() == pytest.approx(wanted, rel=1e-6)


def test_precedence_is_told():
    hook = lambda outputs, x, y: outputs.sum()  # noqa: E731
    both = chosen_loss(F.cross_entropy, LossOptions(post_batch_hook=hook))
    assert both.notes == ("post_batch_hook gives the loss: loss_fn is not called",)
    custom = chosen_loss(None, LossOptions(post_batch_hook=hook, custom_loss_fn=of_the_model))
    assert custom.notes == ("custom_loss_fn is the whole loss: post_batch_hook is not called",)
    assert custom.called == "of_the_model"


@pytest.mark.parametrize(
    ("loss_fn", "options", "sentence"),
    [
        (F.cross_entropy, {"custom_loss_fn": of_the_model}, "loss_fn and custom_loss_fn are both given"),
        (None, {}, "give a loss: loss_fn\\(outputs, targets\\)"),
        (lambda *given: given, {}, "loss_fn takes \\*given, so what it wants is not clear; wrap it"),
        (lambda x: x, {}, "loss_fn has 1 required argument \\(x\\), so what it wants is not clear"),
        (lambda a, b, c, d: a, {}, "loss_fn has 4 required arguments"),
        (of_a_batch, {}, "the first is called model; give it as custom_loss_fn="),
        (None, {"custom_loss_fn": lambda x: x}, "custom_loss_fn has 1 required argument"),
        (
            None,
            {"post_batch_hook": lambda x, y: x},
            "post_batch_hook takes \\(outputs, inputs, targets\\), got one of \\(x, y\\)",
        ),
    ],
)
def test_what_is_not_clear_is_refused(loss_fn, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        chosen_loss(loss_fn, LossOptions(**options))


def test_what_is_no_loss_is_refused():
    with pytest.raises(TypeError, match="loss_fn must be callable, got float"):
        chosen_loss(0.5, LossOptions())  # type: ignore[arg-type]


def test_unknown_options_say_what_was_meant():
    with pytest.raises(TypeError, match="no argument 'regulariser'; did you mean regularizer\\?"):
        Explorer(user_net(), F.cross_entropy, loader_of(), regulariser=None)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model_mode": "evaluate"}, "model_mode must be 'eval' or 'train'"),
        ({"max_batches": 0}, "max_batches must be a whole number of 1 or more batches, or None for all data, got 0"),
        ({"max_batches": 2.5}, "max_batches must be a whole number of 1 or more batches, or None for all data, got 2.5"),
        ({"regularizer": lambda model: torch.ones(2)}, "regularizer\\(model\\) must return a scalar, got \\[2\\]"),
    ],
)
def test_wrong_values_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Explorer(user_net(), F.cross_entropy, loader_of(), **options)


def test_the_keywords_for_editors_are_the_options():
    assert list(LossKeywords.__annotations__) == list(LossOptions.__dataclass_fields__)
