"""How large is a page, how long does it take to make, and how quick is it in a browser?

    (cd tests/browser && npm ci) && python scripts/bench_page.py

Two pages made by hand: 4 tasks with 4 planes of 41² each, and 500 tasks with 3 planes of 101². Chromium runs headless at 1366×768
with software for a GPU; CPU is that of the renderer's main thread. What the page is to keep to stands beside each number.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "library" / "page"))

from made_pages import long_page, run_view  # noqa: E402

from loss_landscape.page.build import build_page  # noqa: E402
from loss_landscape.page.content import Page  # noqa: E402
from loss_landscape.page.library import LIBRARY  # noqa: E402

STEPS = 12


def small() -> Page:
    """4 tasks with everything."""
    return Page("4 tasks", (run_view(4),))


def in_browser(file: Path) -> dict:
    """What a browser needs for it."""
    command = ["node", str(ROOT / "tests" / "browser" / "bench.mjs"), str(file), str(STEPS)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def told(name: str, value: str, target: str) -> None:
    print(f"  {name:<44} {value:>22}   {target}")


def middle(values: list[float], unit: str = "ms") -> str:
    """The median, with the smallest and the largest."""
    return f"{statistics.median(values):.0f} {unit} ({min(values):.0f}…{max(values):.0f})"


def bench(make, folder: Path, *, seconds: float, megabytes: float) -> None:
    page = make()
    print(page.title)
    wall, cpu = time.perf_counter(), time.process_time()
    content = build_page(page)
    told("made in, wall", f"{time.perf_counter() - wall:.2f} s", f"≤ {seconds:g} s")
    told("made in, CPU", f"{time.process_time() - cpu:.2f} s", "")
    told("one file", f"{len(content) / 1e6:.2f} MB", f"≤ {megabytes:g} MB")
    told("with a shared library", f"{len(build_page(page, library=LIBRARY)) / 1e6:.3f} MB", "≤ 0.2 MB with 4 tasks")
    told("memory of this process, at most", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB", "≤ 1 GiB")
    file = folder / "page.html"
    file.write_bytes(content)
    found = in_browser(file)
    told("cards are painted after, wall", f"{found['cards']:.0f} ms", "≤ 1500 ms on an idle machine")
    told("the first plane after, wall", f"{found['plane']:.0f} ms", "≤ 4000 ms on an idle machine")
    told("a dragged step, CPU", middle(found["drag"]["cpu"]), "≤ 120 ms")
    told("a dragged step, wall", middle(found["drag"]["wall"]), "≤ 150 ms on an idle machine")
    told("a step on release, CPU", middle(found["release"]["cpu"]), "≤ 300 ms")
    told("a step on release, wall", middle(found["release"]["wall"]), "≤ 700 ms on an idle machine")
    told("decoding a task, wall", middle(found["decode"]), "≤ 10 ms")
    told("JavaScript's heap after these steps", f"{found['heap']:.0f} MiB", "≤ 100 MiB")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--small", action="store_true", help="the page of 4 tasks alone")
    given = arguments.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        bench(small, Path(folder), seconds=1, megabytes=2.2)
        if not given.small:
            bench(long_page, Path(folder), seconds=15, megabytes=30)


if __name__ == "__main__":
    main()
