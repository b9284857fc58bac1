"""One attempt at a run, as train.py makes it.

`attempt.py CONFIG.json [count FILE | kill NUMBER | disk BYTES | helper PROGRAM]`
"""

from __future__ import annotations

import atexit
import itertools
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from taskshift.boundary import sentences


def at_events(happen: Callable[[], None]) -> None:
    """Let `happen` be called before and after each thing that this process does to a file."""

    def noticed(original: Callable[..., Any]) -> Callable[..., Any]:
        def noticing(*positional: Any, **given: Any) -> Any:
            happen()
            result = original(*positional, **given)
            happen()
            return result

        return noticing

    for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "rename"), (Path, "unlink")):
        setattr(owner, name, noticed(getattr(owner, name)))


def count_events(file: str) -> None:
    """Write into `file`, at this process's end, how many events there were."""
    number = itertools.count()
    at_events(lambda: next(number))
    atexit.register(lambda: Path(file).write_text(str(next(number))))


def kill_at(number: int) -> None:
    """Let this process die at the `number`-th event."""
    left = iter(range(number - 1))

    def die_in_turn() -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    at_events(die_in_turn)


def fill_disk(most_bytes: int) -> None:
    """Let no file grow beyond so many bytes: what writes more is refused, as by a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))


def break_helper(program: str) -> None:
    """Put a program in the place of W&B's helper."""
    from wandb.sdk.lib.service import service_process

    from taskshift.recorders import wandb_mirror

    wandb_mirror.SECONDS_TO_ANSWER = wandb_mirror.SECONDS_TO_END = 3.0
    service_process.get_core_path = lambda: program


DISTURBANCES: dict[str, Callable[[str], None]] = {
    "count": count_events,
    "kill": lambda word: kill_at(int(word)),
    "disk": lambda word: fill_disk(int(word)),
    "helper": break_helper,
}


def main() -> None:
    """Disturb this process as asked, then run."""
    config, *how = sys.argv[1:]
    with sentences():
        from taskshift.log_lines import Lines
        from taskshift.run import run

        logging.getLogger("taskshift").addHandler(Lines())
        if how:
            DISTURBANCES[how[0]](how[1])
        run(json.loads(Path(config).read_text()))


if __name__ == "__main__":
    main()
