"""The code on the documentation's pages runs, from top to bottom, on the embedded model."""

import importlib
import re
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parent.parent / "docs").glob("*.md"))


@pytest.mark.real
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_pages_code_runs(page: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks
    exec(compile("\n".join(blocks), str(page), "exec"), {})


@pytest.mark.parametrize("page", [*PAGES, PAGES[0].parent.parent / "README.md"], ids=lambda page: page.stem)
def test_what_a_page_names_is_there(page: Path) -> None:
    """Also in its prose, which nothing runs."""
    text = page.read_text(encoding="utf-8")
    named = dict(re.findall(r"^import (affectlens[\w.]*) as (\w+)", text, re.MULTILINE))
    named |= {f"{home}.{name}": alias for home, name, alias in
              re.findall(r"^from (affectlens[\w.]*) import (\w+) as (\w+)$", text, re.MULTILINE)}  # fmt: skip
    for module, alias in named.items():
        for name in set(re.findall(rf"(?<![\w./-]){alias}\.([A-Za-z_]\w*)", text)):
            assert hasattr(importlib.import_module(module), name), f"{alias}.{name}"
