"""What a sweeper that looks for the best, such as Optuna's, learns of each of its runs."""

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.utils import get_class
from omegaconf import DictConfig

from taskshift.boundary import end
from taskshift.faults import Fault


def is_search(sweeper: DictConfig) -> bool:
    """Whether `hydra.sweeper` chooses runs by the results of others, and is not a grid."""
    return not issubclass(get_class(sweeper._target_), BasicSweeper)


def completed(overrides: Sequence[str], objective: float | None) -> JobReturn:
    """The outcome of a run that nothing is amiss with."""
    return JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED, _return_value=objective)


def failed(overrides: Sequence[str], sentence: str) -> JobReturn:
    """The outcome of a run without an objective, which raises the sentence when it is asked for one."""
    return JobReturn(overrides=list(overrides), status=JobStatus.FAILED, _return_value=Fault(sentence))


class FailuresAtTheEnd(Callback):
    """Ends the command with status 1, naming the runs that are not done, once the sweeper has written what it found."""

    def __init__(self) -> None:
        self.sentences: dict[str, None] = {}  # in order; a search that comes back to a run names it once

    def add(self, sentence: str) -> None:
        self.sentences[sentence] = None

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if self.sentences:
            end("\n".join(["the search went on without the runs that are not done:", *self.sentences]))
