"""What Hydra and OmegaConf say, reworded: the key, its value, and what is allowed."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import antlr4
import hydra
import omegaconf
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from taskshift.config.words import MISSING, either, no_such_key
from taskshift.faults import Fault

LIBRARIES = tuple(str(Path(module.__file__).parent) + os.sep for module in (hydra, omegaconf, antlr4))
LISTED = "`python train.py --help` lists the choices"


def from_hydra(error: BaseException) -> bool:
    """Whether one of Hydra's own frames raised it, whatever its type: `+lla=3` ends in a bare ValueError."""
    frame = traceback.extract_tb(error.__traceback__)[-1].filename
    return isinstance(error, HydraException) or frame.startswith(LIBRARIES)


def reworded(error: BaseException, overrides: Sequence[str]) -> str:
    """One sentence for an error of Hydra's; the advice to add a `+` is given only where it helps."""
    cause, first = error.__cause__, str(error).splitlines()[0]
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _no_such_file(error)
    if isinstance(getattr(cause, "parent_node", None), DictConfig) and cause.key is not None:
        return _unknown_key(cause)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: this cannot be read; expected key=value, lists as [a,b], text with special signs in quotes"
    if given := re.match(r"(?:Multiple values for )?(\S+?)(?:\. To override| appears more than once)", first):
        return _chosen_twice(given[1])
    if given := re.search(r"node `(.+?)` is not a container", first):
        return _no_block(given[1], overrides)
    if given := several_values(error):
        return f"{given}: several values are a sweep, which needs --multirun; a list is written in brackets: [a,b]"
    if given := re.match(r"Could not delete from config\. '(.+?)' does not exist", first):
        return f"~{given[1]}: there is no such key to delete"
    if "Config group override must be" in first:
        return _no_choice(overrides)
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {first}"
    return f"{first} (in {' '.join(overrides)})"


def several_values(error: BaseException) -> str | None:
    """The override of several values, where that is what Hydra refused."""
    given = re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.+?)'", str(error))
    return given and given[1]


def _no_such_file(error: MissingConfigException) -> str:
    group, _, choice = error.missing_cfg_file.rpartition("/")
    if not group:
        return f"--config-name={choice}: there is no such file in the folder of configs; leave it out, train.py's own is config"
    allowed = f"give {either(sorted(error.options))}" if error.options else LISTED
    return f"{group}={choice}: there is no such {group.rpartition('/')[2]}; {allowed}"


def _chosen_twice(group: str) -> str:
    adding = "; 'lla=[default,name]' adds an evaluator" if group == "lla" else ""
    return f"+{group}: {group} has a choice already; write {group}=… without the + to choose another{adding}"


def _no_choice(overrides: Sequence[str]) -> str:
    named = [word for word in overrides if re.fullmatch(r"[+~]*[\w/@]*=(null|true|false|[\d.+-]+|\{.*)", word, re.IGNORECASE)]
    return f"{' '.join(named or overrides)}: expected the name of a file of this group; {LISTED}"


def _no_block(key: str, overrides: Sequence[str]) -> str:
    given = next((word for word in overrides if word.lstrip("+").startswith(f"{key}=")), key)
    head, _, name = key.rpartition(".")
    return f"{given}: expected a block of keys" + (f"; lla.enable_{name}=false leaves it out" if head == "lla" else "")


def _unknown_key(cause: OmegaConfBaseException) -> str:
    key, block = str(cause.key), OmegaConf.to_container(cause.parent_node, resolve=False)
    everything = OmegaConf.to_container(cause.parent_node._get_root(), resolve=False)
    at = cause.full_key[: -len(key)]
    if at == "lla." and key.startswith("enable_") and key.removeprefix("enable_") in block:
        return f"lla.{key}: the evaluator's file does not list its switch; write +lla.{key}=false, or {key}: true into the file"
    if _signature_has(key, block.get("_target_"), everything.get("plugins")):
        return f"{at}{key}: its file does not list this key, but {block['_target_']} takes it; write +{at}{key}=…"
    everything.pop("hydra", None)
    elsewhere = sorted(name for name in _names(everything) if name.endswith(f".{key}"))
    if elsewhere:
        return f"{at}{key}: there is no such key; did you mean {either(elsewhere[:4])}?"
    return no_such_key(at, key, {str(name) for name in block} - {"hydra", "_target_"})


def _signature_has(key: str, path: object, plugins: object) -> bool:
    """Whether what a `_target_` names takes an argument that its file does not list."""
    if not isinstance(path, str) or path == MISSING:
        return False
    from taskshift.config.construct import own_keys
    from taskshift.config.targets import import_plugins, resolve

    modules = [str(name) for name in plugins] if isinstance(plugins, list) else []
    try:
        import_plugins(modules)
        return key in own_keys(resolve(path, object, "_target_", modules))
    except Fault:
        return False


def _names(block: Mapping[str, object], at: str = "") -> Iterator[str]:
    """Every dotted key of nested blocks."""
    for key, value in block.items():
        yield f"{at}{key}"
        if isinstance(value, Mapping):
            yield from _names(value, f"{at}{key}.")
