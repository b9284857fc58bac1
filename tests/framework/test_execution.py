"""Steps by programs: what is recorded, what is refused, and that every number is the eager step's."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys

import pytest
import torch
from learning import ActivitySquared, Noise, PowerIteration, Redraw, Shrink, Tortoise, TowardStart, training_of
from runs import TINY, compose, run_in
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from taskshift import checkpoint, estimate, execute
from taskshift.config.build import build_parts
from taskshift.data.labelled_data import LabelledData
from taskshift.execute import settle
from taskshift.execution import compiling
from taskshift.execution.leaves import FixedTensors
from taskshift.execution.losses import structure
from taskshift.execution.programs import fitting_length
from taskshift.execution.recording import in_place
from taskshift.execution.rule import pays
from taskshift.execution.unrecordable import UnrecordableError
from taskshift.faults import Fault
from taskshift.learners.gradient import ASAM
from taskshift.learners.interventions import AfterStep
from taskshift.run_folder import RunFolder
from taskshift.shifts.incremental_classes import IncrementalClasses
from taskshift.shifts.losses import CrossEntropy
from taskshift.shifts.stationary import Stationary
from taskshift.shifts.task import Batch
from taskshift.stream import TaskStream

NUM_CLASSES = 4


def stream_of(*, count=60, batch_size=6, shift=None, num_tasks=3):
    rng = torch.Generator().manual_seed(3)
    inputs = torch.randn(count, 1, 4, 4, generator=rng, dtype=torch.float64)
    targets = torch.arange(count) % NUM_CLASSES
    train, test = torch.arange(count - 12), torch.arange(count - 12, count)
    data = LabelledData("random", inputs, targets, train, test, NUM_CLASSES, torch.zeros(1))
    return TaskStream(data, shift or Stationary(seed=0), num_tasks=num_tasks, batch_size=batch_size, seed=0)


def net(seed=0):
    torch.manual_seed(seed % 2**31)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 7), nn.Tanh(), nn.Linear(7, NUM_CLASSES)).double()


def everything(stream, every=1, **given):
    """Each part that later learners will need something of, in one learner."""
    parts = {
        "gradient": ASAM(),
        "regularizers": {"toward": TowardStart(0.1), "activity": ActivitySquared(), "power": PowerIteration()},
        "interventions": {"redraw": Redraw(every), "noise": Noise(), "tortoise": Tortoise()},
        "gradient_clip": 0.5,
    }
    return training_of(net(), torch.optim.Adam, stream, make_net=net, **parts | given)


def by_programs(training, stream, *, compiles=False):
    task = stream[0]
    training.use_programs(task, stream.gather(task, task.train[: stream.batch_size]), compiles=compiles)
    return training


def states_of(training):
    return checkpoint.cloned(training.state)


def largest_difference(one, other):
    """Of two states."""
    if isinstance(one, torch.Tensor):
        return (one.double() - other.double()).abs().max().item()
    assert one.keys() == other.keys()
    return max((largest_difference(one[key], other[key]) for key in one), default=0.0)


def learnt(training, stream, *, length, epochs=2):
    """Losses and numbers of every step of two epochs, `length` at a time."""
    task, losses, numbers = stream[0], [], {}
    for epoch in range(epochs):
        for chunk in stream.chunks(task, epoch, length=length):
            steps = training.learn_all(task, chunk)
            losses.append(steps.losses.clone())
            for name, values in steps.numbers.items():
                numbers.setdefault(name, []).append(values)
        training.end_epoch(task, {"loss": torch.cat(losses).mean().item()})
    return torch.cat(losses), {name: torch.cat(values) for name, values in numbers.items()}


# -- the same mathematics -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 3])
def test_every_kind_of_part_is_recorded_as_it_steps(every):
    """Draws, fresh rows, features, memory, numbers, settings, clipping, and parts that act at some steps alone."""
    stream = stream_of()
    eager, programs = everything(stream, every), by_programs(everything(stream, every), stream)
    losses, numbers = learnt(eager, stream, length=1)
    found, told = learnt(programs, stream, length=5)
    torch.testing.assert_close(found, losses, rtol=1e-10, atol=1e-10)
    assert told.keys() == numbers.keys()
    for name in numbers:
        torch.testing.assert_close(told[name].double(), numbers[name].double(), rtol=1e-10, atol=1e-10)
    assert largest_difference(programs.state, eager.state) < 1e-10
    assert programs.num_steps == eager.num_steps == 16
    assert programs.state["taken"]["redraw"]["rows"].item() == 16 // every


def test_the_length_of_a_chunk_changes_no_bit():
    stream = stream_of()
    one, other = (by_programs(everything(stream, 3), stream) for _ in range(2))
    losses, _ = learnt(one, stream, length=1)
    found, _ = learnt(other, stream, length=7)
    assert torch.equal(losses, found)
    assert checkpoint.first_difference(states_of(one), states_of(other)) is None


@pytest.mark.parametrize("every", ["step", "epoch"])
def test_what_a_scheduler_moves_is_read_not_recorded(every):
    stream = stream_of()

    def cosine(optimizer):
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)

    eager, programs = (everything(stream, scheduler=cosine, scheduler_every=every) for _ in range(2))
    learnt(eager, stream, length=1)
    learnt(by_programs(programs, stream), stream, length=5)
    assert largest_difference(programs.state, eager.state) < 1e-10
    assert programs.state["settings"]["optimizer"]["lr"] != 0.001
    assert len(programs._programs._programs) == 1, "recorded once"


def test_one_recording_serves_tasks_whose_active_outputs_differ():
    stream = stream_of(shift=IncrementalClasses(seed=0), num_tasks=2)
    eager, programs = everything(stream), by_programs(everything(stream), stream)
    for task in (stream[0], stream[1]):
        for chunk in stream.chunks(task, 0, length=2):
            for inputs, targets in zip(*chunk, strict=True):
                eager.learn(task, Batch(inputs, targets))
            programs.learn_all(task, chunk)
    assert not torch.equal(stream[0].loss.active, stream[1].loss.active)
    assert largest_difference(programs.state, eager.state) < 1e-10
    assert len(programs._programs._programs) == 1


def test_a_last_batch_of_another_size_is_stepped_eager():
    stream = stream_of(count=60 + 4, batch_size=6)
    eager, programs = everything(stream), by_programs(everything(stream), stream)
    assert [len(chunk.targets[0]) for chunk in stream.chunks(stream[0], 0, length=5)][-1] == 4
    losses, _ = learnt(eager, stream, length=1)
    found, _ = learnt(programs, stream, length=5)
    torch.testing.assert_close(found, losses, rtol=1e-10, atol=1e-10)


def test_many_batches_of_another_size_are_all_learned_from():
    """Such as those of a later task, where the first one had fewer examples than a batch."""
    stream = stream_of()
    small = stream.gather(stream[0], stream[0].train[:3])
    eager, programs = everything(stream, 3), everything(stream, 3)
    programs.use_programs(stream[0], small, compiles=False)
    losses, numbers = learnt(eager, stream, length=1)
    found, told = learnt(programs, stream, length=5)
    assert torch.equal(found, losses)
    assert {name: values.tolist() for name, values in told.items()} == {name: values.tolist() for name, values in numbers.items()}


class Exchange(AfterStep):
    """Remembers the net of the step before, and two vectors that change places: old tensors in other places of the state."""

    def init(self, start):
        self.names = start.trained
        before = {name: start.net[name].clone() for name in start.trained}
        return {"before": before, "one": torch.zeros(3), "other": torch.ones(3)}

    def after_step(self, subject, context):
        kept, memory = {name: subject.net[name] for name in self.names}, subject.memory
        return subject._replace(
            net={name: memory["before"][name] for name in self.names},
            memory={"before": kept, "one": memory["other"], "other": memory["one"].view(3, 1).flatten()},
        )


def test_tensors_that_change_places_keep_their_values():
    stream = stream_of()
    eager, programs = (training_of(net(), torch.optim.SGD, stream, interventions={"exchange": Exchange()}) for _ in range(2))
    learnt(eager, stream, length=1)
    learnt(by_programs(programs, stream), stream, length=5)
    assert largest_difference(programs.state, eager.state) < 1e-12


def test_the_net_is_a_window_onto_what_programs_write():
    stream = stream_of()
    training = by_programs(training_of(net(), torch.optim.SGD, stream), stream)
    chunks = stream.chunks(stream[0], 0, length=2)
    training.learn_all(stream[0], next(chunks))
    weight = training.net[1].weight
    before = weight.detach().clone()
    training.learn_all(stream[0], next(chunks))
    assert not torch.equal(weight, before)
    assert weight.data_ptr() == training.state["net"]["1.weight"].data_ptr()
    assert training.state_dict().keys() == training_of(net(), torch.optim.SGD, stream).state_dict().keys()


def test_fixed_tensors_take_values_from_each_other():
    fixed = FixedTensors.copied({"a": torch.tensor([1.0, 2.0]), "b": {"c": torch.tensor([3.0, 4.0])}})
    a, c = fixed.tensors
    fixed.take({"a": c, "b": {"c": a[:]}})
    assert a.tolist() == [3.0, 4.0]
    assert c.tolist() == [1.0, 2.0]
    shared = torch.zeros(2)
    apart = FixedTensors.copied({"a": shared, "b": shared})
    assert apart.tensors[0].data_ptr() != apart.tensors[1].data_ptr()


# -- what is not recorded -------------------------------------------------------------------------------------------


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, inputs):
        outputs = self.net(inputs)
        return outputs if outputs.sum() > 0 else -outputs


class Counting(nn.Module):
    """Another function at each call, unseen by any recording."""

    def __init__(self):
        super().__init__()
        self.net, self.calls = net(), 0

    def forward(self, inputs):
        self.calls += 1
        return self.net(inputs) * self.calls


class KeepsMore(CrossEntropy):
    def __init__(self):
        super().__init__()
        self.seen = [1, 2]


@pytest.mark.parametrize(
    ("make", "optimizer", "parts", "said"),
    [
        (lambda: nn.Sequential(net(), nn.Dropout(0.1)), torch.optim.SGD, {}, "draws random numbers"),
        (Branching, torch.optim.SGD, {}, "value"),
        (Counting, torch.optim.SGD, {}, "other numbers"),
        (net, torch.optim.Adagrad, {}, r"learner.optimizer: Adagrad steps by torch's own code"),
        (net, torch.optim.Adam, {"interventions": {"shrink": Shrink(2)}}, r"learner.optimizer"),
    ],
)
def test_what_cannot_be_recorded_runs_eager_and_says_why(make, optimizer, parts, said):
    stream = stream_of()
    task = stream[0]
    training = training_of(make(), lambda leaves: optimizer(leaves, lr=0.01), stream, **parts)
    before = states_of(training)
    found = settle(training, stream, task, wanted="auto", num_steps=10**9)
    assert found.how == "eager"
    assert re.search(said, found.why), found.why
    assert training.most_steps == 1
    for wanted in ("replay", "compiled"):
        with pytest.raises(Fault, match=said) as fault:
            settle(training, stream, task, wanted=wanted, num_steps=1)
        assert len(fault.value.sentences) == 1
        assert str(fault.value).startswith(f"execution={wanted}: ")
    assert checkpoint.first_difference(states_of(training), before) is None
    training.learn(task, next(stream.epoch(task, 0)))


def test_a_loss_that_keeps_more_than_tensors_is_not_taken_for_another_tasks():
    with pytest.raises(UnrecordableError, match="`seen`, a list"):
        structure(KeepsMore())
    with pytest.raises(UnrecordableError, match="partial"):
        structure(functools.partial(nn.functional.mse_loss))
    one, other = torch.tensor([True, False]), torch.tensor([False, True])
    assert structure(CrossEntropy(one)) == structure(CrossEntropy(other)) != structure(CrossEntropy())
    assert structure(CrossEntropy(one)) != structure(CrossEntropy(torch.ones(3, dtype=torch.bool)))
    assert structure(nn.functional.mse_loss) is nn.functional.mse_loss


# -- the rule -------------------------------------------------------------------------------------------------------


def test_auto_goes_by_counts():
    assert not pays(1_800, 130), "the quick start"
    assert pays(1_000_000, 100)
    stream = stream_of()
    task = stream[0]
    training = training_of(net(), torch.optim.SGD, stream)
    found = settle(training, stream, task, wanted="auto", num_steps=1800)
    assert found.how == "eager"
    assert found.why.startswith("1800 steps of ")
    assert training.most_steps == 1


def test_without_a_compiler_auto_replays_and_says_so(monkeypatch):
    monkeypatch.setattr(execute, "compiler_for", lambda device: None)
    stream = stream_of()
    task = stream[0]
    for wanted in ("auto", "compiled"):
        training = training_of(net(), torch.optim.SGD, stream)
        assert settle(training, stream, task, wanted=wanted, num_steps=10**9) == ("replay", "there is no C++ compiler")
        assert training.most_steps > 1


def test_a_chunk_holds_some_megabytes():
    outputs = torch.zeros(16, 10)
    assert fitting_length(Batch(torch.zeros(16, 8), torch.zeros(16)), outputs, 0) == 1024
    assert fitting_length(Batch(torch.zeros(64, 3, 32, 32), torch.zeros(64)), torch.zeros(64, 10), 0) == 10
    assert fitting_length(Batch(torch.zeros(16, 8), torch.zeros(16)), outputs, 2**22) == 1
    assert fitting_length(Batch(torch.zeros(16, 8), torch.zeros(16)), outputs, 2**30) == 1


# -- runs -----------------------------------------------------------------------------------------------------------

PLAIN = ("lla.enable_planes=false", "lla.enable_spectrum=false", "use_wandb=false", "learner.optimizer.lr=0.001")


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").open()]


def test_a_run_by_replay_has_the_rows_and_files_of_an_eager_one(tmp_path):
    config = [*TINY, *PLAIN, "num_tasks=2", "epochs=2", "log_every=5"]
    eager = run_in(tmp_path, compose(*config, "run_name=eager", "execution=eager"))
    replay = run_in(tmp_path, compose(*config, "run_name=replay", "execution=replay"))
    assert json.loads((replay / "run.json").read_text())["execution"] == {"how": "replay", "why": "as the config says"}
    for one, other in zip(rows_of(eager), rows_of(replay), strict=True):
        assert one.keys() == other.keys()
        for name in one:
            if not name.endswith(("seconds", "memory_mb")):
                assert one[name] == pytest.approx(other[name], rel=1e-3, abs=1e-4, nan_ok=True), name

    def files(folder):
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.pt"))

    assert files(eager) == files(replay)


def test_a_run_goes_on_in_the_execution_it_began_with(tmp_path):
    config = [*TINY, *PLAIN, "run_name=one"]
    folder = run_in(tmp_path, compose(*config, "num_tasks=1", "execution=replay"))
    for wanted in ("auto", "replay"):
        run_in(tmp_path, compose(*config, "num_tasks=2", f"execution={wanted}"))
        assert json.loads((folder / "run.json").read_text())["execution"]["how"] == "replay"
    with pytest.raises(Fault, match="execution=eager: this folder's run began with replay"):
        run_in(tmp_path, compose(*config, "num_tasks=2", "execution=eager"))


def test_a_run_that_goes_on_otherwise_than_it_began_says_so(tmp_path, monkeypatch, caplog):
    config = [*TINY, *PLAIN, "run_name=one"]
    folder = run_in(tmp_path, compose(*config, "num_tasks=1", "execution=replay"))
    held = RunFolder(folder, arch="mlp")
    held.write_run(held.known_run() | {"execution": {"how": "compiled", "why": "by g++"}})
    monkeypatch.setattr(execute, "compiler_for", lambda device: None)
    run_in(tmp_path, compose(*config, "num_tasks=2", "execution=auto"))
    told = (
        "this run's steps began compiled and are replay here (there is no C++ compiler): its numbers may differ in the last bits"
    )
    assert told in caplog.messages


# -- the compiler's cache -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_half_a_library_that_a_killed_process_left_breaks_no_run(tmp_path, monkeypatch, caplog):
    """Every library of a warm cache cut short, as a compiler that is killed leaves it."""
    monkeypatch.setenv("TASKSHIFT_CACHE", str(tmp_path / "cache"))
    program = (
        "import sys; sys.path[:0] = ['tests/framework', 'tests', 'src']\n"
        "import torch; torch.set_num_threads(1)\n"
        "from test_execution import *\n"
        "stream = stream_of(); training = by_programs(training_of(net(), torch.optim.SGD, stream), stream, compiles=True)\n"
        "assert next(iter(training._programs._programs.values())).is_compiled\n"
        "print(learnt(training, stream, length=5)[0].tolist())\n"
    )

    def run():
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1]), done.stderr

    first, _ = run()
    libraries = list((tmp_path / "cache").rglob("*.so"))
    assert libraries
    for library in libraries:
        library.write_bytes(library.read_bytes()[:100])
    again, said = run()
    assert again == first
    assert "is thrown away" in said
    assert not any(library.exists() and library.stat().st_size == 100 for library in libraries)
    assert run()[0] == first


def test_where_the_compiler_fails_the_step_is_replayed_and_no_cache_is_thrown_away(tmp_path, monkeypatch):
    monkeypatch.setenv("TASKSHIFT_CACHE", str(tmp_path / "cache"))
    compiling.cache_folder().mkdir(parents=True)
    others = tmp_path / "cache" / "notes.txt", compiling.cache_folder() / "of another run"
    for file in others:
        file.write_text("mine")
    monkeypatch.setattr(compiling, "_by_inductor", lambda *given: (_ for _ in ()).throw(RuntimeError("no room\nmore")))
    stream = stream_of()
    task = stream[0]
    training = training_of(net(), torch.optim.SGD, stream)
    assert settle(training, stream, task, wanted="auto", num_steps=10**9) == ("replay", "the compiler failed")
    learnt(training, stream, length=5)
    assert all(file.read_text() == "mine" for file in others)


def test_a_cache_that_is_thrown_away_takes_nothing_of_the_users_along(tmp_path, monkeypatch):
    monkeypatch.setenv("TASKSHIFT_CACHE", str(tmp_path / "cache"))
    folder = compiling.cache_folder()
    folder.mkdir(parents=True)
    (tmp_path / "cache" / "notes.txt").write_text("mine")
    first, made = [RuntimeError("half a library")], lambda arguments: None

    def by_inductor(recording, arguments):
        if first:
            raise first.pop()
        return made

    monkeypatch.setattr(compiling, "_by_inductor", by_inductor)
    assert compiling.compiled(None, []) is made
    assert not folder.exists()
    assert (tmp_path / "cache" / "notes.txt").read_text() == "mine"


def test_a_piece_of_a_split_is_taken_before_it_is_written_over():
    """A tensor turns round, and another takes its first half: that is of the old values, though written last."""

    def step(both, held, row, outputs):
        first, second = torch.split(both, 2)
        return torch.cat([second, first]), first, row + 1, outputs + 1

    given = torch.arange(4.0), torch.zeros(2), torch.zeros(1), torch.zeros(1, 1)
    graph = make_fx(lambda both, held: step(both, held, *given[2:]))(*given[:2])
    in_place(graph, 2).forward(*given[:2], torch.zeros(1), torch.zeros(1, 1))
    assert given[0].tolist() == [2, 3, 0, 1]
    assert given[1].tolist() == [0, 1]


def test_the_estimate_takes_no_more_steps_than_a_cycle_has(tmp_path):
    """A one-cycle schedule raises where it is stepped past its end."""
    words = ["learner/scheduler=one_cycle", "learner.scheduler.max_lr=0.1", "learner.scheduler_every=step", "execution=replay"]
    config = compose(*TINY, *PLAIN, *words, "run_name=one")
    folder = run_in(tmp_path, config)
    assert json.loads((folder / "run.json").read_text())["execution"]["how"] == "replay"
    parts = build_parts(config)
    task = parts.stream[0]
    parts.training.use_programs(task, next(parts.stream.epoch(task, 0)), compiles=False)
    before = checkpoint.cloned(parts.training.state_dict())
    said = estimate.before(parts, 0)
    assert "of training" in said
    assert checkpoint.first_difference(before, parts.training.state_dict()) is None
