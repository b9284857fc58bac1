"""Which runs of a sweep go together, and that each of them stands for itself all the same."""

import json

import pytest

from taskshift.config import build
from taskshift.config.command import compose
from taskshift.config.settings import setting_keys
from taskshift.faults import Fault
from taskshift.run_folder import held, run_folder_of
from taskshift.script import Script
from taskshift.sweeps.carriers import LocalWorkers, Slurm
from taskshift.sweeps.launch import Here
from taskshift.sweeps.plan import planned
from taskshift.sweeps.stacks import cut, groups, read_size, stacked
from taskshift.sweeps.sweep_folder import SweepFolder
from taskshift.sweeps.worker import Member, Worker
from tests.framework.commands import carry_out

SMALL = ("data=synthetic_images", "recorder=none", "num_threads=1")
MANY_STEPS = ("num_tasks=1000000",)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan_of(*words):
    """A sweep of runs with these words each."""
    return planned(list(SMALL), [compose(*SMALL, *each) for each in words], [[*SMALL, *each] for each in words])


def labels(found):
    return [[run.label for run in group] for group in found]


def grouped(*words):
    return labels(groups(plan_of(*words).runs, setting_keys))


def test_learners_are_apart_and_seeds_together_in_their_order():
    words = [(f"learner={learner}", f"seed={seed}") for seed in (2, 0, 1) for learner in ("backprop", "cbp")]
    assert grouped(*words) == [
        ["learner=backprop seed=2", "learner=backprop seed=0", "learner=backprop seed=1"],
        ["learner=cbp seed=2", "learner=cbp seed=0", "learner=cbp seed=1"],
    ]


def test_the_data_of_groups_in_a_row_are_made_once(monkeypatch):
    made, make = [], build._make_data
    monkeypatch.setattr(build, "_make_data", lambda *given: made.append(1) or make(*given))
    words = [(f"learner={learner}", f"seed={seed}") for learner in ("backprop", "cbp") for seed in (0, 1)]
    assert len(stacked(plan_of(*words).runs, 2, Here().fitting)) == 2
    assert len(made) == 1


@pytest.mark.parametrize(
    ("fixed", "key", "values"),
    [
        ("learner=backprop", "learner.optimizer.lr", (0.1, 0.01, 1)),
        ("learner=backprop", "learner.optimizer.momentum", (0.9, 0.5)),
        ("learner=backprop", "learner.gradient_clip", (1.0, 5)),
        ("learner=l2", "learner.regularizers.l2.weight", (1e-3, 1e-4)),
        ("learner=sam", "learner.gradient.rho", (0.1, 0.2)),
        ("learner=cbp", "learner.interventions.cbp.replacement_rate", (1e-3, 1e-4)),
        ("learner/optimizer=adam", "learner.optimizer.eps", (1e-8, 1e-6)),
        ("learner=upgd", "learner.optimizer.sigma", (0.1, 0.2)),
    ],
)
def test_a_parts_numbers_go_together(fixed, key, values):
    [group] = grouped(*[(fixed, f"{key}={value}") for value in values])
    assert len(group) == len(values)


@pytest.mark.parametrize(
    ("fixed", "key", "values"),
    [
        ("net=mlp", "net.width", (8, 9)),
        ("net=mlp", "batch_size", (8, 9)),
        ("net=mlp", "num_tasks", (2, 3)),
        ("net=mlp", "checkpoints.every_seconds", (30, 60)),
        ("learner=cbp", "learner.interventions.cbp.utility", ("weight", "random")),
        ("learner=cbp", "learner.interventions.cbp.accumulate", ("true", "false")),
        ("learner=hare_and_tortoise", "learner.interventions.hare_and_tortoise.every_epochs", (2, 3)),
        ("learner=backprop", "learner.optimizer.momentum", (0, 0.9)),
        ("learner=backprop", "learner.optimizer.nesterov", ("true", "false")),
        ("learner=backprop", "learner.gradient_clip", ("null", 1.0)),
        ("learner/optimizer=adagrad", "learner.optimizer.lr", (0.1, 0.2)),
    ],
)
def test_what_is_no_setting_is_apart(fixed, key, values):
    assert [len(group) for group in grouped(*[(fixed, f"{key}={value}") for value in values])] == [1, 1]


def test_groups_are_cut_evenly():
    runs = list(range(10))
    assert cut(runs, 4) == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert cut(runs, 5) == [runs[:5], runs[5:]]
    assert cut(runs, 10) == cut(runs, 99) == [runs]
    assert cut(runs, 1) == [[run] for run in runs]


def test_no_worker_is_idle_and_no_job_carries_less_than_a_program_steps_at_a_time():
    jobs = Slurm(detach=False, parameters={"slurm_array_parallelism": 4})
    assert [Here().fitting(100, block) for block in (1, 64)] == [100, 100]
    assert [LocalWorkers(3, 0).fitting(100, block) for block in (1, 64)] == [34, 34]
    assert [jobs.fitting(100, block) for block in (1, 64)] == [25, 64]


@pytest.mark.parametrize(
    ("size", "words", "sizes"),
    [("auto", MANY_STEPS, [4, 3]), (2, (), [2, 2, 2, 1]), (False, MANY_STEPS, [1] * 7), ("auto", (), [1] * 7)],
)
def test_a_group_is_cut_for_its_workers(size, words, sizes):
    runs = plan_of(*[(f"seed={seed}", *words) for seed in range(7)]).runs
    found = stacked(runs, size, LocalWorkers(2, 0).fitting)
    assert [len(stack) for stack in found] == sizes
    assert [run for stack in found for run in stack] == list(runs)


def test_a_stack_is_no_larger_than_its_files_may_be_open_and_it_is_said(monkeypatch, caplog):
    monkeypatch.setattr("resource.getrlimit", lambda which: (100, 264))
    runs = plan_of(*[(f"seed={seed}",) for seed in range(7)]).runs
    assert [len(stack) for stack in stacked(runs, 7, Here().fitting)] == [4, 3]
    assert caplog.messages == [
        "a process may not hold the files of 7 runs open (ulimit -Hn): stacks are of 4 runs at most",
    ]


@pytest.mark.parametrize("value", [0, -1, 1.5, "many", True, None, [2]])
def test_a_size_that_is_none_is_one_sentence(value):
    with pytest.raises(Fault) as fault:
        read_size(value)
    expected = "expected auto, false, or a whole number, at least 1: the most runs of a stack"
    assert str(fault.value) == f"hydra.launcher.stack={value}: {expected}"


# -- carried out ------------------------------------------------------------------------------------------------------


def done(config, overrides=()):
    folder = run_folder_of(config)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.begin_attempt()
    folder.end_attempt(config["num_tasks"])
    folder.metrics.write_text('{"task_idx": 0, "global_epoch": 0, "task_last_epoch_accuracy": 0.5}\n')


def failed(config, why):
    run_folder_of(config).path.mkdir(parents=True, exist_ok=True)
    run_folder_of(config).fail_attempt(why)


class Seen:
    """Stands for a script: notes which seeds came alone and which together; `failing` ones fail."""

    def __init__(self, *failing):
        self.alone, self.together, self.failing = [], [], failing

    def job(self, config, overrides):
        self.alone.append(config["seed"])
        done(config)

    def several(self, configs, overrides):
        self.together.append([config["seed"] for config in configs])
        assert all(f"seed={config['seed']}" in words for config, words in zip(configs, overrides, strict=True))
        return [self._one(config) for config in configs]

    def _one(self, config):
        if config["seed"] not in self.failing:
            return done(config)
        failed(config, "it is cold")
        return Fault("it is cold")

    def command(self, *words):
        return carry_out("-m", *SMALL, *words, job=self.job, together=self.several)


def test_many_steps_go_together_and_few_one_by_one():
    seen = Seen()
    assert seen.command("seed=range(3)") == 0
    assert (seen.alone, seen.together) == ([0, 1, 2], [])
    seen = Seen()
    assert seen.command("seed=range(3)", *MANY_STEPS, "sweep_name=long") == 0
    assert (seen.alone, seen.together) == ([], [[0, 1, 2]])


@pytest.mark.parametrize(
    ("words", "alone", "together"),
    [
        (("hydra.launcher.stack=false", *MANY_STEPS), [0, 1, 2], []),
        (("execution=eager", *MANY_STEPS), [0, 1, 2], []),
        (("learner/optimizer=adagrad", *MANY_STEPS), [0, 1, 2], []),
        (("hydra.launcher.stack=2",), [2], [[0, 1]]),
        (("execution=replay",), [], [[0, 1, 2]]),
    ],
)
def test_who_is_asked_to_stack(words, alone, together):
    seen = Seen()
    assert seen.command("seed=range(3)", *words) == 0
    assert (seen.alone, seen.together) == (alone, together)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("execution=eager",), "hydra.launcher.stack=4: execution=eager has no program (in seed=0); give auto or false"),
        (("learner/optimizer=adagrad",), "hydra.launcher.stack=4: learner.optimizer: Adagrad steps by torch's own code"),
        (("hydra.launcher.stack=some",), "hydra.launcher.stack=some: expected auto, false, or a whole number, at least 1"),
    ],
)
def test_what_cannot_be_stacked_is_one_sentence(words, said, capsys):
    seen = Seen()
    assert seen.command("seed=range(3)", "hydra.launcher.stack=4", *words) == 1
    told = capsys.readouterr().err.strip()
    assert told.startswith(said)
    assert len(told.splitlines()) == 1
    assert (seen.alone, seen.together) == ([], [])


def test_a_script_that_takes_one_run_at_a_time_gets_them_so(capsys):
    seen = Seen()
    assert carry_out("-m", *SMALL, *MANY_STEPS, "seed=0,1", job=seen.job) == 0
    assert seen.alone == [0, 1]
    assert carry_out("-m", *SMALL, "seed=0,1", "hydra.launcher.stack=2", job=seen.job) == 1
    assert "hydra.launcher.stack=2: this script carries out one run at a time" in capsys.readouterr().err


def test_a_member_that_fails_is_named_and_the_others_are_done(capsys):
    seen = Seen(1)
    stacked = ("seed=range(3)", "hydra.launcher.stack=9")
    assert seen.command(*stacked) == 1
    assert capsys.readouterr().err.endswith(
        "1 of 3 runs are not done; hydra.launcher.retry_failed=true tries the failed ones again\nseed=1: failed, it is cold\n"
    )
    seen.failing = ()
    assert seen.command(*stacked, "hydra.launcher.retry_failed=true") == 0
    assert (seen.alone, seen.together) == ([1], [[0, 1, 2]])


def worker(seen, configs):
    members = [Member(f"seed={config['seed']}", config, [f"seed={config['seed']}"]) for config in configs]
    return Worker(Script(seen.job, seen.several), members, ["train.py"], ".", max_requeues=2)


def test_a_worker_leaves_members_that_are_done_that_failed_or_that_another_process_holds(caplog):
    seen = Seen()
    configs = [run.config for run in plan_of(*[(f"seed={seed}",) for seed in range(5)]).runs]
    done(configs[0])
    failed(configs[1], "it is hot")
    with held(run_folder_of(configs[2]).path, "wait"):
        worker(seen, configs)()
    assert seen.together == [[3, 4]]
    assert run_folder_of(configs[1]).failed.read_text() == "it is hot\n"


def test_a_workers_job_fails_where_a_member_fails():
    seen = Seen(1)
    configs = [run.config for run in plan_of(*[(f"seed={seed}",) for seed in range(3)]).runs]
    with pytest.raises(Fault, match="1 of 3 runs failed: seed=1"):
        worker(seen, configs)()
    assert [run_folder_of(config).done.exists() for config in configs] == [True, False, True]


def test_what_no_member_is_to_blame_for_is_left_in_all_that_are_not_done():
    seen = Seen()
    configs = [run.config for run in plan_of(*[(f"seed={seed}",) for seed in range(2)]).runs]

    def several(given, overrides):
        done(given[0])
        raise ZeroDivisionError("a bug")

    seen.several = several
    with pytest.raises(ZeroDivisionError):
        worker(seen, configs)()
    assert [run_folder_of(config).failed.exists() for config in configs] == [False, True]


def test_a_stack_that_was_requeued_too_often_fails_in_every_member(monkeypatch):
    seen = Seen()
    configs = [run.config for run in plan_of(*[(f"seed={seed}",) for seed in range(2)]).runs]
    for config in configs:
        run_folder_of(config).path.mkdir(parents=True)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    with pytest.raises(Fault, match="requeued 3 times, more than max_requeues = 2"):
        worker(seen, configs)()
    assert seen.together == []
    assert all("max_requeues = 2" in run_folder_of(config).failed.read_text() for config in configs)


def test_every_run_of_a_stack_stands_in_sweep_json(here):
    seen = Seen()
    assert seen.command("seed=range(3)", "learner=backprop,l2", "hydra.launcher.stack=9") == 0
    assert seen.together == [[0, 1, 2], [0, 1, 2]]
    [path] = here.glob("outputs/*/sweeps/*/sweep.json")
    sweep = SweepFolder(path.parent)
    assert [entry["label"] for entry in json.loads(path.read_text())["runs"].values()] == [
        f"seed={seed} learner={learner}" for seed in range(3) for learner in ("backprop", "l2")
    ]
    assert all((sweep.run_folder(key) / "DONE").exists() for key in sweep.runs())
