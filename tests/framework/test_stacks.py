"""Runs carried out together: each is what it is alone, whoever steps beside it, whatever becomes of the others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from interrupting import Interrupted, interrupt
from learning import training_of
from runs import compose
from torch import nn

from taskshift import checkpoint, trajectory
from taskshift import run as runs
from taskshift.compare import differences
from taskshift.config.build import build_parts
from taskshift.evaluators.weights import Weights
from taskshift.execution.block import Block
from taskshift.execution.rule import count_bytes
from taskshift.execution.shared import SharedPrograms, fitting_block, fitting_memory, unlike
from taskshift.faults import Fault
from taskshift.job import Job
from taskshift.learners.cbp import ContinualBackprop
from taskshift.run import run, run_together
from taskshift.run_folder import RunFolder, run_folder_of
from taskshift.shifts.slowly_changing_regression import SlowlyChangingRegression
from taskshift.shifts.source import StreamSettings
from taskshift.shifts.task import Batch
from taskshift.training import Training

BITS = (
    "recorder=none", "use_wandb=false", "num_threads=1", "data=none", "net=mlp", "net.depth=1", "net.width=5", "sweep_name=s",
    "task_shift_mode=slowly_changing_regression", "task_shift.num_steps=60", "batch_size=1", "epochs=1", "num_tasks=3",
    "lla.enable_planes=false", "lla.enable_spectrum=false", "lla.enable_rank=false", "lla.enable_units=false",
    "lla.enable_plasticity=false", "lla.enable_coupling=false", "lla.training.max_checkpoints=2", "execution=replay",
)  # fmt: skip
"""Slowly-changing regression, as small as it gets: its net steps in blocks."""

IMAGES = (*(word for word in BITS if not word.startswith(("data", "task_shift", "net.", "batch_size"))),
          "data=synthetic_images", "task_shift_mode=permuted", "batch_size=64", "net.width=6", "debug=tiny")  # fmt: skip
"""Made-up images: their nets step one after the other."""


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(runs, "summarise", lambda job: None)


def configs_of(words=BITS, count=3, **own):
    """`count` members that differ in their seeds and learning rates."""
    names = [f"run_name=seed_{seed}" for seed in range(count)]
    rates = [f"learner.optimizer.lr={0.004 * (seed + 1)}" for seed in range(count)]
    found = [compose(*words, f"seed={seed}", names[seed], rates[seed]) for seed in range(count)]
    return [config | own for config in found]


def together_in(root, configs):
    """Their folders, all of them done."""
    outcomes = outcomes_in(root, configs)
    assert outcomes == [None] * len(configs)
    return folders_in(root, configs)


def outcomes_in(root, configs):
    root.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        return run_together(configs, [[] for _ in configs])


def folders_in(root, configs):
    return [(root / run_folder_of(config).path).resolve() for config in configs]


def alone_in(root, config):
    root.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        return run(config).path.resolve()


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").open()]


def about(folder):
    return json.loads((folder / "run.json").read_text())


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != "train.log")


# -- members and lone runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "block"), [(BITS, 128), (IMAGES, 1)], ids=["in a block", "in turns"])
def test_members_write_what_lone_runs_write(tmp_path, words, block):
    configs = configs_of((*words, "log_every=7", "num_tasks=2"))
    members = together_in(tmp_path / "together", configs)
    for config, member in zip(configs, members, strict=True):
        lone = alone_in(tmp_path / "alone", config)
        assert files_of(member) == files_of(lone)
        assert about(member)["block"] == block
        assert about(lone)["block"] == 1
        for ours, theirs in zip(rows_of(member), rows_of(lone), strict=True):
            assert ours.keys() == theirs.keys()
            for name in ours:
                if not name.endswith(("seconds", "memory_mb")):
                    assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-5, nan_ok=True), name
        if block == 1:
            assert differences(member, lone) == ["run.json"] or differences(member, lone) == []
    rates = {about(member)["config"]["learner"]["optimizer"]["lr"] for member in members}
    assert len(rates) == 3


def test_what_chunks_of_a_single_step_tell_is_not_written_over(tmp_path):
    configs = configs_of((*BITS, "log_every=1", "num_tasks=1"))
    for config, member in zip(configs, together_in(tmp_path / "together", configs), strict=True):
        [lone] = [row["epoch_loss"] for row in rows_of(alone_in(tmp_path / "alone", config)) if "epoch_loss" in row]
        [own] = [row["epoch_loss"] for row in rows_of(member) if "epoch_loss" in row]
        assert own == pytest.approx(lone, rel=1e-4)


def test_each_members_log_is_its_own(tmp_path):
    for number, folder in enumerate(together_in(tmp_path, configs_of())):
        said = (folder / "train.log").read_text()
        assert f"seed_{number}" in said
        assert all(f"seed_{other}" not in said for other in range(3) if other != number)


def test_a_members_bits_do_not_depend_on_who_steps_beside_it(tmp_path):
    configs = configs_of()
    three = together_in(tmp_path / "three", configs)
    two = together_in(tmp_path / "two", configs[1:])
    assert differences(three[1], two[0]) == []
    assert differences(three[2], two[1]) == []


def test_watchers_see_the_steps_of_members_and_change_no_bit(tmp_path):
    watch = ("watch=[update_size,edge]", "watch.update_size.every=7", "watch.edge.every=25")
    watched, plain = configs_of((*BITS, *watch)), configs_of()
    seen, unseen = together_in(tmp_path / "seen", watched), together_in(tmp_path / "unseen", plain)
    for one, other in zip(seen, unseen, strict=True):
        rows = [row for row in rows_of(one) if "update_size/norm" in row]
        assert [row["global_step"] % 60 for row in rows] == [1 + step for step in range(0, 60, 7)] * 3
        kept, bare = (checkpoint.load(folder / "checkpoints" / "latest.pt")["training"] for folder in (one, other))
        assert checkpoint.first_difference(kept, bare) is None
    lone = alone_in(tmp_path / "lone", watched[1])
    first, same = (next(row for row in rows_of(folder) if "edge/sharpness" in row) for folder in (lone, seen[1]))
    assert same["edge/sharpness"] == pytest.approx(first["edge/sharpness"], rel=1e-4)


def test_data_are_held_once(tmp_path, monkeypatch):
    from taskshift.config import build

    made, make = [], build._make_data
    monkeypatch.setattr(build, "_make_data", lambda *given: made.append(1) or make(*given))
    together_in(tmp_path, configs_of((*IMAGES, "num_tasks=1")))
    assert len(made) == 1


# -- cut off --------------------------------------------------------------------------------------------------------


def cut_off(monkeypatch, count, call):
    """The `count`-th save of any member ends, then the process that makes this call is interrupted."""
    with monkeypatch.context() as patch:
        interrupt(patch, Job, "save", count)
        with pytest.raises(Interrupted):
            call()


SHORT_CHUNKS = {"checkpoints": {"every_seconds": 0, "keep": None}}


@pytest.fixture
def short_chunks(monkeypatch):
    """Some steps in a row, so that there are borders within a task at which a run may end."""
    monkeypatch.setattr("taskshift.execution.programs.MOST_STEPS", 16)
    monkeypatch.setattr("taskshift.execution.programs.MOST_STEPS_OF_A_BLOCK", 16)


@pytest.mark.parametrize("goes_on", ["together", "alone", "one alone, then together"])
def test_killed_anywhere_members_go_on_with_the_same_bits(tmp_path, monkeypatch, short_chunks, goes_on):
    configs = configs_of(**SHORT_CHUNKS)
    whole = together_in(tmp_path / "whole", configs)
    for count in (2, 7, 10):  # some members of a round are saved, others are not
        cut_off(monkeypatch, count, lambda: outcomes_in(tmp_path / "cut", configs))
    if goes_on != "together":
        alone = [alone_in(tmp_path / "cut", config) for config in configs[: 3 if goes_on == "alone" else 1]]
        assert [about(folder)["block"] for folder in alone] == [128] * len(alone)
    if goes_on != "alone":
        together_in(tmp_path / "cut", configs)
    for one, other in zip(folders_in(tmp_path / "cut", configs), whole, strict=True):
        assert differences(one, other) == []


def test_killed_after_rows_and_before_the_clock_saves_members_go_on(tmp_path, monkeypatch):
    """Rows go to the disk more often than checkpoints do."""
    monkeypatch.setattr("taskshift.stack.SECONDS_BETWEEN_ROWS", 0.0)
    configs = configs_of((*BITS, "lla.enable_weights=false", "num_tasks=3"))
    whole = together_in(tmp_path / "whole", configs)
    with monkeypatch.context() as patch:
        interrupt(patch, RunFolder, "append_lines", 4)
        with pytest.raises(Interrupted):
            outcomes_in(tmp_path / "cut", configs)
    for one, other in zip(together_in(tmp_path / "cut", configs), whole, strict=True):
        assert differences(one, other) == []


def test_a_run_that_began_alone_goes_on_so_in_a_stack(tmp_path, monkeypatch, short_chunks):
    configs = configs_of(**SHORT_CHUNKS)
    whole = alone_in(tmp_path / "whole", configs[0])
    cut_off(monkeypatch, 4, lambda: alone_in(tmp_path / "cut", configs[0]))
    folders = together_in(tmp_path / "cut", configs)
    assert [about(folder)["block"] for folder in folders] == [1, 128, 128]
    assert differences(folders[0], whole) == []


KILLED = """
import json, sys
sys.path[:0] = ["tests/framework"]
from killed_run import kill_at
from taskshift import run
run.summarise = lambda job: None
place, count, when, root, configs = sys.argv[1:]
kill_at(place, int(count), when)
import os; os.chdir(root)
configs = json.loads(configs)
print(run.run_together(configs, [[] for _ in configs]))
"""


@pytest.mark.parametrize(
    ("place", "count", "when"),
    [
        *(
            pytest.param(*where, marks=pytest.mark.slow)
            for where in (
                ("taskshift.checkpoint:save", 5, "before"),
                ("taskshift.checkpoint:save", 12, "after"),
                ("taskshift.run_folder:RunFolder.append_lines", 2, "before"),
            )
        ),
        ("taskshift.execution.block:Block.learn", 6, "after"),
    ],
)
def test_a_process_that_is_killed_loses_nothing(tmp_path, place, count, when):
    configs, root = configs_of(**SHORT_CHUNKS), tmp_path / "cut"
    root.mkdir()
    words = [sys.executable, "-c", KILLED, place, str(count), when, str(root), json.dumps(configs)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == -9, done.stderr
    whole = together_in(tmp_path / "whole", configs)
    for one, other in zip(together_in(root, configs), whole, strict=True):
        assert differences(one, other) == []


# -- one among others -----------------------------------------------------------------------------------------------


def test_a_member_that_fails_leaves_the_others_alone(tmp_path, monkeypatch):
    configs = configs_of()
    whole, measure = together_in(tmp_path / "whole", configs), Weights.__call__

    def broken(self, measurement):
        if measurement.task.index == 1 and seed_of(measurement) == 1:
            raise ZeroDivisionError("nothing to divide by")
        return measure(self, measurement)

    monkeypatch.setattr(Weights, "__call__", broken)
    outcomes = outcomes_in(tmp_path / "cut", configs)
    folders = folders_in(tmp_path / "cut", configs)
    assert outcomes[0] is outcomes[2] is None
    assert isinstance(outcomes[1], ZeroDivisionError)
    assert "nothing to divide by" in (folders[1] / "FAILED").read_text()
    assert [differences(folders[number], whole[number]) for number in (0, 2)] == [[], []]
    monkeypatch.setattr(Weights, "__call__", measure)
    assert differences(together_in(tmp_path / "cut", configs)[1], whole[1]) == []


def seed_of(measurement):
    return measurement.training.seed


def test_a_full_disk_of_one_stops_no_other(tmp_path, monkeypatch):
    configs = configs_of()
    keep_point = trajectory.keep_point

    def full(folder, task, step, net):
        if folder.path.name == "seed_2" and task == 1:
            raise OSError(28, "No space left on device")
        keep_point(folder, task, step, net)

    monkeypatch.setattr(trajectory, "keep_point", full)
    first, second, third = outcomes_in(tmp_path, configs)
    assert first is second is None
    assert isinstance(third, Fault)
    assert "No space left" in str(third)
    assert (folders_in(tmp_path, configs)[2] / "FAILED").exists()


def test_one_that_diverges_stays_and_touches_nobody(tmp_path):
    configs = configs_of()
    whole = together_in(tmp_path / "whole", configs)
    configs[1]["learner"]["optimizer"]["lr"] = 1e30
    folders = together_in(tmp_path / "with", configs)
    assert json.loads((folders[1] / "DONE").read_text())["diverged"] is not None
    for number in (0, 2):
        assert differences(folders[number], whole[number]) == []


def test_eager_members_go_one_by_one(tmp_path, caplog):
    configs = configs_of((*IMAGES, "num_tasks=1", "execution=eager"))
    for config, member in zip(configs, together_in(tmp_path / "together", configs), strict=True):
        assert about(member)["block"] == 1
        assert differences(member, alone_in(tmp_path / "alone", config)) == []


def test_an_eager_member_begins_at_its_turn(tmp_path, monkeypatch):
    seen, begin, end = [], Training.begin, Training.end_epoch
    monkeypatch.setattr(Training, "begin", lambda self, *given: seen.append(("begins", self.seed)) or begin(self, *given))
    monkeypatch.setattr(Training, "end_epoch", lambda self, *given: seen.append(("ends", self.seed)) or end(self, *given))
    together_in(tmp_path, configs_of((*IMAGES, "num_tasks=1", "epochs=1", "execution=eager")))
    assert seen == [(what, seed) for seed in range(3) for what in ("begins", "ends")]


def test_members_of_a_block_step_together_however_short_its_chunks(tmp_path, monkeypatch):
    sizes, learn = [], Block.learn
    monkeypatch.setattr("taskshift.execution.programs.MOST_STEPS_OF_A_BLOCK", 1)
    monkeypatch.setattr(Block, "learn", lambda self, asked: sizes.append(len(asked)) or learn(self, asked))
    together_in(tmp_path, configs_of((*BITS, "num_tasks=1")))
    assert sizes[-60:] == [3] * 60


def test_nets_that_draw_run_one_by_one_and_it_is_said(tmp_path):
    configs = configs_of((*BITS[:-1], "num_tasks=1", "execution=auto"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("taskshift.nets.mlp.MLP.forward", drawing)
        folder = together_in(tmp_path, configs)[0]
    assert about(folder)["execution"]["how"] == "eager"


def drawing(self, inputs):
    return self.head(nn.functional.dropout(self.hidden(inputs.flatten(1)), 0.1))


# -- what is written when -------------------------------------------------------------------------------------------


def test_where_nothing_is_measured_nothing_is_written_but_by_the_clock(tmp_path, monkeypatch):
    saves, save = [], Job.save
    monkeypatch.setattr(Job, "save", lambda job: saves.append(job.progress.task) or save(job))
    words = (*BITS, "lla.enable_weights=false", "num_tasks=5", "checkpoints.keep=2", "lla.enable_mode_connectivity=false")
    for folder in together_in(tmp_path, configs_of(words)):
        assert {path.name for path in (folder / "checkpoints").glob("task_*.pt")} == {"task_0003.pt", "task_0004.pt"}
        assert len([row for row in rows_of(folder) if "epoch_loss" in row]) == 5
    assert saves == [0, 0, 0, 5, 5, 5]  # at first, so that there is a checkpoint before the first rows


def test_what_a_member_measures_with_has_been_written(tmp_path, monkeypatch):
    seen, nets = [], Job.earlier_nets
    words = (*BITS, "lla.every=3", "num_tasks=7", "checkpoints.keep=2", "lla.enable_mode_connectivity=false")

    def written(job, task):
        seen.append((task.index, list(found := nets(job, task)), all(path.exists() for path in found.values())))
        return found

    monkeypatch.setattr(Job, "earlier_nets", written)
    together_in(tmp_path, configs_of(words, count=2))
    assert sorted(seen) == [(0, [], True)] * 2 + [(3, [1, 2], True)] * 2 + [(6, [4, 5], True)] * 2


# -- who steps together ---------------------------------------------------------------------------------------------


def test_blocks_follow_from_shapes():
    def size(width, batch_size=1, members=30):
        net = nn.Sequential(nn.Linear(20, width), nn.ReLU(), nn.Linear(width, 1))
        return fitting_block(net, torch.zeros(batch_size, 20), members)

    assert [size(5), size(30), size(100), size(100, 2), size(1000)] == [128, 64, 16, 1, 1]
    assert size(5, members=2) == size(5, members=100)
    assert size(5, members=1) == 1


def test_a_block_is_bounded_by_the_memory_that_is_free():
    assert fitting_memory(256, bytes_of_a_step=10, free=400) == 20
    assert fitting_memory(16, bytes_of_a_step=10, free=400) == 16
    assert fitting_memory(16, bytes_of_a_step=1000, free=400) == 1
    assert count_bytes(lambda: torch.ones(8) + torch.ones(8)) == 3 * 8 * 4


def test_a_block_that_memory_does_not_hold_is_halved_and_it_is_said_once(tmp_path, monkeypatch, caplog):
    make = Block.__init__

    def limited(self, *given, size, **named):
        if size > 40:
            raise torch.OutOfMemoryError("CUDA out of memory")
        make(self, *given, size=size, **named)

    monkeypatch.setattr(Block, "__init__", limited)
    folders = together_in(tmp_path, configs_of((*BITS, "num_tasks=1")))
    assert [about(folder)["block"] for folder in folders] == [32] * 3
    assert [message for message in caplog.messages if "GPU's memory" in message] == [
        "the GPU's memory does not hold 128 runs' steps at once: 64 are taken at a time",
        "the GPU's memory does not hold 64 runs' steps at once: 32 are taken at a time",
    ]


def small_training(activation=nn.Tanh, **given):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 5), activation(), nn.Linear(5, 1))
    stream = SlowlyChangingRegression(StreamSettings(1, 1, 0), num_steps=8)

    def optimizer(leaves):
        return torch.optim.SGD(leaves, lr=0.01)

    def make_net(seed):
        return nn.Sequential(nn.Linear(20, 5), activation(), nn.Linear(5, 1))

    return training_of(net, optimizer, stream, make_net=make_net, **given), stream


def sharing(*makes, block):
    """Trainings that share what they can, each made by one of these."""
    shared, trainings = SharedPrograms(len(makes)), []
    for make in makes:
        training, stream = make()
        batch = stream.gather(stream[0], stream[0].train[:1])
        training.use_programs(stream[0], batch, compiles=False, shared=shared, block=block)
        trainings.append(training)
    return trainings


def in_blocks(*makes):
    return [training.lane.block for training in sharing(*makes, block=16)]


def test_settings_may_differ_in_a_block_and_structure_may_not():
    def cbp(rate, **given):
        return lambda: small_training(interventions={"cbp": ContinualBackprop(rate, **given)})

    one, other = in_blocks(cbp(1e-4), cbp(1e-3))
    assert one is other, "rates"
    one, other = in_blocks(cbp(1e-4), cbp(0.5))
    assert one is not other, "draws of other shapes"
    one, other = in_blocks(cbp(1e-4), cbp(1e-4, utility="weight"))
    assert one is not other, "another kind of part"


@pytest.mark.parametrize(
    "learner", sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "learner").glob("*.yaml") if path.stem != "own")
)
def test_learners_of_other_seeds_and_rates_are_alike(learner):
    assert unlike(*learners_of(f"learner={learner}")) is None


def test_learners_are_alike_whose_rules_hold_other_rules():
    assert unlike(*learners_of("learner/optimizer=muon")) is None


def learners_of(*words):
    """Two learners after their `init`, with other seeds."""
    small = ("data=synthetic_images", "recorder=none", "num_threads=1", "net=mlp", "net.width=6", "batch_size=8")
    return [build_parts(compose(*small, *words, f"seed={seed}")).training.learner for seed in range(2)]


class Keeps(ContinualBackprop):
    """A part that keeps tensors and one of its own kind."""

    def __init__(self, entries, other=None):
        super().__init__(1e-4)
        self.entries, self.other = entries, other


def test_parts_are_told_apart_by_the_tensors_and_objects_that_they_keep():
    def learner(entries, other=None):
        return small_training(interventions={"cbp": Keeps(torch.tensor(entries), other)})[0].learner

    def cbp(rate, utility="contribution"):
        return ContinualBackprop(rate, utility=utility)

    assert unlike(learner([1.0, 2.0]), learner([1.0, 2.0])) is None
    assert unlike(learner([1.0, 2.0]), learner([1.0, 3.0])) == "learner.cbp.entries"
    assert unlike(learner([1.0], cbp(1e-4)), learner([1.0], cbp(1e-3))) is None
    assert unlike(learner([1.0], cbp(1e-4)), learner([1.0], cbp(1e-4, "weight"))) == "learner.cbp.other.utility"


def test_lanes_that_wait_are_as_before_where_a_step_fails(monkeypatch):
    one, other = sharing(small_training, small_training, block=16)
    block, (training, stream) = one.lane.block, (one, small_training()[1])
    batch = stream.gather(stream[0], stream[0].train[:1])
    before = [tensor[other.lane.number].clone() for tensor in block._tensors]
    run = Block._run

    def failing(self, first):
        run(self, first)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Block, "_run", failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        training.learn_all(stream[0], Batch(batch.inputs[None], batch.targets[None]))
    assert all(torch.equal(tensor[other.lane.number], kept) for tensor, kept in zip(block._tensors, before, strict=True))


def test_nobody_is_no_stack():
    assert run_together([], []) == []


def test_a_member_that_fails_as_it_begins_leaves_its_lane(tmp_path, monkeypatch):
    blocks, introduce, make = [], runs.introduce, Block.__init__

    def broken(job):
        if job.parts.training.seed == 1:
            raise ValueError("not this one")
        introduce(job)

    monkeypatch.setattr(runs, "introduce", broken)
    monkeypatch.setattr(Block, "__init__", lambda self, *given, **named: blocks.append(self) or make(self, *given, **named))
    _, failed, _ = outcomes_in(tmp_path, configs_of((*BITS, "num_tasks=1")))
    assert isinstance(failed, ValueError)
    assert [block.lanes for block in blocks] == [{}] * len(blocks)


def test_a_step_that_only_looks_alike_is_taken_apart_and_it_is_said(caplog):
    one, other, third = in_blocks(small_training, lambda: small_training(nn.ReLU), small_training)
    assert one is third is not other
    assert sum("is stepped apart" in message for message in caplog.messages) == 1
    trainings = sharing(small_training, lambda: small_training(nn.ReLU), small_training, block=1)
    one, other, third = (training._programs._programs for training in trainings)
    assert one is third is not other
    assert sum("is stepped apart" in message for message in caplog.messages) == 2


def test_a_scheduler_that_raises_fails_its_own_run_alone(tmp_path, monkeypatch):
    """It is stepped before the block's steps, outside of all that a run does by itself."""
    configs, asked = configs_of(), Training.asked

    def broken(self, task, batches):
        if self.seed == 1 and task.index == 1:
            raise ValueError("stepped past its end")
        return asked(self, task, batches)

    monkeypatch.setattr(Training, "asked", broken)
    first, second, third = outcomes_in(tmp_path, configs)
    assert (first, third) == (None, None)
    assert isinstance(second, ValueError)
    assert "stepped past its end" in (folders_in(tmp_path, configs)[1] / "FAILED").read_text()
