"""A landscape record as a file; the file's ending says which kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from loss_landscape.arguments import as_path
from loss_landscape.files import require_place
from loss_landscape.storage.exchange import write_csv, write_npz, write_parquet, write_vti
from loss_landscape.storage.landscape_file import write_landscape
from loss_landscape.storage.records import LandscapeRecord

Export = Callable[[Path, LandscapeRecord], None]


def exports() -> Mapping[str, Export]:
    """What writes each kind of file, by its ending: a new kind is a line here."""
    data = {".json": write_landscape, ".npz": write_npz, ".csv": write_csv, ".parquet": write_parquet, ".vti": write_vti}
    return {**data, ".png": _draw, ".pdf": _draw, ".html": _page}


def _draw(path: Path, record: LandscapeRecord) -> None:
    from loss_landscape.viewing.landscapes import plot_landscape  # imports matplotlib

    plot_landscape(path, record)


def _page(path: Path, record: LandscapeRecord) -> None:
    from loss_landscape.page.build import write_page
    from loss_landscape.page.landscape import landscape_page

    write_page(path, landscape_page(record))


def writable(path: str | Path) -> Path:
    """The path of a file whose kind is known and that can be written; ValueError, with the endings there are, or OSError."""
    path, known = as_path(path, "the output", such_as="landscape.json"), exports()
    if path.suffix not in known and not path.is_dir():
        raise ValueError(f"{path}: the ending says what is written, and there are {', '.join(known)}")
    require_place(path, such_as="landscape.json")
    return path


def export_record(path: str | Path, record: LandscapeRecord) -> Path:
    """Write `record` to a `writable` path, whole or not at all."""
    path = writable(path)
    exports()[path.suffix](path, record)
    return path
