"""The bundle of plotly.js that pages draw with: one file, shared by many pages or inside each."""

from __future__ import annotations

from importlib.resources import files

LIBRARY = "plotly-landscape-4.1.1.min.js"
"""The bundle's file name, with plotly's version: pages of two versions can share a folder."""

SHA256 = "f1f8a726a30afab2bde8d16514427e1ee6e7fcaf23ade15fb08eb5cb2301e8c0"
"""The hash of its bytes; scripts/plotly_bundle builds them."""


def library_bytes() -> bytes:
    """The bundle, as it is to lie beside pages that share it."""
    return files("loss_landscape.page").joinpath("assets", LIBRARY).read_bytes()
