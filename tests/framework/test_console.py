"""The display on the terminal: silent elsewhere, and honest about the time left."""

import io
import threading
from pathlib import Path

import pytest

from taskshift.recorders.console import Console, TimeLeft, words_for
from taskshift.recorders.recorder import Moment, Opening

END = {"global_epoch": 9, "task_idx": 0, "task/seconds": 12.34, "task/memory_mb": 512.4, "task_last_epoch_loss": 0.2}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def opening(rows=()):
    return Opening(Path("run"), {}, "run", rows, num_tasks=3, epochs=10)


def moment(task=0, phase="train", epoch=0, batch=0, evaluator=None):
    return Moment(task, phase, epoch, batch, num_batches=4, evaluator=evaluator)


def on_terminals(monkeypatch) -> Terminal:
    """Put standard output and error on terminals; what is shown goes to the one returned. No fixture: pytest has both by then."""
    error = Terminal()
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setattr("sys.stderr", error)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    return error


def drive(console: Console) -> None:
    console.open(opening())
    console.tick(moment(epoch=4, batch=1))
    console.record({"global_epoch": 9, "task_idx": 0, "epoch_loss": 0.125, "test_accuracy": 0.875})
    console.record(END)
    console.tick(moment(phase="end", evaluator="planes"))


@pytest.mark.parametrize(("out", "error"), [(io.StringIO, io.StringIO), (io.StringIO, Terminal), (Terminal, io.StringIO)])
def test_where_there_is_no_terminal_nothing_is_shown_and_no_thread_runs(monkeypatch, out, error):
    streams = out(), error()
    monkeypatch.setattr("sys.stdout", streams[0])
    monkeypatch.setattr("sys.stderr", streams[1])
    console, before = Console(), threading.active_count()
    drive(console)
    assert threading.active_count() == before
    console.close(ok=True)
    assert [stream.getvalue() for stream in streams] == ["", ""]


def test_a_tasks_end_leaves_a_line_with_its_peak_memory(monkeypatch):
    terminal = on_terminals(monkeypatch)
    console = Console()
    drive(console)
    console.close(ok=True)
    assert "task 1 of 3 · loss 0.125 · test accuracy 0.875 · 12.3 s · peak memory 512 MB" in terminal.getvalue()


def test_the_live_line_says_where_the_run_is(monkeypatch):
    terminal = on_terminals(monkeypatch)
    console = Console()
    drive(console)
    console.close(ok=True)
    assert "task 1 of 3 · measuring at its end · planes · loss 0.125" in terminal.getvalue()


def test_a_resumed_run_shows_what_it_had_reached(monkeypatch):
    terminal = on_terminals(monkeypatch)
    console = Console()
    console.open(opening(rows=[{"global_epoch": 9, "task_idx": 0, "epoch_loss": 0.75}]))
    console.tick(moment(task=1, epoch=4, batch=1))
    console.close(ok=True)
    assert "task 2 of 3 · training · epoch 5 of 10 · loss 0.75" in terminal.getvalue()


def test_closing_gives_the_terminal_back(monkeypatch):
    terminal, before = on_terminals(monkeypatch), set(threading.enumerate())
    console = Console()
    drive(console)
    (thread,) = set(threading.enumerate()) - before
    console.close(ok=False)
    console.close(ok=False)
    thread.join(timeout=5)
    assert not thread.is_alive()
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")  # the cursor is shown, not hidden


def test_a_rate_below_one_is_refused():
    with pytest.raises(ValueError, match="refresh_per_second is 0; give at least 1"):
        Console(refresh_per_second=0)


class TestTimeLeft:
    """Every task: 2 s at its start, 40 s of training (1 s a batch), 6 s at its end."""

    def follow(self, time_left, tasks, begin=0.0, first_batch=0):
        """Drive through whole tasks; return when they are over."""
        now = begin
        for task in tasks:
            if first_batch == 0:
                time_left.observe(moment(task, "start", evaluator="planes"), now)
                now += 2
            for step in range(first_batch, 40):
                time_left.observe(moment(task, "train", step // 4, step % 4), now)
                now += 1
            for evaluator in ("planes", "sam"):
                time_left.observe(moment(task, "end", evaluator=evaluator), now)
                now += 3
            first_batch = 0
        return now

    def test_nothing_is_known_before_a_step(self):
        time_left = TimeLeft(num_tasks=3, epochs=10)
        time_left.observe(moment(phase="start"), 0.0)
        assert time_left.seconds(moment(phase="start"), 1.0) is None

    def test_in_the_first_task_training_is_told_by_its_share(self):
        time_left = TimeLeft(num_tasks=3, epochs=10)
        time_left.observe(moment(), 0.0)
        assert time_left.seconds(moment(epoch=5), 20.0) == pytest.approx(20 + 2 * 40)
        assert time_left.tasks_seen == 0

    def test_after_a_task_every_phase_counts(self):
        time_left = TimeLeft(num_tasks=3, epochs=10)
        now = self.follow(time_left, [0])
        time_left.observe(moment(1, "start"), now)
        assert time_left.seconds(moment(1, "start"), now) == pytest.approx(2 * 48)
        assert time_left.seconds(moment(1, "start"), now + 1) == pytest.approx(2 * 48 - 1)
        time_left.observe(moment(1, "train"), now + 2)
        assert time_left.seconds(moment(1, "train", epoch=5), now + 22) == pytest.approx(20 + 6 + 48)
        time_left.observe(moment(1, "end"), now + 42)
        assert time_left.seconds(moment(1, "end"), now + 44) == pytest.approx(4 + 48)
        assert time_left.tasks_seen == 1

    def test_a_phase_that_takes_longer_than_before_never_counts_negative(self):
        time_left = TimeLeft(num_tasks=2, epochs=10)
        now = self.follow(time_left, [0])
        time_left.observe(moment(1, "end"), now)
        assert time_left.seconds(moment(1, "end"), now + 100) == 0

    def test_a_run_resumed_amid_its_training_counts_all_of_it(self):
        time_left = TimeLeft(num_tasks=3, epochs=10)
        now = self.follow(time_left, [0], first_batch=20)
        time_left.observe(moment(1, "train"), now)
        assert time_left.seconds(moment(1, "train"), now) == pytest.approx(46 + 46)

    def test_a_run_resumed_behind_its_training_does_not_count_that_task(self):
        time_left = TimeLeft(num_tasks=3, epochs=10)
        time_left.observe(moment(0, "end"), 0.0)
        now = self.follow(time_left, [1], begin=3.0)
        time_left.observe(moment(2, "start"), now)
        assert time_left.seconds(moment(2, "start"), now) == pytest.approx(48)

    def test_one_batch_in_all_is_no_division_by_zero(self):
        time_left = TimeLeft(num_tasks=3, epochs=1)
        time_left.observe(Moment(0, "train", 0, 1, 1), 0.0)
        assert time_left.seconds(Moment(0, "train", 0, 1, 1), 1.0) is None
        time_left.observe(Moment(0, "end", 0, 0, 1), 1.0)


@pytest.mark.parametrize(
    ("seconds", "at_least", "words"),
    [
        (None, True, ""),
        (59.6, False, "0:01:00 to go"),
        (3725, True, "at least 1:02:05 to go"),
        (360000, False, "100:00:00 to go"),
    ],
)
def test_times_in_words(seconds, at_least, words):
    assert words_for(seconds, at_least) == words
