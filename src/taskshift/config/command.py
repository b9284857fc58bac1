"""Configs composed by Hydra: for a command, and for a test or notebook in its own process."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

import taskshift
from taskshift.boundary import faults_end_here
from taskshift.config.check import check_quick
from taskshift.config.hydra_faults import from_hydra, reworded, several_values
from taskshift.config.words import no_such_key
from taskshift.faults import Fault
from taskshift.script import JobFunction, Together

VERSION_BASE = "1.3"

NAMES = ("run_name", "sweep_name", "output_root", "output_project")
"""Keys that name folders: what looks like a number is a name all the same, and the one that was written."""

OURS_TO_NAME = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.output_subdir", "hydra.job.chdir")
"""Keys of Hydra's about folders that it would make beside ours."""


def conf_folder() -> Path:
    """The folder of the config groups: inside the package where it is installed, at the top of the repository otherwise."""
    package = Path(taskshift.__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parents[1] / "conf"


def hydra_command(
    job: JobFunction, conf: Path, config_name: str = "config", *, together: Together | None = None
) -> Callable[[], None]:
    """A main function that reads the command line, composes a config, and hands it to `job`; with `--multirun`, to many.

    Runs of a sweep that can train as one program are handed to `together`, where there is one.
    """

    @functools.wraps(job)
    def main(cfg: DictConfig) -> Any:
        known = HydraConfig.get()
        config = plain(cfg, known)
        check_quick(config)
        return job(config, list(known.overrides.task))

    main.together = together  # for the launcher, which is given what Hydra is given
    decorated = hydra.main(version_base=VERSION_BASE, config_path=str(conf.resolve()), config_name=config_name)
    run_main = decorated(faults_end_here(main))

    def command() -> None:
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises, instead of printing in its own words
        sys.argv[1:] = words = options_first(sys.argv[1:])
        refuse_folders(words)
        try:
            run_main()
        except (Fault, BrokenPipeError):  # passed on by Hydra, but none of its own
            raise
        except Exception as error:  # of whatever type, if it is Hydra's
            if not from_hydra(error):
                raise
            if several_values(error):  # Hydra's own answer to any fault of a command that `cluster=slurm` makes a sweep
                composed(*_single(words), conf=conf, config_name=config_name)
            raise Fault(reworded(error, words)) from error

    return command


def refuse_folders(words: Sequence[str]) -> None:
    """Raise Fault for a word that would have Hydra make a folder: it does so before anything is checked."""
    for word in words:
        if word.partition("=")[0].lstrip("+~") in OURS_TO_NAME:
            raise Fault(
                f"{word}: a run's folder is <output_root>/<output_project>/<net>/<run_name>, a sweep's has sweeps/<sweep_name> "
                "in place of the net; say where results go by output_root=…"
            )


def _as_written(key: str, value: float, words: Sequence[str]) -> str:
    """The last word for a key, as its user wrote it: 1e3, where the config has 1000.0."""
    given = [word.partition("=")[2] for word in words if word.partition("=")[0].lstrip("+") == key]
    return given[-1].strip() if given else str(value)


def options_first(words: Sequence[str]) -> list[str]:
    """The words with Hydra's options before all others: its parser takes none between two overrides.

    Raises Fault for an option that it does not have, where Hydra would print its usage.
    """
    parser = get_args_parser()
    parser.error = _refuse_option
    known, rest = parser.parse_known_args(list(words))
    if unknown := next((word for word in rest if word.startswith("-")), None):
        key, _, value = unknown.lstrip("-").partition("=")
        raise Fault(f"{unknown}: there is no such option; a key is written without dashes, {key}={value or '…'}")
    overrides = {*known.overrides, *rest}
    return sorted(words, key=lambda word: word in overrides)


def _refuse_option(message: str) -> NoReturn:
    raise Fault(f"{message}; `python train.py --hydra-help` lists Hydra's options")


def _single(words: Sequence[str]) -> list[str]:
    """The overrides that give one value."""
    parser = OverridesParser.create()
    overrides = [word for word in words if not word.startswith("-")]
    return [word for word in overrides if not parser.parse_override(word).is_sweep_override()]


def compose(*overrides: str | Sequence[str], conf: Path | None = None, config_name: str = "config") -> dict[str, Any]:
    """The config that a command with these overrides would run, after the quick checks; raises Fault as the command would.

    A list of overrides, as Hydra's own `compose` takes it, is as good as its words one by one.
    """
    words = [word for given in overrides for word in ([given] if isinstance(given, str) else given)]
    config = composed(*words, conf=conf, config_name=config_name)
    check_quick(config)
    return config


def composed(*overrides: str, conf: Path | None = None, config_name: str = "config") -> dict[str, Any]:
    """The same unchecked, for a config that is no run's own."""
    with hydra.initialize_config_dir(str((conf or conf_folder()).resolve()), version_base=VERSION_BASE):
        try:
            cfg = hydra.compose(config_name, list(overrides), return_hydra_config=True)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            if not from_hydra(error):
                raise
            raise Fault(reworded(error, overrides)) from error
        return without_hydra(cfg)


def without_hydra(cfg: DictConfig) -> dict[str, Any]:
    """A composed config as `plain` wants it."""
    own = cfg.copy()
    with open_dict(own):
        del own["hydra"]
    return plain(own, cfg.hydra)


def plain(cfg: DictConfig, known: DictConfig) -> dict[str, Any]:
    """Resolved dicts and lists, with `arch`, the choice of net, put in; `known` is Hydra's own part of the config."""
    choices = known.runtime.choices
    try:
        config = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:  # an interpolation that leads nowhere
        raise Fault(reworded(error, known.overrides.task)) from error
    words = OmegaConf.to_container(known.overrides.task)  # as they are written: iterating would resolve what they refer to
    if switch := next((word for word in words if word.startswith("~lla.enable_")), None):
        key = switch[1:].partition("=")[0]
        raise Fault(f"{switch}: a switch is not deleted; {key}=false leaves the evaluator out")
    for key in NAMES:
        if type(config.get(key)) in (int, float):
            config[key] = _as_written(key, config[key], words)
    if "arch" in config:
        raise Fault(no_such_key("", "arch", set(config) - {"arch"}))
    for group in ("data", "net", "learner", "task_shift_mode"):
        if choices.get(group) is None:
            raise Fault(f"{group}: a run needs exactly one; `python train.py --help` lists the choices")
    if config["task_shift_mode"] != choices["task_shift_mode"]:
        raise Fault(
            f"task_shift_mode={config['task_shift_mode']}: the group chosen is {choices['task_shift_mode']}; "
            "a file chooses a mode by the line `- override /task_shift_mode: …` in its defaults"
        )
    return config | {"arch": choices["net"].replace("/", "_")}
