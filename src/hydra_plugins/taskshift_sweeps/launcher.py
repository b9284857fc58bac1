"""Hydra's launcher for sweeps: composes each job once, has all of them checked, and hands plain configs to `taskshift.sweeps`.

Hydra executes this file without entering it in sys.modules, so that dataclasses here cannot have postponed annotations.
"""

import inspect
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, configure_log
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.taskshift_sweeps.search import FailuresAtTheEnd, completed, failed, is_search
from taskshift.faults import Fault


@dataclass
class LauncherConfig:
    """The keys of `hydra.launcher`: how runs are carried out. What is None is left to the site."""

    _target_: str = "hydra_plugins.taskshift_sweeps.launcher.TaskshiftLauncher"
    cluster: str | None = None  # None: in this process; local; slurm
    stack: Any = "auto"  # how many runs that differ in seed and settings alone train as one program; false: none
    workers: int = 1  # local: processes at a time, each with a GPU of its own
    detach: bool = False  # slurm: return when the jobs are queued
    retry_failed: bool = False  # also carry out the runs that failed
    max_requeues: int = 20  # slurm: how often a job that was cut off is queued again
    snapshot: bool = False  # copy the code into the sweep's folder, and let all its workers run that
    partition: str | None = None
    account: str | None = None
    array_parallelism: int = 256  # slurm: jobs at a time
    timeout_min: int = 1440
    signal_delay_s: int = 90  # how long before its time is over a job is told so
    gpus: int | None = None
    cpus: int | None = None
    mem_gb: float | None = None
    setup: list[str] = field(default_factory=list)  # lines of shell before each job
    sbatch: dict[str, Any] = field(default_factory=dict)  # further options of sbatch, without their dashes
    srun: list[str] = field(default_factory=list)  # further arguments of srun


NODE = OmegaConf.structured(LauncherConfig)
OmegaConf.set_struct(NODE.sbatch, False)  # what sbatch takes is no business of ours: its keys need no plus sign
ConfigStore.instance().store(group="hydra/launcher", name="taskshift", node=NODE, provider="taskshift")


class TaskshiftLauncher(Launcher):
    """Carries out a sweep's jobs; a job that fails does not stop the others, and is named at the end."""

    def __init__(self, **options: Any):
        self.options = LauncherConfig(**options)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader, self.config = hydra_context.config_loader, config
        self.job = inspect.unwrap(task_function)  # without what turns a fault into the end of the process
        self.together = vars(task_function).get("together")  # see hydra_command
        self.searching = is_search(config.hydra.sweeper)
        self.failures = FailuresAtTheEnd()
        hydra_context.callbacks.callbacks.append(self.failures)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from taskshift.config.compositions import Compositions
        from taskshift.run_folder import sweep_path
        from taskshift.script import Script
        from taskshift.sweeps.checks import check_objects, check_words
        from taskshift.sweeps.launch import launch
        from taskshift.sweeps.plan import labels_of, planned
        from taskshift.sweeps.stacks import read_size

        configure_log(self.config.hydra.job_logging, self.config.hydra.verbose)
        if not job_overrides:
            raise Fault("the grid is empty: some key has no values, such as range(0); give each at least one")
        wanted = list(dict.fromkeys(map(tuple, job_overrides))) if self.searching else job_overrides
        carrier, size = self._carrier(), read_size(self.options.stack)
        compositions, typed = Compositions(self.loader, self.config), self._typed()
        configs = [compositions.config(overrides) for overrides in wanted]
        labels = labels_of(typed, wanted)
        check_words(configs, labels)
        plan = planned(typed, configs, wanted)
        self.config.hydra.sweep.dir = str(sweep_path(plan.runs[0].config))  # where Optuna's sweeper leaves its results
        check_objects(configs, labels)
        options = self.options
        found = launch(
            plan,
            Script(self.job, self.together),
            carrier=carrier,
            stack=size,
            retry_failed=options.retry_failed,
            max_requeues=options.max_requeues,
            detach=self.searching or self._detached(),  # a search is told which runs failed, and decides
            snapshot=options.snapshot,
        )
        runs = zip(wanted, plan.runs, strict=True)
        outcomes = {tuple(words): self._outcome(words, run, found[run.key]) for words, run in runs}
        return [outcomes[tuple(words)] for words in job_overrides]

    def _outcome(self, words: Sequence[str], run: Any, state: Any) -> JobReturn:
        """What the sweeper is told of a run."""
        from taskshift.optimized_metric import optimized_metric
        from taskshift.run_folder import read_rows, run_folder_of
        from taskshift.sweeps.states import FINISHED

        done = state.state in FINISHED
        value = optimized_metric(read_rows(run_folder_of(run.config).path), run.config["objective"]) if done else None
        if not self.searching or (done and not math.isnan(value)):
            return completed(words, value)
        if done:
            return failed(words, f"{run.label}: the objective is not a number")
        sentence = f"{run.label}: {state.state}{f', {state.why}' if state.why else ''}"
        self.failures.add(sentence)
        return failed(words, sentence)

    def _detached(self) -> bool:
        return self.options.detach and self.options.cluster == "slurm"

    def _typed(self) -> list[str]:
        """The command's overrides that have one value each, as Hydra writes them."""
        parser = OverridesParser.create(config_loader=self.loader)
        words = parser.parse_overrides(list(self.config.hydra.overrides.task))
        return [f"{word.get_key_element()}={word.get_value_element_as_str()}" for word in words if not word.is_sweep_override()]

    def _carrier(self) -> Any:
        from taskshift.sweeps.launch import Here

        options = self.options
        if self.searching and self._detached():
            raise Fault("hydra.launcher.detach=true: a search waits for what its runs find; leave detach out")
        if options.detach and options.cluster != "slurm":
            raise Fault("hydra.launcher.detach=true: only jobs of cluster=slurm go on alone; leave it out, or take cluster=slurm")
        if options.workers != 1 and options.cluster != "local":
            raise Fault(
                f"hydra.launcher.workers={options.workers}: only cluster=local has workers; leave it out, or take cluster=local"
            )
        if options.cluster is None:
            return Here()
        if options.cluster == "local":
            from taskshift.sweeps.carriers import LocalWorkers

            if options.workers < 1:
                raise Fault(f"hydra.launcher.workers={options.workers}: expected a whole number, at least 1")
            return LocalWorkers(options.workers, _num_gpus())
        if options.cluster == "slurm":
            from taskshift.sweeps.carriers import Slurm

            require_slurm()
            return Slurm(options.detach, submitit_parameters(options))
        raise Fault(f"hydra.launcher.cluster={options.cluster}: expected null, local or slurm")


def require_slurm() -> None:
    """Raise Fault where no job can be queued."""
    if absent := [name for name in ("sbatch", "srun") if shutil.which(name) is None]:
        raise Fault(
            f"cluster=slurm: there is no {' and no '.join(absent)} here; go to a machine of the cluster, or take cluster=local"
        )


def submitit_parameters(options: LauncherConfig) -> dict[str, Any]:
    """What submitit is told; what the options leave open it is not told."""
    further = OmegaConf.to_container(options.sbatch) if isinstance(options.sbatch, DictConfig) else dict(options.sbatch)
    given = {
        "timeout_min": options.timeout_min,
        "slurm_partition": options.partition,
        "slurm_account": options.account,
        "slurm_array_parallelism": options.array_parallelism,
        "slurm_signal_delay_s": options.signal_delay_s,
        "gpus_per_node": options.gpus,
        "cpus_per_task": options.cpus,
        "mem_gb": options.mem_gb,
        "slurm_setup": list(options.setup) or None,
        "slurm_srun_args": list(options.srun) or None,
        "slurm_additional_parameters": {"requeue": True} | further,  # also where the site's own rule is not to
    }
    return {key: value for key, value in given.items() if value is not None}


def _num_gpus() -> int:
    import torch

    return torch.cuda.device_count()
