"""Print the lowest version of everything that setup.py needs, `name==version` a line, as constraints for pip.

    python scripts/oldest_versions.py > FILE; python -m pip install -c FILE -e '.[train,sweepers,writer,curvature,dev]'

What only checks or draws the project itself (`dev`, `docs`, `bench`) is left to pip.
"""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from packaging.requirements import Requirement

SETUP = Path(__file__).resolve().parents[1] / "setup.py"
USED = ("train", "sweepers", "writer", "curvature")
"""The extras that a user may have installed."""


def lowest() -> Iterator[str]:
    """A line for each package."""
    with patch("setuptools.setup") as called:
        runpy.run_path(str(SETUP))
    told = called.call_args.kwargs
    words = [*told["install_requires"], *(word for extra in USED for word in told["extras_require"][extra])]
    for requirement in map(Requirement, dict.fromkeys(words)):
        [version] = [one.version for one in requirement.specifier if one.operator == ">="]
        yield f"{requirement.name}=={version}"


if __name__ == "__main__":
    print("\n".join(lowest()))
