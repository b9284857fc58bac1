"""Optuna's search over our launcher, and our training under the launchers of Hydra and of submitit's plugin."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from taskshift.compare import differences
from taskshift.config.command import composed
from taskshift.faults import Fault
from taskshift.run_folder import run_folder_of
from taskshift.sweeps.sweep_folder import SweepFolder
from tests.framework.commands import carry_out

ROOT = Path(__file__).parents[2]
SMALL = ("-m", "data=synthetic_images", "recorder=none", "num_threads=1", "sweep_name=search")
SEARCH = (*SMALL, "hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2", "hydra.sweeper.sampler.seed=1")
WIDTHS = "net.width=choice(2,3,5,8)"
FORGIVING = "hydra.sweeper.max_failure_rate=1"
REAL = ("debug=tiny", "use_wandb=false", "num_threads=1", "recorder=none", "lla.enable_sam=false")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def leaving(rows):
    """A job that leaves the row that `rows` has for a net's width, and fails where it has none."""

    def job(config, overrides):
        row = rows(config["net"]["width"])
        if row is None:
            raise Fault("the loss is infinite")
        folder = run_folder_of(config)
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.begin_attempt()
        folder.end_attempt(config["num_tasks"])
        folder.metrics.write_text(json.dumps({"task_idx": 0, "global_epoch": 0, **row}) + "\n")

    return job


def accuracy(width):
    return {"task_last_epoch_accuracy": 1 / width, "sam/sharpness": float(width)}


def sweep_of(here: Path) -> SweepFolder:
    return SweepFolder(here / "outputs/loss_landscape_taskshift/sweeps/search")


def found(here: Path) -> dict:
    return yaml.safe_load((sweep_of(here).path / "optimization_results.yaml").read_text())


def tried(here: Path) -> set[int]:
    return {int(entry["overrides"]["net.width"]) for entry in sweep_of(here).runs().values()}


@pytest.mark.parametrize(
    ("words", "best", "value"),
    [
        (["hydra.sweeper.direction=maximize"], min, lambda width: 1 / width),
        (["hydra.sweeper.direction=minimize"], max, lambda width: 1 / width),
        (["objective=sam/sharpness", "hydra.sweeper.direction=minimize"], min, float),
    ],
)
def test_a_search_finds_the_best_of_what_it_tried(here, words, best, value):
    assert carry_out(*SEARCH, *words, WIDTHS, job=leaving(accuracy)) == 0
    width = best(tried(here))
    assert found(here)["best_value"] == value(width)
    assert int(found(here)["best_params"]["net.width"]) == width


def test_a_metric_that_nobody_logs_is_one_sentence(here, capsys):
    assert carry_out(*SEARCH, "objective=sam/sharp", WIDTHS, job=leaving(accuracy)) == 1
    said = "objective=sam/sharp: the record has no such metric; did you mean sam/sharpness?"
    assert capsys.readouterr().err.strip().splitlines()[-1] == said


def test_a_search_may_ask_for_the_same_run_twice(here):
    seen = []

    def job(config, overrides):
        seen.append(config["net"]["width"])
        leaving(accuracy)(config, overrides)

    assert carry_out(*SEARCH, "net.width=choice(7)", job=job) == 0
    assert seen == [7]
    assert found(here)["best_value"] == 1 / 7


def test_the_same_search_again_runs_nothing_twice(here):
    seen = []

    def job(config, overrides):
        seen.append(config["net"]["width"])
        leaving(accuracy)(config, overrides)

    for _ in range(2):
        assert carry_out(*SEARCH, "hydra.sweeper.direction=maximize", WIDTHS, job=job) == 0
        assert sorted(seen) == sorted(tried(here))


@pytest.mark.parametrize("failing", [None, {"task_last_epoch_accuracy": float("nan")}])
def test_a_trial_without_an_objective_ends_the_search_unless_it_may_fail(here, capsys, failing):
    def job(config, overrides):
        leaving(lambda width: failing if width == worst else accuracy(width))(config, overrides)

    worst = None
    assert carry_out(*SEARCH, "hydra.sweeper.direction=maximize", WIDTHS, job=leaving(accuracy)) == 0
    chosen = tried(here)
    worst = next(iter(chosen))
    for key in sweep_of(here).runs():
        for path in sweep_of(here).run_folder(key).iterdir():
            path.unlink()
    (sweep_of(here).path / "optimization_results.yaml").unlink()
    capsys.readouterr()

    why = "failed, the loss is infinite" if failing is None else "the objective is not a number"
    assert carry_out(*SEARCH, "hydra.sweeper.direction=maximize", WIDTHS, job=job) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1] == f"net.width={worst}: {why}"
    assert not (sweep_of(here).path / "optimization_results.yaml").exists()

    status = carry_out(*SEARCH, "hydra.sweeper.direction=maximize", FORGIVING, WIDTHS, job=job)
    assert found(here)["best_value"] == 1 / min(chosen - {worst})
    last = capsys.readouterr().err.strip().splitlines()[-2:]
    if failing is None:
        assert status == 1
        assert last == ["the search went on without the runs that are not done:", f"net.width={worst}: {why}"]
        failed = [key for key in sweep_of(here).runs() if (sweep_of(here).run_folder(key) / "FAILED").exists()]
        assert [sweep_of(here).runs()[key]["label"] for key in failed] == [f"net.width={worst}"]
    else:
        assert status == 0


def test_a_search_cannot_be_detached(capsys):
    words = ("cluster=slurm", "hydra.launcher.detach=true", WIDTHS)
    assert carry_out(*SEARCH, *words, job=leaving(accuracy)) == 1
    said = "hydra.launcher.detach=true: a search waits for what its runs find; leave detach out\n"
    assert capsys.readouterr().err.endswith(said)


def test_sbatch_takes_any_key_without_a_plus_sign():
    import hydra

    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        words = ["cluster=slurm", "hydra.launcher.sbatch.nice=5", "+hydra.launcher.sbatch.qos=high"]
        known = hydra.compose("config", words, return_hydra_config=True).hydra.launcher
        assert known.sbatch == {"nice": 5, "qos": "high"}
        with pytest.raises(hydra.errors.ConfigCompositionException):
            hydra.compose("config", ["hydra.launcher.sbach.nice=5"])


def test_another_script_has_sweeps_of_its_own(monkeypatch):
    from taskshift.sweeps.plan import planned

    config = composed("data=synthetic_images")
    names = {}
    for script in ("train.py", "/somewhere/train.py", "taskshift", "mine.py"):
        monkeypatch.setattr(sys, "argv", [script])
        names[script] = planned(["epochs=3"], [config], [["epochs=3", "seed=1"]]).name
    assert names["train.py"] == names["/somewhere/train.py"] == names["taskshift"]
    assert names["mine.py"] != names["train.py"]


def test_what_a_later_call_may_change_makes_no_other_sweep():
    from taskshift.sweeps.plan import planned

    config, swept = composed("data=synthetic_images"), [["seed=1"]]
    names = {planned(["epochs=3", *more], [config], swept).name for more in ([], ["num_tasks=9"], ["device=cuda", "data.root=x"])}
    assert len(names) == 1
    assert planned(["epochs=3", "num_threads=2"], [config], swept).name not in names


def trained(here: Path, *words: str) -> dict[int, Path]:
    """The seeds of the runs that train.py made in a folder of its own, and where they lie."""
    here.mkdir()
    called = subprocess.run([sys.executable, ROOT / "train.py", *words, *REAL], cwd=here, capture_output=True, text=True)
    assert called.returncode == 0, called.stderr
    return {json.loads(path.read_text())["seed"]: path.parent for path in here.glob("outputs/*/mlp/*/run.json")}


def last_accuracy(folder: Path) -> float:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row["task_last_epoch_accuracy"] for row in rows if "task_last_epoch_accuracy" in row][-1]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "submitit_local"])
def test_stock_launchers_train_as_a_plain_run_does(here, launcher):
    launched = trained(here / "launched", "--multirun", f"hydra/launcher={launcher}", "seed=0,1")
    assert set(launched) == {0, 1}
    for seed, folder in launched.items():
        assert differences(folder, trained(here / f"plain{seed}", f"seed={seed}")[seed]) == []


@pytest.mark.slow
@pytest.mark.parametrize("where", [(), ("cluster=local", "hydra.launcher.workers=2")])
def test_a_search_of_real_trainings(here, where):
    search = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2", "hydra.sweeper.direction=maximize")
    trained(here / "search", "--multirun", *search, *where, "sweep_name=search", "learner.optimizer.lr=interval(0.001,0.1)")
    sweep = sweep_of(here / "search")
    last = [last_accuracy(sweep.run_folder(key)) for key in sweep.runs()]
    assert len(last) == 2
    assert found(here / "search")["best_value"] == max(last)
