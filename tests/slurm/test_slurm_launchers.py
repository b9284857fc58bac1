"""A real SLURM behind launchers that are not ours, and behind a search."""

import json
from pathlib import Path

import yaml

from taskshift.compare import differences
from tests.slurm.one_node import NEEDS_SLURM, called, command, end_of, on_slurm, sweep_in

pytestmark = NEEDS_SLURM


def test_hydras_own_plugin_trains_as_a_plain_run_does(cluster, place):
    stock = ("--multirun", "hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=5", "hydra.launcher.mem_gb=1")
    launched = called(command(*stock, "seed=0,1"), place)
    assert launched.returncode == 0, launched.stderr
    folders = {json.loads(path.read_text())["seed"]: path.parent for path in place.glob("outputs/*/own/*/run.json")}
    assert set(folders) == {0, 1}
    for seed, folder in folders.items():
        plain = called(command(f"seed={seed}", f"run_name=plain{seed}"), place)
        assert plain.returncode == 0, plain.stderr
        assert differences(folder, folder.with_name(f"plain{seed}")) == []


def test_a_search_runs_its_trials_as_jobs(cluster, place):
    words = ("--multirun", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2")
    searched = called(on_slurm(*words, grid=["learner.optimizer.lr=interval(0.001,0.1)"]), place)
    assert searched.returncode == 0, searched.stderr
    sweep = sweep_in(place)
    jobs = {entry["job"] for entry in sweep.runs().values()}
    assert {end_of(job) for job in jobs} == {"COMPLETED"}
    assert len({job.partition("_")[0] for job in jobs}) == 2  # arrays of two
    found = yaml.safe_load((sweep.path / "optimization_results.yaml").read_text())
    rate = found["best_params"]["learner.optimizer.lr"]
    best = [key for key, entry in sweep.runs().items() if float(entry["overrides"]["learner.optimizer.lr"]) == rate]
    assert found["best_value"] == last_accuracy(sweep.run_folder(best[0]))


def last_accuracy(folder: Path) -> float:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row["task_last_epoch_accuracy"] for row in rows if "task_last_epoch_accuracy" in row][-1]
