"""The pipeline: what it writes, that it goes on, and what it refuses."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import TINY as TINY_RUN
from runs import compose, run_in
from the_pipeline import FOLDER, PLAIN, ROOT, TINY, script

from taskshift.evaluators.mode_connectivity import ModeConnectivity
from taskshift.evaluators.sam import Sam
from taskshift.faults import Fault
from taskshift.nets.mlp import MLP
from taskshift.pipeline.outdir import looked_up, place_for
from taskshift.pipeline.plan import TASKS, read_plan
from taskshift.recorders.numeric_rows import scalar
from taskshift.training import Training

pipeline = script("lla_pipeline")
PLAN = FOLDER / "cfg" / "config.yaml"


def carried_out(outdir: Path, *words: str, plan: tuple[str, ...] = PLAIN) -> Path:
    """What a command line writes."""
    pipeline.main(["--outdir", str(outdir), *plan, *words])
    return outdir


def table_of(outdir: Path) -> dict[str, Any]:
    return json.loads((outdir / "summary" / "summary_table.json").read_text())


def without_times(content: Any) -> Any:
    """Numbers that must be the same again."""
    if isinstance(content, Mapping):
        return {key: without_times(value) for key, value in content.items() if not key.endswith("seconds")}
    return content


def files_of(outdir: Path) -> dict[str, bytes]:
    return {str(path.relative_to(outdir)): path.read_bytes() for path in sorted(outdir.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Everything, once."""
    return carried_out(tmp_path_factory.mktemp("finished") / "results", plan=TINY)


# -- what it writes ---------------------------------------------------------------------------------------------

PLANE = ("contour.png", "surface.png", "grid.npy", "grid.csv", "meta.json")
LAYOUT = {
    **{f"planes/{kind}": set(PLANE) for kind in ("hessian", "random", "trajectory")},
    "spectrum": {"esd.png", "metrics.json"},
    "sam": {"sam_surface.png", "comparison.png", "meta.json"},
    "mode_connectivity": {"curve.png", "metrics.json"},
    "rank": {"metrics.json"},
    "coupling": {"metrics.json"},
    "summary": {"summary_table.json", "summary.md"},
}
"""The plan's layout: folder → files that must be in it."""


@pytest.mark.parametrize("folder", LAYOUT)
def test_the_layout_is_the_plans(finished, folder):
    assert {path.name for path in (finished / folder).iterdir()} >= LAYOUT[folder]


def test_nothing_unfinished_is_left(finished):
    assert [path for path in finished.rglob("*") if "partial" in path.name or path.name == ".scratch"] == []


@pytest.mark.parametrize(
    ("evaluator", "names"),
    [
        ("planes", ["hessian/baseline_loss", "random/max_loss", "trajectory/explained_variance_1", "seconds"]),
        ("spectrum", ["top_eigenvalue_1", "top_eigenvalue_2", "trace", "trace_standard_error", "negative_mass", "seconds"]),
        ("sam", ["sharpness", "rho_absolute", "seconds"]),
        ("mode_connectivity", ["linear_barrier", "curve_barrier", "curve_highest_loss", "seconds"]),
        ("rank", ["approximate_rank", "num_examples", "singular_value_gini", "seconds"]),
        ("coupling", ["num_points", "pearson", "spearman", "drop_gini", "seconds"]),
    ],
)
def test_the_summary_has_the_numbers(finished, evaluator, names):
    found = table_of(finished)[evaluator]
    assert set(names) <= found.keys()
    assert all(math.isfinite(scalar(name, found[name])) for name in names)


def test_the_summary_times_every_block(finished):
    seconds = table_of(finished)["seconds"]
    blocks = ["fine-tune", "second run", "eigenpairs", *(name for names in TASKS.values() for name in names)]
    assert list(seconds) == sorted(seconds, key=lambda name: blocks.index(name) if name in blocks else -1)
    assert set(seconds) == set(blocks)
    assert all(value > 0 for value in seconds.values())


def test_the_page_shows_every_picture(finished):
    text = (finished / "summary" / "summary.md").read_text()
    assert text.startswith("# mlp on digits\n\n")
    assert "trained for 2 epochs from seed 0" in text
    pictures = [path.relative_to(finished) for path in finished.rglob("*.png")]
    assert len(pictures) == 11
    assert all(f"](../{path})" in text for path in pictures)


def test_the_checkpoints_are_spread_over_the_whole_run(finished):
    steps = [int(path.stem.removeprefix("step_")) for path in sorted((finished / "run").rglob("step_*.pt"))]
    assert steps == [0, 2, 3, 5, 7, 8, 10], "7 of 0 to 2 epochs × 5 batches"


def test_the_second_net_is_trained_alike_from_another_seed(finished):
    runs = [json.loads((finished / name / "run.json").read_text())["config"] for name in ("run", "second_run")]
    assert [run["seed"] for run in runs] == [0, 12345]
    assert {key for key in runs[0] if runs[0][key] != runs[1][key]} == {"seed", "run_name", "lla", "recorder"}
    assert not list((finished / "second_run").rglob("step_*.pt"))


def test_the_net_is_the_trained_one(finished):
    net = MLP((1, 8, 8), 10, width=8)
    net.load_state_dict(torch.load(finished / "run" / "checkpoints" / "task_0000.pt", weights_only=True)["net"])
    prepared = pipeline.prepare_data_and_models(PLAN, finished, *TINY)
    inputs, targets = next(iter(prepared._analysis([]).measurement.batches))
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(net(inputs), targets).item()
    found = table_of(finished)
    assert found["planes"]["hessian/baseline_loss"] == pytest.approx(loss, rel=1e-6)
    assert found["mode_connectivity"]["end_loss"] == pytest.approx(loss, rel=1e-6)


def test_the_functions_read_what_is_finished(finished):
    before = files_of(finished / "planes")
    prepared = pipeline.prepare_data_and_models(PLAN, finished, *TINY)
    axes = pipeline.get_hessian_axes(prepared)
    assert len(axes) == 2
    assert abs(axes[0] @ axes[1]) < 1e-3 * axes[0].norm() * axes[1].norm()
    assert pipeline.plot_plane(prepared, "random") == finished / "planes" / "random" / "contour.png"
    assert pipeline.plot_sam_surface(prepared).exists()
    assert pipeline.plot_mode_curve(prepared).exists()
    assert pipeline.compute_spectrum(prepared)["spectrum/top_eigenvalue_1"] == table_of(finished)["spectrum"]["top_eigenvalue_1"]
    assert pipeline.fit_mode_connectivity(prepared).keys() >= {"mode_connectivity/linear_barrier"}
    assert pipeline.track_ranks(prepared).keys() >= {"rank/approximate_rank", "coupling/num_points"}
    assert files_of(finished / "planes") == before


# -- going on ---------------------------------------------------------------------------------------------------


def test_tasks_one_by_one_give_the_same_in_any_order(finished, tmp_path):
    for task in ("rank", "mode", "sam", "spectrum", "planes"):
        carried_out(tmp_path / "own", "--task", task)
    assert without_times(table_of(tmp_path / "own")) == without_times(table_of(finished))
    for kind in ("hessian", "random", "trajectory"):
        assert np.array_equal(
            np.load(tmp_path / "own" / "planes" / kind / "grid.npy"), np.load(finished / "planes" / kind / "grid.npy")
        )


class Cut(BaseException):
    """What a kill looks like from inside."""


@pytest.mark.parametrize(("place", "after"), [("learn", 7), ("learn", 13), ("sam", 0), ("curve", 0)])
def test_cut_off_and_called_again_it_ends_the_same(finished, tmp_path, monkeypatch, place, after):
    calls = 0

    def cut(original):
        def wrapped(*arguments, **named):
            nonlocal calls
            calls += 1
            if calls > after:
                raise Cut
            return original(*arguments, **named)

        return wrapped

    owner, name = {"learn": (Training, "learn"), "sam": (Sam, "__call__"), "curve": (ModeConnectivity, "_curve")}[place]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, cut(getattr(owner, name)))
        with pytest.raises(Cut):
            carried_out(tmp_path / "own")
    carried_out(tmp_path / "own")
    assert without_times(table_of(tmp_path / "own")) == without_times(table_of(finished))


def test_what_is_finished_is_not_run_again(tmp_path, monkeypatch):
    carried_out(tmp_path / "own", "--task", "rank")
    monkeypatch.setattr("taskshift.evaluators.rank.Rank.__call__", lambda *_: pytest.fail("ran again"))
    monkeypatch.setattr(Training, "learn", lambda *_: pytest.fail("trained again"))
    carried_out(tmp_path / "own", "--task", "rank")


# -- nets from elsewhere ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["run's own", "plain", "model_state_dict", "module."])
def test_a_net_that_was_trained_elsewhere(finished, tmp_path, form):
    file = finished / "run" / "checkpoints" / "task_0000.pt"
    state = torch.load(file, weights_only=True)["net"]
    if form != "run's own":
        file = tmp_path / "net.pt"
        wrapped = {f"module.{name}": value for name, value in state.items()}
        torch.save({"plain": state, "model_state_dict": {"model_state_dict": state, "epoch": 3}, "module.": wrapped}[form], file)
    path = sorted(map(str, (finished / "run").rglob("step_*.pt")))
    outdir = carried_out(tmp_path / "own", "--task", "planes", "--checkpoint", str(file), "--trajectory", *path)
    found, known = table_of(outdir), table_of(finished)
    for name in ("hessian/max_loss", "random/max_loss", "trajectory/explained_variance_1"):
        assert found["planes"][name] == pytest.approx(known["planes"][name], rel=1e-4)
    assert found["provenance"] == f"{file}, not trained any further"
    assert found["trained"]
    assert "fine-tune" not in found["seconds"]


def test_overrides_after_the_trajectorys_files(finished):
    given = pipeline.arguments(["--checkpoint", "a.pt", "--trajectory", "b.pt", "c.pt", "data=digits", "lla.sam.rho=0.1"])
    assert given.trajectory == ["b.pt", "c.pt"]
    assert given.overrides == ["data=digits", "lla.sam.rho=0.1"]


@pytest.mark.parametrize(("words", "task"), [((), 1), (("--of-task", "0"), 0)])
def test_a_runs_folder(tmp_path, words, task):
    at_the_end = ("lla.enable_spectrum=false", "lla.enable_sam=false", "lla.planes.include_hessian=false")
    run = run_in(tmp_path, compose(*TINY_RUN, *at_the_end, "task_shift_mode=permuted", "seed=4", "run_name=run", "net.width=7"))
    outdir = carried_out(tmp_path / "own", "--task", "planes", "--checkpoint", str(run), *words)
    known = json.loads((run / f"task_{task:04d}_mlp" / "planes" / "findings.json").read_text())
    found = table_of(outdir)
    assert found["planes"]["random/baseline_loss"] == known["random/baseline_loss"]
    assert found["num_parameters"] == sum(p.numel() for p in MLP((1, 8, 8), 10, width=7).parameters())
    assert found["data"] == "synthetic_images"
    trajectory = json.loads((outdir / "planes" / "trajectory" / "meta.json").read_text())["trajectory"] if task else []
    assert len(trajectory) == (3 if task else 0), "the first net, and those at the tasks' ends"


# -- untrained --------------------------------------------------------------------------------------------------


def test_no_epochs_are_named_in_the_summary(tmp_path):
    outdir = carried_out(tmp_path / "own", "--task", "planes", "lla.training.epochs_short=0")
    found = table_of(outdir)
    assert found["provenance"] == "untrained: as drawn from seed 0"
    assert not found["trained"]
    assert found["planes"]["random/baseline_loss"] == pytest.approx(math.log(10), rel=0.1)
    text = (outdir / "summary" / "summary.md").read_text()
    assert "**This net is untrained: nothing below describes a minimum.**" in text
    assert re.search(r"- planes/trajectory: A plane along the trajectory takes 3 snapshots and this task has \d", text)


# -- the plan's fields ------------------------------------------------------------------------------------------


def run_of(*words: str) -> dict[str, Any]:
    return read_plan(PLAN, ("data=digits", *words)).as_run()


def at(config: Mapping[str, Any], dotted: str) -> Any:
    for key in dotted.split("."):
        config = config[key]
    return config


FIELDS = [
    ("lla.training.epochs_short=3", "epochs", 3),
    ("lla.training.optimizer=adam", "learner.optimizer._target_", "torch.optim.Adam"),
    ("lla.training.lr=0.3", "learner.optimizer.lr", 0.3),
    ("lla.training.weight_decay=0.2", "learner.optimizer.weight_decay", 0.2),
    ("lla.training.max_checkpoints=4", "lla.training.max_checkpoints", 4),
    ("lla.evaluation_data.eval_batch_size=32", "lla.evaluation_data.eval_batch_size", 32),
    ("lla.evaluation_data.dataset_fraction_for_landscape=0.1", "lla.evaluation_data.dataset_fraction_for_landscape", 0.1),
    ("lla.evaluation_data.fixed_eval_seed=5", "lla.evaluation_data.fixed_eval_seed", 5),
    ("lla.planes.grid_resolution=7", "lla.sam.grid_resolution", 7),
    ("lla.planes.high_res=true", "lla.planes.high_res", True),
    ("lla.planes.span=[-0.5,0.5]", "lla.planes.span", [-0.5, 0.5]),
    ("lla.planes.normalization=layer", "lla.planes.normalization", "layer"),
    ("lla.planes.include_random=false", "lla.planes.include_random", False),
    ("lla.planes.bn.eval_mode_only=false", "lla.planes.bn.eval_mode_only", False),
    ("lla.planes.bn.exclude_bn_and_bias=true", "lla.sam.bn.exclude_bn_and_bias", True),
    ("lla.planes.chunk_size=8", "lla.planes.chunk_size", 8),
    ("lla.planes.max_eval_points_cap=2000", "lla.planes.max_eval_points_cap", 2000),
    ("lla.spectrum.top_k=3", "lla.spectrum.top_k", 3),
    ("lla.spectrum.esd.bins=50", "lla.spectrum.esd.bins", 50),
    ("lla.sam.rho=0.1", "lla.sam.rho", 0.1),
    ("lla.sam.subsample_stride=4", "lla.sam.subsample_stride", 4),
    ("lla.mode_connectivity.curve_points=21", "lla.mode_connectivity.curve_points", 21),
    ("lla.mode_connectivity.opt_steps=7", "lla.mode_connectivity.opt_steps", 7),
    ("lla.mode_connectivity.data_subset_batches=2", "lla.mode_connectivity.data_subset_batches", 2),
    ("lla.rank_tracking.batch_size=64", "lla.rank.batch_size", 64),
    ("lla.rank_tracking.batch_size=64", "lla.coupling.batch_size", 64),
    ("lla.rank.approximate_rank_prop=0.9", "lla.coupling.approximate_rank_prop", 0.9),
    ("lla.rank_tracking.compute_gini=false", "lla.rank.compute_gini", False),
    ("lla.runtime.device=cpu", "device", "cpu"),
    ("lla.runtime.fp16=true", "lla.planes.precision", "bfloat16"),
    ("lla.runtime.workers=2", "num_threads", 2),
    ("lla.runtime.abort_if_estimated_hours_over=8", "lla.runtime.abort_if_estimated_hours_over", 8),
    ("lla.logging.save_numpy=false", "lla.planes.save_numpy", False),
    ("lla.logging.save_csv=false", "lla.sam.save_csv", False),
    ("lla.logging.wandb=true", "use_wandb", True),
    ("+lla.dtype=float64", "lla.dtype", "float64"),
]
"""A word of the command line, and where its value arrives in the run behind the plan."""


@pytest.fixture(scope="module")
def changed_everywhere() -> dict[str, Any]:
    """The run of a plan with every field changed."""
    return run_of(*dict.fromkeys(word for word, _, _ in FIELDS))


@pytest.mark.parametrize(("word", "key", "value"), FIELDS)
def test_every_field_reaches_the_run(changed_everywhere, word, key, value):
    assert at(changed_everywhere, key) == value


def test_wandb_and_checkpoints_are_switched_off_and_on():
    config = run_of("use_wandb=true", "lla.training.save_checkpoints=false")
    assert config["use_wandb"]
    assert config["lla"]["training"]["max_checkpoints"] == 0


def test_the_live_line_can_be_left_out():
    assert "console" in run_of()["recorder"]
    assert "console" not in run_of("lla.runtime.pbar=false")["recorder"]


@pytest.mark.parametrize(("word", "left"), [("lla.rank_tracking", {"rank", "coupling"}), ("lla.rank", {"rank", "coupling"})])
def test_ranks_are_switched_by_either_name(word, left):
    plan = read_plan(PLAN, (f"{word}.enable=false",))
    assert set(plan.evaluators("all")) == {"planes", "spectrum", "sam", "mode_connectivity", "rank", "coupling"} - left


def test_a_task_of_a_switched_off_evaluator():
    with pytest.raises(Fault, match=r"^--task sam: lla\.sam\.enable is false; give lla\.sam\.enable=true$"):
        read_plan(PLAN, ("lla.sam.enable=false",)).evaluators("sam")


def test_planes_in_bfloat16(tmp_path):
    only = ("lla.planes.include_hessian=false", "lla.planes.include_trajectory=false")
    outdir = carried_out(tmp_path / "own", "--task", "planes", "lla.runtime.fp16=true", *only)
    meta = json.loads((outdir / "planes" / "random" / "meta.json").read_text())
    assert meta["precision"] == "bfloat16"
    assert meta["precision_error"]["relative"] > 0


def test_without_a_second_run_nothing_is_trained_twice(tmp_path):
    outdir = carried_out(tmp_path / "own", "--task", "mode", "lla.mode_connectivity.use_second_run=false")
    assert not (outdir / "second_run").exists()
    assert "mode_connectivity" in table_of(outdir)["left_out"]


@pytest.mark.parametrize(("name", "net", "seed", "points"), [("config", "ConvNet", 0, 10), ("config_resnet", "ResNet18", 123, 6),
                                                            ("config_vgg", "VGG16", 123, 6)])  # fmt: skip
def test_the_shipped_plans(name, net, seed, points):
    config = read_plan(PLAN.with_name(f"{name}.yaml")).as_run()
    assert config["net"]["_target_"].endswith(f".{net}")
    assert (config["seed"], config["lla"]["training"]["max_checkpoints"]) == (seed, points)
    assert config["data"]["_target_"].endswith(".cifar10")


# -- what it refuses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--task", "plnes"], r"^--task plnes: there is no such task; give planes, spectrum, sam, mode, rank or all$"),
        (["--config", "nowhere.yaml"], r"^nowhere\.yaml: there is no such file in .*, nor in .*"),
        (
            ["--config", str(ROOT / "conf" / "net" / "mlp.yaml")],
            r"it has no defaults list, as cfg/config\.yaml has; copy that one$",
        ),
        (["--config", str(ROOT / "README.md")], r"is no config of this pipeline|cannot be read as a config"),
        (["lla.training.epochs_short=-1"], r"^lla\.training\.epochs_short=-1: expected a whole number, at least 0$"),
        (["lla.runtime.fp16=maybe"], r"^lla\.runtime\.fp16=maybe: expected true or false$"),
        (["lla.sam.enable=3"], r"^lla\.sam\.enable=3: expected true or false$"),
        (["lla.planes.grid_resolutio=9"], r"there is no such key; did you mean lla\.planes\.grid_resolution\?"),
        (["+epochs=3"], r"^epochs: there is no such key"),
        (["+lla.planez.span=auto"], r"^lla\.planez: there is no such key; did you mean lla\.planes\?"),
        (["learner/optimizer=adam"], r"^learner/optimizer=adam: here the optimizer is lla\.training\.optimizer=adam$"),
        (["lla.training.optimizer=adamm"], r"^learner/optimizer=adamm: there is no such optimizer; give .*adam, "),
        (["data=cifar10", "data.root=nowhere", "data.train_size=null", "~data.x"], r"^~data\.x: there is no such key to delete"),
        (["--checkpoint", "nowhere.pt"], r"^nowhere\.pt: there is no such file in "),
        (["--trajectory", "a.pt"], r"^--trajectory: snapshots are on the way to a net; give that as --checkpoint$"),
    ],
)
def test_bad_words_are_a_sentence_and_write_nothing(tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Fault, match=sentence):
        carried_out(tmp_path / "own", *words)
    assert list(tmp_path.iterdir()) == []


def test_a_config_of_another_schema(tmp_path):
    with pytest.raises(Fault) as caught:
        carried_out(tmp_path / "own", "--config", str(FOLDER / "cfg" / "task_shift_config.yaml"), plan=())
    assert re.search(
        r"task_shift_config\.yaml is no config of this pipeline: it lacks lla\.training\.epochs_short, lla\.training\.optimizer, "
        r"lla\.training\.lr and \d+ more$",
        str(caught.value),
    )


def test_data_that_are_not_there(tmp_path):
    with pytest.raises(Fault, match=r"^data\.root=nowhere: cifar10 is not there, data_batch_1.* should be in "):
        pipeline.main(["--outdir", str(tmp_path / "own"), "data.root=nowhere"])
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_net_names_what_differs(finished, tmp_path):
    file = str(finished / "run" / "checkpoints" / "task_0000.pt")
    lacks = r"it lacks features\.conv_1\.weight, features\.conv_1\.bias, features\.conv_2\.weight and \d+ more"
    with pytest.raises(Fault, match=lacks):
        carried_out(tmp_path / "own", "--checkpoint", file, "net=convnet", plan=("data=digits", "data.train_size=40"))
    with pytest.raises(Fault, match=r"its hidden\.linear_1\.weight has the shape \[8, 64\], the net's \[9, 64\]; give the net"):
        carried_out(tmp_path / "own", "--checkpoint", file, "net.width=9")
    assert list(tmp_path.iterdir()) == []


def test_a_trajectory_of_another_net(finished, tmp_path):
    torch.save({"w": torch.ones(3)}, tmp_path / "other.pt")
    file = str(finished / "run" / "checkpoints" / "task_0000.pt")
    with pytest.raises(Fault, match=r"other\.pt does not fit the net: it lacks hidden\.linear_1\.weight, "):
        carried_out(tmp_path / "own", "--checkpoint", file, "--trajectory", str(tmp_path / "other.pt"))


def test_a_task_that_the_run_has_not(finished):
    with pytest.raises(Fault, match=r"^--of-task 3: .* has kept the nets of the tasks 0$"):
        pipeline.prepare_data_and_models(PLAN, "x", *PLAIN, checkpoint=finished / "run", of_task=3)
    with pytest.raises(Fault, match=r"^--of-task 0: .* is one net; tasks are chosen from a run's folder"):
        pipeline.prepare_data_and_models(
            PLAN, "x", *PLAIN, checkpoint=finished / "run" / "checkpoints" / "task_0000.pt", of_task=0
        )


def test_an_outdir_of_another_configuration_is_left_as_it_is(finished):
    before = files_of(finished)
    with pytest.raises(Fault) as caught:
        carried_out(finished, "seed=3", "lla.spectrum.top_k=4", plan=TINY)
    assert caught.value.sentences == (
        f"{finished} holds another analysis; give another --outdir, or the settings it has:",
        "lla.spectrum.top_k: it was begun with 2, this command says 4",
        "seed: it was begun with 0, this command says 3",
    )
    assert files_of(finished) == before


def test_where_and_how_it_computes_may_change(finished):
    free = ("lla.runtime.pbar=false", "lla.runtime.abort_if_estimated_hours_over=100", "lla.sam.enable=false")
    carried_out(finished, "--task", "rank", *free, plan=TINY)


def test_a_strangers_folder_is_left_as_it_is(tmp_path):
    (tmp_path / "planes").mkdir()
    (tmp_path / "planes" / "plane_hessian.npy").write_text("years of work")
    with pytest.raises(Fault, match=r"exists and is no folder of this pipeline; give another --outdir, or move it away$"):
        carried_out(tmp_path)
    assert list(files_of(tmp_path)) == ["planes/plane_hessian.npy"]


def test_an_outdir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Fault, match=r"^--outdir .*file/own: this folder cannot be made \(Not a directory\); give one "):
        carried_out(tmp_path / "file" / "own")


def test_a_plane_that_takes_too_long(tmp_path):
    limit = "lla.runtime.abort_if_estimated_hours_over=1e-9"
    with pytest.raises(Fault, match=r"in the evaluator planes at the end of task 0; .* lla\.planes\.enable=false"):
        carried_out(tmp_path / "own", "--task", "planes", "lla.planes.grid_resolution=31", limit)


def test_two_at_once(finished):
    from taskshift.run_folder import held

    with (
        held(finished, ""),
        pytest.raises(Fault, match=r"^another process is at work in .*; wait for it, or give another --outdir$"),
    ):
        carried_out(finished, plan=TINY)


# -- the documents ----------------------------------------------------------------------------------------------

ITS = "experiments/Hessian_and_landscape_plot_with_plasticity_loss"
SEEDS_COMMANDS = [
    f"python lla_pipeline.py --config {ITS}/cfg/{config}.yaml --task {task} --outdir {ITS}/{outdir}"
    for config, task, outdir in (
        ("config", "all", "results"),
        ("config_resnet", "planes", "results_resnet"),
        ("config_resnet", "spectrum", "results_resnet"),
        ("config_resnet", "sam", "results_resnet"),
    )
]


def commands_of(readme: Path) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", readme.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("python lla_pipeline.py")]


def test_the_readme_has_the_seeds_commands():
    assert commands_of(FOLDER / "README.md")[:4] == SEEDS_COMMANDS


@pytest.mark.parametrize("line", [*SEEDS_COMMANDS, *commands_of(FOLDER / "README.md")[4:6]])
@pytest.mark.parametrize("place", [FOLDER, ROOT])
def test_commands_mean_the_same_from_the_folder_and_from_the_root(monkeypatch, line, place):
    monkeypatch.chdir(place)
    given = pipeline.arguments(shlex.split(line)[2:])
    assert looked_up(given.config, ROOT).resolve().parent == FOLDER / "cfg"
    if given.outdir.startswith("experiments"):
        assert place_for(given.outdir, ROOT).resolve().parent == FOLDER


@pytest.mark.parametrize("line", commands_of(FOLDER / "README.md"))
def test_the_readmes_commands_have_plans(monkeypatch, line):
    monkeypatch.chdir(FOLDER)
    given = pipeline.arguments(shlex.split(line)[2:])
    plan = read_plan(looked_up(given.config, ROOT).resolve(), given.overrides)
    assert plan.evaluators(given.task)


# -- places -----------------------------------------------------------------------------------------------------


def test_paths_are_looked_up_here_then_in_the_repository(tmp_path, monkeypatch):
    root, here = tmp_path / "root", tmp_path / "here"
    (root / "cfg").mkdir(parents=True)
    (root / "cfg" / "a.yaml").touch()
    here.mkdir()
    monkeypatch.chdir(here)
    assert looked_up("cfg/a.yaml", root) == root / "cfg" / "a.yaml"
    (here / "cfg").mkdir()
    (here / "cfg" / "a.yaml").touch()
    assert looked_up("cfg/a.yaml", root) == Path("cfg/a.yaml")


def test_an_outdir_lies_beside_what_is_there(tmp_path, monkeypatch):
    root, here = tmp_path / "root", tmp_path / "here"
    (root / "experiments").mkdir(parents=True)
    here.mkdir()
    monkeypatch.chdir(here)
    assert place_for("experiments/results", root) == root / "experiments" / "results"
    assert place_for("results", root) == Path("results")
    assert place_for("new/deep/results", root) == Path("new/deep/results")
    (root / "results").mkdir()
    assert place_for("results", root) == root / "results"
