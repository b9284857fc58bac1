"""`--multirun`: all jobs are checked before the first begins, and a job that fails stops no other."""

import gc
import weakref
from pathlib import Path

import pytest

from taskshift.config import build
from taskshift.config.command import compose
from taskshift.faults import Fault
from taskshift.optimized_metric import optimized_metric
from taskshift.run_folder import held, run_folder_of
from taskshift.sweeps.checks import check_objects
from taskshift.sweeps.sweep_folder import SweepFolder
from tests.framework.commands import carry_out

SMALL = ("data=synthetic_images", "recorder=none", "num_threads=1")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def done(config, overrides) -> None:
    """A run that has nothing to do."""
    folder = run_folder_of(config)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.begin_attempt()
    folder.end_attempt(config["num_tasks"])
    folder.metrics.write_text('{"task_idx": 0, "global_epoch": 0, "task_last_epoch_accuracy": 0.5}\n')


def sweeps(here: Path) -> list[SweepFolder]:
    return [SweepFolder(path) for path in sorted(here.glob("outputs/*/sweeps/*"))]


def counted(seen: list, job=done):
    def counting(config, overrides):
        seen.append(config)
        job(config, overrides)

    return counting


def test_every_combination_is_run():
    seen = []

    def job(config, overrides):
        seen.append((config, overrides))
        done(config, overrides)

    assert carry_out("-m", *SMALL, "learner=backprop,l2", "seed=range(2)", job=job) == 0
    found = [(list(config["learner"]["regularizers"]), config["seed"]) for config, _ in seen]
    assert found == [([], 0), ([], 1), (["l2"], 0), (["l2"], 1)]
    assert all(type(config) is dict and config["arch"] == "mlp" for config, _ in seen)
    assert seen[3][1][-2:] == ["learner=l2", "seed=1"]


def test_the_flag_may_stand_anywhere():
    seen = []
    for words in (("--multirun", *SMALL, "seed=0,1"), (*SMALL, "-m", "seed=2,3"), (*SMALL, "seed=4,5", "--multirun")):
        assert carry_out(*words, job=counted(seen)) == 0
    assert [config["seed"] for config in seen] == [0, 1, 2, 3, 4, 5]


def test_options_may_stand_between_overrides(capsys):
    assert carry_out("seed=7", "--cfg", "job", "epochs=9", job=done) == 0
    assert {"seed: 7", "epochs: 9"} <= set(capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["epochs=1,0"], "epochs=0: expected a whole number, at least 1 (in epochs=0)\n"),
        (["net.width=3,0,4"], "net.width=0 was asked for; give a whole number, 1 or more (in net.width=0)\n"),
        (["epochs=0", "seed=0,1"], "epochs=0: expected a whole number, at least 1 (in seed=0; seed=1)\n"),
        (["net=mlp,mpl"], "net=mpl: there is no such net; give convnet, deep_linear, mlp, own, resnet18, transformer or vgg16\n"),
        (["seed=range(0)"], "the grid is empty: some key has no values, such as range(0); give each at least one\n"),
        (["seed=1,1"], "seed=1: the sweep has this run 2 times; give each value once\n"),
        (
            ["seed=1,2", "run_name=x"],
            "run_name=x: a sweep names its runs itself, by what differs between them; leave run_name out\n",
        ),
    ],
)
def test_nothing_begins_while_anything_is_wrong(words, sentence, capsys, here):
    seen = []
    assert carry_out("-m", *SMALL, *words, job=lambda *given: seen.append(given)) == 1
    assert capsys.readouterr().err == sentence
    assert not seen
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["cluster=slurm", "resources=gpuu"], "resources=gpuu: there is no such resources; give cpu or gpu\n"),
        (["cluster=slum"], "cluster=slum: there is no such cluster; give local or slurm\n"),
        (["cluster=slurm", "nett=mlp"], "nett: there is no such key; did you mean net?\n"),
        (
            ["cluster=slurm", "hydra.launcher.mem=4"],
            "hydra.launcher.mem: there is no such key; did you mean hydra.launcher.mem_gb?\n",
        ),
    ],
)
def test_what_keeps_a_command_from_being_a_sweep_is_said_first(words, sentence, capsys):
    assert carry_out(*SMALL, "seed=0,1", *words, job=done) == 1
    assert capsys.readouterr().err == sentence


def test_a_run_that_fails_is_named_and_stops_no_other(capsys, here):
    seen = []

    def job(config, overrides):
        if config["seed"] == 1:
            raise Fault("the disk is full")
        if config["seed"] == 2:
            raise ZeroDivisionError("a bug")
        done(config, overrides)

    assert carry_out("-m", *SMALL, "seed=range(4)", job=counted(seen, job)) == 1
    assert [config["seed"] for config in seen] == [0, 1, 2, 3]
    said = (
        "2 of 4 runs are not done; hydra.launcher.retry_failed=true tries the failed ones again\n"
        "seed=1: failed, the disk is full\nseed=2: failed, ZeroDivisionError: a bug\n"
    )
    assert capsys.readouterr().err.endswith(said)
    failed = (run_folder_of(seen[2]).path / "FAILED").read_text()
    assert failed.startswith("Traceback")
    seen.clear()
    assert carry_out("-m", *SMALL, "seed=range(4)", job=counted(seen)) == 1
    assert not seen
    assert carry_out("-m", *SMALL, "seed=range(4)", "hydra.launcher.retry_failed=true", job=counted(seen)) == 0
    assert [config["seed"] for config in seen] == [1, 2]


def test_the_same_command_is_the_same_sweep_and_a_grid_that_grows_stays_in_it(here):
    seen = []
    assert carry_out("-m", *SMALL, "seed=range(2)", "learner=l2", job=counted(seen)) == 0
    assert carry_out("-m", "learner=l2", *SMALL, "seed=range(3)", job=counted(seen)) == 0
    assert [config["seed"] for config in seen] == [0, 1, 2]
    [sweep] = sweeps(here)
    assert [entry["overrides"] for entry in sweep.runs().values()] == [{"seed": "0"}, {"seed": "1"}, {"seed": "2"}]
    assert [run_folder_of(config).path.resolve() for config in seen] == [sweep.run_folder(key) for key in sweep.runs()]
    assert carry_out("-m", *SMALL, "seed=range(2)", "learner=backprop", job=counted(seen)) == 0
    assert len(sweeps(here)) == 2


def test_where_it_runs_is_no_part_of_what_it_is(here):
    assert carry_out("-m", *SMALL, "seed=0,1", job=done) == 0
    assert carry_out("-m", *SMALL, "seed=0,1", "resources=gpu", "hydra.launcher.timeout_min=3", job=done) == 0
    assert len(sweeps(here)) == 1


def test_a_sweep_goes_on_where_it_was_moved(here):
    seen = []
    assert carry_out("-m", *SMALL, "seed=0,1", job=done) == 0
    (here / "outputs").rename(here / "elsewhere")
    assert carry_out("-m", *SMALL, "seed=0,1,2", f"output_root={here}/elsewhere", job=counted(seen)) == 0
    assert [config["seed"] for config in seen] == [2]
    assert not (here / "outputs").exists()


def test_a_run_that_is_done_is_extended(here):
    seen = []
    assert carry_out("-m", *SMALL, "sweep_name=mine", "num_tasks=2", "seed=0,1", job=counted(seen)) == 0
    assert carry_out("-m", *SMALL, "sweep_name=mine", "num_tasks=2", "seed=0,1", job=counted(seen)) == 0
    assert len(seen) == 2
    assert carry_out("-m", *SMALL, "sweep_name=mine", "num_tasks=3", "seed=0,1", job=counted(seen)) == 0
    assert [config["num_tasks"] for config in seen] == [2, 2, 3, 3]
    assert len({config["run_name"] for config in seen}) == 2


def test_keys_beside_the_identity_tell_runs_apart(here):
    seen = []
    assert carry_out("-m", *SMALL, "num_tasks=1,2", "seed=0", job=counted(seen)) == 0
    assert len({config["run_name"] for config in seen}) == 2
    assert [config["wandb"]["name"] for config in seen] == ["num_tasks=1", "num_tasks=2"]


def test_another_sweeps_name_is_refused(here, capsys):
    assert carry_out("-m", *SMALL, "sweep_name=mine", "seed=0,1", job=done) == 0
    before = (here / "outputs/loss_landscape_taskshift/sweeps/mine/sweep.json").read_text()
    assert carry_out("-m", *SMALL, "sweep_name=mine", "epochs=3", "net.width=8,9", job=done) == 1
    said = capsys.readouterr().err
    assert "mine holds another sweep; give another sweep_name, or leave it out:" in said
    assert "swept: the folder's sweep has seed, the command says net.width" in said
    assert "epochs=3" in said
    assert (here / "outputs/loss_landscape_taskshift/sweeps/mine/sweep.json").read_text() == before


def test_a_second_launcher_and_a_run_at_work_are_left_alone(here, capsys):
    seen = []
    assert carry_out("-m", *SMALL, "sweep_name=mine", "seed=0,1", job=done) == 0
    [sweep] = sweeps(here)
    with sweep.locked():
        assert carry_out("-m", *SMALL, "sweep_name=mine", "seed=0,1", job=counted(seen)) == 1
    assert "another process is at work in" in capsys.readouterr().err
    first, second = sweep.runs()
    for key in (first, second):
        (sweep.run_folder(key) / "DONE").unlink()
    with held(sweep.run_folder(first), "wait"):
        assert carry_out("-m", *SMALL, "sweep_name=mine", "seed=0,1", job=counted(seen)) == 0
    assert [config["run_name"] for config in seen] == [second]


def test_an_unwritable_place_is_one_sentence(here, capsys):
    (here / "outputs").write_text("a file where the folder belongs")
    assert carry_out("-m", *SMALL, "seed=0,1", job=done) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_the_objective_is_what_a_sweeper_gets(here):
    rows = [{"task_last_epoch_loss": 2.0}, {"task_last_epoch_loss": 1.0, "sam/sharpness": 3.0}, {"epoch_loss": 0.0}]
    assert optimized_metric(rows, None) == 1.0
    assert optimized_metric([*rows, {"task_last_epoch_accuracy": 0.25}], None) == 0.25
    assert optimized_metric(rows, "sam/sharpness") == 3.0
    with pytest.raises(Fault, match="objective=sam/sharp: the record has no such metric; did you mean sam/sharpness?"):
        optimized_metric(rows, "sam/sharp")


def test_ctrl_c_ends_the_whole_sweep():
    seen = []

    def job(config, overrides):
        seen.append(config["seed"])
        raise KeyboardInterrupt

    assert carry_out("-m", *SMALL, "seed=range(4)", job=job) == 130
    assert seen == [0]


def test_objects_are_made_once_for_all_seeds(monkeypatch):
    built = []
    monkeypatch.setattr("taskshift.config.build.build_parts", lambda config, _: built.append(config["seed"]))
    configs = [compose(*SMALL, f"seed={seed}", f"epochs={epochs}") for seed in (0, 1) for epochs in (1, 2)]
    check_objects(configs, ["a", "b", "c", "d"])
    assert len(built) == 2


def test_data_in_a_row_are_made_once_and_then_let_go(monkeypatch):
    made, make = [], build._make_data

    def kept(*given):
        data = make(*given)
        gc.collect()
        assert [one() for one in made] == [None] * len(made)
        made.append(weakref.ref(data))
        return data

    monkeypatch.setattr(build, "_make_data", kept)
    configs = [compose(*SMALL, f"data.side={side}", f"net.width={width}") for side in (8, 9) for width in (4, 5, 6)]
    check_objects(configs, list("abcdef"))
    assert len(made) == 2
