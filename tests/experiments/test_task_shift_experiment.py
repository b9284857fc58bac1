"""The task-shift experiment: train.py's own job with the folder's config."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from the_pipeline import FOLDER, ROOT

from taskshift.config.command import compose

CONF = FOLDER / "cfg"
MODES = sorted(path.stem for path in (ROOT / "conf" / "task_shift_mode").glob("*.yaml") if path.stem != "own")
SEEDS_COMMAND = """
python experiments/Hessian_and_landscape_plot_with_plasticity_loss/loss_landscape_change_during_task_shift.py \\
	num_tasks=1 epochs=1 use_wandb=false lla.enable_spectrum=true lla.enable_planes=true lla.enable_sam=false
"""
SEEDS_WORDS = shlex.split(SEEDS_COMMAND.replace("\\\n", " "))
SMALL = ("debug=tiny", "net=mlp", "num_threads=1", "device=cpu", "use_wandb=false", "lla.logging.save_plots=false")


def composed(*words: str) -> dict:
    return compose(*words, conf=CONF, config_name="task_shift_config")


@pytest.fixture(autouse=True)
def repository(monkeypatch):
    """What the script sets before it composes."""
    monkeypatch.setenv("TASKSHIFT_ROOT", str(ROOT))


def command(words: list[str], cwd: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A command, its script in the repository, carried out in `cwd`."""
    python = [sys.executable, str(ROOT / words[1]), *words[2:], *more]
    return subprocess.run(python, cwd=cwd, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_it_has_the_keys_of_the_main_config():
    own, main = (yaml.safe_load(path.read_text()) for path in (CONF / "task_shift_config.yaml", ROOT / "conf" / "config.yaml"))
    groups = {"lla"}  # a group there, with a few switches of its own here
    assert own.keys() - groups == main.keys()
    assert _names(own["defaults"]) == _names(main["defaults"])
    assert own["wandb"] == main["wandb"]
    assert {key: own["hydra"][key] for key in main["hydra"]} == main["hydra"]


def _names(defaults: list) -> set[str]:
    return {name for entry in defaults for name in ([entry] if isinstance(entry, str) else entry)}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_has_a_wandb_project_of_its_own(mode):
    config = composed(f"task_shift_mode={mode}")
    assert config["wandb"]["project"] == config["recorder"]["wandb"]["project"] == f"loss_landscape_taskshift_{mode}"
    assert config["task_shift"]["_target_"].startswith("taskshift.shifts.")


def test_its_defaults_and_their_overrides():
    config = composed()
    assert config["arch"] == "convnet"
    assert config["task_shift_mode"] == "continuous_input_deformation"
    assert [config["lla"][f"enable_{name}"] for name in ("planes", "spectrum", "sam")] == [True, True, True]
    assert composed("lla.enable_sam=false")["lla"]["enable_sam"] is False
    assert composed("experiment=quick")["num_tasks"] == 20


@pytest.mark.slow
def test_the_seeds_command(tmp_path):
    done = command(SEEDS_WORDS, tmp_path, *SMALL, "run_name=run", "net=convnet", "data=digits", "net.width=8")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "outputs" / "loss_landscape_taskshift" / "convnet" / "run"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["global_epoch"] for row in rows] == [0, 0]
    assert rows[-1].keys() >= {"planes/hessian/max_loss", "spectrum/top_eigenvalue_1", "task_last_epoch_loss", "planes/seconds"}
    assert not any(name.startswith("sam/") for row in rows for name in row)
    assert {path.name for path in (folder / "task_0000_convnet").iterdir()} >= {"planes", "spectrum"}


@pytest.mark.parametrize("where", [(), pytest.param(("cluster=local", "hydra.launcher.workers=2"), marks=pytest.mark.slow)])
def test_a_sweep(tmp_path, where):
    words = SEEDS_WORDS[:2] + ["--multirun", "seed=0,1", "num_tasks=1", "epochs=1"]
    off = [f"lla.enable_{name}=false" for name in ("planes", "spectrum", "sam")]
    done = command(words, tmp_path, *SMALL, *off, *where)
    assert done.returncode == 0, done.stderr
    records = list((tmp_path / "outputs").rglob("metrics.jsonl"))
    assert len(records) == 2


@pytest.mark.slow
def test_the_seeds_command_as_printed(tmp_path):
    done = command(SEEDS_WORDS, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("outputs/loss_landscape_taskshift/convnet/*/task_0000_convnet/planes/*/contour.png"))) == 3
