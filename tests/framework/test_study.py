"""`scripts/study.py`: values are chosen late, learners compared in pairs, a page gets its table, a killed study goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sweep_runs import write_sweep

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "scripts"))

from plasticity_study import page, picture, results  # noqa: E402
from plasticity_study.plan import read_study  # noqa: E402

from taskshift.config.command import compose  # noqa: E402
from taskshift.faults import Fault  # noqa: E402
from taskshift.sweeps.series import Series  # noqa: E402

STUDY = """
tuning_seeds: [100, 101]
seeds: 3
pictured: [backprop, cbp]
shared: [epochs=1, recorder=none, use_wandb=false, num_threads=1, lla.enable_planes=false, lla.enable_spectrum=false,
  lla.enable_plasticity=false, lla.enable_coupling=false, "lla.rank.measures=[effective,stable]"]
tuning: [lla.enable_rank=false]
problems:
  images:
    {title: Images, axis: online accuracy, metric: task_last_epoch_accuracy, better: BETTER, percent: true, window: 1, rate: 0.01,
     words: [debug=tiny, num_tasks=3, task_shift_mode=permuted], tuning: [num_tasks=2]}
learners:
  backprop: {}
  cbp: {key: learner.interventions.cbp.replacement_rate, values: [1e-3, 1e-2]}
"""
KEY = "learner.interventions.cbp.replacement_rate"
FEATURES = {"units/dead_fraction": 0.25, "rank/effective_rank": 7.25, "rank/stable_rank": 2.5}


@pytest.fixture
def study(tmp_path):
    return study_of(tmp_path)


def study_of(folder: Path, better: str = "higher"):
    file = folder / "study.yaml"
    file.write_text(STUDY.replace("BETTER", better))
    return read_study(folder / "outputs", file)


def write_runs(study, late_of: dict[str, list[float]], tuned: dict[str, float], *, skip: tuple[str, ...] = ()):
    """Runs of both learners, each 0.5 in its first task; with the tuning of cbp, late what `tuned` says of each value."""
    [problem] = study.problems.values()
    for name, late in late_of.items():
        folder = study.folder(problem, study.entries[name])
        ends = {str(seed): value for seed, value in enumerate(late)}
        write_sweep(
            folder, {"seed": list(ends)}, lambda overrides, task, ends=ends: ends[overrides["seed"]] if task == 2 else 0.5
        )
        fixed = [f"{KEY}=0.01"] if name == "cbp" else []
        (folder / "sweep.json").write_text(json.dumps(json.loads((folder / "sweep.json").read_text()) | {"fixed": fixed}))
        for record in folder.glob("*/metrics.jsonl"):
            *rows, last = record.read_text().splitlines()
            record.write_text("\n".join([*rows, json.dumps(json.loads(last) | FEATURES)]) + "\n")
    grid = {KEY: list(tuned), "seed": ["100", "101"]}

    def of_tuning(overrides, task):
        return tuned[overrides[KEY]] if task == 2 else 0.9 - tuned[overrides[KEY]]

    write_sweep(study.folder(problem, study.entries["cbp"], tuning=True), grid, of_tuning, skip=skip)
    return problem


def test_the_commands_are_those_of_a_user(study):
    [problem] = study.problems.values()
    cbp = study.entries["cbp"]
    command, *words = study.tuning_command(problem, cbp)
    assert command == "--multirun"
    assert {"learner=cbp", "learner.optimizer.lr=0.01", f"{KEY}=0.001,0.01", "seed=100,101"} <= {*words}
    assert {"sweep_name=images-cbp-tuning", "num_tasks=2", "lla.enable_rank=false"} <= {*words}
    assert "num_tasks=3" not in words
    assert {f"{KEY}=0.01", "seed=range(3)", "sweep_name=images-cbp"} <= {*study.command(problem, cbp, 0.01, 3)}


@pytest.mark.parametrize(("better", "best"), [("higher", 0.01), ("lower", 0.001)])
def test_the_value_is_the_best_one_late(tmp_path, better, best):
    study = study_of(tmp_path, better)
    problem = write_runs(study, {}, {"0.001": 0.6, "0.01": 0.7})
    assert results.best_value(study, problem, study.entries["cbp"]) == best


def test_a_value_without_all_its_runs_is_out(study):
    problem = write_runs(study, {}, {"0.001": 0.6, "0.01": 0.7}, skip=(f"{KEY}=0.01 seed=101",))
    assert results.best_value(study, problem, study.entries["cbp"]) == 0.001
    problem = write_runs(study, {}, {"0.001": 0.6, "0.01": float("nan")})
    assert results.best_value(study, problem, study.entries["cbp"]) == 0.001


def test_no_value_at_all_is_said(study):
    problem = write_runs(study, {}, {"0.001": float("nan"), "0.01": float("nan")})
    with pytest.raises(Fault, match="cbp: no value of learner.interventions.cbp.replacement_rate ended with finite numbers"):
        results.best_value(study, problem, study.entries["cbp"])


def test_a_line_is_paired_over_seeds(study):
    late = {"backprop": [0.40, 0.42, 0.47], "cbp": [0.61, 0.60, 0.70, 0.99]}
    problem = write_runs(study, late, {"0.001": 0.6, "0.01": 0.7})
    entries = study.of(problem, None)
    cbp, backprop = results.lines(study, problem, entries, results.records_of(study, problem, entries))
    assert (cbp.name, cbp.value, cbp.num_seeds) == ("cbp", 0.01, 4)
    assert (backprop.name, backprop.value, backprop.against) == ("backprop", None, None)
    differences = np.subtract(late["cbp"][:3], late["backprop"])
    expected = stats.t.interval(0.95, 2, differences.mean(), stats.sem(differences))
    assert cbp.against.mean == pytest.approx(differences.mean())
    assert cbp.against.interval() == pytest.approx(expected)
    change = stats.t.interval(0.95, 2, np.mean(late["backprop"]) - 0.5, stats.sem(late["backprop"]))
    found = backprop.change
    assert (found.value - found.reach, found.value + found.reach) == pytest.approx(change)
    assert (cbp.num_lost, backprop.num_lost) == (0, 0)
    assert backprop.features == {"dead": 0.25, "effective": 7.25, "stable": 2.5}


def test_what_is_not_over_or_diverged_is_in_no_mean(study):
    problem = write_runs(
        study, {"backprop": [0.40, 0.42, 0.47], "cbp": [0.61, 0.60, 0.70, float("nan"), 0.9]}, {"0.001": 0.6, "0.01": 0.7}
    )
    entries = study.of(problem, None)
    [unfinished] = [
        one.folder for one in results.records_of(study, problem, entries) if one.overrides == {"learner": "cbp", "seed": 4}
    ]
    (unfinished / "DONE").unlink()
    cbp, _ = results.lines(study, problem, entries, results.records_of(study, problem, entries))
    assert (cbp.num_seeds, cbp.num_lost, cbp.late.value) == (3, 1, pytest.approx(np.mean([0.61, 0.60, 0.70])))


def test_a_learner_all_of_whose_runs_diverged_is_told_apart_from_one_that_has_none(study):
    late = {"backprop": [0.40, 0.42, 0.47], "cbp": [float("nan")] * 3}
    problem = write_runs(study, late, {"0.001": 0.6, "0.01": 0.7})
    text = page.table(study, problem)
    assert "Diverged at every seed: cbp." in text
    assert "Not computed" not in text


def test_the_value_told_is_that_of_the_runs_and_another_one_is_refused(study):
    """As where values were added to the study after its results."""
    late = {"backprop": [0.40, 0.42, 0.47], "cbp": [0.61, 0.60, 0.70]}
    problem = write_runs(study, late, {"0.001": 0.8, "0.01": 0.7})
    entries, cbp = study.of(problem, None), study.entries["cbp"]
    line, _ = results.lines(study, problem, entries, results.records_of(study, problem, entries))
    assert (line.name, line.value) == ("cbp", 0.01)
    best = results.best_value(study, problem, cbp)
    assert best == 0.001
    sentence = f"cbp: its results are at {KEY}=0.01, but of the values tried 0.001 is best now; move .*images-cbp away"
    with pytest.raises(Fault, match=sentence):
        results.refuse_another_value(study, problem, cbp, best)
    results.refuse_another_value(study, problem, cbp, 0.01)


def test_a_name_that_the_study_has_not_is_refused(study):
    [problem] = study.problems.values()
    with pytest.raises(Fault, match="the study has no learner cpb; it has backprop, cbp"):
        study.of(problem, ["backprop", "cpb"])
    with pytest.raises(Fault, match="the study has no problem image; it has images"):
        study.problems_of(["image"])


def test_bins_are_means_within_runs():
    values = np.arange(10.0).reshape(2, 5)
    one = results.binned(Series("cbp", [0, 1, 2, 3, 4], values, np.ones((2, 5), dtype=bool)), 2)
    assert one.places == [0.5, 2.5]
    assert one.values.tolist() == [[0.5, 2.5], [5.5, 7.5]]


def test_labels_keep_apart_and_in_order():
    places = picture.spread([0.0, 0.1, 0.15, 5.0], apart=1.0)
    assert np.diff(places).min() == pytest.approx(1.0)
    assert (places[-1], np.mean(places[:3])) == (5.0, pytest.approx(0.25 / 3))


def test_a_page_gets_its_table_and_its_picture(study, tmp_path):
    problem = write_runs(study, {"backprop": [0.40, 0.42, 0.47], "cbp": [0.61, 0.60, 0.70]}, {"0.001": 0.6, "0.01": 0.7})
    file = tmp_path / "LEARNERS.md"
    file.write_text(f"before\n\n{page.BEGIN}\nold\n{page.END}\n\nafter\n")
    page.save(study, [problem], file)
    text = file.read_text()
    assert (text.partition(page.BEGIN)[0], text.partition(page.END)[2]) == ("before\n\n", "\n\nafter\n")
    assert "old" not in text
    assert "| `cbp` | 0.01\\* | 50.00 | 63.67 | +13.67 ± 13.68 | +20.67 ± 6.25 | 0.0049 | 25% | 7.2 | 2.50 | 3 |" in text
    assert (tmp_path / "plasticity.png").stat().st_size > 10_000
    page.save(study, [problem], file)
    assert file.read_text() == text


def test_two_seeds_have_neither_interval_nor_p(study):
    problem = write_runs(study, {"backprop": [0.40, 0.42], "cbp": [0.61, 0.60]}, {"0.001": 0.6, "0.01": 0.7})
    assert "| `cbp` | 0.01\\* | 50.00 | 60.50 | +10.50 | +19.50 | – | 25% |" in page.table(study, problem)


def test_a_page_without_a_place_is_left_alone(study, tmp_path):
    file = tmp_path / "page.md"
    file.write_text("no marks\n")
    with pytest.raises(Fault, match="has no place for the tables"):
        page.save(study, list(study.problems.values()), file)
    assert file.read_text() == "no marks\n"


def command_of(study, folder: Path, *words: str) -> list[str]:
    script, place = str(ROOT / "scripts" / "study.py"), str(folder / "study.yaml")
    chosen = ["--problem", "images", "--seeds", "2"]
    return [sys.executable, script, "--study", place, "--output", str(study.output), *chosen, *words]


@pytest.mark.slow
def test_an_estimate_comes_without_training_anything(study, tmp_path):
    done = subprocess.run(command_of(study, tmp_path, "--estimate"), check=True, capture_output=True, text=True)
    assert done.stdout.startswith("Images: 2 learners, 3 tasks, 2 seeds: about ")
    assert not study.output.exists()


@pytest.mark.slow
def test_a_killed_study_goes_on(study, tmp_path):
    command = command_of(study, tmp_path, "--no-estimate")
    first = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True)
    folder = study.folder(study.problems["images"], study.entries["backprop"])
    while not list(folder.glob("*/metrics.jsonl")):
        assert first.poll() is None, first.stdout.read()
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    second = subprocess.run(command, check=True, capture_output=True, text=True)
    assert len(list(study.output.glob("*/sweeps/*/*/DONE"))) == 2 + 4 + 2
    assert "| `cbp` |" in second.stdout
    third = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "train.py" not in third.stdout  # nothing is missing
    assert third.stdout in second.stdout


@pytest.mark.slow
@pytest.mark.parametrize("problem", read_study(Path("outputs")).problems)
def test_every_command_of_the_study_composes(problem):
    whole = read_study(Path("outputs"))
    for entry in whole.of(whole.problems[problem], None):
        words = whole.command(whole.problems[problem], entry, next(iter(entry.values), None), 1)
        config = compose(*(word for word in words[1:] if not word.startswith("seed=")))
        assert config["task_shift"] is not None
