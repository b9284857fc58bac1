"""Objects from `_target_` blocks: everything is checked against the signature first, and only then called."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, get_args, get_origin, get_type_hints

from taskshift.config.targets import TRUSTED, Kind, full_name, resolve
from taskshift.config.typed import members, typed
from taskshift.config.words import MISSING, no_such_key, no_value, shown
from taskshift.faults import Fault

SUPPLIED = frozenset({"input_shape", "num_outputs", "seed", "net", "stream_settings"})
"""Arguments that the framework gives where a signature asks for them and the block does not."""


@dataclass(frozen=True)
class Recipe:
    """A block that passed every check that its signature allows; `make` calls the constructor."""

    where: str
    target: Any
    wanted: Kind
    arguments: Mapping[str, Any]  # values as the annotations want them; nested recipes, and mappings of recipes

    def make(self, *positional: Any, **given: Any) -> Any:
        """The object. What the block does not say is taken from `given`, where the signature has the name."""
        supplied = {name: given[name] for name in _parameters(self.target) if name in given and name not in self.arguments}
        arguments = {name: _made(value, given) for name, value in self.arguments.items()}
        try:
            made = self.target(*positional, **supplied, **arguments)
        except (ValueError, TypeError, OSError) as error:
            if not self.is_ours():
                raise  # a bug in a plugin keeps its traceback
            raise Fault(_placed(self.where, error, self.target)) from error
        if not isinstance(made, self.wanted):
            raise Fault(f"{self.where}: {self.target.__name__} returned {type(made).__name__}; expected {full_name(self.wanted)}")
        return made

    def takes(self, name: str) -> bool:
        """Whether `make` hands what is `given` by this name to the constructor, or to that of a block within."""
        own = name in _parameters(self.target) and name not in self.arguments
        return own or any(_takes(value, name) for value in self.arguments.values())

    def instead(self, **values: Any) -> Recipe:
        """The same with other values of arguments that the block gives; what it does not give is left out."""
        return replace(
            self, arguments={**self.arguments, **{name: one for name, one in values.items() if name in self.arguments}}
        )

    def is_ours(self) -> bool:
        """Whether its errors are sentences about its arguments, as ours and torch's are."""
        return self.target.__module__.split(".")[0] in TRUSTED


@dataclass(frozen=True)
class Unfinished:
    """A nested block whose owner calls it with what only the owner has: an optimizer with its parameters."""

    recipe: Recipe
    given: Mapping[str, Any]

    def __call__(self, *positional: Any, **instead: Any) -> Any:
        """The object; `instead` are values in place of the block's."""
        recipe = replace(self.recipe, arguments={**self.recipe.arguments, **instead})
        return recipe.make(*positional, **self.given)

    @property
    def __signature__(self) -> inspect.Signature:
        """The target's, with the block's values as defaults."""
        return inspect.signature(functools.partial(self.recipe.target, **self.recipe.arguments))


@dataclass(frozen=True)
class _Later:
    """A recipe that is handed over unfinished."""

    recipe: Recipe


def construct(block: Mapping[str, Any], wanted: Kind, *, where: str = "block", plugins: Iterable[str] = (), **given: Any) -> Any:
    """The object that a `_target_` block describes, an instance of `wanted`; a Fault lists all that is wrong with it."""
    faults: list[str] = []
    recipe = read_block(where, block, wanted, plugins, faults)
    if recipe is None or faults:
        raise Fault(*faults)
    return recipe.make(**given)


def read_block(
    where: str, block: Mapping[str, Any], wanted: Kind, plugins: Iterable[str], faults: list[str], *, unfinished: bool = False
) -> Recipe | None:
    """The recipe of a block; all that is wrong with it is added to `faults`, a sentence each.

    Of an `unfinished` one the owner gives the first argument.
    """
    path = block.get("_target_", MISSING)
    if path == MISSING:
        faults.append(no_value(f"{where}._target_"))
        return None
    try:
        target = resolve(path, wanted, f"{where}._target_", plugins)
    except Fault as fault:
        faults.extend(fault.sentences)
        return None
    written = {key: value for key, value in block.items() if key != "_target_"}
    return Recipe(where, target, wanted, _read_arguments(where, written, target, plugins, faults, unfinished))


def own_keys(target: Any, *, unfinished: bool = False) -> dict[str, inspect.Parameter]:
    """The arguments that a block with this target is there to give, those that the framework can give apart."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = {name: one for name, one in _parameters(target).items() if one.kind in by_name and name not in SUPPLIED}
    if unfinished and named:
        named.pop(next(iter(named)))
    return named


def _read_arguments(
    where: str, written: Mapping[str, Any], target: Any, plugins: Iterable[str], faults: list[str], unfinished: bool
) -> dict[str, Any]:
    hints, parameters, own = _hints(target), _parameters(target), own_keys(target, unfinished=unfinished)
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    arguments = {}
    for key, value in written.items():
        if key in own or takes_any or (key in SUPPLIED and key in parameters):
            arguments[key] = _read_value(f"{where}.{key}", value, hints.get(key, Any), plugins, faults)
        else:
            faults.append(no_such_key(f"{where}.", key, own))
    left_open = [name for name, one in own.items() if one.default is one.empty and name not in written]
    faults += [no_value(f"{where}.{name}") for name in left_open]
    return arguments


def _read_value(where: str, value: Any, kind: Any, plugins: Iterable[str], faults: list[str]) -> Any:
    if isinstance(value, Mapping) and "_target_" in value:
        return _read_nested(where, value, kind, plugins, faults)
    if isinstance(value, Mapping) and any(isinstance(item, Mapping) and "_target_" in item for item in value.values()):
        item_kind = next((get_args(one)[1] for one in members(kind) if _is_mapping(one)), Any)
        return {key: _read_value(f"{where}.{key}", item, item_kind, plugins, faults) for key, item in value.items()}
    if not isinstance(value, Mapping) and value is not None and value != MISSING and _wants_a_block(kind):
        slash = f"{where.replace('.', '/')}={shown(value)}"
        faults.append(f"{where}={shown(value)}: expected a block with a _target_; a file of that group is chosen by {slash}")
        return None
    return typed(where, value, kind, faults)


def _wants_a_block(kind: Any) -> bool:
    """Whether an annotation asks for an object that only a `_target_` block can describe."""
    asked = [member for member in members(kind) if member is not type(None)]
    return bool(asked) and all(get_origin(one) is collections.abc.Callable or _is_ours(one) for one in asked)


def _is_ours(kind: Any) -> bool:
    return inspect.isclass(kind) and not is_dataclass(kind) and kind.__module__.split(".")[0] in TRUSTED


def _read_nested(where: str, block: Mapping[str, Any], kind: Any, plugins: Iterable[str], faults: list[str]) -> Any:
    classes = [one for one in members(kind) if inspect.isclass(one) and one not in (type(None), Any)]
    makers = [one for one in members(kind) if get_origin(one) is collections.abc.Callable]
    if makers and not _names_one_of(tuple(classes), block, plugins):
        recipe = read_block(where, block, get_args(makers[0])[1], plugins, faults, unfinished=True)
        return _Later(recipe) if recipe else None
    return read_block(where, block, classes[0] if classes else object, plugins, faults)


def _names_one_of(classes: tuple[type, ...], block: Mapping[str, Any], plugins: Iterable[str]) -> bool:
    """Whether a block's target is of these classes; what is wrong with a target is said where the block is read."""
    try:
        target = resolve(block["_target_"], object, "", plugins) if classes else None
    except Fault:
        return False
    return inspect.isclass(target) and issubclass(target, classes)


def _made(value: Any, given: Mapping[str, Any]) -> Any:
    if isinstance(value, _Later):
        return Unfinished(value.recipe, given)
    if isinstance(value, Recipe):
        return value.make(**given)
    if isinstance(value, dict):
        return {key: _made(item, given) for key, item in value.items()}
    return value


def _takes(value: Any, name: str) -> bool:
    """Whether `_made` hands on what is given by this name."""
    if isinstance(value, _Later):
        return value.recipe.takes(name)
    if isinstance(value, Recipe):
        return value.takes(name)
    return isinstance(value, dict) and any(_takes(item, name) for item in value.values())


def _is_mapping(kind: Any) -> bool:
    origin = get_origin(kind)
    return inspect.isclass(origin) and issubclass(origin, Mapping) and len(get_args(kind)) == 2


def _parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(target).parameters


def _hints(target: Any) -> Mapping[str, Any]:
    """Annotations by argument; empty where they cannot be read, and the constructor alone judges."""
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    except NameError:
        return {}


def _placed(where: str, error: Exception, target: Any) -> str:
    """The error's sentence after the block it is about, or after the very key where it begins with one."""
    sentence = " ".join(str(error).split()) or type(error).__name__
    first = re.match(r"\w+", sentence)
    return f"{where}{'.' if first and first[0] in _parameters(target) else ': '}{sentence}"
