"""A run that kills itself: `python killed_run.py MODULE:QUALIFIED.NAME COUNT before|after CONFIG.json`.

The named function is called COUNT times; just before or just after the last of these calls this process sends itself SIGKILL.
"""

import functools
import importlib
import json
import os
import signal
import sys
from pathlib import Path

from taskshift.run import run


def kill_at(place: str, count: int, when: str) -> None:
    """Replace the function at `place` by one that ends this process."""
    module_name, _, qualified = place.partition(":")
    *path, name = qualified.split(".")
    owner = functools.reduce(getattr, path, importlib.import_module(module_name))
    original = getattr(owner, name)
    calls = 0

    @functools.wraps(original)
    def fatal(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == count and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, fatal)


if __name__ == "__main__":
    place, count, when, config = sys.argv[1:]
    kill_at(place, int(count), when)
    run(json.loads(Path(config).read_text()))
