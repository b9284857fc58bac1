"""Which objects a `_target_` may name. The one place where a string of a config becomes code."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterable, Sequence
from types import UnionType
from typing import Any, get_args, get_type_hints

from taskshift.config.words import either, shown
from taskshift.faults import Fault

OURS = ("taskshift", "loss_landscape")
TRUSTED = (*OURS, "torch", "torchvision", "pytorch_optimizer")
Kind = type | UnionType
"""What a block's object must be an instance of."""

BUILDERS = "torchvision.models."
"""Where functions of others are taken as well: they say that a module comes back."""


def resolve(path: Any, wanted: Kind, where: str, plugins: Iterable[str] = ()) -> Any:
    """The class or function that `path` names, or a Fault: its package is judged before the import, then the object itself."""
    judge_package(path, where, plugins)
    found = _found(path, where)
    roots = {*OURS, *tops(plugins)}
    top = found.__module__.split(".")[0] if inspect.isclass(found) or inspect.isfunction(found) else None
    if top is not None and top not in {*TRUSTED, *roots}:
        raise Fault(f"{where}={path}: this is defined in {found.__module__}; expected one of ours, torch's or a plugin's")
    if inspect.isclass(found):
        if not issubclass(found, wanted):
            raise Fault(f"{where}={path}: expected a subclass of {full_name(wanted)}")
        return found
    if top is None or not (top in roots or found.__module__.startswith(BUILDERS)):
        raise Fault(f"{where}={path}: expected a subclass of {full_name(wanted)}, or a plugin's function that returns one")
    returned = return_type(found)
    if inspect.isclass(returned) and not issubclass(returned, wanted):
        raise Fault(f"{where}={path}: this function returns {returned.__name__}; expected {full_name(wanted)}")
    return found


def judge_package(path: Any, where: str, plugins: Iterable[str] = ()) -> None:
    """Refuse a `_target_` by its words alone, before anything of it is imported."""
    if not isinstance(path, str) or not all(part.isidentifier() for part in path.split(".")) or "." not in path:
        raise Fault(f"{where}={shown(path)}: expected the full name of a class, such as torch.optim.Adam")
    allowed = [*TRUSTED, *tops(plugins)]
    if path.split(".")[0] not in allowed:
        yours = "a module of yours is named in plugins: 'plugins=[my_module]'"
        raise Fault(f"{where}={path}: its package must be {either(allowed)}; {yours}")


def tops(plugins: Iterable[str]) -> list[str]:
    """The top-level packages of the plugins."""
    return [name.split(".")[0] for name in plugins]


def find_plugins(plugins: Sequence[str]) -> list[str]:
    """Put the working directory last on the search path, and return a sentence for every plugin that is not to be found."""
    if plugins and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return [sentence for name in plugins if (sentence := _absent(name))]


def import_plugins(plugins: Sequence[str]) -> None:
    """Import the modules a user named; an error inside one keeps its traceback."""
    if faults := find_plugins(plugins):
        raise Fault(*faults)
    for name in plugins:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # of what the module imports itself
            raise Fault(f"plugins=[{name}]: there is no module {error.name}") from error


def return_type(function: Any) -> Any:
    """The annotated type of what comes back, or None where the annotations cannot be read."""
    try:
        return get_type_hints(function).get("return")
    except NameError:
        return None


def _absent(name: str) -> str | None:
    top = name.split(".")[0]
    if name.endswith(".py") and name[:-3].isidentifier():
        return f"plugins=[{name}]: expected the name of a module, without .py: plugins=[{name[:-3]}]"
    if not all(part.isidentifier() for part in name.split(".")):
        return f"plugins=[{name}]: expected the name of a module, without .py and without folders"
    if top in sys.stdlib_module_names:
        return f"plugins=[{name}]: {top} is Python's own; expected a module of yours"
    if importlib.util.find_spec(top) is None:
        return f"plugins=[{name}]: there is no module {top} in {os.getcwd()}, nor is one installed"
    return None


def _found(path: str, where: str) -> Any:
    parts = path.split(".")
    found = importlib.import_module(parts[0])
    for number, part in enumerate(parts[1:], start=1):
        name = ".".join(parts[:number])
        if not hasattr(found, part) and inspect.ismodule(found) and _is_module(f"{name}.{part}"):
            importlib.import_module(f"{name}.{part}")
        if not hasattr(found, part):
            raise Fault(f"{where}={path}: there is no {part} in {name}{_near(found, part)}")
        found = getattr(found, part)
    return found


def _is_module(name: str) -> bool:
    parent = sys.modules[name.rpartition(".")[0]]
    return hasattr(parent, "__path__") and importlib.util.find_spec(name) is not None


def _near(found: Any, part: str) -> str:
    known = [name for name in dir(found) if not name.startswith("_")]
    near = difflib.get_close_matches(part, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def full_name(kind: Kind) -> str:
    """A class with its module, or the classes of a union."""
    if isinstance(kind, UnionType):
        return either([full_name(one) for one in get_args(kind)])
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
