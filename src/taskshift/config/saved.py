"""A run's config as it was saved, and changed by words that are read as Hydra reads its overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from taskshift.config.command import conf_folder
from taskshift.config.hydra_faults import reworded
from taskshift.faults import Fault
from taskshift.intact import RESTORE, damaged, read_text
from taskshift.run_folder import SEAL_OF_TEXT, seal_of


@dataclass(frozen=True)
class Word:
    """One `key=value`, or `+key=value` where the key is new."""

    key: str
    value: Any
    is_new: bool
    text: str


def read_config(folder: Path) -> dict[str, Any]:
    """The config of the run in `folder`, resolved; raises Fault where no run is."""
    path = folder / "config.yaml"
    if not path.exists():
        raise Fault(f"{folder} is no run's folder: there is no config.yaml in it")
    text = read_text(path)
    body, mark, _ = text.rpartition(SEAL_OF_TEXT)
    if mark and text != body + seal_of(body):
        raise damaged(path, "its checksum is another", f"{RESTORE}; after a change of your own, take out its last line")
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise damaged(path, " ".join(str(error).split())) from error
    if not isinstance(config, dict):
        raise damaged(path, "no block of keys")
    return config


def read_words(texts: Sequence[str]) -> list[Word]:
    """Each word's key and value; raises Fault for what cannot be read, for a sweep, and for a deletion."""
    try:
        return [_word(override, text) for override, text in zip(_parser().parse_overrides(list(texts)), texts, strict=True)]
    except HydraException as error:
        raise Fault(reworded(error, texts)) from error


def changed(config: Mapping[str, Any], words: Sequence[Word]) -> dict[str, Any]:
    """The config with the words applied, in their order; raises Fault for a key that it does not have.

    Keys of evaluators that conf/lla takes from another key, such as the sizes of SAM's grid from the planes', still follow it.
    """
    cfg = OmegaConf.create(dict(config))
    followers = [(own, other) for own, other in _followers(config) if not _is_given(own, words)]
    OmegaConf.set_struct(cfg, True)
    for word in words:
        try:
            OmegaConf.update(cfg, word.key, word.value, merge=True, force_add=word.is_new)
        except OmegaConfBaseException as error:
            wrapped = HydraException(str(error))
            wrapped.__cause__ = error
            raise Fault(reworded(wrapped, [word.text])) from error
    for own, other in followers:
        OmegaConf.update(cfg, own, OmegaConf.select(cfg, other), merge=False)
    return OmegaConf.to_container(cfg, resolve=True)


def _parser() -> OverridesParser:
    return OverridesParser.create()


def _word(override: Override, text: str) -> Word:
    key = override.key_or_group.replace("/", ".")
    if override.is_delete():
        leave_out = "; lla.enable_<name>=false leaves an evaluator out" if key.startswith("lla.") else ""
        raise Fault(f"{text}: nothing can be deleted from a saved config{leave_out}")
    if override.is_sweep_override():
        raise Fault(f"{text}: several values are a sweep, and this is one command; a list is written in brackets: [a,b]")
    return Word(key, override.value(), override.is_add() or override.is_force_add(), text)


def _followers(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(key, the key that it took its value from), of the blocks of `lla`; one that was given a value of its own is none."""
    pairs = []
    for path in sorted((conf_folder() / "lla").glob("*.yaml")):
        for name, block in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            values = block.items() if isinstance(block, Mapping) else ()
            pairs += [(f"lla.{name}.{key}", value[2:-1]) for key, value in values if str(value).startswith("${lla.")]
    return [(own, other) for own, other in pairs if _at(config, own) == _at(config, other) != _NOTHING]


_NOTHING = object()


def _at(config: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        config = config.get(key, _NOTHING) if isinstance(config, Mapping) else _NOTHING
    return config


def _is_given(key: str, words: Sequence[Word]) -> bool:
    return any(word.key == key or word.key.startswith(f"{key}.") or key.startswith(f"{word.key}.") for word in words)
