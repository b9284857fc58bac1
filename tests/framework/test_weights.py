"""Weights from files."""

from __future__ import annotations

import pickle

import pytest
import torch

from taskshift.nets.convnet import ConvNet
from taskshift.nets.mlp import MLP
from taskshift.nets.resnet18 import ResNet18
from taskshift.nets.vgg16 import VGG16

INPUTS = torch.linspace(-1, 1, 12).reshape(3, 4)


def mlp(**options) -> MLP:
    return MLP((4,), 3, width=5, **options)


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_come_back(tmp_path, wrapped):
    net, file = mlp(norm="batch"), tmp_path / "net.pt"
    net(INPUTS)  # moves the running statistics
    torch.save({"net": net.state_dict(), "epoch": 3} if wrapped else net.state_dict(), file)
    other = mlp(norm="batch", checkpoint=str(file), initialization="orthogonal")
    assert torch.equal(net.eval()(INPUTS), other.eval()(INPUTS))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda shape, **options: ConvNet(shape, 3, channels=(2, 2, 2), width=4, **options), (1, 24, 24)),
        (lambda shape, **options: ResNet18(shape, 3, width=2, **options), (1, 8, 8)),
        (lambda shape, **options: VGG16(shape, 3, width=2, classifier_width=4, **options), (1, 32, 32)),
    ],
)
def test_every_net_loads_its_checkpoint(tmp_path, make, shape):
    net = make(shape)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    loaded = make(shape, checkpoint=str(tmp_path / "net.pt"), initialization="lecun_normal")
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in loaded.state_dict().items())


def without(name: str) -> dict:
    return {key: value for key, value in mlp().state_dict().items() if key != name}


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (without("head.bias"), r"does not fit the net: it lacks head\.bias; give the net that it was saved from$"),
        ({**without("head.bias"), "fc.bias": torch.ones(3)}, r"it lacks head\.bias \(it has fc\.bias, which the net has not\)"),
        ({**mlp().state_dict(), "extra": torch.ones(1)}, r"it has extra, which the net has not"),
        (MLP((4,), 3, width=6).state_dict(), r"its hidden\.linear_1\.weight has the shape \[6, 4\], the net's \[5, 4\]"),
        ({"net": 3}, r'holds neither a state dict nor one under the key "net"'),
        ([torch.ones(1)], r'holds neither a state dict nor one under the key "net"'),
    ],
)
def test_another_nets_weights_are_one_sentence(tmp_path, state, sentence):
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(ValueError, match=sentence) as caught:
        mlp(checkpoint=str(tmp_path / "net.pt"))
    assert str(caught.value).startswith(f"checkpoint={tmp_path / 'net.pt'}")
    assert "\n" not in str(caught.value)


def test_no_file_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint=.*absent\.pt is no file; give one that torch\.save wrote, or null"):
        mlp(checkpoint=str(tmp_path / "absent.pt"))


class Harmful:
    """What a pickle must not be able to do."""

    ran = False

    def __reduce__(self):
        return setattr, (Harmful, "ran", True)


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", pickle.dumps({"a": 1}, protocol=2)])
def test_a_file_of_something_else_is_one_sentence(tmp_path, content):
    (tmp_path / "net.pt").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"checkpoint=.*net\.pt (is damaged: |can't be read as tensors alone \(|holds neither)"
    ) as caught:
        mlp(checkpoint=str(tmp_path / "net.pt"))
    assert "\n" not in str(caught.value)


def test_code_in_a_file_does_not_run(tmp_path):
    torch.save({"net": Harmful()}, tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"can't be read as tensors alone"):
        mlp(checkpoint=str(tmp_path / "net.pt"))
    assert not Harmful.ran
