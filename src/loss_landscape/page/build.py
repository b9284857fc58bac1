"""A page's content as the bytes of one HTML file."""

from __future__ import annotations

from loss_landscape.page.content import Page


def build_page(page: Page, *, library: str = "inline") -> bytes:
    """The HTML file of a `page`, the same bytes for the same content.

    `library` is "inline", or where the page finds the plotly bundle, such as "../../plotly-landscape-4.1.1.min.js".
    """
    raise NotImplementedError
