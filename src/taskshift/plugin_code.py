"""The files that a run's plugins are made of."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path


def plugin_files(plugins: Iterable[str]) -> dict[Path, Path]:
    """Where each Python file of the plugins' modules and packages lies below a folder that is imported from → the file."""
    found: dict[Path, Path] = {}
    for top in sorted({name.split(".")[0] for name in plugins}):
        spec = find_spec(top)
        if spec is None:
            continue
        for folder in map(Path, spec.submodule_search_locations or ()):
            found |= {path.relative_to(folder.parent): path for path in sorted(folder.rglob("*.py"))}
        if spec.submodule_search_locations is None and spec.origin is not None and spec.origin.endswith(".py"):
            found[Path(Path(spec.origin).name)] = Path(spec.origin)
    return found
