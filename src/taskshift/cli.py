"""The command `taskshift`: train.py for who installed the package, and what is done with a run afterwards."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from taskshift.boundary import sentences
from taskshift.faults import Fault

USAGE = """taskshift train key=value …     train and measure, as train.py does; --help lists the keys, --multirun sweeps
taskshift plot FOLDER           draw the summary pictures of a run folder again"""


def main() -> None:
    """Carry out the command line; faults end in a sentence and status 1."""
    with sentences():
        if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
            print(USAGE)
            return
        command, arguments = sys.argv[1], sys.argv[2:]
        if command not in COMMANDS:
            raise Fault(f"taskshift {command}: there is no such command; there are {' and '.join(COMMANDS)}")
        COMMANDS[command](arguments)


def train(arguments: Sequence[str]) -> None:
    """`taskshift train key=value …`."""
    absent = [name for name in ("hydra", "omegaconf", "pydantic") if importlib.util.find_spec(name) is None]
    if absent:
        raise Fault(f"training needs {', '.join(absent)}, which pip install 'taskshift[train]' brings")
    from taskshift.config.command import conf_folder, hydra_command

    sys.argv = ["taskshift", *arguments]
    hydra_command(_job, conf_folder())()


def plot(arguments: Sequence[str]) -> None:
    """`taskshift plot FOLDER`."""
    if len(arguments) != 1 or not (Path(arguments[0]) / "metrics.jsonl").exists():
        raise Fault(f"taskshift plot {' '.join(arguments)}: expected one run folder, which has a metrics.jsonl in it")
    from taskshift.plot import draw_summary

    for picture in draw_summary(Path(arguments[0])):
        print(picture)


def _job(config: dict[str, Any], overrides: Sequence[str]) -> None:
    from taskshift.run import run

    run(config, overrides)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {"train": train, "plot": plot}

if __name__ == "__main__":
    main()
