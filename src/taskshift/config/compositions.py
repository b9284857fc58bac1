"""Many configs of one command, composed in little more time than one: Hydra's composition once for each choice of groups."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from taskshift.config.command import plain


class Compositions:
    """The configs of a sweep's jobs, each as `ConfigLoaderImpl.load_sweep_config` composes it, without Hydra's own part.

    Reading and merging the files takes Hydra 0.1 s a job; jobs that choose the same files share that, and differ by values alone.
    """

    def __init__(self, loader: ConfigLoaderImpl, command: DictConfig):
        self._loader, self._command = loader, command
        self._parser = OverridesParser.create()
        # the loader's own repository lacks what hydra.searchpath adds
        _, self._files = loader._parse_overrides_and_create_caching_repo(
            command.hydra.job.config_name, list(command.hydra.overrides.hydra)
        )
        self._read = functools.cache(self._read_word)
        self._chosen = functools.cache(self._compose_choices)

    def config(self, words: Sequence[str]) -> dict[str, Any]:
        """The resolved config of a job with these overrides; raises what Hydra raises."""
        overrides = [self._read(word) for word in words]
        choices = tuple(override.input_line for override in overrides if self._decides_files(override))
        base, choices_known = self._chosen(choices)
        config = copy.deepcopy(base)
        # Hydra's own way of setting values, so that `+`, `~` and its errors are as they are in a single run
        ConfigLoaderImpl._apply_overrides_to_config([one for one in overrides if not self._decides_files(one)], config)
        OmegaConf.copy_cache(from_config=self._command, to_config=config)
        return plain(config, OmegaConf.create({"runtime": {"choices": choices_known}, "overrides": {"task": list(words)}}))

    def _read_word(self, word: str) -> Override:
        [override] = self._parser.parse_overrides([word])
        return override

    def _decides_files(self, override: Override) -> bool:
        """Whether Hydra needs the override before it merges files: it chooses one, or is none that a job may have."""
        if override.is_sweep_override() or override.is_hydra_override():
            return True
        return self._files.group_exists(override.key_or_group) and not isinstance(override.value(), dict)

    def _compose_choices(self, choices: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
        """The config of these choices of files, and all choices it was composed from."""
        config = self._loader.load_sweep_config(self._command, list(choices))
        known = OmegaConf.to_container(config.hydra.runtime.choices)
        with open_dict(config):
            del config["hydra"]
        return config, known
