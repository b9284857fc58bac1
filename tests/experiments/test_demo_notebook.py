"""The notebook: the same cells as its script, and that they run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from the_pipeline import FOLDER

SCRIPT, NOTEBOOK = FOLDER / "LLA_demo.py", FOLDER / "LLA_demo.ipynb"


def cells_of_the_script() -> list[tuple[str, str]]:
    """(kind, text) of each cell in the percent format."""
    body = re.sub(r"\A# ---\n.*?\n# ---\n", "", SCRIPT.read_text(), flags=re.DOTALL)
    cells = []
    for part in re.split(r"^# %%", body, flags=re.MULTILINE)[1:]:
        head, _, text = part.partition("\n")
        is_text = "[markdown]" in head
        lines = (re.sub(r"^# ?", "", line) if is_text else line for line in text.strip("\n").split("\n"))
        cells.append(("markdown" if is_text else "code", "\n".join(lines)))
    return cells


def test_notebook_and_script_are_the_same():
    notebook = json.loads(NOTEBOOK.read_text())
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]] == cells_of_the_script()


def test_no_outputs_are_stored():
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    setting = next(cell for cell in notebook.cells if "RESULTS = " in cell.source)
    setting.source = re.sub(r"RESULTS = .*", f"RESULTS = Path({str(tmp_path)!r})", setting.source)
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(FOLDER)}}).execute()
    pictures = [output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    assert len(pictures) == 13
    tables = json.loads((Path(tmp_path) / "comparison.json").read_text())
    assert [table["net"] for table in tables] == ["convnet", "resnet18"]
    said = notebook.cells[-1].outputs[0]["data"]["text/markdown"]
    assert re.match(r"On digits and after this little training, resnet18 lies in a (flatter|sharper) place than convnet: ", said)
