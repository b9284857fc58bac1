"""The command `loss_landscape`: what it says of what the Writer wrote, and that every error is one sentence."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from torch.nn import functional as F
from user_training import loader_of, one_epoch, user_net

from loss_landscape import Grid, GridInfo, LandscapeStorage, LossLandscapeWriter
from loss_landscape.cli.command import run
from loss_landscape.storage.landscape_file import write_landscape
from loss_landscape.storage.records import LandscapeRecord


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A Writer's folder with a line, a plane, a path and curvature."""
    place, net = tmp_path_factory.mktemp("written") / "exp1", user_net()
    with LossLandscapeWriter(place) as writer:
        for epoch in range(5):
            writer.record_checkpoint(net, epoch, train_loss=one_epoch(net, loader_of()), learning_rate=0.5)
        writer.sample_landscape(net, loader_of(), F.cross_entropy, mode="1d", grid_size=5)
        writer.sample_landscape(net, loader_of(), F.cross_entropy, direction_mode="pca", grid_size=5)
        writer.build_trajectory(net, loader_of(), F.cross_entropy)
        writer.compute_hessian_metrics(net, loader_of(), F.cross_entropy, top_k=2, epoch=5)
    return place


def said(capsys, *words: str | Path) -> str:
    status = run([str(word) for word in words])
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    return out


def refused(capsys, *words: str | Path) -> str:
    """The one sentence of a command that fails."""
    assert run([str(word) for word in words]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    return line


def test_view_says_what_is_there(folder, capsys):
    text = said(capsys, "view", "--no-browser", folder)
    for part in (
        "line: 5 cells",
        "plane: 5×5 cells",
        "loss at the centre",
        "trajectory: 5 checkpoints",
        "curvature at epoch 5",
        " ± ",
    ):
        assert part in text
    assert said(capsys, "view", "--no-browser", folder / "landscape.json") == text
    assert said(capsys, "view", "--no-browser", folder / "landscape.duckdb") == text


def test_view_opens_a_page_where_there_is_a_screen(folder, tmp_path, capsys, monkeypatch):
    """A file of its own, which stays; without a screen it is named, and nothing is opened."""
    seen = []
    monkeypatch.setattr("loss_landscape.cli.browser.webbrowser.open", lambda address: seen.append(address) or True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for screen, ending in ((True, "landscape.html"), (False, "write it elsewhere)")):
        monkeypatch.setattr("loss_landscape.cli.browser.has_screen", lambda there=screen: there)
        text = said(capsys, "view", folder)
        assert text.startswith(said(capsys, "view", "--no-browser", folder))
        assert text.rstrip().endswith(ending)
    [address], pages = seen, sorted(tmp_path.glob("*/landscape.html"))
    assert address in [page.as_uri() for page in pages]
    assert len(pages) == 2


def test_view_writes_a_page_and_opens_nothing(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("loss_landscape.cli.browser.webbrowser.open", lambda address: pytest.fail(f"opened {address}"))
    page = tmp_path / "out.html"
    assert said(capsys, "view", folder, "--html", page).endswith(f"page: {page}\n")
    assert "<h1>exp1</h1>" in page.read_text()
    assert refused(capsys, "view", folder, "--html", tmp_path / "out.png").startswith(
        f"{tmp_path / 'out.png'}: a page's name ends"
    )


def test_view_keeps_a_file_that_is_there_unless_it_is_told(folder, tmp_path, capsys):
    page = tmp_path / "out.html"
    page.write_text("mine")
    assert refused(capsys, "view", folder, "--html", page).startswith(
        f"{page} exists; give another --html, or --force to write over it"
    )
    assert page.read_text() == "mine"
    said(capsys, "view", folder, "--html", page, "--force")
    assert "<h1>exp1</h1>" in page.read_text()


def test_a_folder_whose_writer_is_at_work_is_told_by_its_last_export(folder, tmp_path, capsys):
    """Or, without an export, refused."""
    place = shutil.copytree(folder, tmp_path / "copy")
    text = said(capsys, "view", "--no-browser", folder)
    with LandscapeStorage(place / "landscape.duckdb"):
        assert said(capsys, "view", "--no-browser", place) == text
        (place / "landscape.json").unlink()
        assert "is open in this process already" in refused(capsys, "view", "--no-browser", place)


def test_view_needs_no_duckdb_for_a_file(folder, capsys, monkeypatch):
    text = said(capsys, "view", "--no-browser", folder)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert said(capsys, "view", "--no-browser", folder) == said(capsys, "view", "--no-browser", folder / "landscape.json") == text
    assert "needs duckdb: pip install 'taskshift[writer]'" in refused(capsys, "view", "--no-browser", folder / "landscape.duckdb")


def test_losses_that_are_not_finite_are_shown(tmp_path, capsys):
    """The program that these names are from crashed on them."""
    for losses in (np.full((2, 2), np.nan), np.array([[1.0, np.inf], [2.0, np.nan]])):
        grid = Grid(losses, ([0, 1], [0, 1]), GridInfo(baseline_loss=np.inf))
        write_landscape(tmp_path / "l.json", LandscapeRecord({"2d": grid}))
        assert f"{grid.num_nonfinite} of 4 cells are not finite" in said(capsys, "view", "--no-browser", tmp_path / "l.json")
        said(capsys, "explain", tmp_path / "l.json")


def test_explain_answers_three_questions(folder, capsys):
    text = said(capsys, "explain", folder)
    for part in ("Is the setup hard to train?", "Can it improve further?", "What happened in training?", "to settle it:"):
        assert part in text
    assert num_answers(text) == 20  # 8 rows of a line and of a plane, 4 of the path
    for heading in ("line-1: 5 cells", "plane-2: 5×5 cells", "along trajectory directions", ", trajectory: "):
        assert heading in text


def num_answers(text: str) -> int:
    return sum(text.count(f"\n  {answer}") for answer in ("yes ", "no ", "cannot tell "))


def test_explain_judges_each_landscape_or_the_named_one(tmp_path, capsys):
    """Two planes of one folder: the older is judged as well, from its own numbers."""
    with LossLandscapeWriter(tmp_path) as writer:
        losses = [
            writer.sample_landscape(user_net(seed=seed), loader_of(), F.cross_entropy, grid_size=5)["baseline_loss"]
            for seed in (0, 1)
        ]
    text = said(capsys, "explain", tmp_path)
    assert num_answers(text) == 20
    for name, loss in zip(("plane-1", "plane-2"), losses, strict=True):
        alone = said(capsys, "explain", tmp_path, "--landscape", name)
        flat = f"a flat, wide minimum, {name}: the loss rises by"
        for answers in (text, alone):
            [line] = [line for line in answers.splitlines() if flat in line]
            assert f"from {loss:.3g} " in line
        assert num_answers(alone) == 12
    assert said(capsys, "explain", tmp_path / "landscape.json").startswith("plane: 5×5 cells")
    assert "there is no landscape plane-3 here, only plane-1, plane-2" in refused(
        capsys, "explain", tmp_path, "--landscape", "plane-3"
    )


@pytest.mark.parametrize("ending", [".json", ".npz", ".csv", ".parquet", ".vti", ".png", ".pdf", ".html"])
def test_export_writes_each_kind(folder, tmp_path, capsys, ending):
    output = tmp_path / f"out{ending}"
    assert said(capsys, "export", folder, output) == f"{output}\n"
    assert output.stat().st_size > 100


def test_a_database_tells_what_its_export_tells(folder, tmp_path, capsys):
    said(capsys, "export", folder / "landscape.duckdb", tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (folder / "landscape.json").read_bytes()


def test_compare_says_first_what_differs(folder, tmp_path, capsys):
    with LossLandscapeWriter(tmp_path / "b", seed=7) as writer:
        writer.sample_landscape(user_net(seed=1), loader_of(), F.cross_entropy, grid_size=4)
    text = said(capsys, "compare", folder, tmp_path / "b")
    assert "they differ in seed: 42 and 7" in text
    assert "they are seen from other angles" in text
    assert "they differ in grid_size: 5×5 and 4×4" in text
    assert "loss at the centre" in text
    same = said(capsys, "compare", folder, folder)
    assert "they " not in same
    assert len(same.splitlines()) == 8
    LandscapeStorage(tmp_path / "none" / "landscape.duckdb").close()
    assert refused(capsys, "compare", folder, tmp_path / "none").startswith(f"{tmp_path / 'none'} has no landscape yet")


def test_a_demo_writes_something_to_look_at(tmp_path, capsys):
    text = said(capsys, "demo", tmp_path / "demo")
    assert f"now try: loss_landscape explain {tmp_path / 'demo'}" in text
    assert json.loads((tmp_path / "demo" / "landscape.json").read_text())["mode"] == "1d+2d"
    assert "is not empty; name another folder" in refused(capsys, "demo", tmp_path / "demo")
    (tmp_path / "file").write_text("mine")
    assert "Not a directory" in refused(capsys, "demo", tmp_path / "file")


def test_every_error_is_a_sentence(folder, tmp_path, capsys):
    (tmp_path / "cut.json").write_text((folder / "landscape.json").read_text()[:500])
    (tmp_path / "cut.duckdb").write_bytes((folder / "landscape.duckdb").read_bytes()[:9000])
    (tmp_path / "empty").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    sentences = {
        ("veiw", folder): "there is no such command; did you mean view? there are demo, view, explain, export, compare",
        ("view", "--no-browser", tmp_path / "absent"): f"there is no {tmp_path / 'absent'}",
        ("view", "--no-browser", tmp_path / "cut.json"): "is no JSON, or was cut off",
        ("view", "--no-browser", tmp_path / "cut.duckdb"): "is no landscape database, or is damaged",
        ("view", "--no-browser", tmp_path / "empty"): "has neither landscape.duckdb nor landscape.json",
        ("view", "--no-browser", tmp_path / "run"): "is a run of train.py, not a Writer's folder: `taskshift report",
        ("view",): "the following arguments are required: FILE|FOLDER; `loss_landscape view --help` lists what it takes",
        ("export", folder, tmp_path / "out.xls"): "the ending says what is written, and there are .json, .npz",
        ("export", folder, tmp_path / "out.csv", "--mode", "3d"): "there is no 3d landscape here, only 1d, 2d",
        ("export", folder, "/proc/nowhere/out.csv"): "/proc/nowhere",
    }
    for words, sentence in sentences.items():
        assert sentence in refused(capsys, *words)


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit, match="0"):
        run(["--help"])
    text = capsys.readouterr().out
    assert all(f"\n    {name} " in text for name in ("view", "explain", "export", "compare", "demo"))
