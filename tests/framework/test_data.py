"""Digits and made-up images: what comes in, how it is split, and that it is normalised once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from labelled import assert_same, assert_well_formed
from sklearn.datasets import load_digits

from taskshift.data.digits import digits
from taskshift.data.normalised import Images, channel_statistics, normalised
from taskshift.data.synthetic_images import synthetic_images


def test_digits_are_scikit_learns_normalised_by_the_training_split():
    data = digits()
    assert_well_formed(data)
    assert data.input_shape == (1, 8, 8)
    training = data.inputs[data.train].double()
    assert abs(training.mean()) < 1e-6
    assert abs(training.std(correction=0) - 1) < 1e-6
    assert abs(data.inputs[data.test].double().mean()) > 1e-5, "the test split must not have a normalisation of its own"

    images = load_digits().images
    scale = (data.inputs.max() - data.inputs.min()).item() / 16  # pixels run from 0 to 16
    pixels = np.rint((data.inputs[:, 0].double().numpy() - data.black.item()) / scale)
    assert sorted(map(bytes, pixels.astype(np.uint8))) == sorted(map(bytes, images.astype(np.uint8)))


def test_a_scikit_learn_that_keeps_its_files_elsewhere_gives_the_same_digits(monkeypatch):
    expected = digits()
    monkeypatch.setattr("taskshift.data.digits.Path.exists", lambda self: False)
    assert_same(digits(), expected)


def test_without_scikit_learn_a_sentence_says_so(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="which is absent; pip install scikit-learn"):
        digits()


def test_black_is_what_an_unlit_pixel_became():
    data = digits()
    assert (data.inputs == data.black.item()).float().mean() > 0.4
    assert data.inputs.min() == data.black.item()


def test_digits_split_each_class_by_the_fraction():
    data = digits(test_fraction=0.25)
    classes = torch.bincount(data.targets)
    assert torch.equal(torch.bincount(data.targets[data.test]), torch.tensor([round(0.25 * n) for n in classes.tolist()]))


def test_digits_split_depends_on_its_seed_alone():
    torch.manual_seed(1)
    first = digits(split_seed=3)
    torch.manual_seed(2)
    assert_same(first, digits(split_seed=3))
    assert not torch.equal(first.inputs, digits(split_seed=4).inputs)


@pytest.mark.parametrize("make", [digits, synthetic_images])
def test_making_data_draws_nothing_from_the_default_generator(make):
    before = torch.get_rng_state()
    make()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_digits_refuse_an_empty_split(fraction):
    with pytest.raises(ValueError, match=rf"test_fraction={fraction} was asked for; give a share between 0 and 1"):
        digits(test_fraction=fraction)


def test_sizes_keep_the_first_of_a_shuffle_with_the_pixels_of_the_whole_set():
    whole, large, small = digits(), digits(train_size=100, test_size=20), digits(train_size=40, test_size=20)
    assert (len(small.train), len(small.test)) == (40, 20)
    assert_well_formed(small)
    assert torch.equal(large.inputs[large.train[:40]], small.inputs[small.train])
    assert torch.equal(large.inputs[large.test], small.inputs[small.test])
    known = {row.numpy().tobytes() for row in whole.inputs[whole.train]}
    assert all(row.numpy().tobytes() in known for row in small.inputs[small.train])


@pytest.mark.parametrize(("name", "size"), [("train_size", 0), ("train_size", 1439), ("test_size", 360)])
def test_a_size_the_split_has_not_is_refused(name, size):
    with pytest.raises(ValueError, match=rf"{name}={size} was asked for; the split has (1438|359) examples"):
        digits(**{name: size})


@pytest.mark.parametrize("seed", range(3))
def test_statistics_of_bytes_are_exact(seed):
    pixels = torch.randint(0, 256, (50, 3, 7, 5), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    mean, deviation = channel_statistics(pixels)
    expected = pixels.numpy().astype(np.float64)
    np.testing.assert_allclose(mean, expected.mean(axis=(0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(deviation, expected.std(axis=(0, 2, 3)), rtol=1e-7)


def test_statistics_of_floats_agree_with_numpy():
    pixels = torch.randn(40, 2, 6, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0]).view(2, 1, 1) + 100
    mean, deviation = channel_statistics(pixels)
    np.testing.assert_allclose(mean, pixels.numpy().astype(np.float64).mean(axis=(0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(deviation, pixels.numpy().astype(np.float64).std(axis=(0, 2, 3)), rtol=1e-6)


def test_a_constant_channel_stays_finite():
    images = Images(torch.full((4, 1, 2, 2), 7, dtype=torch.uint8), torch.zeros(4))
    data = normalised("flat", images, images, num_classes=1)
    assert (data.inputs == 0).all()
    assert data.black == -7


@pytest.mark.parametrize(("channels", "side", "classes", "sizes"), [(1, 8, 10, (50, 20)), (3, 33, 7, (15, 4)), (2, 1, 2, (6, 3))])
def test_synthetic_images_have_the_size_asked_for(channels, side, classes, sizes):
    data = synthetic_images(classes, channels, side, *sizes)
    assert_well_formed(data)
    assert data.input_shape == (channels, side, side)
    assert (len(data.train), len(data.test)) == sizes
    counts = torch.bincount(data.targets[data.train], minlength=classes)
    assert counts.max() - counts.min() <= 1


def test_synthetic_images_depend_on_their_seed_alone():
    assert_same(synthetic_images(pattern_seed=1), synthetic_images(pattern_seed=1))
    assert not torch.equal(synthetic_images(pattern_seed=1).inputs, synthetic_images(pattern_seed=2).inputs)


@pytest.mark.parametrize("seed", range(3))
def test_synthetic_images_can_be_learnt(seed):
    data = synthetic_images(pattern_seed=seed)
    means = torch.stack([data.inputs[data.train][data.targets[data.train] == label].mean(0).flatten() for label in range(10)])
    guessed = torch.cdist(data.inputs[data.test].flatten(1), means).argmin(1)
    assert (guessed == data.targets[data.test]).float().mean() > 0.9


@pytest.mark.parametrize("fault", [{"side": 0}, {"num_classes": 0}, {"channels": -1}, {"test_size": 0}, {"noise": -0.5}])
def test_synthetic_images_name_a_wrong_number(fault):
    ((name, value),) = fault.items()
    with pytest.raises(ValueError, match=rf"^{name}={value} was asked for; give a"):
        synthetic_images(**fault)


def test_pixels_in_a_range_of_ones_own_are_a_line_of_the_stored_ones():
    stored = torch.from_numpy(load_digits().images).float()[:, None]
    shown, signed = digits(pixel_range=(0, 1)), digits(pixel_range=(-1, 1))
    assert torch.equal(shown.inputs.flatten(1).sum(dim=0), (stored / 16).flatten(1).sum(dim=0))
    assert (shown.inputs.min(), shown.inputs.max()) == (0, 1)
    assert torch.equal(signed.inputs, 2 * shown.inputs - 1)
    assert (shown.black.item(), signed.black.item()) == (0, -1)
    assert torch.equal(shown.train, digits().train)


def test_a_range_the_wrong_way_round_is_refused():
    with pytest.raises(ValueError, match=r"pixel_range is \[1, 0\]; the first must be smaller than the second"):
        digits(pixel_range=(1, 0))
