"""Every yaml in conf/ composes, passes the checks, and lists what its constructor takes: a new one is under test at once."""

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from taskshift.config.check import evaluator_blocks
from taskshift.config.command import compose, conf_folder
from taskshift.config.construct import own_keys, read_block
from taskshift.config.schema import LlaHead, Top
from taskshift.config.targets import resolve
from taskshift.data.labelled_data import LabelledData
from taskshift.evaluators.evaluator import Evaluator
from taskshift.evaluators.watcher import Watcher
from taskshift.faults import Fault
from taskshift.learners.learner import Learner
from taskshift.recorders.recorder import Recorder
from taskshift.shifts.source import Source
from taskshift.shifts.task import TaskShift

CONF = conf_folder()
FILES = {str(path.relative_to(CONF).with_suffix("")): path for path in sorted(CONF.rglob("*.yaml"))}
OWN = sorted(name for name in FILES if name.endswith("/own"))
PRESETS = [name for name in FILES if name.startswith(("experiment/", "debug/"))]
MODES = [name for name in FILES if name.startswith("task_shift_mode/")]
LISTS = ("lla", "watch", "recorder", "learner/regularizers", "learner/interventions")
CHOICES = [name for name in FILES if name != "config" and not name.startswith("hydra/") and name not in OWN]
GROUPS = {
    group: [name for name in CHOICES if name.rpartition("/")[0] == group] for group in {n.rpartition("/")[0] for n in CHOICES}
}


def _config(name):
    """A config that has this file in it, and of the other groups the file of the same rank: few compositions hold all files."""
    rank = GROUPS[name.rpartition("/")[0]].index(name)
    return _composed(name if name in PRESETS else None, rank)


@functools.cache
def _composed(preset, rank):
    if preset:
        return compose(_override(preset))
    return compose(*(_override(names[rank % len(names)]) for names in GROUPS.values() if names[0] not in PRESETS))


def _override(name):
    """What chooses this file on the command line."""
    group, _, choice = name.rpartition("/")
    if group not in LISTS or name == "lla/default":
        return f"{group}={choice}"
    return f"{group}=[default,{choice}]" if group == "lla" else f"{group}=[{choice}]"


def _top_blocks(config):
    """(where, block, wanted) for every object that a run constructs from its config."""
    if config["data"] is not None:
        yield "data", config["data"], LabelledData
    yield "task_shift", config["task_shift"], TaskShift | Source
    yield "net", config["net"], nn.Module
    yield "learner", config["learner"], Learner
    yield from ((f"lla.{name}", block, Evaluator) for name, block in evaluator_blocks(config["lla"]).items())
    yield from ((f"watch.{name}", block, Watcher) for name, block in config["watch"].items())
    yield from ((f"recorder.{name}", block, Recorder) for name, block in config["recorder"].items())


def _blocks(where, block):
    """A block and those inside it that have a `_target_`."""
    if "_target_" in block:
        yield where, block
    for key, value in block.items():
        if isinstance(value, Mapping):
            yield from _blocks(f"{where}.{key}", value)


@pytest.mark.parametrize("name", CHOICES)
def test_every_file_composes_and_fits_its_signatures(name):
    config = _config(name)
    faults = []
    for where, block, wanted in _top_blocks(config):
        read_block(where, block, wanted, (), faults)
    assert faults == []


@pytest.mark.parametrize("name", CHOICES)
def test_every_block_lists_every_argument(name):
    config = _config(name)
    for where, block, _ in _top_blocks(config):
        for place, inner in _blocks(where, block):
            target = resolve(inner["_target_"], object, place)
            unfinished = issubclass(target, (Optimizer, LRScheduler)) if inspect.isclass(target) else False
            listed, known = set(inner) - {"_target_"}, set(own_keys(target, unfinished=unfinished))
            if inner["_target_"].startswith("pytorch_optimizer."):  # whose versions add some, and some no yaml can hold
                assert listed <= known, place
            else:
                assert listed == known, place


@pytest.mark.parametrize("name", CHOICES)
def test_our_constructors_annotate_every_argument(name):
    for where, block, _ in _top_blocks(_config(name)):
        for place, inner in _blocks(where, block):
            target = resolve(inner["_target_"], object, place)
            if target.__module__.startswith("taskshift"):
                bare = [one for one in inspect.signature(target).parameters.values() if one.annotation is one.empty]
                assert not bare, place


@pytest.mark.parametrize("name", OWN)
def test_a_users_own_asks_for_its_class(name):
    with pytest.raises(Fault, match=r"_target_ has no value; give one: \S+\._target_=…"):
        compose(_override(name))


@pytest.mark.parametrize("name", [*MODES, *PRESETS])
def test_what_writes_at_the_top_says_so_in_line_one(name):
    assert FILES[name].read_text().splitlines()[0] == "# @package _global_"


@pytest.mark.parametrize("name", MODES)
def test_a_mode_names_itself(name):
    assert yaml.safe_load(FILES[name].read_text())["task_shift_mode"] == name.rpartition("/")[2]


@pytest.mark.parametrize("name", [name for name in FILES if name != "config"])
def test_every_file_says_what_it_is(name):
    assert any(line.startswith("# ") and "@package" not in line for line in FILES[name].read_text().splitlines()[:2])


def test_top_level_keys_are_those_of_the_schema():
    assert set(compose()) == {field.name for field in dataclasses.fields(Top)}


def test_head_of_lla_is_that_of_the_schema():
    lla = compose()["lla"]
    switches = {key for key in lla if key.startswith("enable_")}
    assert set(lla) - switches - set(evaluator_blocks(lla)) == {field.name for field in dataclasses.fields(LlaHead)}


def test_every_evaluator_has_its_switch():
    for name in (name for name in FILES if name.startswith("lla/") and name not in OWN):
        lla = _config(name)["lla"]
        assert {key.removeprefix("enable_") for key in lla if key.startswith("enable_")} == set(evaluator_blocks(lla))


def test_defaults_of_the_design():
    config = compose()
    on = {name for name in evaluator_blocks(config["lla"]) if config["lla"][f"enable_{name}"]}
    assert on == {"planes", "spectrum", "rank", "units", "weights", "plasticity", "coupling"}
    assert (config["arch"], config["task_shift_mode"], config["wandb"]["mode"]) == ("mlp", "permuted", "offline")
    assert config["wandb"]["project"] == "loss_landscape_taskshift_permuted"


def test_no_key_has_a_path_or_a_device_of_its_own():
    for path in FILES.values():
        assert not any(word in path.read_text() for word in ("/home/", "/tmp/", "cuda:0", str(Path.home())))
