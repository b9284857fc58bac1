"""Train a net through tasks that shift: `python train.py key=value …`; `--help` lists the keys, `--multirun` sweeps."""

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "src"))

from taskshift.boundary import sentences  # noqa: E402


def job(config: dict, overrides: Sequence[str]) -> float:
    """One run, from its resolved config; what a sweeper judges it by."""
    from taskshift.run import judged

    return judged(config, overrides)


def together(configs: Sequence[dict], overrides: Sequence[Sequence[str]]) -> Sequence[Exception | None]:
    """Several runs of a sweep that differ in seed and settings alone; what each raised."""
    from taskshift.run import run_together

    return run_together(configs, overrides)


if __name__ == "__main__":
    with sentences():
        from taskshift.config.command import hydra_command

        hydra_command(job, ROOT / "conf", together=together)()
