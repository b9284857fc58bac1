"""How runs stand, by their folders and by SLURM's commands, which are small scripts here that answer as SLURM 22.05 does."""

import json

import pytest

from taskshift.run_folder import held
from taskshift.sweeps.states import RunState, states
from taskshift.sweeps.sweep_folder import SweepFolder

JOB = "42_0"


@pytest.fixture
def sweep(tmp_path):
    """A sweep of one run, queued on SLURM as job 42_0."""
    entry = {"overrides": {"seed": "0"}, "label": "seed=0", "job": JOB, "cluster": "slurm", "submitted": "2030-01-01T00:00:00"}
    folder = SweepFolder(tmp_path / "sweep")
    (folder.path / "a").mkdir(parents=True)
    folder.file.write_text(json.dumps({"name": "sweep", "fixed": [], "swept": ["seed"], "runs": {"a": entry}}))
    return folder


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Writes a command of SLURM's that prints something, or fails; those not written are not there."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def write(name, prints="", status=0):
        script = tmp_path / "bin" / name
        script.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{prints}\nEND\nexit {status}\n")
        script.chmod(0o755)

    return write


def _only(sweep, **options) -> RunState:
    [state] = states(sweep, **options).values()
    return state


def _without_accounting(slurm):
    slurm("squeue")
    slurm("sacct", "Slurm accounting storage is disabled", status=1)
    slurm("scontrol", "slurm_load_jobs error: Invalid job id specified", status=1)


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("RUNNING", "running"),
        ("COMPLETING", "running"),
        ("PENDING", "pending"),
        ("REQUEUED", "pending"),
        ("SUSPENDED", "pending"),
    ],
)
def test_a_job_in_the_queue_is_not_over(sweep, slurm, word, state):
    slurm("squeue", f"41_0|RUNNING|None\n{JOB}|{word}|BeginTime")
    assert _only(sweep) == RunState(state, "SLURM's reason: BeginTime")


@pytest.mark.parametrize("left", ["DONE", "FAILED"])
def test_what_an_earlier_attempt_left_does_not_count_while_the_job_is_queued(sweep, slurm, left):
    (sweep.run_folder("a") / left).write_text("{}")
    slurm("squeue", f"{JOB}|PENDING|Priority")
    assert _only(sweep).state == "pending"


@pytest.mark.parametrize(("left", "state"), [("DONE", "done"), ("FAILED", "failed")])
def test_a_member_that_has_ended_is_so_while_others_of_its_stack_are_at_work(sweep, slurm, left, state):
    (sweep.run_folder("a") / left).write_text('{"num_tasks": 2}')
    slurm("squeue", f"{JOB}|RUNNING|None")
    assert _only(sweep).state == state


def test_a_controller_that_does_not_answer_is_no_end(sweep, slurm):
    slurm("squeue", "slurm_load_jobs error: Unable to contact slurm controller", status=1)
    slurm("sacct", f"{JOB}|CANCELLED|0:0")
    assert _only(sweep) == RunState("pending", "SLURM does not answer; job 42_0 was queued")


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("TIMEOUT|0:0", "timed out"),
        ("OUT_OF_MEMORY|0:125", "out of memory"),
        ("PREEMPTED|0:0", "preempted"),
        ("NODE_FAIL|0:0", "preempted"),
        ("CANCELLED by 0|0:0", "killed"),
        ("FAILED|0:9", "killed"),
    ],
)
def test_accounting_tells_how_a_job_ended(sweep, slurm, word, state):
    slurm("squeue")
    slurm("sacct", f"{JOB}|{word}")
    assert _only(sweep) == RunState(state, f"SLURM says {word.replace('|', ' ')} of job 42_0")


def test_of_a_job_that_failed_before_its_run_began_the_last_line_is_told(sweep, slurm):
    slurm("squeue")
    slurm("sacct", f"{JOB}|FAILED|1:0")
    stderr = sweep.submitted / JOB / f"{JOB}_0_log.err"
    stderr.parent.mkdir(parents=True)
    stderr.write_text("Traceback\nModuleNotFoundError: No module named 'mine'\n")
    assert _only(sweep).why == "SLURM says FAILED 1:0 of job 42_0: ModuleNotFoundError: No module named 'mine'"


def test_accounting_that_lags_behind_yields_to_the_controller(sweep, slurm):
    slurm("squeue")
    slurm("sacct", f"{JOB}|RUNNING|0:0")
    slurm("scontrol", "JobId=43 ArrayJobId=42 ArrayTaskId=0 JobState=TIMEOUT Reason=TimeLimit Dependency=(null)")
    assert _only(sweep) == RunState("timed out", "SLURM says TIMEOUT TimeLimit of job 42_0")


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("slurmstepd: error: *** JOB 43 ON node1 CANCELLED AT 2030-01-01T00:00:00 DUE TO TIME LIMIT ***", "timed out"),
        ("slurmstepd: error: *** STEP 43.0 ON node1 CANCELLED AT 2030-01-01T00:00:00 DUE TO PREEMPTION ***", "preempted"),
        ("slurmstepd: error: *** JOB 43 ON node1 CANCELLED AT 2030-01-01T00:00:00 DUE TO NODE FAILURE ***", "preempted"),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=43.0. Some of your processes may have been", "out of memory"),
        ("slurmstepd: error: *** JOB 43 ON node1 CANCELLED AT 2030-01-01T00:00:00 ***", "killed"),
        ("CANCELLED AT one DUE TO PREEMPTION\nmore\nCANCELLED AT two DUE TO TIME LIMIT\nsrun: Killed", "timed out"),
    ],
)
def test_without_accounting_the_last_reason_in_the_jobs_stderr_tells(sweep, slurm, text, state):
    _without_accounting(slurm)
    stderr = sweep.submitted / JOB / f"{JOB}_0_log.err"
    stderr.parent.mkdir(parents=True)
    stderr.write_text(text + "\n")
    assert _only(sweep) == RunState(state, f"job 42_0 wrote so into {stderr}")


def test_a_job_that_ended_without_a_word_was_killed(sweep, slurm):
    _without_accounting(slurm)
    assert _only(sweep) == RunState("killed", "job 42_0 ended without a word")


def test_a_folder_that_was_copied_from_a_cluster_is_judged_by_itself(sweep, slurm):
    (sweep.run_folder("a") / "FAILED").write_text("Traceback\n  line 3\nValueError: no such thing\n\n")
    assert _only(sweep) == RunState("failed", "ValueError: no such thing")


def test_a_held_lock_is_a_running_run_whatever_slurm_says(sweep, slurm):
    slurm("squeue", "", status=1)
    with held(sweep.run_folder("a"), "…"):
        assert _only(sweep) == RunState("running")
    assert _only(sweep).state == "pending"


@pytest.mark.parametrize(
    ("files", "launching", "state"),
    [((), False, "new"), ((), True, "pending"), (("run.json",), False, "interrupted"), (("run.json", "DONE"), True, "done")],
)
def test_without_a_cluster_the_folders_and_the_launchers_lock_tell(sweep, files, launching, state):
    about = sweep.read()
    about["runs"]["a"] |= {"job": None, "cluster": None}
    sweep.file.write_text(json.dumps(about))
    for name in files:
        (sweep.run_folder("a") / name).write_text("{}")
    if not launching:
        assert _only(sweep).state == state
    else:
        with held(sweep.path, "…"):
            assert _only(sweep).state == state
