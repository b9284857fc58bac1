"""The page of a landscape, written and opened."""

from __future__ import annotations

import os
import sys
import tempfile
import webbrowser
from pathlib import Path

from loss_landscape.cli.opening import Refusal, refusals
from loss_landscape.storage.records import LandscapeRecord
from loss_landscape.writer.export import export_record


def export_page(path: Path, record: LandscapeRecord) -> Path:
    """Write the page of `record` to `path`, which must end with .html."""
    if path.suffix != ".html":
        raise Refusal(f"{path}: a page's name ends with .html; `loss_landscape export` writes the other kinds of files")
    return export_record(path, record)


def opened(record: LandscapeRecord) -> str:
    """Write the page of `record` to a temporary file and open it; where it is, and what to do where there is no browser."""
    with refusals():
        page = export_page(Path(tempfile.mkdtemp(prefix="loss_landscape_"), "landscape.html"), record)
    if has_screen() and webbrowser.open(page.as_uri()):
        return f"page: {page}"
    return f"page: {page} (no browser was found here: open that file, or give --html OUT.html to write it elsewhere)"


def has_screen() -> bool:
    """Whether a browser's window can appear: without a display, Linux would open one for text in the terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
