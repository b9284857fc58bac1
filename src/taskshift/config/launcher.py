"""How the words `cluster=`, `resources=` and `hydra.launcher.…` would have work carried out."""

from __future__ import annotations

from collections.abc import Sequence

import hydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.taskshift_sweeps.launcher import LauncherConfig
from taskshift.config.command import VERSION_BASE, conf_folder
from taskshift.config.hydra_faults import reworded
from taskshift.faults import Fault


def launcher_options(words: Sequence[str]) -> LauncherConfig:
    """The launcher's options that a sweep with these words would have; raises Fault as its command would."""
    with hydra.initialize_config_dir(str(conf_folder().resolve()), version_base=VERSION_BASE):
        try:
            composed = hydra.compose("config", list(words), return_hydra_config=True).hydra.launcher
            return LauncherConfig(**OmegaConf.to_container(composed, resolve=True))
        except (HydraException, OmegaConfBaseException) as error:
            raise Fault(reworded(error, words)) from error
