"""Only the places that CONTRIBUTING.md names go on after whatever exception."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "src"
HANDS_ON = {"taskshift/recorders/within.py"}
"""What takes every exception to raise it in another thread."""


def _goes_on_after_anything(handler: ast.ExceptHandler) -> bool:
    """Whether a handler takes every exception, and raises none."""
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    is_broad = any(one is None or ast.unparse(one) in ("Exception", "BaseException") for one in caught)
    return is_broad and not any(isinstance(node, ast.Raise) for node in ast.walk(handler))


def _found(source: str) -> bool:
    return any(isinstance(node, ast.ExceptHandler) and _goes_on_after_anything(node) for node in ast.walk(ast.parse(source)))


def test_the_places_are_those_of_the_page():
    named = set()
    for line in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines():
        if "go on after any `Exception`" in line:
            named = {f"taskshift/{name}" for name in re.findall(r"`([\w/]+\.py)`", line)}
    found = {str(path.relative_to(SOURCES)) for path in SOURCES.rglob("*.py") if _found(path.read_text(encoding="utf-8"))}
    assert len(named) == 4
    assert found - HANDS_ON == named


def test_what_counts():
    caught = "try:\n    work()\nexcept {}:\n    {}\n"
    assert _found(caught.format("Exception", "pass"))
    assert _found(caught.format("(OSError, BaseException)", "log()"))
    assert not _found(caught.format("Exception as error", "raise Fault() from error"))
    assert not _found(caught.format("OSError", "pass"))
