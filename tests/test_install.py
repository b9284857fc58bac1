"""A real, not editable, install: conf/ and the launcher plugin are found from anywhere."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the installed packages, made from a copy so that nothing is built in the repository."""
    place = tmp_path_factory.mktemp("install")
    source = place / "source"
    source.mkdir()
    for name in ("setup.py", "MANIFEST.in", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(place / "site"), str(source)], check=True)
    return place / "site"


def _taskshift(installed, folder, *words):
    return subprocess.run(
        [sys.executable, "-m", "taskshift.cli", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_it_trains_and_sweeps(installed, tmp_path):
    done = _taskshift(
        installed,
        tmp_path,
        "train",
        "-m",
        "debug=tiny",
        "recorder=none",
        "lla.enable_planes=false",
        "lla.enable_sam=false",
        "seed=0,1",
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("outputs/*/sweeps/*/*/DONE"))) == 2
    assert " && taskshift train " in done.stdout


def test_its_files_are_the_repositorys(installed):
    for kind, inside in (
        ("conf", "taskshift/conf"),
        ("src/hydra_plugins", "hydra_plugins"),
        ("src/loss_landscape", "loss_landscape"),
    ):
        ours = {path.relative_to(ROOT / kind) for path in (ROOT / kind).rglob("*") if path.suffix in (".py", ".yaml")}
        assert ours
        assert all((installed / inside / path).exists() for path in ours)
    assert not (installed / "hydra_plugins" / "__init__.py").exists()
