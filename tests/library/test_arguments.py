"""Arguments that are wrong: what they must be is said, and what was recorded and written before stays."""

from __future__ import annotations

import functools
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from user_training import loader_of, one_epoch, user_net

from loss_landscape import Explorer, LandscapeStorage, LossLandscapeWriter, TrainingRecorder, sample_landscape
from loss_landscape.storage.records import Checkpoint

NO_NUMBER = "must be a number, or a tensor of one entry, got"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Iterator[tuple[LossLandscapeWriter, nn.Module]]:
    """A Writer with four checkpoints, and their net."""
    net = user_net()
    with LossLandscapeWriter(tmp_path_factory.mktemp("recorded"), auto_export=False) as writer:
        for epoch in range(4):
            writer.record_checkpoint(net, epoch, train_loss=one_epoch(net, loader_of()), learning_rate=0.5)
        yield writer, net


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"epoch": math.nan}, "epoch must be a finite number, got nan"),
        ({"epoch": math.inf}, "epoch must be a finite number, got inf"),
        ({"epoch": "3"}, f"epoch {NO_NUMBER} '3'"),
        ({"epoch": None}, f"epoch {NO_NUMBER} None"),
        ({"epoch": True}, f"epoch {NO_NUMBER} True"),
        ({"train_loss": torch.ones(3)}, rf"train_loss {NO_NUMBER} one of shape \[3\]"),
        ({"val_loss": np.ones(2)}, rf"val_loss {NO_NUMBER} one of shape \[2\]"),
        ({"train_loss": "0.1"}, f"train_loss {NO_NUMBER} '0.1'"),
        ({"train_loss": torch.tensor(1 + 1j)}, f"train_loss {NO_NUMBER}"),
        ({"learning_rate": math.nan}, "learning_rate must be a finite number, got nan"),
        ({"learning_rate": -0.1}, "learning_rate must be 0 or more, got -0.1"),
        ({"model": user_net().state_dict()}, "model must be a torch.nn.Module, got OrderedDict; build the net"),
        ({"model": nn.Linear(3, 2)}, r"another net than that of epoch 3: weight was not there and is \[2, 3\]; give each net"),
        ({"model": user_net(width=5)}, r"another net than that of epoch 3: 0.weight was \[.*\] and is \[.*\]"),
    ],
    ids=str,
)
def test_what_is_no_checkpoint_is_refused_and_loses_none(recorded, wrong, sentence):
    writer, net = recorded
    before, files = writer.checkpoints(), sorted((writer.log_dir / "checkpoints").iterdir())
    given = {"model": net, "epoch": 4, **wrong}
    with pytest.raises((ValueError, TypeError), match=sentence):
        writer.record_checkpoint(given.pop("model"), given.pop("epoch"), **given)
    assert (writer.checkpoints(), sorted((writer.log_dir / "checkpoints").iterdir())) == (before, files)


def test_losses_that_come_later_are_numbers_too(recorded):
    writer, _ = recorded
    before = writer.checkpoints()
    with pytest.raises(ValueError, match=rf"val_loss {NO_NUMBER} one of shape \[2\]"):
        writer.add_losses(val_loss=torch.ones(2))
    assert writer.checkpoints() == before


class OfAnotherLibrary:
    """An array without dimensions that is neither torch's nor NumPy's, as JAX has them."""

    shape = ()

    def __init__(self, value: float):
        self.value = value

    def item(self) -> float:
        return self.value


def test_what_is_a_number_is_taken(tmp_path):
    """Numbers of NumPy and torch; a loss of a net that diverges; a new net where training begins anew, in an opened folder."""
    with LossLandscapeWriter(tmp_path) as writer:
        writer.record_checkpoint(user_net(), torch.tensor(0), train_loss=math.nan, val_loss=np.float32(2), learning_rate=0)
        writer.record_checkpoint(user_net(), np.int64(1), train_loss=torch.ones(1, requires_grad=True))
        writer.add_losses(train_loss=torch.tensor(0.5, dtype=torch.bfloat16), val_loss=OfAnotherLibrary(0.25))
        last = writer.checkpoints()[-1]
        assert (last.epoch, last.train_loss, last.val_loss) == (1, 0.5, 0.25)
        statistics = writer.record().metadata["training_statistics"]
        assert (statistics["min_loss"], statistics["min_loss_epoch"]) == (0.5, 1)
    with LossLandscapeWriter(tmp_path) as writer:
        with pytest.raises(ValueError, match="another net than that of epoch 1"):
            writer.record_checkpoint(nn.Linear(3, 2), 2)
        writer.record_checkpoint(nn.Linear(3, 2), 0)
        assert [one.epoch for one in writer.checkpoints()] == [0]


def test_a_relative_folder_stays_where_it_was_when_the_training_goes_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with LossLandscapeWriter("runs") as writer:
        writer.record_checkpoint(user_net(), 0)
        monkeypatch.chdir(tmp_path / "elsewhere")
        writer.record_checkpoint(user_net(), 1)
        writer.sample_landscape(user_net(), loader_of(), F.cross_entropy, grid_size=2, mode="1d")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (tmp_path / "runs" / "landscape.json").exists()
    monkeypatch.chdir(tmp_path)
    with LossLandscapeWriter("runs") as writer:
        assert all(one.file.exists() for one in writer.checkpoints())


def test_an_epoch_that_is_a_tensor_is_mirrored_as_a_number(tmp_path):
    steps = []
    with LossLandscapeWriter(tmp_path, mirror=lambda name, number, step=None: steps.append(step)) as writer:
        writer.compute_hessian_metrics(user_net(), loader_of(), F.cross_entropy, epoch=torch.tensor(3))
    assert {type(step) for step in steps} == {int}


class Renaming(nn.Linear):
    """A net whose state dict has other names than its parameters."""

    def __init__(self, num_outputs: int):
        super().__init__(3, num_outputs)
        self._register_state_dict_hook(lambda net, state, prefix, meta: {f"saved.{name}": one for name, one in state.items()})


def test_a_net_is_told_from_another_by_what_it_saves(tmp_path):
    with LossLandscapeWriter(tmp_path, auto_export=False) as writer:
        for epoch in range(2):
            writer.record_checkpoint(Renaming(2), epoch)
        with pytest.raises(ValueError, match=r"another net than that of epoch 1: saved.weight was \[2, 3\] and is \[4, 3\]"):
            writer.record_checkpoint(Renaming(4), 2)


def test_a_damaged_checkpoint_does_not_stop_a_training(tmp_path):
    with LossLandscapeWriter(tmp_path, auto_export=False) as writer:
        writer.record_checkpoint(user_net(), 0).write_bytes(b"cut")
        writer.record_checkpoint(user_net(), 1)
        assert [one.epoch for one in writer.checkpoints()] == [0, 1]


def writer_in(folder: Path, **options: Any) -> None:
    LossLandscapeWriter(folder, **options)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: LossLandscapeWriter(None), "log_dir must be a path, such as 'runs/exp1', got None"),
        (lambda: LossLandscapeWriter(""), "log_dir is empty; give a path"),
        (lambda: LossLandscapeWriter("l", seed="1"), "seed must be a whole number .* got '1'"),
        (lambda: LossLandscapeWriter("l", seed=2**70), "seed must be a whole number"),
        (lambda: LossLandscapeWriter("file/exp1"), "file stands in the place of one of its folders"),
        (lambda: LossLandscapeWriter("/proc/nowhere"), "can't be written .*; name another place: '/proc/nowhere"),
        (lambda: LandscapeStorage(5), "path must be a path, such as 'landscape.duckdb', got 5"),
        (lambda: LandscapeStorage("folder.json"), "is a folder; give a file in it, such as .*folder.json/landscape.duckdb"),
        (lambda: sample(output_path=None), "the output must be a path, such as 'landscape.json', got None"),
        (lambda: sample(output_path="."), r"\. is a folder; give a file in it, such as landscape.json"),
        (lambda: sample(output_path="folder.json"), "folder.json is a folder; give a file in it"),
        (lambda: sample(output_path="/proc/l.json"), "can't be written .*; name another place: '/proc/l.json'"),
    ],
)
def test_places_that_are_none_are_told_before_anything_is_computed(make, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises((ValueError, TypeError, OSError), match=sentence):
        make()
    assert (tmp_path / "file").read_text() == "mine"


def sample(**options: Any) -> None:
    def called(outputs, targets):
        raise AssertionError("the loss was computed")

    sample_landscape(user_net(), loader_of(), called, **options)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda e: e.build_surface(grid_size=10**6), r"grid_size=1000000 makes 1e\+12 cells, and a landscape has 1e\+08 at most"),
        (lambda e: e.build_surface(range_scale="0.1"), f"range_scale {NO_NUMBER} '0.1'"),
        (
            lambda e: e.build_surface(range_scale=math.inf),
            r"range_scale must be a finite number above 0 and below 1e\+30, got inf",
        ),
        (lambda e: e.build_surface(grid_size=torch.tensor(2.5)), "grid_size must be a whole number of 2 or more .*, got 2.5"),
        (
            lambda e: e.build_surface(grid_size=torch.ones(2).long()),
            r"grid_size must be a whole number .*, got one of shape \[2\]",
        ),
        (lambda e: e.build(4), "a landscape has 1, 2 or 3 dimensions, got 4"),
        (
            lambda e: e.build_line(directions=[torch.full((e.surface.size,), math.nan)]),
            "norms .nan.; each must be > 0 and finite",
        ),
        (lambda e: e.compute_hessian_metrics(epoch="3"), f"epoch {NO_NUMBER} '3'"),
        (lambda e: e.compute_hessian_metrics(epoch=math.nan), "epoch must be a finite number, got nan"),
        (lambda e: e.compute_hessian_metrics(num_probes=2.5), "num_probes must be a whole number of 2 or more products, got 2.5"),
        (lambda e: e.build_trajectory("a.pt"), "checkpoints must be a list of the Writer's checkpoints, or of files"),
        (lambda e: e.build_trajectory(5), "checkpoints must be a list"),
        (lambda e: e.build_trajectory([None]), "checkpoints must be a list"),
        (lambda e: e.build_trajectory(["gone.pt"] * 3), "there is no file gone.pt, the checkpoint of epoch 0; put it back"),
        (lambda e: e.build_trajectory(["a.pt"] * 3, name=" "), "name must be a word that tells this path from others, got ' '"),
        (lambda e: e.build_trajectory(["a.pt"] * 3, name=None), "name must be a word"),
    ],
)
def test_what_cannot_be_explored_is_told(call, sentence):
    with pytest.raises((ValueError, TypeError, OSError), match=sentence):
        call(Explorer(user_net(), F.cross_entropy, loader_of()))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"regularizer": "l2"}, r"expected a function, called as regularizer\(model\), got 'l2'"),
        ({"regularizer": lambda: 0.0}, r"called as regularizer\(model\), got one that takes nothing"),
        ({"regularizer": lambda model: "x"}, f"what regularizer.model. returns {NO_NUMBER} 'x'"),
        ({"regularizer_weight": "a"}, f"regularizer_weight {NO_NUMBER} 'a'"),
        ({"regularizer_weight": math.nan}, "regularizer_weight must be a finite number, got nan"),
        ({"pre_batch_hook": lambda one, other: one}, r"called as pre_batch_hook\(batch\), got one that takes one, other"),
        ({"batch_weight": lambda batch: "x"}, f"batch_weight.batch. {NO_NUMBER} 'x'"),
        ({"storage": "l.duckdb"}, "storage must be a LandscapeStorage, or None, got str"),
        ({"seed": None}, "seed must be a whole number .* got None"),
        (
            {"loss_fn": lambda outputs, targets, *, weight: outputs},
            r"loss_fn is not given weight, .* functools.partial\(f, weight=…\)",
        ),
    ],
)
def test_what_is_no_loss_is_told(options: dict[str, Any], sentence):
    loss_fn = options.get("loss_fn", F.cross_entropy)
    rest = {name: value for name, value in options.items() if name != "loss_fn"}
    with pytest.raises((ValueError, TypeError), match=sentence):
        Explorer(user_net(), loss_fn, loader_of(), **rest)


def test_a_class_in_the_place_of_a_loss_is_told():
    with pytest.raises(TypeError, match=r"loss_fn is the class CrossEntropyLoss; give an instance of it, CrossEntropyLoss\(\)"):
        Explorer(user_net(), nn.CrossEntropyLoss, loader_of())


def test_a_weight_that_is_a_tensor_can_be_kept(tmp_path):
    with LossLandscapeWriter(tmp_path) as writer:
        given = {
            "regularizer": lambda model: sum(p.square().sum() for p in model.parameters()),
            "grid_size": torch.tensor(2),
            "max_batches": np.int64(1),
        }
        writer.sample_landscape(user_net(), loader_of(), F.cross_entropy, regularizer_weight=torch.tensor(0.5), **given)
        assert writer.record().main_grid.info.extra["regularizer_weight"] == 0.5


def test_storage_says_what_it_lacks_and_what_it_cannot_hold(tmp_path):
    with LandscapeStorage(tmp_path / "l.duckdb") as storage:
        for ask in (storage.grid, storage.directions_of):
            with pytest.raises(ValueError, match="has no finished surface 3, only none at all"):
                ask(3)
        with pytest.raises(TypeError, match="the fact 'k' must be numbers, texts, lists or dicts, which JSON can hold"):
            storage.save_fact("k", torch.ones(2))
        with pytest.raises(ValueError, match="epoch must be a finite number, got nan"):
            storage.save_checkpoint(Checkpoint(math.nan, tmp_path / "a.pt"))
        with pytest.raises(TypeError, match="file must be a path, such as 'net.pt', got None"):
            storage.save_checkpoint(Checkpoint(0, None))
        assert storage.facts() == {}
        assert storage.checkpoints() == []
        storage.save_checkpoint(Checkpoint(0, "a.pt"))  # a text is a path too
        assert [one.file.name for one in storage.checkpoints()] == ["a.pt"]


def test_a_recorder_takes_epochs_that_are_numbers(tmp_path):
    with TrainingRecorder(tmp_path, user_net(), loader_of(), F.cross_entropy, at_end=[], every=2) as recorder:
        for wrong in ("3", None, math.nan):
            with pytest.raises(ValueError, match="epoch must be a"):
                recorder.record(wrong)
        recorder.record(0)
        recorder.record(1)
        assert [one.epoch for one in recorder.writer.checkpoints()] == [0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"every": None}, "every must be a whole number of 1 or more epochs, got None"),
        ({"hessian_every": 1.5}, "hessian_every must be a whole number of 1 or more epochs, got 1.5"),
        ({"at_end": None}, "at_end must be a list of 1d, 2d, 3d, trajectory, hessian, got None"),
        ({"at_end": "2d"}, "at_end must be a list of 1d"),
        ({"at_end": iter(["2d"])}, "at_end must be a list of 1d"),  # which would be empty when it is read again
        ({"writer": None}, "(writer|log_dir) must be a path, such as 'runs/exp1', got None"),
        ({"regulariser": None}, "no argument 'regulariser'; did you mean regularizer"),
    ],
)
def test_callbacks_say_what_is_wrong_when_they_are_made(options, sentence, tmp_path):
    pytest.importorskip("lightning")
    pytest.importorskip("transformers")
    from loss_landscape.callbacks import lightning_trainer, transformers_trainer

    def recorder(writer, **rest):
        with TrainingRecorder(writer, user_net(), loader_of(), F.cross_entropy, **rest):
            raise AssertionError("the training began")

    for make in (recorder, lightning_trainer.LandscapeCallback, transformers_trainer.LandscapeCallback):
        with pytest.raises((ValueError, TypeError), match=sentence):
            make(**{"writer": tmp_path / "r", **options})
    with pytest.raises(ValueError, match="logged must be the names of two losses"):
        lightning_trainer.LandscapeCallback(tmp_path, nn.CrossEntropyLoss(), logged="loss")
    lightning_trainer.LandscapeCallback(tmp_path, nn.CrossEntropyLoss(), logged=tuple(np.array(["train", "val"])))


@pytest.fixture
def locked() -> Iterator[tuple[Path, Callable[[], None]]]:
    """A Writer's folder that may be read, not written, and what makes this process one that may not; root may do everything."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    with LossLandscapeWriter(folder / "exp1") as writer:
        writer.sample_landscape(user_net(), loader_of(), F.cross_entropy, grid_size=2)
    for place in (folder / "exp1", *(folder / "exp1").iterdir()):
        place.chmod(0o555 if place.is_dir() else 0o444)
    mine = os.geteuid()
    try:
        yield folder / "exp1", functools.partial(os.seteuid, 65534 if mine == 0 else mine)
    finally:
        os.seteuid(mine)
        (folder / "exp1").chmod(0o755)
        shutil.rmtree(folder)


def test_a_folder_that_may_only_be_read_is_shown_and_not_written(locked, capsys):
    from loss_landscape.cli.command import run

    folder, give_up_rights = locked
    give_up_rights()
    for command in ("view", "explain"):
        assert run([command, str(folder), *(["--no-browser"] if command == "view" else [])]) == 0
    assert "plane: 2×2 cells" in capsys.readouterr().out
    with pytest.raises(PermissionError, match="can't be written .*; name another place"):
        LossLandscapeWriter(folder)
    with pytest.raises(PermissionError, match="can't be written .*; name another place"):
        sample(output_path=folder / "new.json")
    assert run(["export", str(folder), str(folder / "new.csv")]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "new.csv: can't be written (Permission denied); name another place" in line
