"""What a user of the library meets first: its names, their signatures, their docstrings, the time it takes to import."""

from __future__ import annotations

import doctest
import importlib.resources
import inspect
import math
import pkgutil
import re
import subprocess
import sys
from importlib import metadata
from typing import Any

import pytest

import loss_landscape
from loss_landscape import plot

PUBLIC = {name: getattr(loss_landscape, name) for name in loss_landscape.__all__}
PUBLIC |= {name: getattr(plot, name) for name in plot.__all__}
METHODS = [
    (name, method)
    for name, thing in PUBLIC.items()
    if inspect.isclass(thing)
    for method, function in inspect.getmembers(thing, lambda member: inspect.isfunction(member) or inspect.ismethod(member))
    if not method.startswith("_") and function.__module__.startswith("loss_landscape")
]
MODULES = [module.name for module in pkgutil.walk_packages(loss_landscape.__path__, "loss_landscape.")]
MAX_PARAMETERS, MAX_POSITIONAL = 8, 2
SECONDS_BESIDE_TORCH = 0.3
SLOW_OR_OPTIONAL = ["curvlinops", "duckdb", "matplotlib", "pandas", "plotly", "scipy.stats", "scipy.optimize", "scipy.sparse"]

MORE_PARAMETERS = {
    "eigenpairs": "docs/API.md promises every one of these keywords",
    "DirectionInfo": "a record of all that is known of directions: each field is a fact",
    "GridInfo": "a record of all that is known of a grid: each field is a fact",
    "LossSurface": "what a loss is made of, and what its random numbers follow from",
    "HessianMetrics": "a record of all that is known of a curvature: each field is a fact",
    "sample_landscape": "a landscape in one call, by the words of the Writer",
    "UnitLayer": "a record of all that is known of a layer's units: each field is a fact",
}
MORE_POSITIONAL = {
    "adam_directions": "adam_directions(surface, model, optimizer): an optimizer knows its parameters by the model alone",
    "Explorer": "Explorer(model, loss_fn, data_loader): as LossSurface",
    "sample_landscape": "sample_landscape(model, data_loader, loss_fn, path) is the first call of everyone",
    "TrainingRecorder": "TrainingRecorder(writer, model, data_loader, loss_fn): a writer, and its sample_landscape's words",
    "adam_preconditioner": "adam_preconditioner(surface, model, optimizer): as adam_directions",
    "LossSurface": "LossSurface(model, loss_fn, batches) is the first call of everyone",
    "barrier": "barrier(surface, start, end): two ends are one thing",
    "repair": "repair(surface, start, end): two ends are one thing",
    "repaired_line": "repaired_line(surface, start, end): two ends are one thing",
    "fit_bezier": "fit_bezier(surface, start, end): two ends are one thing",
    "fit_polychain": "fit_polychain(surface, start, end): two ends are one thing",
    "eigenpairs": "eigenpairs(operator, top, bottom): how many at either end",
    "spectral_density": "spectral_density(operator, num_probes, lanczos_steps): the two sizes of one rule",
    "evaluate_grid": "evaluate_grid(surface, directions, resolution): as docs/API.md calls it",
    "three_point_directions": "three_point_directions(surface, one, other): the plane of three nets",
}


def signature(name: str) -> dict[str, inspect.Parameter]:
    """The parameters of a function or of a class's constructor; none of a class that nobody constructs."""
    thing = PUBLIC[name]
    if inspect.isclass(thing) and inspect.isabstract(thing):
        return {}
    return dict(inspect.signature(thing).parameters)


def documentation(name: str) -> str:
    thing = PUBLIC[name]
    own = [thing.__doc__, thing.__init__.__doc__ if inspect.isclass(thing) and "__init__" in vars(thing) else None]
    return "\n".join(filter(None, own))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_docstring_names_every_parameter(name):
    told = documentation(name)
    assert [parameter for parameter in signature(name) if not re.search(rf"(?<!\w){parameter}(?!\w)", told)] == []


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_a_methods_docstring_names_every_parameter(name, method):
    function = getattr(PUBLIC[name], method)
    told, parameters = inspect.getdoc(function) or "", [one for one in inspect.signature(function).parameters if one != "self"]
    assert [parameter for parameter in parameters if not re.search(rf"(?<!\w){parameter}(?!\w)", told)] == []


@pytest.mark.parametrize("name", PUBLIC)
def test_a_signature_has_few_parameters_and_two_positional_ones(name):
    parameters = signature(name).values()
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    is_result = hasattr(PUBLIC[name], "__dataclass_fields__")  # read, and seldom built by hand
    assert len(parameters) <= MAX_PARAMETERS or name in MORE_PARAMETERS
    assert len(positional) <= MAX_POSITIONAL or name in MORE_POSITIONAL or is_result


def test_no_exception_is_kept_that_none_needs():
    assert [name for name in MORE_PARAMETERS if len(signature(name)) <= MAX_PARAMETERS] == []
    positional = {name: [p for p in signature(name).values() if p.kind == p.POSITIONAL_OR_KEYWORD] for name in MORE_POSITIONAL}
    assert [name for name, those in positional.items() if len(those) <= MAX_POSITIONAL] == []


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_an_example(name):
    assert any(test.examples for test in doctest.DocTestFinder().find(PUBLIC[name], name))


@pytest.mark.parametrize("name", ["loss_landscape", *MODULES])
def test_examples_run(name, tmp_path, monkeypatch):
    """They go on from the package's own."""
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    report: list[str] = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name, globs={}):
        test.globs.update(namespace() if module is not loss_landscape else {})
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
    assert "".join(report) == ""


def namespace() -> dict[str, Any]:
    """What the package's own example defines."""
    found: dict[str, Any] = {}
    for example in doctest.DocTestParser().get_examples(loss_landscape.__doc__ or ""):
        exec(compile(example.source, "loss_landscape", "single"), found)
    return found


def test_the_version_is_the_distributions():
    assert loss_landscape.__version__ == metadata.version("taskshift")
    with pytest.raises(AttributeError, match="module 'loss_landscape' has no attribute 'nothing'"):
        loss_landscape.nothing  # noqa: B018


def test_the_import_is_quick_and_brings_nothing_slow():
    """Beside that of torch, in seconds of the processor, in a process of its own; the best of three at most."""
    code = (
        "import sys, time, torch; began = time.process_time(); import loss_landscape; print(time.process_time() - began); "
        f"print([name for name in {SLOW_OR_OPTIONAL!r} if name in sys.modules])"
    )
    seconds: list[float] = []
    while len(seconds) < 3 and not min(seconds, default=math.inf) <= SECONDS_BESIDE_TORCH:
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        took, imported = said.splitlines()
        seconds.append(float(took))
        assert imported == "[]"
    assert min(seconds) <= SECONDS_BESIDE_TORCH


def test_type_checkers_are_told_that_there_are_types():
    assert (importlib.resources.files("loss_landscape") / "py.typed").is_file()
