"""A run done once more, from its saved config."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from taskshift.config.check import check_quick
from taskshift.config.saved import Word, changed, read_config, read_words
from taskshift.config.targets import find_plugins
from taskshift.config.words import no_such_key
from taskshift.faults import Fault
from taskshift.identity import FREE, IDENTITY
from taskshift.run_folder import RunFolder, run_folder_of


def rerun(folder: Path, overrides: Sequence[str]) -> RunFolder:
    """Carry out the run saved in `folder` from its beginning, in a folder of its own; return that.

    `overrides` change what does not make a run another one: device, run_name, num_tasks, wandb.… . The new folder is below the
    saved run's `output_root`, under a name with the present date and time; `run_name=…` of an earlier rerun goes on with it.
    Raises Fault for any other key, and for what is wrong with the config by now.
    """
    from taskshift.run import run  # torch is first needed here

    return run(config_for(Path(folder), overrides), overrides)


def config_for(folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The saved config with the overrides applied, in no sweep and under a name of its own; checked."""
    saved = read_config(folder)
    words = read_words(overrides)
    if faults := [sentence for word in words if (sentence := _refusal(word, saved))]:
        raise Fault(*faults)
    config = changed(saved | {key: None for key in ("run_name", "sweep_name") if key in saved}, words)
    _make_findable(config["plugins"], folder, saved)
    check_quick(config)
    return config


def _refusal(word: Word, saved: Mapping[str, Any]) -> str | None:
    """Why a word cannot be taken, or None."""
    top = word.key.split(".")[0]
    if top not in saved:
        return no_such_key("", word.key, saved)
    if top in IDENTITY and not any(word.key == free or word.key.startswith(f"{free}.") for free in FREE):
        return f"{word.text}: this would be another run; train.py begins one, by a command like that in the saved run.json"
    if word.key == "run_name" and str(word.value) == saved["run_name"]:
        return f"{word.text}: this is the saved run's own name; give another, or leave it out"
    return None


def _make_findable(plugins: Sequence[str], folder: Path, saved: Mapping[str, Any]) -> None:
    """Let plugins that are not in the working directory be found in the one that the saved run had, if it wrote below that."""
    place, own = folder.resolve().parts, run_folder_of({"output_root": "outputs", **saved}).path.parts  # a key that is new
    if find_plugins(plugins) and place[-len(own) :] == own:
        sys.path.append(os.fspath(Path(*place[: -len(own)])))
