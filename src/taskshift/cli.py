"""The command `taskshift`: train.py for who installed the package, and what is done with runs and sweeps afterwards."""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from taskshift.boundary import sentences
from taskshift.faults import Fault

if TYPE_CHECKING:
    from rich.console import Console

Arguments = argparse.Namespace

WIDTH_IN_A_FILE = 160
"""Columns of what is printed to no terminal."""


def main() -> None:
    """Carry out the command line; faults end in a sentence and status 1."""
    with sentences():
        words = sys.argv[1:] or ["--help"]
        if words[0] == "train":  # all that follows is Hydra's, --help as well
            train(words[1:])
            return
        if words[0] not in COMMANDS and not words[0].startswith("-"):
            raise _no_such_command(words[0])
        arguments = _parser().parse_args(words)
        arguments.command(arguments)


def train(words: Sequence[str]) -> None:
    """Train and measure, as train.py does: key=value …, --help lists the keys, --multirun sweeps."""
    absent = [name for name in ("hydra", "omegaconf", "pydantic") if importlib.util.find_spec(name) is None]
    if absent:
        raise Fault(f"training needs {', '.join(absent)}, which pip install 'taskshift[train]' brings")
    from taskshift.config.command import conf_folder, hydra_command

    sys.argv = ["taskshift", *words]
    hydra_command(_job, conf_folder(), together=_together)()


def plot(given: Arguments) -> None:
    """Draw the summary pictures of a run's folder again, or a figure of a sweep's runs."""
    if (given.folder / "metrics.jsonl").exists():
        if given.y is not None:
            raise Fault(f"{given.folder} is one run's folder: its pictures take no options; --y and the like are for a sweep's")
        from taskshift.pictures.summary import draw_summary

        drawn = draw_summary(given.folder)
    else:
        from taskshift.sweeps.plot import Wanted, plot_sweep

        wanted = Wanted(given.y, given.x, given.group, given.kind, given.at)
        drawn = plot_sweep(given.folder, wanted, given.output, given.force)
    for picture in drawn:
        print(picture)


def report(given: Arguments) -> None:
    """Make the page of a run, of a sweep, or of several runs side by side: an HTML file that opens without a network."""
    from taskshift.report.make import report

    print(report(given.folders, given.html, force=given.force))


def status(given: Arguments) -> None:
    """Say where the runs of a sweep are, or one run, and how long the rest will take."""
    from taskshift.sweeps.status import show_status

    for folder in given.folders:
        show_status(folder, _console())


def collect(given: Arguments) -> None:
    """Put every number that the runs of sweeps logged into one long table, or ask it a question."""
    from taskshift.sweeps.collect import collect

    collect(given.sweeps, given.output, given.query, given.force, _console())


def compare(given: Arguments) -> None:
    """Compare values of an override by paired differences over seeds."""
    from taskshift.sweeps.paired import compare_in

    compare_in(given.sweep, given.between, given.y, given.at, _console())


def compare_runs(given: Arguments) -> None:
    """Say in what two runs' folders differ, timings apart; status 1 where they do."""
    from taskshift.compare import differences

    for folder in (given.one, given.other):
        _require_run(folder)
    found = differences(given.one, given.other)
    print("\n".join(found) or "the same, bit for bit")
    raise SystemExit(1 if found else 0)


def rerun(given: Arguments) -> None:
    """Do a run again from its saved config, in a new folder; key=value may name another device, run_name and the like."""
    from taskshift.rerun import rerun

    _print_log()
    rerun(given.folder, given.overrides)


def measure(given: Arguments) -> None:
    """Measure the nets that a run kept once more, with other settings: task=…, lla.… ."""
    from taskshift.remeasure import remeasure

    _print_log()
    print(remeasure(given.folder, given.overrides))


def tail(given: Arguments) -> None:
    """Follow what a run, or the runs of a sweep, say while they are at work."""
    from taskshift.sweeps.tail import tail

    tail(given.folder, lambda line: print(line, flush=True))


# -- the words of each command --------------------------------------------------------------------------------


def _plot_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a run's folder, or a sweep's")
    sweep = parser.add_argument_group("for a sweep")
    sweep.add_argument("--y", metavar="METRIC", help="what is drawn, as it is called in metrics.jsonl")
    sweep.add_argument("--x", default="task_idx", help="task_idx (the default), global_epoch, or an override that was swept")
    sweep.add_argument("--group", metavar="OVERRIDE", help="a curve or bar for each value of this override")
    sweep.add_argument("--kind", choices=("curves", "bars", "heatmap"), help="curves where --x is a number, else bars")
    counted = "the task whose value counts, a number, `last` (the default), `last:5`, `first:5` or `mean`"
    _add_at(sweep, f"where --x is an override: {counted}")
    sweep.add_argument(
        "-o", dest="output", type=Path, metavar="STEM", help="path without an ending; <sweep>/figures/… by default"
    )
    sweep.add_argument("--force", action="store_true", help="write over the files that -o names")


def _report_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN|SWEEP", help="runs' folders, or one sweep's")
    beside = (
        "one file with all that it needs; without it report.html in the folder, which shares the plotly bundle of its project"
    )
    parser.add_argument("--html", type=Path, metavar="OUT", help=beside)
    parser.add_argument("--force", action="store_true", help="write over the file that --html names")


def _status_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", type=Path, nargs="+", metavar="SWEEP", help="a sweep's folder, or a run's")


def _collect_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sweeps", type=Path, nargs="+", metavar="SWEEP", help="a sweep's folder")
    parser.add_argument("-o", dest="output", type=Path, metavar="TABLE", help="a file that ends with .parquet or .csv")
    parser.add_argument("--query", metavar="SQL", help="print what this SELECT on the table `metrics` gives")
    parser.add_argument("--force", action="store_true", help="write over the file that -o names")


def _compare_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sweep", type=Path, metavar="SWEEP", help="a sweep's folder")
    between = "an override and its values, such as learner=backprop,l2; each is compared with the first"
    parser.add_argument("--between", required=True, metavar="KEY=A,B", help=between)
    parser.add_argument("--y", required=True, metavar="METRIC", help="what is compared, as it is called in metrics.jsonl")
    means = "`last:5` or `first:5`, means over five, or `mean`, over all"
    _add_at(parser, f"the task whose value counts: a number, `last` (the default), {means}")


def _compare_runs_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("one", type=Path, metavar="A", help="a run's folder")
    parser.add_argument("other", type=Path, metavar="B", help="another")


def _run_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a run's folder")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="what is to be otherwise")


def _tail_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a run's folder, or a sweep's")


def _add_at(parser: argparse.ArgumentParser | argparse._ArgumentGroup, help: str) -> None:
    parser.add_argument("--at", type=_task, default="last", metavar="TASK", help=help)


def _task(word: str) -> str:
    from taskshift.sweeps.series import AT

    if not AT.fullmatch(word):
        raise Fault(
            f"--at {word}: expected a task's number, from 0, or last, last:5 or first:5 (means over five) or mean (over all)"
        )
    return word


COMMANDS: Mapping[str, tuple[Callable[[Any], None], Callable[[argparse.ArgumentParser], None]]] = {
    "train": (train, lambda parser: None),
    "status": (status, _status_words),
    "tail": (tail, _tail_words),
    "plot": (plot, _plot_words),
    "report": (report, _report_words),
    "collect": (collect, _collect_words),
    "compare": (compare, _compare_words),
    "compare-runs": (compare_runs, _compare_runs_words),
    "measure": (measure, _run_words),
    "rerun": (rerun, _run_words),
}
"""Name → what it does, the first line of whose docstring is its help, and what puts its words into a parser."""


class _Parser(argparse.ArgumentParser):
    """A parser whose faults are ours."""

    def error(self, message: str) -> NoReturn:
        raise Fault(f"{self.prog}: {message}; `{self.prog} --help` lists what it takes")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="taskshift", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (command, add_words) in COMMANDS.items():
        sentence = command.__doc__.splitlines()[0]
        one = commands.add_parser(name, help=sentence, description=sentence, allow_abbrev=False)
        add_words(one)
        one.set_defaults(command=command)
    return parser


def _no_such_command(word: str) -> Fault:
    near = difflib.get_close_matches(word, COMMANDS, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    return Fault(f"taskshift {word}: there is no such command; {meant}there are {', '.join(COMMANDS)}")


def _require_run(folder: Path) -> None:
    if not any((folder / name).exists() for name in ("run.json", "measure.json")):
        raise Fault(f"{folder} is no run's folder: there is no run.json in it")


def _print_log() -> None:
    """Let this package's messages appear on the terminal, as Hydra does for a run."""
    from taskshift.log_lines import Lines

    logging.getLogger("taskshift").addHandler(Lines())
    logging.getLogger("taskshift").setLevel(logging.INFO)


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else WIDTH_IN_A_FILE)


def _job(config: dict[str, Any], overrides: Sequence[str]) -> float:
    from taskshift.run import judged

    return judged(config, overrides)


def _together(configs: Sequence[dict[str, Any]], overrides: Sequence[Sequence[str]]) -> Sequence[Exception | None]:
    from taskshift.run import run_together

    return run_together(configs, overrides)


if __name__ == "__main__":
    main()
