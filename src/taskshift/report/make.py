"""A page made and put into its place: beside a run or a sweep, or into a file of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from loss_landscape.files import write_first, write_whole
from loss_landscape.page.build import build_page
from loss_landscape.page.content import Page
from loss_landscape.page.library import LIBRARY, library_bytes
from taskshift.faults import Fault
from taskshift.report.run_view import run_view
from taskshift.report.sweep_view import sweep_page
from taskshift.run_folder import PAGE, RunFolder
from taskshift.sweeps.sweep_folder import SweepFolder


def write_run_report(folder: Path) -> Path:
    """Make the page of the run in `folder` anew, as report.html in it; return where. The plotly bundle is its project's."""
    page = Page(_name(folder), [run_view(folder, _name(folder))])
    return _written_beside(folder, page)


def report(folders: Sequence[Path], output: Path | None = None, *, force: bool = False) -> Path:
    """Make the page of a run, of a sweep, or of several runs side by side; return where.

    Without an `output`, which is one file with all that it needs, the page of one folder lies in it. Raises Fault for a folder
    that is neither, several without an `output`, and an `output` that exists, unless `force` is given.
    """
    if output is None and len(folders) > 1:
        raise Fault(f"{len(folders)} folders make one page that lies in none of them; say where by --html OUT")
    if output is not None:
        require_new(output, force=force)
    page = _page_of([*dict.fromkeys(Path(folder) for folder in folders)])
    if output is None:
        return _written_beside(folders[0], page)
    try:
        write_whole(output, lambda path: path.write_bytes(build_page(page)))
    except OSError as error:
        raise Fault(f"cannot write {output}: {error.strerror or error}; name another place by --html") from error
    return output


def require_new(output: Path, *, force: bool) -> None:
    """Raise Fault for a file that exists, unless it may be written over."""
    if output.exists() and not force:
        raise Fault(f"{output} exists; give another --html, or --force to write over it")


def _page_of(folders: Sequence[Path]) -> Page:
    sweeps = [folder for folder in folders if SweepFolder(folder).file.exists()]
    if sweeps and len(folders) > 1:
        raise Fault(f"{sweeps[0]} is a sweep's folder, whose page stands alone; give runs' folders, or one sweep's")
    if sweeps:
        return sweep_page(sweeps[0])
    for folder in folders:
        if not RunFolder(folder, arch="").metrics.exists():
            raise Fault(f"{folder} is the folder of no run and no sweep: there is no metrics.jsonl and no sweep.json in it")
    names = distinct_names(folders)
    return Page(" beside ".join(names), [run_view(folder, name) for folder, name in zip(folders, names, strict=True)])


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """Each folder by its name, or by so many of the folders above it as tell it from the others."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = [_readable("/".join(one[-depth:])) for one in parts]
        if len(set(names)) == len(names):
            return names
    raise Fault("a folder was given twice; a run has nothing to be compared with in itself")


def _written_beside(folder: Path, page: Page) -> Path:
    """Write the page into `folder`, its bundle once into the project's folder where that is known, else into the page."""
    try:
        return _written(folder, page)
    except OSError as error:
        raise Fault(f"cannot write {folder / PAGE}: {error.strerror or error}; name another place by --html") from error


def _written(folder: Path, page: Page) -> Path:
    target, project = folder / PAGE, _project_of(folder)
    if project is None:
        content = build_page(page)
    else:
        shared = project / LIBRARY
        if not shared.exists():
            write_first(shared, lambda path: path.write_bytes(library_bytes()))
        content = build_page(page, library=f"{'../' * _depth(folder, project)}{LIBRARY}")
    write_whole(target, lambda path: path.write_bytes(content))
    return target


def _project_of(folder: Path) -> Path | None:
    """The project's folder, of which a run's config says how it is called; None for a folder that was moved out of one."""
    run = folder if (folder / "run.json").exists() else next((path.parent for path in sorted(folder.glob("*/run.json"))), None)
    config = {} if run is None else (RunFolder(run, arch="").known_run() or {}).get("config", {})
    name = config.get("output_project")
    return next((above for above in list(folder.resolve().parents)[:3] if above.name == name), None)


def _depth(folder: Path, project: Path) -> int:
    return len(folder.resolve().relative_to(project).parts)


def _name(folder: Path) -> str:
    return _readable(folder.resolve().name)


def _readable(name: str) -> str:
    """The name as a page can hold it: bytes that are no UTF-8 are replaced."""
    return os.fsencode(name).decode(errors="replace")
