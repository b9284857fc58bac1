"""A file that a run reads again is whole, or a sentence says which is not and what can be done; nothing else is lost by it."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from interrupting import Interrupted, interrupt
from runs import TINY, compose, run_in

from taskshift.compare import differences
from taskshift.evaluators.rank import Rank
from taskshift.faults import Fault
from taskshift.run_folder import RunFolder, read_rows
from taskshift.sweeps.sweep_folder import SweepFolder

pytestmark = pytest.mark.slow

SETTINGS = (*TINY, "num_tasks=2", "run_name=one", "lla.enable_sam=false", "lla.enable_mode_connectivity=true")


@pytest.fixture(scope="module")
def config():
    return compose(*SETTINGS)


@pytest.fixture(scope="module")
def uninterrupted(config, tmp_path_factory):
    return run_in(tmp_path_factory.mktemp("uninterrupted"), config)


@pytest.fixture(scope="module")
def interrupted(config, tmp_path_factory):
    """A run that was ended in the middle of the second task's analysis."""
    root = tmp_path_factory.mktemp("interrupted")
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, Rank, "__call__", len(config["lla"]["at"]) * 2)
        with pytest.raises(Interrupted):
            run_in(root, config)
    return root


@pytest.fixture
def left(interrupted, tmp_path):
    """A copy of it to damage, by the folder it was begun in and the run's own."""
    shutil.copytree(interrupted, tmp_path / "copy")
    (folder,) = (tmp_path / "copy").glob("outputs/*/*/one")
    return tmp_path / "copy", folder


def flip(path: Path, place: float = 0.5) -> None:
    """Turn one bit of a file."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 0b100
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def nothing_left(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, cut, nothing_left])
@pytest.mark.parametrize("name", ["checkpoints/latest.pt", "run.json"])
def test_a_run_does_not_go_on_from_a_damaged_file(name, damage, config, left):
    root, folder = left
    damage(folder / name)
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(Fault, match=rf"{name} is damaged \(.*\); put a copy of it back, or (begin again|give another)"):
        run_in(root, config)
    assert (folder / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("damage", [flip, cut, nothing_left])
@pytest.mark.parametrize("name", ["checkpoints/initial.pt", "checkpoints/task_0000.pt", "snapshot"])
def test_an_evaluator_does_not_read_a_damaged_net(name, damage, config, left):
    root, folder = left
    path = sorted(folder.glob("checkpoints/trajectory/*/*.pt"))[1] if name == "snapshot" else folder / name
    damage(path)
    with pytest.raises(Fault, match=rf"{path.name} is damaged \(.*\); put a copy of it back"):
        run_in(root, config)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("checkpoints/latest.pt", "put a copy of it back, or delete metrics.jsonl: the run then begins anew"),
        ("checkpoints/task_0000.pt", "put a copy of it back, or begin again under another run_name"),
        ("snapshot", "put a copy of it back, or begin again under another run_name"),
        ("run.json", "put a copy of it back, or give another run_name"),
    ],
)
def test_a_file_that_is_gone_is_missed(name, advice, config, left):
    root, folder = left
    path = sorted(folder.glob("checkpoints/trajectory/*/*.pt"))[1] if name == "snapshot" else folder / name
    path.unlink()
    with pytest.raises(Fault) as fault:
        run_in(root, config)
    assert str(fault.value).splitlines()[0] == f"{path.relative_to(root)} is gone; {advice}"


@pytest.mark.parametrize("damage", [flip, cut, nothing_left])
@pytest.mark.parametrize("which", [0, -1])
def test_no_evaluator_is_given_a_damaged_snapshot(which, damage, config, left):
    """Also one that only a plane reads, by the library's own loader."""
    root, folder = left
    shutil.rmtree(folder / "task_0001_mlp" / "planes")
    path = sorted(folder.glob("checkpoints/trajectory/*/*.pt"))[which]
    damage(path)
    with pytest.raises(Fault, match=rf"{path.name} is damaged \(.*\); put a copy of it back"):
        run_in(root, config)


def test_a_lost_row_is_missed(config, left):
    root, folder = left
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:1] + lines[2:]))
    count = len(lines)
    with pytest.raises(Fault, match=rf"it has {count - 1} of the {count} rows that were written\); put a copy of it back"):
        run_in(root, config)


def test_a_changed_digit_in_the_record_is_seen(config, left):
    root, folder = left
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(text.replace("0.", "1.", 1))
    with pytest.raises(Fault, match="rows are not as they were written"):
        run_in(root, config)


@pytest.mark.parametrize("damage", [flip, cut, nothing_left, os.unlink])
def test_damaged_findings_are_measured_again(damage, config, left, uninterrupted, caplog):
    root, folder = left
    damage(folder / "task_0001_mlp" / "planes" / "findings.json")
    assert differences(run_in(root, config), uninterrupted) == []
    assert damage is os.unlink or "planes/findings.json is damaged" in caplog.text


@pytest.mark.parametrize("damage", [flip, cut])
def test_damaged_eigenpairs_are_solved_again(damage, config, left, uninterrupted, caplog):
    root, folder = left
    damage(folder / "checkpoints" / "eigenpairs" / "task_0001_end.pt")
    assert differences(run_in(root, config), uninterrupted) == []
    assert "task_0001_end.pt is damaged" in caplog.text


def test_lanczos_begins_cold_without_the_pairs_it_would_start_from(config, interrupted, tmp_path, caplog):
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, RunFolder, "append_row", 4)
        with pytest.raises(Interrupted):
            run_in(tmp_path, config)
    (folder,) = tmp_path.glob("outputs/*/*/one")
    (kept,) = (folder / "checkpoints" / "eigenpairs").glob("*.pt")
    flip(kept)
    assert len(read_rows(run_in(tmp_path, config))) > 3
    assert f"{kept.name} is damaged (its checksum is another); Lanczos starts without it" in caplog.text


def test_a_lost_initial_net_is_drawn_again(config, left, uninterrupted, caplog):
    root, folder = left
    (folder / "checkpoints" / "initial.pt").unlink()
    assert differences(run_in(root, config), uninterrupted) == []
    assert "initial.pt is gone; it is drawn again from the seed" in caplog.text


def test_unreadable_scratch_is_computed_again(config, left, uninterrupted, caplog):
    root, folder = left
    scratch = folder / "task_0001_mlp" / ".scratch" / "mode_connectivity"
    scratch.mkdir(parents=True)
    np.savez(scratch / "curve.npz", controls=np.ones((3, 50)))
    cut(scratch / "curve.npz")
    assert differences(run_in(root, config), uninterrupted) == []
    assert "mode_connectivity can't be read" in caplog.text


def test_another_torch_is_mentioned_to_a_lone_run(config, left, monkeypatch, caplog):
    root, _ = left
    monkeypatch.setattr("taskshift.origin._version", lambda package: "0.0.1")  # read once a process
    run_in(root, config)
    assert "this run began with other code (taskshift " in caplog.text
    assert "→ 0.0.1" in caplog.text


def test_another_machine_is_mentioned(config, left, monkeypatch, caplog):
    root, _ = left
    monkeypatch.setattr("taskshift.job.cpu_model", lambda: "another processor")
    run_in(root, config)
    said = next(message for message in caplog.messages if message.startswith("this run began elsewhere (processor "))
    assert said.endswith(" → another processor): its numbers may differ in the last bits from an uninterrupted run's")


def test_other_code_than_its_sweep_began_with_is_mentioned(config, tmp_path, caplog):
    sweep = tmp_path / "outputs" / config["output_project"] / "sweeps" / "mine"
    SweepFolder(sweep).write({"source": {"hash": "00000000", "plugins": []}})
    quick = {f"enable_{name}": False for name in ("planes", "spectrum", "coupling", "plasticity", "mode_connectivity")}
    run_in(tmp_path, config | {"sweep_name": "mine", "num_tasks": 1, "lla": config["lla"] | quick})
    assert "the code has changed since this sweep began: its runs may differ for that reason" in caplog.messages


def test_nothing_half_written_stays(config, left, uninterrupted):
    root, folder = left
    for name in (".partial.run.json", "checkpoints/.partial.latest.pt", "summary/.partial.learning.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"half")
    within = folder / "task_0001_mlp" / ".units.partial" / "pictures"  # killed while it wrote a file of a folder that was to be
    within.mkdir(parents=True)
    (within.parent / "findings.json").write_text("{")
    (within / ".partial.contour.png").write_bytes(b"half")
    assert differences(run_in(root, config), uninterrupted) == []
    assert [path.name for path in folder.rglob(".*") if path.name != ".lock"] == []


def test_scratch_that_was_to_be_removed_is_removed(config, interrupted, tmp_path, uninterrupted):
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, RunFolder, "append_row", 6)  # the second task's end: all evaluators have finished
        with pytest.raises(Interrupted):
            run_in(tmp_path, config)
    (folder,) = tmp_path.glob("outputs/*/*/one")
    (folder / "task_0001_mlp" / ".scratch" / "rank").mkdir(parents=True)
    assert differences(run_in(tmp_path, config), uninterrupted) == []
    assert not list(folder.rglob(".scratch"))
