"""No file of the packages bears the name of a module that the standard library or a dependency has."""

import ast
import re
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _required() -> set[str]:
    """The distributions that setup.py names."""
    texts = [str(node.value) for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.Constant)]
    return {match[1] for text in texts if (match := re.match(r"([A-Za-z][\w.-]*)[>=]=\d", text))}


def _modules_of(name: str) -> Iterable[str]:
    """What a distribution puts at the top level; its own name where it is not installed."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return [name.replace("-", "_")]
    if (listed := found.read_text("top_level.txt")) is not None:
        return listed.split()
    return {Path(file.parts[0]).stem for file in found.files or () if file.suffix == ".py"}


@pytest.fixture(scope="module")
def taken():
    """Names of modules that others have: the standard library, and the distributions that setup.py requires."""
    return set(sys.stdlib_module_names).union(*map(_modules_of, _required()))


def test_the_names_of_others_are_known(taken):
    assert {"operator", "numbers", "csv", "torch", "numpy", "wandb", "hydra", "sklearn", "pydantic", "_pytest", "duckdb"} <= taken


@pytest.mark.parametrize("package", ["taskshift", "loss_landscape"])
def test_no_module_is_called_as_another_is(package, taken):
    folder = ROOT / "src" / package
    modules = {path.parent if path.stem == "__init__" else path.with_suffix("") for path in folder.rglob("*.py")} - {folder}
    assert len(modules) > 50
    assert sorted(str(module.relative_to(ROOT)) for module in modules if module.name in taken) == []
