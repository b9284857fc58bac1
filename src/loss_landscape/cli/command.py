"""The command `loss_landscape`: view, explain, export, compare what the Writer wrote, and a demo to write something."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from loss_landscape.cli.browser import export_page, opened
from loss_landscape.cli.demo import demo_landscape
from loss_landscape.cli.opening import Refusal, record_at, refusals
from loss_landscape.cli.summary import comparison, explanation, summary
from loss_landscape.interpretation.hints import explained_each
from loss_landscape.storage.records import LandscapeRecord
from loss_landscape.writer.export import export_record, exports

Arguments = argparse.Namespace


def main() -> None:
    """Carry out the command line; what is wrong with it ends in a sentence and status 1."""
    sys.exit(run(sys.argv[1:]))


def run(words: Sequence[str]) -> int:
    """The exit status of a command line."""
    try:
        if words and words[0] not in COMMANDS and not words[0].startswith("-"):
            raise _no_such_command(words[0])
        arguments = _parser().parse_args(list(words) or ["--help"])
        for line in arguments.command(arguments):
            print(line)
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who was reading, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def view(given: Arguments) -> list[str]:
    """Say what a landscape file or a Writer's folder holds, in a few lines, and open a page that shows it."""
    if given.html is not None and given.html.exists() and not given.force:
        raise Refusal(f"{given.html} exists; give another --html, or --force to write over it")
    record = record_at(given.path)
    lines = summary(record)
    if given.html is not None:
        with refusals():
            return [*lines, f"page: {export_page(given.html, record)}"]
    return lines if given.no_browser else [*lines, opened(record)]


def explain(given: Arguments) -> list[str]:
    """Answer three questions from the numbers: is it hard to train, can it improve, what happened in training?"""
    record = record_at(given.path)
    landscapes = record.landscapes
    if given.landscape is not None:
        if given.landscape not in landscapes:
            raise Refusal(f"there is no landscape {given.landscape} here, only {', '.join(landscapes) or 'none at all'}")
        landscapes = {given.landscape: landscapes[given.landscape]}
    return explanation(explained_each(record, landscapes), landscapes)


def export(given: Arguments) -> list[str]:
    """Write a landscape as another kind of file, which the ending names."""
    record = record_at(given.path)
    with refusals():
        chosen = record if given.mode is None else record.only(given.mode)
        return [str(export_record(given.output, chosen))]


def compare(given: Arguments) -> list[str]:
    """Put two landscapes' numbers side by side, and say first in which settings they differ."""
    records: list[LandscapeRecord] = [record_at(path) for path in (given.one, given.other)]
    for path, record in zip((given.one, given.other), records, strict=True):
        if not record.grids:
            raise Refusal(f"{path} has no landscape yet, so there is nothing to compare; call sample_landscape first")
    with refusals():
        return comparison([str(given.one), str(given.other)], records)


def demo(given: Arguments) -> list[str]:
    """Train a small net in a few seconds and write its landscape, its path and its curvature into a folder."""
    with refusals():
        if given.folder.exists() and any(given.folder.iterdir()):
            raise Refusal(f"{given.folder} is not empty; name another folder")
        demo_landscape(given.folder)
    return [f"written to {given.folder}; now try: loss_landscape explain {given.folder}", *summary(record_at(given.folder))]


def _path_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path", type=Path, metavar="FILE|FOLDER", help="a landscape.json, a landscape.duckdb, or a Writer's folder"
    )


def _view_words(parser: argparse.ArgumentParser) -> None:
    _path_words(parser)
    parser.add_argument("--no-browser", action="store_true", help="the few lines alone")
    parser.add_argument("--html", type=Path, metavar="OUT.html", help="write the page there, and open nothing")
    parser.add_argument("--force", action="store_true", help="write over the file that --html names")


def _explain_words(parser: argparse.ArgumentParser) -> None:
    _path_words(parser)
    parser.add_argument("--landscape", metavar="NAME", help="one alone, such as plane-2; all are judged by default, and named")


def _export_words(parser: argparse.ArgumentParser) -> None:
    _path_words(parser)
    parser.add_argument("output", type=Path, metavar="OUTPUT", help=f"a file that ends with {', '.join(exports())}")
    parser.add_argument(
        "--mode", choices=("1d", "2d", "3d"), help="which grid, where a file holds one alone; the plane by default"
    )


def _compare_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("one", type=Path, metavar="A", help="a landscape file or a Writer's folder")
    parser.add_argument("other", type=Path, metavar="B", help="another")


def _demo_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path("landscape_demo"), metavar="FOLDER", help="landscape_demo by default"
    )


COMMANDS: Mapping[str, tuple[Callable[[Arguments], list[str]], Callable[[argparse.ArgumentParser], None]]] = {
    "demo": (demo, _demo_words),
    "view": (view, _view_words),
    "explain": (explain, _explain_words),
    "export": (export, _export_words),
    "compare": (compare, _compare_words),
}
"""Name → what it does, the first line of whose docstring is its help, and what puts its words into a parser."""


class _Parser(argparse.ArgumentParser):
    """A parser whose faults are sentences."""

    def error(self, message: str) -> NoReturn:
        raise Refusal(f"{self.prog}: {message}; `{self.prog} --help` lists what it takes")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="loss_landscape", description=__doc__, allow_abbrev=False)
    commands: Any = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (command, add_words) in COMMANDS.items():
        sentence = (command.__doc__ or "").splitlines()[0]
        one = commands.add_parser(name, help=sentence, description=sentence, allow_abbrev=False)
        add_words(one)
        one.set_defaults(command=command)
    return parser


def _no_such_command(word: str) -> Refusal:
    near = difflib.get_close_matches(word, COMMANDS, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    return Refusal(f"loss_landscape {word}: there is no such command; {meant}there are {', '.join(COMMANDS)}")
