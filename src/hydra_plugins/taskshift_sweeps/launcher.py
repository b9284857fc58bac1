"""The jobs of a sweep: each composed once, all checked, then run one after the other in this process.

Hydra executes this file without entering it in sys.modules, so that dataclasses here cannot have postponed annotations.
"""

import inspect
import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus, configure_log
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from taskshift.faults import Fault

log = logging.getLogger("taskshift.sweeps")


@dataclass
class LauncherConfig:
    """The keys of `hydra.launcher`."""

    _target_: str = "hydra_plugins.taskshift_sweeps.launcher.TaskshiftLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="taskshift", node=LauncherConfig, provider="taskshift")


class TaskshiftLauncher(Launcher):
    """Runs a sweep's jobs; a job that fails does not stop the others, and is named at the end."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader, self.config = hydra_context.config_loader, config
        self.job = inspect.unwrap(task_function)  # without what turns a fault into the end of the process

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from taskshift.sweeps.sweep import check_all, labels_of

        configure_log(self.config.hydra.job_logging, self.config.hydra.verbose)
        configs = [self._compose(overrides) for overrides in job_overrides]
        labels, failed = labels_of(job_overrides), []
        check_all(configs, labels)
        for number, (config, overrides, label) in enumerate(zip(configs, job_overrides, labels, strict=True), start=1):
            log.info("run %d of %d: %s", number, len(configs), label)
            if why := _failure(self.job, config, list(overrides)):
                failed.append(f"{label}: {why}")
        if failed:
            raise Fault(f"{len(failed)} of {len(configs)} runs failed", *failed)
        return [_returned(overrides) for overrides in job_overrides]

    def _compose(self, overrides: Sequence[str]) -> dict[str, Any]:
        from taskshift.config.command import without_hydra

        return without_hydra(self.loader.load_sweep_config(self.config, list(overrides)))


def _failure(job: Callable[..., Any], config: dict[str, Any], overrides: list[str]) -> str | None:
    """Run one job; return why it failed, or None."""
    try:
        job(config, overrides)
    except Fault as fault:
        log.error("%s", fault)
        return fault.sentences[0]
    except Exception as error:  # the other jobs of the sweep must still run; the command as a whole fails
        log.error("%s", traceback.format_exc())
        return f"{type(error).__name__}: {error}"
    return None


def _returned(overrides: Sequence[str]) -> JobReturn:
    done = JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED)
    done.return_value = None
    return done
