"""A plain loop recorded: what is kept, what is found at the end, and what a failure leaves."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from user_training import loader_of, one_epoch, user_net

from loss_landscape import LossLandscapeWriter, TrainingRecorder
from loss_landscape.writer.mirror import Mirror


def recorded(folder, net, *, epochs: int = 4, **options) -> LossLandscapeWriter:
    options = {"at_end": [], **options}
    with TrainingRecorder(folder, net, loader_of(), F.cross_entropy, **options) as recorder:
        for epoch in range(epochs):
            recorder.record(epoch, train_loss=one_epoch(net, loader_of()), learning_rate=0.5)
    return LossLandscapeWriter(folder)


def test_a_plain_loop_is_recorded_and_measured(tmp_path):
    net = user_net()
    with recorded(tmp_path, net, at_end=["1d", "trajectory", "hessian"], max_batches=None) as writer:
        record = writer.record()
    assert sorted(record.grids) == ["1d", "2d"]
    path, metrics = record.trajectories[0], record.hessians[0]
    assert [point.epoch for point in path.points] == [0, 1, 2, 3]
    assert path.coordinates[-1] == pytest.approx([0, 0], abs=1e-6)
    assert record.grids["2d"].info.extra["plane"] == path.plane
    assert metrics.epoch == 3
    with torch.no_grad():
        everything = torch.utils.data.default_collate(list(loader_of().dataset))
        assert path.losses[-1] == pytest.approx(F.cross_entropy(net(everything[0]), everything[1]).item(), rel=1e-6)


def test_every_nth_epoch(tmp_path):
    with recorded(tmp_path, user_net(), epochs=7, every=3, hessian_every=2, max_batches=1) as writer:
        assert [one.epoch for one in writer.checkpoints()] == [0, 3, 6]
        assert [one.epoch for one in writer.record().hessians] == [0, 2, 4, 6]


def test_a_training_that_goes_on_is_recorded_at_the_epochs_of_a_whole_one(tmp_path, monkeypatch):
    """Also where it stopped between two that are kept, and where the first epoch is called 1."""
    measured: list[float] = []
    monkeypatch.setattr(LossLandscapeWriter, "compute_hessian_metrics", lambda *of, epoch, **options: measured.append(epoch))
    for begin, stopped in ((0, 4), (1, 5), (1, 3)):
        folder, net = tmp_path / f"{begin}_{stopped}", user_net()
        measured.clear()
        for epochs in (range(begin, stopped), range(stopped, begin + 8)):
            with TrainingRecorder(folder, net, loader_of(), F.cross_entropy, every=3, hessian_every=2, at_end=[]) as recorder:
                for epoch in epochs:
                    recorder.record(epoch)
        with LossLandscapeWriter(folder) as writer:
            assert [one.epoch - begin for one in writer.checkpoints()] == [0, 3, 6]
        assert [epoch - begin for epoch in measured] == [0, 2, 4, 6]


def test_too_few_checkpoints_for_a_path_cost_nothing_else(tmp_path, caplog):
    with recorded(tmp_path, user_net(), epochs=2, at_end=["trajectory", "1d"]) as writer:
        assert list(writer.record().grids) == ["1d"]
    assert "no trajectory: it needs 3 checkpoints, and 2 were recorded" in caplog.text


def test_what_cannot_be_measured_is_told_before_the_training(tmp_path):
    with (
        pytest.raises(ValueError, match="scalar"),
        TrainingRecorder(tmp_path, user_net(), loader_of(), nn.CrossEntropyLoss(reduction="none")),
    ):
        raise AssertionError("the training began")
    LossLandscapeWriter(tmp_path).close()  # the folder was let go of


def fail_after_one_epoch(folder) -> None:
    with TrainingRecorder(folder, user_net(), loader_of(), F.cross_entropy) as recorder:
        recorder.record(0)
        raise RuntimeError("out of luck")


def test_a_training_that_fails_keeps_what_was_recorded(tmp_path):
    with pytest.raises(RuntimeError, match="out of luck"):
        fail_after_one_epoch(tmp_path)
    with LossLandscapeWriter(tmp_path) as writer:
        assert len(writer.checkpoints()) == 1
        assert not writer.record().grids


def test_a_writer_of_the_users_own_stays_open(tmp_path):
    with LossLandscapeWriter(tmp_path) as writer:
        with TrainingRecorder(writer, user_net(), loader_of(), F.cross_entropy, at_end=["1d"]):
            pass
        writer.sample_landscape(user_net(), loader_of(), F.cross_entropy, grid_size=3)
        assert sorted(writer.record().grids) == ["1d", "2d"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"every": 0}, "every must be a whole number of 1 or more epochs, got 0"),
        ({"hessian_every": 1.5}, "hessian_every must be a whole number of 1 or more epochs, got 1.5"),
        ({"at_end": "2d"}, "at_end must be a list of 1d, 2d, 3d, trajectory, hessian, got '2d'"),
        ({"at_end": ["plane"]}, r"at_end must be a list of 1d, 2d, 3d, trajectory, hessian, got \['plane'\]"),
    ],
)
def test_nonsense_is_one_sentence_and_touches_nothing(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        TrainingRecorder(tmp_path / "new", user_net(), loader_of(), F.cross_entropy, **options)
    assert not (tmp_path / "new").exists()


def test_losses_can_come_later(tmp_path):
    net = user_net()
    with LossLandscapeWriter(tmp_path) as writer:
        with pytest.raises(ValueError, match="no checkpoint was recorded yet"):
            writer.add_losses(train_loss=1.0)
        writer.record_checkpoint(net, 0, train_loss=3.0)
        file = writer.record_checkpoint(net, 1, learning_rate=0.1)
        writer.add_losses(val_loss=torch.tensor(2.0))
        last = writer.checkpoints()[-1]
        assert len(writer.checkpoints()) == 2
        assert (last.epoch, last.train_loss, last.val_loss, last.learning_rate) == (1, None, 2.0, 0.1)
        assert last.file == file


# -- the mirror


def test_a_function_of_a_dict_gets_the_numbers_and_the_epoch(tmp_path):
    told: list[dict[str, float]] = []
    with LossLandscapeWriter(tmp_path, mirror=told.append) as writer:
        net = user_net()
        for epoch in range(3):
            one_epoch(net, loader_of())
            writer.record_checkpoint(net, epoch)
        plane = writer.sample_landscape(net, loader_of(), F.cross_entropy, grid_size=3)
        writer.sample_landscape(net, loader_of(), F.cross_entropy, grid_size=3, direction_mode="pca")
        path = writer.build_trajectory(net, loader_of(), F.cross_entropy)
        metrics = writer.compute_hessian_metrics(net, loader_of(), F.cross_entropy, top_k=1, epoch=2)
    assert told[0] == {
        "landscape_2d/baseline_loss": plane.baseline_loss,
        "landscape_2d/lowest_loss": plane.grid.losses.min(),
        "landscape_2d/highest_loss": plane.grid.losses.max(),
        "landscape_2d/num_nonfinite": 0,
        "landscape_2d/epoch": 2,
    }
    assert "landscape_2d_of_path/baseline_loss" in told[1]
    assert told[2]["trajectory/loss"] == path.losses[-1]
    assert told[3]["hessian/max_eigenvalue"] == metrics.max_eigenvalue
    assert told[3]["hessian/trace"] == metrics.trace.value


def test_a_function_of_names_gets_a_call_a_number():
    told: list[tuple] = []

    def add_scalar(tag, scalar_value, global_step=None, walltime=None, new_style=False):
        told.append((tag, scalar_value, global_step, walltime))

    Mirror(add_scalar).tell("hessian", {"trace": 5, "min_eigenvalue": None, "max_eigenvalue": math.nan}, 3.0)
    assert told == [("hessian/trace", 5.0, 3, None)]

    def log(name, value, prog_bar=False):  # its third argument is no place in time
        told.append((name, value, prog_bar))

    Mirror(log).tell("hessian", {"trace": 5}, 3.0)
    assert told[1] == ("hessian/trace", 5.0, False)


@pytest.mark.parametrize(
    ("mirror", "sentence"),
    [
        (lambda a, b, c: None, "mirror has 3 required arguments .a, b, c., so what it wants is not clear"),
        (
            lambda *anything: None,
            r"mirror takes \*anything, so what it wants is not clear; wrap it: lambda numbers: f\(numbers\)",
        ),
        (lambda: None, "mirror has 0 required arguments"),
        ("wandb", "mirror must be a function such as wandb.log"),
        (lambda numbers, *, commit: None, r"mirror is not given commit, which it needs; give functools.partial\(f, commit=…\)"),
        ({}.update, "mirror's arguments can't be read; wrap it: lambda numbers: f"),
        (LossLandscapeWriter.export, "mirror is a method without its object, as wandb.log is before wandb.init"),
    ],
)
def test_a_mirror_that_is_none_is_refused(tmp_path, mirror, sentence):
    with pytest.raises(ValueError, match=sentence):
        LossLandscapeWriter(tmp_path / "new", mirror=mirror)
    assert not (tmp_path / "new").exists()
