"""A run whose loss was lost says so, where and what to try, and is not run again."""

import math

import pytest
from rich.console import Console
from runs import TINY, compose, run_in
from sweep_runs import write_sweep

from taskshift.divergence import ADVICE, divergence
from taskshift.run_folder import RunFolder
from taskshift.summary import print_table
from taskshift.sweeps.states import state_of

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([1.0, 0.5, 0.4, 0.3], None),
        ([1.0, NAN, NAN, NAN], "the loss became NaN in task 0, epoch 2"),
        ([1.0, 0.5, INF, NAN], "the loss became infinite in task 1, epoch 1"),
        ([1.0, INF, 0.4, 0.3], None),
        ([NAN, 1.0, 0.4, NAN], "the loss became NaN in task 1, epoch 2"),
        ([], None),
    ],
)
def test_it_is_where_the_loss_was_lost_for_good(losses, said):
    rows = [{"global_epoch": n, "task_idx": n // 2, "epoch_loss": loss} for n, loss in enumerate(losses)]
    assert divergence([*rows, {"global_epoch": 3, "task_idx": 1, "task/seconds": 1.0}], epochs=2) == said


def test_a_run_that_diverges_says_so_and_is_finished(tmp_path, capsys):
    words = ["learner.optimizer.lr=1e30", "lla.enable_sam=false", "lla.enable_planes=false", "lla.enable_spectrum=false"]
    folder = run_in(tmp_path, compose(*TINY, *words, "lla.enable_coupling=false", "num_tasks=1", "run_name=lost"))
    state = state_of(folder)
    assert state.state == "diverged"
    assert state.why.startswith("the loss became ")
    assert state.why.endswith(f"; {ADVICE}")
    console = Console(width=200, record=True)
    print_table(folder, console)
    said = console.export_text().splitlines()
    assert said[-1] == state.why.replace("; ", ": ", 1)
    assert not [line for line in said if "open first" in line]


def test_a_sweep_does_not_run_it_again_unless_it_is_to_be_longer(tmp_path):
    from taskshift.sweeps.launch import _is_missing
    from taskshift.sweeps.plan import PlannedRun
    from taskshift.sweeps.sweep_folder import SweepFolder

    folder = write_sweep(tmp_path / "sweep", {"seed": ["0"]})
    RunFolder(folder / "00000000", "").end_attempt(3, "the loss became NaN in task 0, epoch 1")
    for num_tasks, missing in ((3, False), (4, True)):
        run = PlannedRun("00000000", "", {}, [], {"num_tasks": num_tasks})
        assert _is_missing(SweepFolder(folder), run, state_of(folder / "00000000").state, retry_failed=True) is missing
