"""Pages in a headless Chromium: what is asked of each, and what came of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
DRIVER = ROOT / "tests" / "browser" / "drive.mjs"
SECONDS_A_LOAD = 120

Step = tuple[str, Any]


@dataclass(frozen=True)
class Load:
    """A page to load at a size and in a colour scheme, and the `steps` to take there: (verb, argument), as drive.mjs has them."""

    file: str
    width: int
    height: int
    scheme: str
    steps: Sequence[Step] = ()
    scripts: bool = True


@dataclass(frozen=True)
class Finding:
    """The console's errors, the requests that went beyond the file, and what each step gave."""

    errors: list[str]
    requests: list[str]
    results: list[Any] = field(default_factory=list)


def load_pages(loads: Sequence[Load], *, webgl: bool) -> list[Finding]:
    """Load these pages one after the other, in a browser with or without WebGL."""
    assert shutil.which("node"), "the browser's tests need node: apt-get install nodejs npm"
    assert (DRIVER.parent / "node_modules").is_dir(), f"the browser's tests need: cd {DRIVER.parent} && npm ci"
    job = json.dumps({"webgl": webgl, "loads": [asdict(load) for load in loads]})
    done = subprocess.run(
        ["node", str(DRIVER)], input=job, capture_output=True, text=True, timeout=60 + SECONDS_A_LOAD * len(loads)
    )
    assert done.returncode == 0, done.stderr
    return [Finding(**finding) for finding in json.loads(done.stdout)]
