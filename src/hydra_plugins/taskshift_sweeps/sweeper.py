"""Hydra's grid of overrides, without Hydra's folders."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn


@dataclass
class SweeperConfig:
    """The keys of `hydra.sweeper`; `params` holds overrides that every sweep begins with, as Hydra's own does."""

    _target_: str = "hydra_plugins.taskshift_sweeps.sweeper.GridSweeper"
    max_batch_size: int | None = None
    params: dict[str, Any] = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/sweeper", name="taskshift", node=SweeperConfig, provider="taskshift")


class GridSweeper(BasicSweeper):
    """Expands lists, ranges and globs into jobs; writes nothing, and leaves composing and checking to the launcher."""

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        [jobs] = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), max_batch_size=None)
        return self.launcher.launch(jobs, initial_job_idx=0)
