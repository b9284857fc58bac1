"""What users give as net, loss and batches works, or is answered in one sentence that says what came."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from loss_landscape import HessianOperator, LossSurface

INPUTS = torch.randn(21, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(21) % 3


@pytest.fixture
def net() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def own_loss(net: nn.Module) -> float:
    with torch.no_grad():
        return float(F.cross_entropy(net(INPUTS).double(), LABELS))


BATCHES = {
    "one batch in place of a list": (INPUTS, LABELS),
    "a data set": TensorDataset(INPUTS, LABELS),
    "numpy": [(INPUTS.numpy(), LABELS.numpy())],
    "int32 labels": [(INPUTS, LABELS.int())],
    "an empty last batch": [(INPUTS, LABELS), (INPUTS[:0], LABELS[:0])],
}


@pytest.mark.parametrize("batches", BATCHES.values(), ids=BATCHES)
def test_batches_as_people_have_them(net, batches):
    assert LossSurface(net, nn.CrossEntropyLoss(), batches).loss() == pytest.approx(own_loss(net), rel=1e-7)


@pytest.mark.parametrize("loss", [F.cross_entropy, None], ids=["function", "batch_loss"])
def test_an_empty_batch_is_left_out_for_any_loss(net, loss):
    whole = {} if loss else {"batch_loss": lambda model, batch: F.cross_entropy(model(batch[0]), batch[1])}
    batches = [(INPUTS, LABELS), (INPUTS[:0], LABELS[:0])]
    assert LossSurface(net, loss, batches, **whole).loss() == pytest.approx(own_loss(net), rel=1e-6)


def test_numpy_batches_are_copied(net):
    inputs = INPUTS.numpy().copy()
    surface = LossSurface(net, nn.CrossEntropyLoss(), [(inputs, LABELS.numpy())])
    inputs *= 0
    torch.testing.assert_close(surface.losses(points=surface.origin[None]).item(), own_loss(net))


def test_a_net_and_data_of_inference_mode_have_derivatives():
    with torch.inference_mode():
        torch.manual_seed(0)
        net, inputs = nn.Linear(4, 3), INPUTS.clone()
    surface = LossSurface(net, nn.MSELoss(), [(inputs, torch.zeros(21, 3))])
    gram = 2 / (21 * 3) * INPUTS.T.double() @ INPUTS.double()  # of each output's weights
    direction = torch.zeros(surface.size)
    direction[:4] = 1.0  # the first output's weights
    expected = gram.sum(dim=1)
    torch.testing.assert_close((HessianOperator(surface) @ direction)[:4].double(), expected, rtol=1e-5, atol=1e-6)


def test_a_net_in_data_parallel_is_the_net_itself(net):
    surface = LossSurface(nn.DataParallel(net), nn.CrossEntropyLoss(), [(INPUTS, LABELS)])
    assert surface.layout.names == ("weight", "bias")
    assert surface.loss() == pytest.approx(own_loss(net), rel=1e-7)


class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        raise KeyError("boxes")


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(3))


def scripted() -> nn.Module:
    return torch.jit.script(nn.Linear(4, 3))


NETS = {
    "failing": (Fails, r"the net, in eval mode, failed on the first batch \(inputs float32 \[21, 4\]\): 'boxes'"),
    "lazy": (lazy, "the model has lazy layers that have not run yet; call model\\(inputs\\) once before"),
    "meta": (lambda: nn.Linear(4, 3, device="meta"), "the model is on the meta device and has no numbers; load its weights"),
    "scripted": (scripted, "a scripted module can't be called with other parameters; give the module that it was scripted from"),
    "no net": (lambda: [nn.Linear(4, 3)], "model must be a torch.nn.Module, got list"),
    "a class": (lambda: nn.Linear, "model must be a torch.nn.Module, got type; give an instance of the class Linear"),
    "a state dict": (
        lambda: nn.Linear(4, 3).state_dict(),
        r"got OrderedDict; build the net and load into it: net\.load_state_dict",
    ),
    "a file": (lambda: "net.pt", r"got str; build the net and load into it: net\.load_state_dict\(torch\.load\(file\)\)"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("make", "sentence"), NETS.values(), ids=NETS)
def test_a_net_that_can_not_be_used_is_told(make, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        LossSurface(make(), nn.CrossEntropyLoss(), [(INPUTS, LABELS)])


OPTIONS = {
    "a class of losses": ({"loss_fn": nn.CrossEntropyLoss}, TypeError, r"give an instance of it, CrossEntropyLoss\(\)"),
    "a dtype by name": ({"dtype": "float64"}, TypeError, r"dtype of torch, such as torch\.float64, got 'float64'"),
    "a dtype of integers": ({"dtype": torch.int64}, TypeError, r"must be a floating-point dtype .* got torch\.int64"),
    "weight decay": ({"regularizer": 1e-4}, TypeError, r"expected a function, called as regularizer\(model\), got 0\.0001"),
    "a penalty of a layer": (
        {"regularizer": lambda net: net.weight},
        ValueError,
        r"regularizer\(model\) must be a scalar .* \[3, 4\]",
    ),
    "a penalty as a number": (
        {"regularizer": lambda net: 0.5},
        ValueError,
        r"regularizer\(model\) must be .* got float; leave out",
    ),
    "a weight": ({"batch_weight": 2}, TypeError, r"expected a function, called as batch_weight\(batch\), got 2"),
    "three parts": (
        {"batches": [(INPUTS, LABELS, LABELS)]},
        TypeError,
        r"must be \(inputs, targets\) .* got a tuple of 3; for other",
    ),
}


@pytest.mark.parametrize(("options", "kind", "sentence"), OPTIONS.values(), ids=OPTIONS)
def test_an_option_that_can_not_be_is_told(options, kind, sentence):
    with pytest.raises(kind, match=sentence):
        LossSurface(nn.Linear(4, 3), **{"loss_fn": nn.CrossEntropyLoss(), "batches": [(INPUTS, LABELS)], **options})


TARGETS = {
    "floats": (LABELS.float(), r"targets float32 \[21\]\): expected target dtype"),
    "a column": (LABELS[:, None], r"targets int64 \[21, 1\]\): 0D or 1D target tensor expected"),
    "beyond the classes": (LABELS + 1, r"targets int64 \[21\]\): Target 3 is out of bounds"),
    "all ignored": (torch.full((21,), -100), r"no example counts in the loss: each batch weighs 0 \(are all targets ignored\?\)"),
}


@pytest.mark.parametrize(("targets", "sentence"), TARGETS.values(), ids=TARGETS)
def test_targets_that_do_not_fit_are_told_with_their_shapes(net, targets, sentence):
    with pytest.raises(ValueError, match=sentence):
        LossSurface(net, nn.CrossEntropyLoss(), [(INPUTS, targets)])


LOSSES = {
    "a dict": (lambda loss: {"loss": loss}, "got dict; return the scalar alone"),
    "with logs": (lambda loss: (loss, {}), "got tuple; return the scalar alone"),
    "a number": (lambda loss: loss.item(), r"got float; leave out \.item\(\)"),
    "a vector": (lambda loss: loss[None], r"got one \[1\]; reduce it by mean or sum"),
}


@pytest.mark.parametrize(("form", "sentence"), LOSSES.values(), ids=LOSSES)
def test_a_loss_that_is_no_scalar_tensor_is_told(net, form, sentence):
    with pytest.raises(ValueError, match=sentence):
        LossSurface(net, batch_loss=lambda m, b: form(F.cross_entropy(m(b[0]), b[1])), batches=[(INPUTS, LABELS)])


def test_a_loss_that_fails_is_told_with_the_mode_of_the_net(net):
    sentence = r"batch_loss\(model, batch\), with the net in eval mode, failed on the first batch .*no attribute 'sum'"
    with pytest.raises(ValueError, match=sentence):
        LossSurface(net, batch_loss=lambda m, b: m(b[0]).values.sum(), batches=[(INPUTS, LABELS)])


def test_a_later_batch_of_another_shape_is_told(net):
    wrong = [(INPUTS, LABELS), (INPUTS[:, :3], LABELS)]
    shapes = r"failed on batch 1 \(batch float32 \[21, 3\] and int64 \[21\]\): mat1 and mat2"
    with pytest.raises(ValueError, match=f"the net or loss_fn {shapes}"):
        LossSurface(net, nn.CrossEntropyLoss(), wrong)
    with pytest.raises(ValueError, match=f"the net or its loss {shapes}"):
        LossSurface(net, batch_loss=lambda m, b: F.cross_entropy(m(b[0]), b[1]), batches=wrong)


def test_batches_that_are_none_or_never_come_are_told(net):
    with pytest.raises(ValueError, match="batch 1 is None; let the loader's collate function leave out what can't be read"):
        LossSurface(net, nn.CrossEntropyLoss(), [(INPUTS, LABELS), None])
    nothing = DataLoader(TensorDataset(INPUTS, LABELS), batch_size=64, drop_last=True)
    with pytest.raises(ValueError, match="expected at least one batch, got none; .* drop_last=True over fewer examples"):
        LossSurface(net, nn.CrossEntropyLoss(), nothing)


def test_integer_arrays_stay_integers(net):
    (batch,) = LossSurface(net, nn.CrossEntropyLoss(), [(INPUTS.numpy(), np.arange(21) % 3)]).objective.batches
    assert batch[1].dtype == torch.int64
