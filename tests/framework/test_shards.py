"""An analysis in parts has the bits of the whole, and only missing parts are computed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
from pathlib import Path

import pytest
from runs import TINY, compose, run_in

from loss_landscape.shards import Shard
from loss_landscape.spectra import density
from loss_landscape.surface.plane import Plane
from taskshift import shard_jobs, shards
from taskshift.analysis import Analysis
from taskshift.compare import differences
from taskshift.config.build import build_parts
from taskshift.faults import Fault
from taskshift.measured import analysis_of
from taskshift.remeasure import carry_out, read_order, remeasure
from taskshift.run_folder import held, read_rows

pytestmark = pytest.mark.slow

CHEAP = tuple(f"lla.enable_{name}=false" for name in ("sam", "rank", "units", "plasticity", "coupling"))
FINE = (*CHEAP, "task=1", "lla.planes.grid_resolution=9", "lla.planes.chunk_size=8", "lla.spectrum.esd.num_probes=5")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run whose last task still has its snapshots, so that a trajectory's plane is split as well."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("taskshift.trajectory.forget_before", lambda folder, task: None)
        return run_in(root, compose(*TINY, *CHEAP, "run_name=x", "data.train_size=64", "data.test_size=16"))


@pytest.fixture(scope="module")
def whole(finished) -> Path:
    return remeasure(finished, [*FINE, "name=whole"])


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("measured"))


@pytest.fixture
def cells(monkeypatch) -> list[int]:
    """How many cells each call of `Plane.evaluate` evaluates for a grid, whose chunks are of 8."""
    seen, original = [], Plane.evaluate

    def watched(plane, coordinates, strategy, rho=None):
        if strategy.name != "eager" and strategy.chunk == 8:
            seen.append(len(coordinates))
        return original(plane, coordinates, strategy, rho)

    monkeypatch.setattr(Plane, "evaluate", watched)
    return seen


def analysis(run: Path, *words: str):
    order = read_order(run, [*FINE, *words])
    parts = build_parts(order.config)
    return analysis_of(order, parts, order.tasks[0])


@pytest.mark.parametrize("count", [2, 3, 7, 20])
def test_shards_give_the_bits_of_the_whole(run, whole, count):
    """Eleven chunks a plane, five probes: twenty shards are more than either."""
    measured = remeasure(run, [*FINE, f"lla.shards={count}"])
    assert differences(measured, whole) == []
    assert (measured / "task_0001_mlp/planes/trajectory/grid.npy").exists()
    assert not (measured / "task_0001_mlp/.scratch").exists()


def test_shards_in_processes_give_the_same_bits(run, whole):
    measured = remeasure(run, [*FINE, "lla.shards=2", "cluster=local"])
    assert differences(measured, whole) == []
    assert json.loads((measured / "measure.json").read_text())["num_threads"] == 1


def test_one_missing_shard_is_all_that_is_computed(run, whole, cells):
    words = ("lla.shards=3", "name=x")
    one = analysis(run, *words)
    one.prepare()
    for index in (0, 2):
        shards.compute(one, Shard(index, 3))
    assert shards.missing(read_order(run, [*FINE, *words]), 1) == [Shard(1, 3)]
    cells.clear()
    measured = remeasure(run, [*FINE, *words])
    assert sum(cells) == 3 * (3 * 8 + 1), "chunks 1, 4, 7 and 10, the last of one cell, of three planes"
    assert differences(measured, whole) == []


def test_the_densitys_probes_are_the_shards_work(run, monkeypatch):
    one, computed, original = analysis(run, "name=x"), [], density._quadrature

    def watched(*given):
        computed.append(1)
        return original(*given)

    monkeypatch.setattr(density, "_quadrature", watched)
    one.prepare()
    for index, probes in enumerate([3, 2]):
        computed.clear()
        shards.compute(one, Shard(index, 2))
        assert len(computed) == probes
    computed.clear()
    remeasure(run, [*FINE, "name=x"])
    assert computed == []


def test_what_shards_share_is_solved_before_they_begin(run, monkeypatch):
    order, begun = read_order(run, [*FINE, "lla.shards=2"]), []
    solved = order.folder.eigenpairs(1, "end")
    monkeypatch.setattr(shards, "compute", lambda analysis, shard: begun.append(solved.exists()))
    carry_out(order)
    assert begun == [True, True]


def test_the_first_job_solves_what_shards_share(run):
    order = read_order(run, [*FINE, "lla.shards=2"])
    shard_jobs.prepare(order)
    assert order.folder.eigenpairs(1, "end").exists()


def test_a_shard_that_was_cut_off_goes_on(run, whole, monkeypatch, cells):
    original, left = Plane.evaluate, [12]

    def cut_off(plane, coordinates, strategy, rho=None):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return original(plane, coordinates, strategy, rho)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plane, "evaluate", cut_off)
        with pytest.raises(KeyboardInterrupt):
            remeasure(run, [*FINE, "lla.shards=2"])
    before = sum(cells)
    measured = remeasure(run, [*FINE, "lla.shards=2"])
    assert differences(measured, whole) == []
    assert before > 24
    assert sum(cells) - before < 3 * 81


def test_a_finished_shard_is_not_begun_again(run, monkeypatch):
    """As by a job that waited for another one's lock."""
    one = analysis(run)
    one.prepare()
    begun, original = [], Analysis.compute_share

    def watched(self, shard):
        begun.append(shard)
        original(self, shard)

    monkeypatch.setattr(Analysis, "compute_share", watched)
    for _ in range(2):
        shards.compute(one, Shard(0, 2))
    assert begun == [Shard(0, 2)]


def test_a_finished_analysis_has_no_missing_shards(run, cells):
    remeasure(run, [*FINE, "lla.shards=2"])
    cells.clear()
    remeasure(run, [*FINE, "lla.shards=4"])
    assert cells == []


def test_a_killed_process_is_a_sentence_and_the_same_command_goes_on(run, whole, monkeypatch):
    words = [*FINE, "lla.shards=2", "cluster=local"]
    original = shards.run_shard
    monkeypatch.setattr(shards, "run_shard", _dies)
    with pytest.raises(Fault) as caught:
        remeasure(run, words)
    assert caught.value.sentences[-1].endswith(
        "2 of 2 shards failed; what is finished is kept, and the same command goes on from there"
    )
    assert "was killed" in caught.value.sentences[0]
    monkeypatch.setattr(shards, "run_shard", original)
    assert differences(remeasure(run, words), whole) == []


def _dies(*given):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_shard_from_another_machine_is_warned_of(run, monkeypatch, caplog):
    monkeypatch.setattr(shards.torch, "get_num_threads", lambda: 64)
    remeasure(run, [*FINE, "lla.shards=2"])
    assert "num_threads 1 → 64" in caplog.text
    assert "its numbers may differ in the last bits" in caplog.text


def test_shards_are_for_kept_nets_and_not_for_a_run():
    with pytest.raises(Fault) as caught:
        compose("lla.shards=4")
    assert str(caught.value) == (
        "lla.shards=4: a run does not split its own analysis; let it keep its nets, and then "
        "`taskshift measure FOLDER lla.shards=4` does"
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["lla.shards=0"], "lla.shards=0: expected a whole number, at least 1"),
        (["lla.shards=many"], "lla.shards=many: expected a whole number, at least 1"),
        (["cluster=slrum"], "cluster=slrum: there is no such cluster; give local or slurm"),
        (["hydra.launcher.wrokers=2"], "hydra.launcher.wrokers: there is no such key; did you mean hydra.launcher.workers?"),
        (["lla.shards=2", "lla.tolerance=0.01"], "lla.shards=2: planes with an lla.tolerance go level by level"),
    ],
)
def test_wrong_words(run, words, sentence):
    with pytest.raises(Fault) as caught:
        remeasure(run, words)
    assert str(caught.value).startswith(sentence)


def test_shards_make_no_other_measurement(run):
    folders = {read_order(run, [*FINE, *words]).folder.path for words in ([], ["lla.shards=3"])}
    assert len(folders) == 1


def test_rows_are_those_of_the_whole(run, whole):
    rows = [
        [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in read_rows(folder)]
        for folder in (remeasure(run, [*FINE, "lla.shards=3"]), whole)
    ]
    assert rows[0] == rows[1]


# -- as jobs ----------------------------------------------------------------------------------------------------


class Queue:
    """A cluster that runs each job as it is queued, by the rules: what does not end well keeps the next from beginning."""

    detach = False

    def __init__(self, *broken: int):
        self.names: list[tuple[str, int, str | None]] = []
        self.broken, self.is_well = broken, True

    def queue(self, name, calls, after):
        self.names.append((name, len(calls), after))
        for number, call in enumerate(calls):
            if self.is_well and not (name == "shards" and number in self.broken):
                pickle.loads(pickle.dumps(call))()
        self.is_well = self.is_well and not (name == "shards" and self.broken)
        return f"job {len(self.names)}"

    def has(self, jobs):
        return False


def test_jobs_are_a_preparation_an_array_and_an_end(run, whole):
    cluster, order = Queue(), read_order(run, [*FINE, "lla.shards=3"])
    shard_jobs.carry_out(order, cluster, carry_out)
    assert cluster.names == [("prepare", 1, None), ("shards", 3, "job 1"), ("finish", 1, "job 2")]
    assert differences(order.folder.path, whole) == []


def test_only_missing_shards_are_queued_again(run, whole, cells):
    order = read_order(run, [*FINE, "lla.shards=3"])
    with pytest.raises(Fault) as caught:
        shard_jobs.carry_out(order, Queue(1), carry_out)
    assert caught.value.sentences[0] == "task 1: planes, spectrum, weights did not finish"
    cluster = Queue()
    cells.clear()
    shard_jobs.carry_out(order, cluster, carry_out)
    assert cluster.names == [("prepare", 1, None), ("shards", 1, "job 1"), ("finish", 1, "job 2")]
    assert sum(cells) == 3 * (3 * 8 + 1)
    assert differences(order.folder.path, whole) == []


def test_a_finished_measurement_queues_its_end_alone(run):
    order, cluster = read_order(run, [*FINE, "lla.shards=3"]), Queue()
    carry_out(order)
    shard_jobs.carry_out(order, cluster, carry_out)
    assert cluster.names == [("finish", 1, None)]


def test_two_that_queue_the_same_are_refused(run):
    order = read_order(run, [*FINE, "lla.shards=3"])
    with held(order.folder.path / "jobs", ""), pytest.raises(Fault, match="another process is at work in .*jobs"):
        shard_jobs.carry_out(order, Queue(), carry_out)


@pytest.mark.parametrize("detach", [True, False])
def test_jobs_that_are_at_work_are_left_alone(run, monkeypatch, detach):
    order, first, second = read_order(run, [*FINE, "lla.shards=3"]), Queue(), Queue()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Queue, "queue", lambda queue, name, calls, after: queue.names.append(name) or name)
        patch.setattr(Queue, "detach", True)
        shard_jobs.carry_out(order, first, carry_out)
    carry_out(order)  # as the jobs do
    asked = [False, True]
    monkeypatch.setattr(Queue, "detach", detach)
    monkeypatch.setattr(Queue, "has", lambda queue, jobs: jobs == first.names and asked.pop())
    shard_jobs.carry_out(order, second, carry_out)
    assert second.names == []
    assert asked == ([False] if detach else [])


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """The commands of SLURM as scripts: sbatch keeps what it is given and numbers it, squeue shows the file `queue`."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    sbatch = 'n=$(ls "$D" | grep -c batch_)\ncp "$1" "$D/batch_$n"\necho "Submitted batch job 7$n"'
    scripts = {
        "sbatch": sbatch,
        "srun": "exit 0",
        "squeue": 'cat "$D/queue" 2>/dev/null || { echo "$(cat $D/says)" >&2; exit 1; }',
    }
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\nD={folder}\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_what_is_given_to_sbatch(run, slurm):
    """Nobody answers that the jobs are at work, so that waiting ends at once and nothing has finished."""
    (slurm / "says").write_text("Invalid job id specified")
    words = ["cluster=slurm", "resources=gpu", "hydra.launcher.partition=gpu", "+hydra.launcher.sbatch.nice=5"]
    with pytest.raises(Fault, match="the logs are in"):
        remeasure(run, [*FINE, "lla.shards=3", *words, "hydra.launcher.array_parallelism=2"])
    prepare, array, finish = ((slurm / f"batch_{number}").read_text() for number in range(3))
    for text in (prepare, array, finish):
        assert all(word in text for word in ("--partition=gpu", "--nice=5", "--gpus-per-node=1"))
    assert "dependency" not in prepare
    for text, job in ((array, 70), (finish, 71)):
        assert f"--dependency=afterok:{job}" in text
        assert "--kill-on-invalid-dep=yes" in text
    assert "--array=0-2%2" in array
    assert "--array" not in finish


def test_detached_nobody_waits(run, slurm):
    (slurm / "queue").write_text("70\n")
    remeasure(run, [*FINE, "lla.shards=3", "cluster=slurm", "hydra.launcher.detach=true"])


def test_what_sbatch_refuses_is_a_sentence(run, slurm):
    (slurm / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: gup' >&2\nexit 1\n")
    with pytest.raises(Fault, match="SLURM refused the jobs of prepare: invalid partition specified: gup"):
        remeasure(run, [*FINE, "lla.shards=3", "cluster=slurm"])


@pytest.mark.parametrize(
    ("listed", "says", "has"),
    [
        ("70\n", "", True),
        ("", "", False),
        (None, "slurm_load_jobs error: Invalid job id specified", False),
        (None, "cannot contact slurmctld", True),  # what does not answer may come back
    ],
)
def test_jobs_are_over_when_squeue_knows_none_of_them(slurm, tmp_path, listed, says, has):
    if listed is not None:
        (slurm / "queue").write_text(listed)
    (slurm / "says").write_text(says)
    assert shard_jobs.Slurm(tmp_path, {}, 1).has(["70"]) == has


def test_the_same_command_waits_until_jobs_are_over(run, monkeypatch):
    answers = [False, True, True]
    monkeypatch.setattr(Queue, "has", lambda queue, jobs: answers.pop())
    monkeypatch.setattr(shard_jobs.time, "sleep", lambda seconds: None)
    shard_jobs.carry_out(read_order(run, [*FINE, "lla.shards=3"]), Queue(), carry_out)
    assert answers == []


def test_a_job_that_is_cut_off_is_queued_again():
    job = shard_jobs.Restartable(print)
    assert job.checkpoint().function is job
