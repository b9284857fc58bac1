"""How the loss landscape changes while tasks shift: runs and sweeps as train.py makes them, with this folder's config."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
os.environ["TASKSHIFT_ROOT"] = str(ROOT)  # where cfg/task_shift_config.yaml finds conf/
sys.path.insert(0, str(ROOT / "src"))

from taskshift.boundary import sentences  # noqa: E402


def job(config: dict, overrides: Sequence[str]) -> float:
    """One run, from its resolved config; what a sweeper judges it by. Of this script, as a sweep's workers get its code."""
    from taskshift.run import judged

    return judged(config, overrides)


if __name__ == "__main__":
    with sentences():
        from taskshift.config.command import hydra_command

        hydra_command(job, HERE / "cfg", "task_shift_config")()
