"""A launcher that was ended between queueing jobs and noting their numbers: the next one finds them, and queues none twice."""

from pathlib import Path

import pytest

from taskshift.sweeps.sweep_folder import SweepFolder
from tests.framework.commands import carry_out

COMMAND = ("-m", "data=synthetic_images", "recorder=none", "num_threads=1", "sweep_name=mine")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return tmp_path


def cut_off(place: Path, grid: str) -> SweepFolder:
    """A sweep whose launcher was ended while it queued all runs."""
    assert carry_out(*COMMAND, grid, job=lambda config, overrides: None) == 1
    sweep = SweepFolder(place / "outputs/loss_landscape_taskshift/sweeps/mine")
    sweep.write({**sweep.read(), "queueing": [[key] for key in sweep.runs()]})
    return sweep


def squeue(place: Path, scripts: str, states: str = "", status: int = 0) -> None:
    """What squeue answers when it is asked for arrays' scripts, and when it is asked for jobs' states."""
    script = place / "bin" / "squeue"
    script.write_text(f'#!/bin/sh\ncase "$*" in *%o*) printf "{scripts}";; *) printf "{states}";; esac\nexit {status}\n')
    script.chmod(0o755)


def hand_over(sweep: SweepFolder, *jobs: str) -> None:
    """What submitit leaves for jobs whose numbers it has learnt."""
    for job in jobs:
        (sweep.submitted / job).mkdir(parents=True)
        (sweep.submitted / job / f"{job}_submitted.pkl").touch()


def scancel(place: Path) -> Path:
    """Where it is written which jobs were cancelled."""
    script = place / "bin" / "scancel"
    script.write_text(f'#!/bin/sh\necho "$*" > {place}/cancelled\n')
    script.chmod(0o755)
    return place / "cancelled"


def carried_out(grid: str) -> tuple[int, list[int]]:
    """The exit status of the same command, and the seeds that it carried out itself."""
    seeds: list[int] = []
    return carry_out(*COMMAND, grid, job=lambda config, overrides: seeds.append(config["seed"])), seeds


@pytest.mark.parametrize(
    ("grid", "states", "jobs"),
    [("seed=0,1", "77_0|RUNNING|None\n77_1|PENDING|None\n", ["77_0", "77_1"]), ("seed=0", "77|PENDING|None\n", ["77"])],
)
def test_jobs_that_are_there_are_left_alone(place, grid, states, jobs):
    sweep, cancelled = cut_off(place, grid), scancel(place)
    hand_over(sweep, *jobs)
    squeue(place, f"41|/elsewhere/submission_file_1.sh\n77|{sweep.submitted}/submission_file_2.sh\n", states)
    assert carried_out(grid) == (0, [])
    assert [(entry["job"], entry["cluster"]) for entry in sweep.runs().values()] == [(job, "slurm") for job in jobs]
    assert "queueing" not in sweep.read()
    assert not cancelled.exists()


def test_jobs_that_were_never_told_their_runs_are_cancelled(place):
    sweep, cancelled = cut_off(place, "seed=0,1"), scancel(place)
    hand_over(sweep, "77_0")
    squeue(place, f"77|{sweep.submitted}/submission_file_2.sh\n", "77_0|RUNNING|None\n77_1|PENDING|None\n")
    assert carried_out("seed=0,1")[1] == [1]
    assert cancelled.read_text() == "77_1\n"
    assert [entry["job"] for entry in sweep.runs().values()] == ["77_0", None]


def test_an_array_that_is_noted_already_is_not_taken_for_the_lost_one(place):
    sweep, cancelled = cut_off(place, "seed=0,1"), scancel(place)
    about = sweep.read()
    first, second = about["runs"]
    about["runs"][first] |= {"job": "76_0", "cluster": "slurm"}
    sweep.write({**about, "queueing": [[second]]})
    hand_over(sweep, "76_0")
    squeue(place, f"76|{sweep.submitted}/submission_file_1.sh\n", "76_0|RUNNING|None\n")
    assert carried_out("seed=0,1")[1] == [1]
    assert not cancelled.exists()


def test_where_none_is_there_all_are_carried_out(place):
    sweep = cut_off(place, "seed=0,1")
    squeue(place, "41|/elsewhere/submission_file_1.sh\n")
    assert carried_out("seed=0,1")[1] == [0, 1]
    assert "queueing" not in sweep.read()


def test_while_slurm_does_not_answer_nothing_is_carried_out(place, capsys):
    sweep = cut_off(place, "seed=0,1")
    squeue(place, "", status=1)
    capsys.readouterr()
    assert carried_out("seed=0,1") == (1, [])
    said = capsys.readouterr().err.strip()
    assert "SLURM does not answer" in said
    assert len(said.splitlines()) == 1
    assert sweep.read()["queueing"] == [[key] for key in sweep.runs()]
    (place / "bin" / "squeue").unlink()
