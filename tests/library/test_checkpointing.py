"""What is finished of long work is kept, told from other work, and never replaced where it is nobody's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from surfaces import surface_of

from loss_landscape import (
    Estimate,
    HessianOperator,
    Shard,
    checkpointing,
    evaluate_grid,
    fit_bezier,
    random_directions,
    spectral_density,
)
from loss_landscape.checkpointing import Checkpointing, Finished, Resumable, digest, require_options


def work(file: Path | None, name: str = "this one", state=lambda: Finished({"done": np.arange(3)}, {"step": 4})) -> Resumable:
    return Resumable(file, lambda: [name, torch.arange(4.0)], state, kind="sum")


def test_what_was_saved_is_loaded_by_the_same_work_alone(tmp_path: Path):
    file = tmp_path / "below" / "work.kept"
    assert work(file).load() is None
    work(file).save()
    found = work(file).load()
    assert found.arrays["done"].tolist() == [0, 1, 2]
    assert found.facts == {"step": 4}
    assert found.seconds >= 0
    assert work(file, "another").load() is None
    assert [path.name for path in file.parent.iterdir()] == ["work.kept"]


def test_without_a_file_nothing_is_written_and_no_identity_is_asked_for(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def identity():
        raise AssertionError("the identity reads the whole net")

    resumable = Resumable(None, identity, lambda: Finished({}), kind="sum")
    resumable.save()
    resumable.remove()
    assert resumable.load() is None
    assert list(tmp_path.iterdir()) == []


def test_work_that_has_not_begun_is_not_saved(tmp_path: Path):
    work(tmp_path / "work", state=lambda: None).save()
    assert list(tmp_path.iterdir()) == []


def test_whatever_stops_the_work_it_is_saved(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), work(tmp_path / "work").kept():
        raise KeyboardInterrupt
    assert work(tmp_path / "work").load() is not None


def test_saves_by_the_clock_are_seconds_apart(tmp_path: Path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpointing.time, "monotonic", lambda: now[0])
    resumable, saved = work(tmp_path / "work"), []
    for now[0] in np.arange(0, 8, 0.5):
        resumable.save_by_the_clock()
        if (tmp_path / "work").exists():
            saved.append(now[0])
            resumable.remove()
    assert saved == [2.5, 5.0, 7.5]
    resumable.seconds_before = 100.0
    assert resumable.seconds == 107.5


@pytest.mark.parametrize("content", ["text", "older version", "torch"])
def test_a_file_that_is_no_such_work_is_neither_used_nor_replaced(tmp_path: Path, content):
    """An older version's partial grid among them, which had a header of its own."""
    file = tmp_path / "work.npz"
    if content == "text":
        file.write_text("my thesis")
    elif content == "torch":
        torch.save({"identity": "x", "state": {}}, file)
    else:
        np.savez(file, values=np.zeros(3), done=np.zeros(3, dtype=bool), header=np.array("{}"))
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"work\.npz holds no arrays that this version wrote; remove it, or give another file"):
        work(file).load()
    assert file.read_bytes() == before


@pytest.mark.parametrize("other", ["work", "result"])
def test_a_file_of_another_kind_is_neither_used_nor_replaced(tmp_path: Path, other):
    file = tmp_path / "kept.npz"
    if other == "work":
        Resumable(file, lambda: ["this one"], lambda: Finished({"done": np.arange(3)}), kind="grid").save()
    else:
        Estimate(1.0, 0.5, 3).save(file)
    before = file.read_bytes()
    held = {"work": "an unfinished grid", "result": "Estimate"}[other]
    with pytest.raises(ValueError, match=rf"kept\.npz holds {held}, not an unfinished sum; give another file"):
        work(file).load()
    assert file.read_bytes() == before


def test_a_digest_tells_contents_and_their_bounds_apart():
    same = digest(["ab", torch.arange(3.0)]), digest(["ab", np.arange(3, dtype=np.float32)])
    assert same[0] == same[1]
    others = [digest(parts) for parts in (["a", "b"], ["ab"], ["", "ab"], [torch.zeros(0)], [torch.tensor(0.0)])]
    assert len({*same, *others}) == 6


def test_a_shard_keeps_its_part_beside_the_file(tmp_path: Path):
    options = Checkpointing(tmp_path / "plane.npz", Shard(1, 2))
    assert options.own_file == tmp_path / "plane.shard_1_of_2.npz"
    assert Checkpointing(str(tmp_path / "plane.npz")).own_file == tmp_path / "plane.npz"
    assert Checkpointing().own_file is None
    options.own_file.touch()
    assert options.known_files == [tmp_path / "plane.npz", options.own_file]


def test_options_that_would_not_be_heeded_are_refused():
    with pytest.raises(ValueError, match="max_hours must be None or > 0, got 0"):
        Checkpointing(max_hours=0)
    with pytest.raises(ValueError, match="a shard keeps its part beside a file that all shards name: give file as well"):
        Checkpointing(shard=Shard(0, 2))
    with pytest.raises(ValueError, match="fit heeds file and progress of checkpointing; leave out shard and max_hours"):
        require_options(Checkpointing("x", Shard(0, 2), max_hours=2.0), "file", "progress", by="fit")
    with pytest.raises(TypeError, match=r"progress is called as progress\(fraction, seconds_left\), and True can't be"):
        Checkpointing(progress=True)


def test_a_file_by_its_name_and_a_folder_are_no_options(tmp_path: Path):
    surface = surface_of()
    calls = [
        lambda given: evaluate_grid(surface, random_directions(surface), 3, checkpointing=given),
        lambda given: spectral_density(HessianOperator(surface), checkpointing=given),
        lambda given: fit_bezier(surface, surface.origin, -surface.origin, checkpointing=given),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"expected checkpointing=Checkpointing\(file\), .*, got 'plane\.npz'"):
            call("plane.npz")
    with pytest.raises(IsADirectoryError, match=r"is a folder; give a file in it, such as .*unfinished\.npz"):
        Checkpointing(tmp_path)
    with pytest.raises(TypeError, match=r"expected evaluation=Evaluation\(…\), with options of .*, got \{'chunk': 4\}"):
        evaluate_grid(surface, random_directions(surface), 3, evaluation={"chunk": 4})
