"""Configs composed in a batch are those that Hydra composes one by one, and so are the errors."""

from contextlib import contextmanager

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode

from taskshift.config.command import VERSION_BASE, conf_folder, without_hydra
from taskshift.config.compositions import Compositions

JOBS = [
    [],
    ["seed=3"],
    ["seed=4", "learner=l2", "net.width=7"],
    ["seed=5", "learner=l2", "net.width=7"],
    ["learner=l2", "net=convnet", "learner.optimizer.lr=0.5"],
    ["learner/optimizer=adam", "seed=2"],
    ["lla=[default,own]", "lla.own._target_=my.Own"],
    ["task_shift_mode=class_pairs", "data=synthetic_images"],
    ["experiment=quick", "epochs=9"],
    ["debug=tiny", "seed=1", "seed=2"],
    ["+net.depth_of_my_own=[1,{a: 2}]", "~lla.sam"],
    ["++wandb.notes='a=b, c'", "wandb.entity=null"],
    ["net.width=${batch_size}", "batch_size=8"],
    ["net={width: 3}"],
]


@contextmanager
def _loaded(*fixed):
    """Hydra's loader, and the config of a --multirun with these overrides."""
    with hydra.initialize_config_dir(str(conf_folder().resolve()), version_base=VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        yield loader, loader.load_configuration("config", [*fixed, "hydra.mode=MULTIRUN"], RunMode.MULTIRUN)


def test_every_config_is_hydras_own():
    with _loaded("use_wandb=false") as (loader, command):
        compositions = Compositions(loader, command)
        for words in JOBS:
            assert compositions.config(words) == without_hydra(loader.load_sweep_config(command, words)), words


def test_no_config_changes_another():
    with _loaded() as (loader, command):
        compositions = Compositions(loader, command)
        before = compositions.config([])
        compositions.config(["net.width=7", "+net.depth_of_my_own=1"])["lla"]["planes"] = None
        assert compositions.config([]) == before


@pytest.mark.parametrize(
    "word", ["net.widht=3", "net=mpl", "+seed=3", "~seed_of_mine", "seed=1,2", "+lla=3", "lla.sam@here=2", "a b"]
)
def test_a_bad_word_fails_as_it_does_in_hydra(word):
    with _loaded() as (loader, command):
        with pytest.raises((HydraException, ValueError)) as theirs:
            loader.load_sweep_config(command, [word])
        with pytest.raises(type(theirs.value)) as ours:
            Compositions(loader, command).config([word])
    assert str(ours.value) == str(theirs.value)
    assert str(ours.value.__cause__) == str(theirs.value.__cause__)


def test_files_are_merged_once_for_each_choice(monkeypatch):
    with _loaded() as (loader, command):
        merged = []
        whole = loader.load_sweep_config
        monkeypatch.setattr(
            loader, "load_sweep_config", lambda command, words: merged.append(list(words)) or whole(command, words)
        )
        compositions = Compositions(loader, command)
        for learner in ("backprop", "l2"):
            for seed in range(3):
                compositions.config([f"learner={learner}", f"seed={seed}"])
    assert merged == [["learner=backprop"], ["learner=l2"]]
