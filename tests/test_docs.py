"""The documents do what they say: commands compose, examples run, links lead somewhere, names exist."""

from __future__ import annotations

import argparse
import importlib
import inspect
import pydoc
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml
from documents import (
    DOCUMENTS,
    ROOT,
    TEXTS,
    anchors,
    blocks_of,
    commands_of,
    inline,
    plugins_in,
    prose,
    put_together,
    words_of,
    write_plugins,
)
from metric_names import undocumented
from runs import run_in
from torch import nn
from torch.optim import Optimizer

import loss_landscape
from hydra_plugins.taskshift_sweeps.launcher import LauncherConfig
from loss_landscape.cli import command as loss_landscape_command
from scripts.metrics_page import declared, with_tables
from taskshift.cli import COMMANDS
from taskshift.config.check import evaluator_blocks
from taskshift.config.command import compose, conf_folder
from taskshift.config.construct import own_keys, read_block
from taskshift.config.targets import import_plugins, resolve
from taskshift.data.labelled_data import LabelledData
from taskshift.evaluators.evaluator import Evaluator
from taskshift.evaluators.watcher import Watcher
from taskshift.learners.learner import Learner
from taskshift.recorders.recorder import Recorder
from taskshift.run import run
from taskshift.run_folder import read_quantities, read_rows
from taskshift.shifts.source import Source
from taskshift.shifts.task import TaskShift

TRAINING = [(name, words) for name in TEXTS for command in commands_of(name) if (words := words_of(command)) is not None]
EXTENDING = [words for name, words in TRAINING if name == "EXTENDING.md"]
PLUGINS = [words for words in EXTENDING if any(word.startswith(("plugins=", "hydra.searchpath=")) for word in words)]
SMALL = (
    "num_tasks=2", "epochs=1", "batch_size=128", "use_wandb=false", "num_threads=1", "lla.evaluation_data.eval_batch_size=64",
    "lla.logging.save_plots=false", "lla.enable_planes=false", "lla.enable_spectrum=false",
)  # fmt: skip
"""What makes a run of an example take a fraction of a second."""


# -- where examples live ----------------------------------------------------------------------------------------


def forget_modules_below(folder: Path) -> None:
    """Take the modules that were found below `folder` out of the interpreter."""
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) and Path(module.__file__).is_relative_to(folder):
            del sys.modules[name]
            parent, _, own = name.rpartition(".")
            if parent in sys.modules:
                delattr(sys.modules[parent], own)
    importlib.invalidate_caches()


@pytest.fixture
def working_directory(tmp_path, monkeypatch) -> Iterator[Path]:
    """An empty folder to be in; plugins that were found there are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    forget_modules_below(tmp_path)


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Iterator[Path]:
    """EXTENDING's files as if they were in the repository: a copy of conf/ with their yamls, and packages with their modules."""
    root = tmp_path_factory.mktemp("repository")
    shutil.copytree(conf_folder(), root / "conf", ignore=shutil.ignore_patterns("__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        for block in (block for block in blocks_of("EXTENDING.md") if block.file and block.file.startswith(("src/", "conf/"))):
            assert not (ROOT / block.file).exists(), f"{block.file} is in the repository already: the example needs another name"
            path = root / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
            if block.language == "python":
                package = importlib.import_module(".".join(path.parent.relative_to(root / "src").parts))
                patch.setattr(package, "__path__", list(dict.fromkeys([*package.__path__, str(path.parent)])))
        yield root / "conf"
        forget_modules_below(root)


def checked(words: list[str], conf: Path | None = None) -> dict:
    """The config of a command after all checks that need no data."""
    config = compose(*words, conf=conf)
    import_plugins(config["plugins"])
    faults: list[str] = []
    for where, block, wanted in _blocks_of(config):
        read_block(where, block, wanted, config["plugins"], faults)
    assert faults == []
    return config


def _blocks_of(config):
    if config["data"] is not None:
        yield "data", config["data"], LabelledData
    yield "task_shift", config["task_shift"], TaskShift | Source
    yield "net", config["net"], nn.Module
    yield "learner", config["learner"], Learner
    yield from ((f"lla.{name}", block, Evaluator) for name, block in evaluator_blocks(config["lla"]).items())
    yield from ((f"watch.{name}", block, Watcher) for name, block in config["watch"].items())
    yield from ((f"recorder.{name}", block, Recorder) for name, block in config["recorder"].items())


def ran(words: list[str], folder: Path, conf: Path | None = None) -> Path:
    """The folder of a run of two short tasks; what the words themselves say counts."""
    said = {word.partition("=")[0] for word in words}
    small = [word for word in SMALL if word.partition("=")[0] not in said]
    makes_its_own = compose(*words, conf=conf)["data"] is None
    small += [] if said & {"data", "experiment"} or makes_its_own else ["data=synthetic_images"]
    return run_in(folder, checked([*small, *words, "run_name=example"], conf))


def num_rows(folder: Path) -> int:
    """How many rows a run has logged of epochs and of tasks' ends."""
    return sum("epoch_loss" in row or "task_last_epoch_loss" in row for row in read_rows(folder))


# -- commands ---------------------------------------------------------------------------------------------------


ELSEWHERE = [(name, words) for name, words in TRAINING if name != "EXTENDING.md"]


@pytest.mark.parametrize(("name", "words"), ELSEWHERE, ids=[" ".join([name, *words]) for name, words in ELSEWHERE])
def test_every_training_command_passes_the_checks(name, words, working_directory):
    write_plugins(working_directory, name)
    checked(words)


def test_the_documents_have_commands():
    assert {"README.md", "EXTENDING.md", "EXPERIMENTS.md", "DATA_LOADING.md"} <= {name for name, _ in TRAINING}
    assert any("--multirun" in command for command in commands_of("README.md"))


@pytest.mark.parametrize("name", TEXTS)
def test_taskshift_commands_exist(name):
    found = re.findall(r"^taskshift (?!train\b)(\S+)", "\n".join(commands_of(name)), re.MULTILINE)
    assert set(found) <= set(COMMANDS)


@pytest.mark.parametrize("name", TEXTS)
def test_options_of_taskshift_commands_are_taken(name):
    for command in set(commands_of(name)) - set(inline(name)):  # those between backticks may be a command's name alone
        words = shlex.split(command, comments=True)
        if words[0] == "taskshift" and words[1] != "train":
            parser = argparse.ArgumentParser(command, allow_abbrev=False)
            COMMANDS[words[1]][1](parser)
            parser.parse_args(words[2:])


@pytest.mark.parametrize("name", TEXTS)
def test_make_targets_exist(name):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {match for command in commands_of(name) for match in re.findall(r"^make ([a-z-]+)", command)}
    assert named <= targets


@pytest.mark.parametrize("name", TEXTS)
def test_options_of_scripts_exist(name):
    for command in commands_of(name):
        words = shlex.split(command, comments=True)
        if words[0].startswith("python") and words[1].startswith("scripts/"):
            source = (ROOT / words[1]).read_text()
            assert all(f'"{word}"' in source for word in words[2:] if word.startswith("--")), command


# -- keys and choices -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known_keys() -> set[str]:
    """Every dotted key that some yaml of conf/ has, every group, and those of our launcher."""
    keys = set(_dotted(compose())) | {str(path.relative_to(conf_folder())) for path in conf_folder().rglob("*") if path.is_dir()}
    for path in sorted(conf_folder().rglob("*.yaml")):
        content, group = yaml.safe_load(path.read_text()), path.relative_to(conf_folder()).parent.parts
        at = "" if "@package _global_" in path.read_text() else ".".join(group)
        keys |= set(_dotted({key: value for key, value in content.items() if key != "defaults"}, at))
    return keys | {f"hydra.launcher.{one.name}" for one in fields(LauncherConfig)}


def _dotted(node, at: str = "") -> Iterator[str]:
    if at:
        yield at
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _dotted(value, f"{at}.{key}" if at else str(key))


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "EXPERIMENTS.md", "DATA_LOADING.md"])
def test_every_key_that_the_prose_names_exists(name, known_keys):
    words = [word for code in inline(name) for word in code.split() if re.match(r"'?[a-z_/]+(\.\w+)*=", word)]
    keys = {word.strip("'").partition("=")[0] for word in words} - {"plugins", "hydra.searchpath"}
    assert keys <= known_keys | {"net._target_", "data._target_"}


@pytest.mark.parametrize("group", ["data", "net", "learner", "task_shift_mode", "watch", "recorder"])
def test_readme_lists_every_choice(group):
    choices = {path.stem for path in (conf_folder() / group).glob("*.yaml")} - {"own", "default"}
    [listed] = [code.partition("=")[2].split("|") for code in inline("README.md") if re.match(rf"{group}=\w+\|", code)]
    assert set(listed) == choices


# -- examples ---------------------------------------------------------------------------------------------------


OWN = [(name, words) for name, words in ELSEWHERE if plugins_in(words)]
IN_REPOSITORY = [words for words in EXTENDING if words not in PLUGINS]


@pytest.mark.parametrize(("name", "words"), OWN, ids=[name for name, _ in OWN])
def test_a_users_own_net_and_data_run(name, words, working_directory):
    write_plugins(working_directory, name)
    assert len(read_rows(ran(words, working_directory))) == 4


@pytest.mark.parametrize("words", put_together(IN_REPOSITORY)[1:], ids=" ".join)
def test_examples_of_extending_run_in_the_repository(words, repository, tmp_path):
    assert num_rows(ran(words, tmp_path, repository)) == 4


@pytest.mark.parametrize("words", put_together(PLUGINS), ids=" ".join)
def test_examples_of_extending_run_as_plugins(words, working_directory):
    write_plugins(working_directory, "EXTENDING.md")
    assert num_rows(ran(words, working_directory)) == 4


def test_most_examples_in_one_run_then_extended(repository, tmp_path):
    """Evaluator and gradient say what their numbers are; the recorder mirrors a resumed run whole."""
    words = put_together(IN_REPOSITORY)[0]
    folder = ran([*words, "num_tasks=1"], tmp_path, repository)
    folder = ran([*words, "num_tasks=3"], tmp_path, repository)
    names, said = sorted({name for row in read_rows(folder) for name in row}), read_quantities(folder)
    assert undocumented(names) == ["churn/share", "learner/gradient/norm", "top_subspace/share"]
    assert [name for name in names if said.of(name) is None] == []
    assert [line.split(",")[0] for line in (folder / "epochs.csv").read_text().splitlines()] == ["global_epoch", "0", "1", "2"]


def test_every_file_of_extending_is_used_by_a_command():
    """Each module both in the repository and as a plugin, each yaml at all."""
    files = [(block.language, Path(block.file).stem) for block in blocks_of("EXTENDING.md") if block.file]
    modules = {stem for language, stem in files if language == "python"}
    yamls = {stem for language, stem in files if language == "yaml"}
    assert modules <= {name for words in PLUGINS for name in plugins_in(words)}
    assert modules <= _named_in(IN_REPOSITORY)
    assert yamls - {"my_residual"} <= _named_in(EXTENDING)  # that one is chosen by the preset


def _named_in(commands: list[list[str]]) -> set[str]:
    return {name for words in commands for word in words for name in re.findall(r"\w+", word)}


def test_yamls_of_extending_list_every_argument(repository):
    for block in blocks_of("EXTENDING.md"):
        if block.language != "yaml" or not block.file.startswith("conf/"):
            continue
        assert sum(line.startswith("# ") for line in block.text.splitlines()[:2]) > 0, "says what it is"
        for target_block in _with_target(yaml.safe_load(block.text)):
            target = resolve(target_block["_target_"], object, block.file)
            unfinished = inspect.isclass(target) and issubclass(target, Optimizer)
            by_group = {"optimizer"} if "defaults" in target_block else set()
            written = set(target_block) - {"_target_", "defaults"}
            assert written == set(own_keys(target, unfinished=unfinished)) - by_group, block.file


def _with_target(node) -> Iterator[dict]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from _with_target(value)


# -- EXPERIMENTS and API ----------------------------------------------------------------------------------------


def test_python_of_experiments_runs_on_a_run_folder(tmp_path, monkeypatch, capsys):
    small = [word for word in SMALL if "enable_planes" not in word]
    planes = [f"lla.planes.{key}" for key in ("grid_resolution=5", "include_hessian=false", "include_trajectory=false")]
    given = ["data=synthetic_images", "lla.plasticity.control=true", *small, *planes]
    runs = {"plain": [], "another_seed": ["seed=1"], "l2": ["learner=l2"]}
    folders = {name: run_in(tmp_path, compose(*given, *more, f"run_name={name}")) for name, more in runs.items()}
    shutil.copytree(folders["plain"], folders["plain"].with_name("plain_again"))
    for copy, name in enumerate(["plain", "another_seed", "l2", "l2"]):
        shutil.copytree(folders[name], tmp_path / "outputs" / "l2_helps" / "mlp" / str(copy))
    monkeypatch.chdir(tmp_path)
    for block in blocks_of("EXPERIMENTS.md"):
        if block.language == "python":
            exec(compile(block.text, "EXPERIMENTS.md", "exec"), {})
    said = capsys.readouterr().out
    assert re.search(r"^1 [01]\.\d+ -?0\.\d+$", said, re.MULTILINE), "task, accuracy, gap"
    assert set(re.findall(r"^(\w+) 0\.\d+ ± 0\.\d+$", said, re.MULTILINE)) == {"backprop", "l2"}
    assert re.search(r"^task_0001_mlp \d", said, re.MULTILINE)
    assert "metrics.jsonl row 0: epoch_loss is" in said


def test_python_of_architecture_is_what_a_run_does():
    [block] = [block for block in blocks_of("ARCHITECTURE.md") if block.language == "python"]
    first, *said = [line.partition("  #")[0].strip() for line in block.text.splitlines()]
    assert first == "job = build(config)"
    assert [line for line in map(str.strip, inspect.getsource(run).splitlines()) if line in said] == said


def test_api_runs_and_names_what_is_exported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    headings = "\n".join(re.findall(r"^### .+$", TEXTS["API.md"], re.MULTILINE))
    names = re.findall(r"`(\w+)`", headings)
    assert sorted(names) == sorted(loss_landscape.__all__)
    example = "".join(block.text for block in blocks_of("API.md") if block.language == "python")
    exec(compile(example, "API.md", "exec"), {})
    assert [name for name in names if not re.search(rf"\b{name}\b", example)] == []


def test_the_tables_of_metrics_are_the_declared_ones():
    assert with_tables(TEXTS["METRICS.md"], declared()) == TEXTS["METRICS.md"], "python scripts/metrics_page.py writes it anew"


def test_python_of_the_writer_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = "".join(block.text for block in blocks_of("WRITER.md") if block.language == "python")
    exec(compile(example, "WRITER.md", "exec"), {})
    assert (tmp_path / "runs" / "exp1" / "landscape.json").exists()


def test_the_three_lines_of_the_readme_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [block] = [block for block in blocks_of("README.md") if block.file == "landscape.py"]
    given = {"model": nn.Linear(2, 3), "loader": [(torch.ones(4, 2), torch.zeros(4).long())], "loss_fn": nn.CrossEntropyLoss()}
    exec(compile(block.text, "README.md", "exec"), given)
    assert (tmp_path / "runs" / "exp1" / "landscape.json").exists()


def test_commands_of_the_writer_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = [line for name in TEXTS for line in commands_of(name) if line.startswith("loss_landscape ") and "outputs" not in line]
    assert [line.split()[1] for line in lines][:5] == list(loss_landscape_command.COMMANDS)
    for line in lines:
        assert loss_landscape_command.run(shlex.split(line)[1:]) == 0, line
    assert "cannot tell" in capsys.readouterr().out


# -- names and links --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEXTS)
def test_relative_links_resolve(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(name)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (DOCUMENTS[name].parent / path).resolve() if path else DOCUMENTS[name]
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked.read_text()), target


@pytest.mark.parametrize("name", TEXTS)
def test_files_that_are_named_exist(name):
    named = {word for code in inline(name) for word in re.findall(r"^(?:src|conf|tests|scripts|docs|\.ci)/[\w./-]+", code)}
    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_the_map_names_every_module_and_no_other():
    named = set(re.findall(r"`([\w/]+\.py)`", TEXTS["CODEBASE_OVERVIEW.md"]))
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("*.py") if _has_code(path)}
    assert modules - named == set()
    assert {path for path in named if not (ROOT / path).exists()} == set()


def _has_code(path: Path) -> bool:
    """An `__init__.py` that only says what its folder is needs no line of its own."""
    return path.name != "__init__.py" or re.search(r"^(from|import) ", path.read_text(), re.MULTILINE) is not None


@pytest.mark.parametrize("name", TEXTS)
def test_python_names_in_prose_exist(name):
    names = [
        code.partition("(")[0] for code in inline(name) if re.fullmatch(r"(taskshift|loss_landscape)(\.\w+)+(\(.*\))?", code)
    ]
    assert [one for one in names if pydoc.locate(one) is None] == []


def test_the_changelog_has_the_present_version():
    version = re.search(r'version="([\d.]+)"', (ROOT / "setup.py").read_text())[1]
    assert re.search(rf"^## \[{re.escape(version)}\]", TEXTS["CHANGELOG.md"], re.MULTILINE)
