"""A run's and a sweep's page hold what was measured, stand what is missing, and overwrite nothing of a user's."""

import json
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from summary_runs import DECLARED, EPOCHS, NOT_FINITE, write_plane, write_run
from sweep_runs import write_run_json, write_sweep

from loss_landscape.page.library import LIBRARY
from loss_landscape.results.grid import Grid
from taskshift import run as run_module
from taskshift.faults import Fault
from taskshift.quantities import Quantities, Quantity
from taskshift.report.make import report, write_run_report
from taskshift.report.moments import moment_of, planes_of
from taskshift.report.run_view import facts_of, run_view, settings_of, threshold_name
from taskshift.report.sweep_view import groups_of, sweep_page
from taskshift.run_folder import RunFolder
from taskshift.sweeps.records import read_sweeps

HOSTILE = "</script><script>window.PWNED=1</script><img src=x onerror=window.PWNED=1> <!-- {{7*7}} ${x}"


class Tags(HTMLParser):
    """The tags of a page, with what they were given."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def project_run(root, name="one", **options):
    """A run where a project has it: <project>/<net>/<name>."""
    folder = write_run(root / "project" / "mlp" / name, **options)
    config = {"output_project": "project", "arch": "mlp", "num_tasks": 3, "epochs": EPOCHS, "task_shift_mode": "permuted"}
    about = {"run_name": name, "seed": 5, "config": config, "git": {"commit": "0123456789abcdef", "changed": True}}
    (folder / "run.json").write_text(json.dumps(about))
    return folder


def write_spectrum(folder, task=0):
    below = folder / f"task_{task:04d}_mlp" / "spectrum"
    below.mkdir(parents=True)
    said = {"eigenvalues": [30.0, 20.0, -40.0], "residuals": [1e-3, 2e-3, 0.0], "converged": [True, False, True]}
    (below / "metrics.json").write_text(json.dumps(said))
    np.savez(
        below / "quadrature.npz", x=np.linspace(-50, 40, 9), density=np.ones(9), nodes=np.zeros((1, 2)), weights=np.ones((1, 2))
    )


# -- what a page holds --------------------------------------------------------------------------------------------


def test_the_head_says_what_the_run_is(tmp_path):
    folder = project_run(tmp_path)
    view = run_view(folder, "one")
    assert (view.name, view.facts) == ("one", "3 tasks · permuted · mlp · seed 5 · commit 0123456789 with changes")
    config = {"num_tasks": 9, "data": {"_target_": "a.b.digits"}, "learner": {"optimizer": {"_target_": "t.SGD", "lr": 0.01}}}
    assert facts_of({"config": config}, 1) == "1 of 9 tasks · digits · SGD, η = 0.01"
    assert ("learner.optimizer.lr", "0.01") in settings_of(config)
    assert settings_of({"run_name": "x", "wandb": {"mode": "offline"}, "seed": 1}) == (("seed", "1"),)


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        ({"momentum": 0.0}, "2/η"),
        ({"momentum": 0.9}, "(2 + 2β)/η"),
        ({"momentum": 0.9, "nesterov": True}, "(2 + 2β)/((1 + 2β)η)"),
        ({}, "2/η"),
    ],
)
def test_the_threshold_is_named_after_the_optimizer(optimizer, name):
    assert threshold_name({"learner": {"optimizer": optimizer}}) == name


def test_each_task_is_a_moment_with_its_planes_and_its_spectrum(tmp_path):
    folder = project_run(tmp_path)
    for task, place in [(0, "planes/random"), (0, "sam"), (0, "planes/trajectory"), (1, "planes/random")]:
        write_plane(folder, task, place)
    write_spectrum(folder)
    first, second, third = run_view(folder, "one").moments
    assert [plane.kind for plane in first.planes] == ["trajectory", "random", "sam"]
    assert [plane.kind for plane in second.planes] == ["random"]
    assert (third.planes, third.spectrum) == ((), None)
    np.testing.assert_array_equal(second.planes[0].grid.losses, Grid.load(folder / "task_0001_mlp/planes/random").losses)
    assert first.spectrum.eigenvalues == (30.0, 20.0, -40.0)
    assert first.spectrum.errors == pytest.approx((0.04, 0.08, 0.0))  # relative to the radius, 40
    assert first.spectrum.converged == (True, False, True)
    assert (first.number, first.caption) == (0, "task 0 · 80.0 % · λ₁ 30")


def test_planes_of_a_tasks_start_are_shown_and_labelled(tmp_path):
    """Behind those of its end, on a scale of their own, and weighed by the card of trust."""
    folder = project_run(tmp_path)
    for place, scale in [("planes/random", 1.0), ("start/planes/random", 3.0), ("start/sam", 2.0)]:
        write_plane(folder, 1, place, scale)
    view = run_view(folder, "one")
    first, second, _ = view.moments
    assert first.planes == ()
    assert [(plane.kind, plane.label) for plane in second.planes] == [
        ("random", "random directions"),
        ("start/random", "random directions, at the task’s start"),
        ("start/sam", "SAM: the loss one ascent step away, at the task’s start"),
    ]
    assert [plane.grid.centre_loss for plane in second.planes] == [1.0, 3.0, 2.0]
    [trust] = [card for card in view.cards if "trusted" in card.question]
    assert "start/random, task 1" in f"{trust.evidence} {trust.limits} {trust.context}"
    text = write_run_report(folder).read_text()
    assert "random directions, at the task’s start" in text
    (only := folder / "task_0001_mlp/planes").rename(folder / "elsewhere")
    assert not only.exists()
    assert [plane.when for plane in run_view(folder, "one").moments[1].planes] == ["start", "start"]


@pytest.mark.parametrize(("ratio", "threshold"), [(1.5, 20.0), (0.7, None)])
def test_a_threshold_stands_in_the_spectrum_where_it_is_on_its_scale(tmp_path, ratio, threshold):
    write_spectrum(tmp_path)
    row = {"spectrum/top_eigenvalue_1": 30.0, "spectrum/stability_threshold": 20.0, "spectrum/sharpness_to_threshold": ratio}
    moment = moment_of(0, row, folder=tmp_path / "task_0000_mlp", planes={}, threshold_name="2/η")
    assert moment.spectrum.threshold == threshold
    assert bool(moment.spectrum.note) is (threshold is None)


def test_curves_over_epochs_stand_on_the_axis_of_the_tasks(tmp_path):
    view = run_view(project_run(tmp_path), "one")
    charts = {chart.title: chart for panel in view.over for chart in panel.charts}
    [train, _] = charts["loss after each epoch"].series
    assert train.x == pytest.approx([(epoch + 1) / EPOCHS - 1 for epoch in range(3 * EPOCHS)])
    assert train.x[EPOCHS - 1 :: EPOCHS] == pytest.approx([0, 1, 2])
    assert train.values[:EPOCHS] == pytest.approx([1, 1 / 2, 1 / 3])
    [trace] = charts["trace of the Hessian, ± standard error"].series
    assert (trace.values, trace.lower, trace.upper) == ((800.0, 801.0, 802.0), (775.0, 776.0, 777.0), (825.0, 826.0, 827.0))


def test_curves_within_tasks_stand_there_too_as_far_as_they_go(tmp_path):
    folder, rows = project_run(tmp_path, num_tasks=2), []
    for line in (folder / "metrics.jsonl").read_text().splitlines()[:-2]:  # the second task was killed after its second epoch
        row = json.loads(line)
        step = 10 * (row["global_epoch"] + 1)
        if "epoch_loss" in row:
            rows.append({"task_idx": row["task_idx"], "global_step": step - 5, "learner/norm": 1.0})
        rows.append(row | {"global_step": step})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    RunFolder(folder, "mlp").write_quantities(Quantities([*DECLARED, Quantity("learner/norm", "‖g‖", panel="norm")]))
    charts = {chart.title: chart for panel in run_view(folder, "one").further for chart in panel.charts}
    [norm] = charts["norm"].series
    assert norm.x == pytest.approx([-1 + 0.5 / 3, -1 + 1.5 / 3, -1 + 2.5 / 3, 0.5 / 3, 1.5 / 3])


def test_a_run_that_was_killed_in_its_first_epoch_has_a_page_without_curves_over_steps(tmp_path):
    folder = project_run(tmp_path, num_tasks=1)
    rows = [{"task_idx": 0, "global_step": step, "learner/norm": 1.0} for step in range(3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    RunFolder(folder, "mlp").write_quantities(Quantities([*DECLARED, Quantity("learner/norm", "‖g‖", panel="norm")]))
    view = run_view(folder, "one")
    assert "norm" not in [chart.title for panel in view.further for chart in panel.charts]
    write_run_report(folder)


def test_longer_curves_within_tasks_are_left_to_the_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr("taskshift.report.charts.MOST_POINTS", 8)  # of nine epochs
    titles = [chart.title for panel in run_view(project_run(tmp_path), "one").over for chart in panel.charts]
    assert "loss on each task" in titles
    assert "loss after each epoch" not in titles


def test_a_new_nets_curves_have_names_and_a_chart_of_their_own(tmp_path):
    control = {"plasticity/control_test_accuracy": 0.9, "plasticity/gap_test_accuracy": -0.1}
    error = {"plasticity/test_accuracy_standard_error": 0.02}
    view = run_view(project_run(tmp_path, **control, **error), "one")
    charts = {chart.title: chart.series for chart in view.over[0].charts}
    assert [(one.name, one.values) for one in charts["accuracy on each task: a new net"]] == [("test", (0.9,))]
    assert [(one.name, one.values) for one in charts["accuracy: this net less a new net"]] == [("test", (-0.1,))]
    [test] = [one for one in charts["accuracy on each task"] if one.name == "test"]
    assert (test.lower[1], test.upper[1]) == pytest.approx((0.78, 0.82))


def test_the_table_is_the_terminals_and_another_has_every_number(tmp_path):
    ends, every = run_view(project_run(tmp_path), "one").tables
    assert ends.columns[:3] == ("task", "loss", "accuracy")
    assert ends.rows[2][:3] == ("2", 2.1, 0.9)
    assert ("sam/sharpness", 0.25, 0.25, 0.25) in every.rows


def test_barriers_become_matrices(tmp_path):
    folder = project_run(tmp_path)
    (folder / "summary").mkdir()
    content = {"tasks": [0, 2], "barrier": [[0.0, 0.5], [math.nan, 0.0]], "loss": [[0.1, 0.2], [0.3, 0.4]]}
    (folder / "summary" / "barrier_matrix.json").write_text(json.dumps(content))
    barriers, losses = run_view(folder, "one").matrices
    assert barriers.labels == ("task 0", "task 2")
    np.testing.assert_array_equal(barriers.values, [[0.0, 0.5], [math.nan, 0.0]])
    np.testing.assert_array_equal(losses.values, [[0.1, 0.2], [0.3, 0.4]])


# -- the file -----------------------------------------------------------------------------------------------------


def test_a_page_shares_its_projects_bundle_and_is_small(tmp_path):
    rng = np.random.default_rng(0)
    folder = project_run(tmp_path, num_tasks=4)
    axis = np.linspace(-1, 1, 41)
    for task in range(4):
        write_spectrum(folder, task)
        for kind in ("random", "hessian", "trajectory"):
            plane = write_plane(folder, task, f"planes/{kind}")
            losses = np.exp(3 * np.add.outer(axis**2, 2 * axis**2)) * (1 + 1e-7 * rng.normal(size=(41, 41)))
            Grid(losses, (axis, axis), plane.info).save(folder / f"task_{task:04d}_mlp" / "planes" / kind)
    path = write_run_report(folder)
    assert path == folder / "report.html"
    assert path.stat().st_size <= 200_000
    bundle = tmp_path / "project" / LIBRARY
    sources = [given["src"] for tag, given in Tags(path.read_text()).found if tag == "script" and "src" in given]
    assert sources == [f"../../{LIBRARY}"]
    assert (folder / sources[0]).resolve() == bundle
    before = bundle.stat().st_mtime_ns, path.read_bytes()
    assert write_run_report(folder).read_bytes() == before[1]
    assert bundle.stat().st_mtime_ns == before[0]
    alone = report([folder], tmp_path / "alone.html")
    assert bundle.stat().st_size < alone.stat().st_size <= 2_200_000
    assert not [given for tag, given in Tags(alone.read_text()).found if tag == "script" and "src" in given]


def test_a_folder_that_was_moved_out_of_its_project_has_all_in_its_page(tmp_path):
    folder = tmp_path / "elsewhere" / "copied"
    shutil.copytree(project_run(tmp_path), folder)
    write_run_report(folder)
    assert not [path for path in tmp_path.rglob(LIBRARY) if "elsewhere" in str(path)]
    assert not [given for tag, given in Tags((folder / "report.html").read_text()).found if "src" in given]


@pytest.mark.parametrize(
    "options",
    [
        {"num_tasks": 1},
        {"drop": "spectrum/"},
        {"drop": "plasticity/"},
        {"drop": "rank/"},
        {"drop": "epoch_accuracy"},
        NOT_FINITE,
    ],
)
def test_whatever_is_missing_or_lost_there_is_a_page_with_its_cards(tmp_path, options):
    folder = project_run(tmp_path, **options)
    path = write_run_report(folder)
    assert "Is it losing plasticity?" in path.read_text()
    assert "Can the pictures be trusted?" in path.read_text()


def test_cells_that_are_lost_are_told_and_do_no_harm(tmp_path):
    folder = project_run(tmp_path)
    grid = write_plane(folder, 1, noise_floor=1e-9)
    losses = grid.losses.copy()
    losses[0], losses[1] = math.nan, math.inf
    replace(grid, losses=losses).save(folder / "task_0001_mlp/planes/random")
    card = run_view(folder, "one").cards[-1]
    assert card.answer == "no"
    assert "not finite: 10, in random, task 1" in card.evidence
    write_run_report(folder)


def test_a_damaged_config_is_one_sentence(tmp_path):
    folder = project_run(tmp_path, num_tasks=2)
    (folder / "config.yaml").write_text("{[")
    with pytest.raises(Fault, match="config.yaml is damaged"):
        report([folder])


def test_a_run_that_was_killed_has_a_page_of_what_is_there(tmp_path):
    folder = project_run(tmp_path, num_tasks=2)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text("\n".join([*lines[:-1], lines[-1][:40]]))
    write_plane(folder, 0)
    write_plane(folder, 1)  # of a task whose row was not written
    view = run_view(folder, "one")
    assert [moment.number for moment in view.moments] == [0]
    assert view.facts.startswith("1 of 3 tasks")
    assert "of 1 planes" in view.cards[-1].context
    write_run_report(folder)
    (folder / "metrics.jsonl").write_text(lines[0] + "\n")
    assert run_view(folder, "one").moments == ()
    write_run_report(folder)


def test_runs_of_unequal_tasks_stand_side_by_side(tmp_path):
    one, two = project_run(tmp_path, "one"), project_run(tmp_path, "two", num_tasks=5)
    path = report([one, two], tmp_path / "out.html")
    assert "one beside two" in path.read_text()


def test_runs_of_one_name_are_told_apart(tmp_path):
    one, two = project_run(tmp_path / "a"), project_run(tmp_path / "b")
    text = report([one, two], tmp_path / "out.html").read_text()
    assert "a/project/mlp/one beside b/project/mlp/one" in text


def test_a_name_is_text_and_nothing_else(tmp_path):
    folder = project_run(tmp_path)
    about = json.loads((folder / "run.json").read_text())
    about["config"] |= {"task_shift_mode": HOSTILE, HOSTILE: HOSTILE, "arch": HOSTILE}
    (folder / "run.json").write_text(json.dumps(about))
    row = json.dumps({f"units/{HOSTILE.replace('/', '')}/dead_fraction": 0.5})[1:-1]
    record = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(record.replace('"task/seconds"', f'{row}, "task/seconds"'))
    text = report([folder], tmp_path / "out.html").read_text()
    tags = Tags(text).found
    assert not [given for tag, given in tags if tag == "img" or any(name.startswith("on") for name in given)]
    assert "<script>window.PWNED" not in text
    assert "&lt;/script&gt;" in text
    assert "49" not in re.findall(r"&lt;!-- (.{1,6})", text)


# -- where it goes, and what it refuses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folders", "sentence"),
    [
        (["nothing"], "nothing is the folder of no run and no sweep: there is no metrics.jsonl and no sweep.json in it"),
        (["one", "sweep"], "sweep is a sweep's folder, whose page stands alone"),
    ],
)
def test_what_has_no_page_is_refused(tmp_path, folders, sentence):
    write_run(tmp_path / "one")
    write_sweep(tmp_path / "sweep", {"seed": ["0"]})
    (tmp_path / "nothing").mkdir()
    with pytest.raises(Fault, match=re.escape(sentence)):
        report([tmp_path / folder for folder in folders], tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()


def test_several_runs_need_a_place(tmp_path):
    with pytest.raises(Fault, match=re.escape("2 folders make one page that lies in none of them; say where by --html OUT")):
        report([tmp_path / "a", tmp_path / "b"])


def test_a_users_file_is_kept(tmp_path):
    folder, own = project_run(tmp_path), tmp_path / "own.html"
    own.write_text("mine")
    with pytest.raises(Fault, match=re.escape("own.html exists; give another --html, or --force to write over it")):
        report([folder], own)
    assert own.read_text() == "mine"
    assert report([folder], own, force=True) == own
    assert own.read_text() != "mine"


def test_a_place_that_cannot_be_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Fault, match="cannot write"):
        report([project_run(tmp_path)], tmp_path / "file" / "out.html")


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    folder = project_run(tmp_path)
    (folder / "report.html").mkdir()
    with pytest.raises(Fault, match=r"cannot write .*report\.html: .*; name another place by --html"):
        report([folder])


def test_a_folders_name_that_is_no_utf_8_is_shown_as_far_as_it_is(tmp_path):
    folder = project_run(tmp_path, "caf\udce9")
    assert "caf\ufffd" in write_run_report(folder).read_text()
    assert "caf\ufffd" in report([folder], tmp_path / "out.html").read_text()


@pytest.mark.parametrize("name", ["grid.npy", "meta.json"])
def test_a_damaged_grid_is_named(tmp_path, name):
    write_plane(tmp_path, 0)
    path = tmp_path / "task_0000_mlp/planes/random" / name
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(Fault, match=re.escape("planes/random holds no whole grid")):
        planes_of(tmp_path)


def test_a_page_that_cannot_be_made_does_not_stop_a_run(tmp_path, monkeypatch, caplog):
    def fails(folder):
        raise ValueError("no such colour")

    made = []
    monkeypatch.setattr("taskshift.report.make.write_run_report", fails)
    monkeypatch.setattr("taskshift.pictures.summary.draw_summary", made.append)
    run_module._draw(tmp_path)
    told = f"the page was not made (ValueError: no such colour); `taskshift report {tmp_path}` tries again"
    assert (made, caplog.messages) == ([tmp_path], [told])


# -- a sweep ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sweep(tmp_path):
    grid = {"learner": ["backprop", "l2"], "seed": ["0", "1", "2", "3"]}
    worse = {"backprop": 0.0, "l2": 0.1}
    return write_sweep(tmp_path / "sweep", grid, lambda run, task: worse[run["learner"]] + int(run["seed"]) / 100 + task / 10)


def test_a_configurations_seeds_are_a_band_and_thin_lines(sweep):
    page = sweep_page(sweep)
    assert [run.name for run in page.runs] == ["learner=backprop", "learner=l2"]
    assert page.runs[1].facts == "4 runs: seeds 0, 1, 2, 3"
    [chart] = [chart for panel in page.runs[1].over for chart in panel.charts if chart.title == "task_last_epoch_accuracy"]
    [curve] = chart.series
    assert curve.values == pytest.approx((0.115, 0.215, 0.315))
    reach = 3.182446 * np.std([0, 0.01, 0.02, 0.03], ddof=1) / 2
    assert curve.lower == pytest.approx([value - reach for value in curve.values], rel=1e-6)
    assert curve.members[2] == pytest.approx((0.12, 0.22, 0.32))
    assert [moment.number for moment in page.runs[0].moments] == [0, 1, 2]


def test_configurations_are_compared_pair_by_pair(sweep):
    page = sweep_page(sweep)
    [card] = page.cards
    assert (card.question, card.answer) == ("Does learner=l2 differ from learner=backprop?", "yes")
    assert card.headline == "+0.1 in task_last_epoch_accuracy"
    [table] = page.tables
    assert table.rows[0][:3] == ("l2 − backprop", "task_last_epoch_accuracy", 4)
    assert table.rows[0][4] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("gain", "answer"),
    [((0.1, 0.11, 0.1, 0.09), "yes"), ((0.001, -0.001, 0.0, 0.002), "no"), ((0.1, -0.1, 0.05, -0.02), "cannot tell")],
)
def test_a_difference_is_there_or_not_or_open(tmp_path, gain, answer):
    grid = {"learner": ["backprop", "l2"], "seed": ["0", "1", "2", "3"]}
    gained = {"backprop": (0, 0, 0, 0), "l2": gain}
    folder = write_sweep(tmp_path / "s", grid, lambda run, task: 0.5 + gained[run["learner"]][int(run["seed"])])
    [card] = sweep_page(folder).cards
    assert card.answer == answer
    assert ("Differences of up to 0.02 count for nothing." in card.evidence) is (answer == "no")
    assert ("Too few pairs to tell" in card.evidence) is (answer == "cannot tell")


def test_values_without_a_pair_are_left_out_and_counted(tmp_path):
    grid = {"learner": ["backprop", "l2", "cbp"], "seed": ["0", "1", "2"]}
    gained = {"backprop": 0.0, "l2": 0.1, "cbp": math.nan}
    page = sweep_page(write_sweep(tmp_path / "s", grid, lambda run, task: 0.5 + gained[run["learner"]]))
    assert [card.headline for card in page.cards] == ["+0.1 in task_last_epoch_accuracy"]
    [table] = page.tables
    assert ["cbp − backprop" in row and "task_last_epoch_accuracy" in row for row in table.rows].count(True) == 0
    assert "Left out, as no two runs are a pair: 1." in table.note


def test_values_are_compared_at_the_last_task_that_both_have(tmp_path):
    grid = {"learner": ["backprop", "l2"], "seed": ["0", "1", "2"]}
    folder = write_sweep(tmp_path / "s", grid, lambda run, task: 0.5 + (0.1 * task if run["learner"] == "l2" else 0.0))
    for record in read_sweeps([folder]):
        if record.overrides["learner"] == "l2":  # killed in the third task
            lines = (record.folder / "metrics.jsonl").read_text().splitlines(keepends=True)
            (record.folder / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["task_idx"] < 2))
    page = sweep_page(folder)
    assert [card.headline for card in page.cards] == ["+0.1 in task_last_epoch_accuracy"]
    assert "3 pairs at task 1." in page.cards[0].evidence
    assert page.tables[0].rows[0][2] == 3


def test_a_sweep_of_seeds_alone_is_one_configuration(tmp_path):
    folder = write_sweep(tmp_path / "s", {"seed": ["0", "1"]}, skip=["seed=1"])
    page = sweep_page(folder)
    assert ([run.name for run in page.runs], page.cards, page.tables) == (["s"], (), ())
    assert list(groups_of(read_sweeps([folder]))) == ["s"]


def test_a_sweep_that_has_logged_nothing_says_where_its_runs_are(tmp_path):
    folder = write_sweep(tmp_path / "s", {"seed": ["0"]}, skip=["seed=0"])
    with pytest.raises(Fault, match=re.escape(f"no run of {folder} has logged anything yet; `taskshift status {folder}` says")):
        sweep_page(folder)


def test_the_seeds_trends_answer_for_the_configuration(tmp_path):
    folder = write_sweep(tmp_path / "s", {"seed": ["0", "1", "2"]}, num_tasks=5)
    for number, record in enumerate(read_sweeps([folder])):
        rows = [json.loads(line) for line in (record.folder / "metrics.jsonl").read_text().splitlines()]
        for row in rows:
            if "task_last_epoch_accuracy" in row:
                row |= {"task_last_epoch_loss": 0.1, "task_last_epoch_accuracy": 0.9 - 0.05 * row["task_idx"] + 0.01 * number}
        (record.folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    [card] = sweep_page(folder).runs[0].cards
    assert (card.question, card.answer) == ("Is it losing plasticity?", "yes")
    assert card.headline == "training accuracy in the last epoch 71.0 % ± 0.6"


def test_a_sweeps_page_lies_in_its_folder_and_shares_the_bundle(sweep, tmp_path):
    project = tmp_path / "project"
    folder = project / "sweeps" / "sweep"
    shutil.copytree(sweep, folder)
    for key in ("00000000", "00000001"):
        write_run_json(folder / key, seed=0, num_tasks=3)
        about = json.loads((folder / key / "run.json").read_text())
        about["config"] |= {"output_project": "project"}
        (folder / key / "run.json").write_text(json.dumps(about))
    assert report([folder]) == folder / "report.html"
    assert f'src="../../{LIBRARY}"' in (folder / "report.html").read_text()
    assert (project / LIBRARY).exists()
    assert report([folder / "00000000"]) == folder / "00000000" / "report.html"
    assert f'src="../../../{LIBRARY}"' in (folder / "00000000" / "report.html").read_text()
