"""The notebooks run from top to bottom, are committed without output, and say what the README says."""

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_is_committed_without_output(path: Path) -> None:
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert cells
    assert all(not c["outputs"] and c["execution_count"] is None for c in cells)


SAYS = {
    "01_quickstart": "Probe minus floor",
    "02_activations": " Paris",
    "03_stimuli": "additive readers on quadruples",
    "04_probing": "holds for all 30 at once",
    "05_patching": "restores",
    "06_steering": "joy and fear at L18.resid_post: cosine",
    "07_features": "Keyword or affect?",
    "08_circuits": "4 held-out scenes (4 pairs) CPR is",
    "09_dynamics": "this run can't tell the loop from its controls",
    "04b_geometry": "cannot tell a circle from one valence axis",
}


@pytest.mark.real
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_runs(path: Path, tmp_path: Path) -> None:
    notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    kinds = [kind for cell in notebook.cells for out in cell.get("outputs", []) for kind in out.get("data", {})]
    assert any("plotly" in kind for kind in kinds), kinds
    said = json.dumps([cell.get("outputs", []) for cell in notebook.cells if cell.cell_type == "code"])
    assert SAYS[path.stem] in said


def test_the_readmes_snippet_is_what_the_quickstart_does() -> None:
    """Same calls, same arguments, apart from what the notebook shows in passing."""
    readme = (ROOT / "README.md").read_text()
    (snippet,) = re.findall(r"```python\n(import affectlens as al\n.*?)```", readme, re.S)
    cells = json.loads((ROOT / "notebooks" / "01_quickstart.ipynb").read_text())["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    for line in snippet.strip().splitlines():
        call = line.split("#")[0].strip()
        assert call in code, call
