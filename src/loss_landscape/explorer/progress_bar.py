"""A bar with the time left, where somebody looks."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from loss_landscape.checkpointing import Progress


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Progress | None]:
    """What shows a fraction done and the seconds left while it is open; None where standard error is no terminal or notebook."""
    if not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %  {task.fields[left]}"))
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=1.0, left="")

        def show(fraction: float, seconds_left: float) -> None:
            bar.update(task, completed=fraction, left=f"{seconds_left:.0f} s left")

        yield show
