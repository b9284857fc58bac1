"""Commands carried out in this process, with a job of the test's own in place of a run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest

from taskshift.boundary import sentences
from taskshift.config.command import conf_folder, hydra_command


def carry_out(*words: str, job: Callable[[dict[str, Any], Any], Any], together: Callable[..., Any] | None = None) -> int:
    """The exit status of `python train.py <words>` with `job` as what it does, and `together` with several runs."""
    root = logging.getLogger()
    kept = root.handlers[:], root.level
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", *words])
        patch.setenv("HYDRA_FULL_ERROR", "0")
        try:
            with sentences():
                hydra_command(job, conf_folder(), together=together)()
        except SystemExit as end:
            return end.code
        finally:
            root.handlers[:], root.level = kept
    return 0
