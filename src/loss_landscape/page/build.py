"""A page's content as the bytes of one HTML file."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from loss_landscape.files import write_whole
from loss_landscape.page import words
from loss_landscape.page.blocks import json_text
from loss_landscape.page.content import Page
from loss_landscape.page.frame import Frame
from loss_landscape.page.library import LIBRARY, library_bytes

ASSETS = files("loss_landscape.page").joinpath("assets")

SCRIPTS = (
    *("blocks", "numbers", "look", "state", "planes", "surfaces", "lines"),
    *("paths", "spectrum", "volume", "charts", "keyboard", "page"),
)
"""The parts of the page's script, in their order."""


def build_page(page: Page, *, library: str = "inline") -> bytes:
    """The HTML file of a `page`, the same bytes for the same content.

    `library` is "inline", or where the page finds the plotly bundle, such as "../../plotly-landscape-4.1.1.min.js".
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_asset("frame.html.j2"))
    context = Frame(page).context()
    inside = library_bytes().decode() if library == "inline" else ""
    script = _script()
    text = template.render(
        **context,
        texts=words,
        policy=_policy([script, inside] if inside else [script], shares=not inside),
        style=Markup(_asset("style.css")),
        head_text=Markup(json_text(context["head"])),
        library_name=LIBRARY,
        library_place=library,
        library_text=Markup(inside),
        script=Markup(script),
    )
    return text.encode()


def write_page(path: str | Path, page: Page, *, library: str = "inline") -> None:
    """Write the HTML file of a `page` to `path`, whole or not at all; `library` as in `build_page`."""
    content = build_page(page, library=library)
    write_whole(Path(path), lambda beside: beside.write_bytes(content))


def _asset(name: str) -> str:
    return ASSETS.joinpath(name).read_text(encoding="utf-8")


def _script() -> str:
    """The page's own script: its parts in one function, so that nothing of them is global."""
    parts = [ASSETS.joinpath("script", f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"


def _policy(scripts: list[str], *, shares: bool) -> str:
    """The rules the browser holds the page to: these scripts alone, no address but its own folder's, if it `shares` a library.

    Styles are free, since plotly sets them one by one.
    """
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
    beside = " 'self' file:" if shares else ""
    return (
        f"default-src 'none'; script-src {hashes}{beside}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
