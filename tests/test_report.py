"""The run folder and the report: whole files, no outside resource, nothing that a name could inject."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from affectlens.errors import RunError
from affectlens.paths import written_whole
from affectlens.plots import band, figure
from affectlens.report import Section, markdown, write
from affectlens.run import Run


class Page(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.fixture
def page(tmp_path: Path) -> str:
    fig = figure("a </script><b>title", "x", "y")
    band(fig, [0.0, 1.0], [0.0, 0.1], [0.5, 0.6], [0.9, 1.0], "curve", "#3b7dd8")
    table = pd.DataFrame({"reader": ["<i>one</i>", "two"], "value": [0.123456789, 1.0]})
    sections = [Section("First", ["**Bold** & <script>alert(1)</script>"], [fig, fig], {"my table": table}, "How.")]
    write(tmp_path / "r.html", "A <title>", ["lead `code`"], sections, {"command": "probe"}, "@software{x}")
    return (tmp_path / "r.html").read_text(encoding="utf-8")


def test_report_is_self_contained(page: str) -> None:
    tags = Page(page).tags
    assert not [a for _, a in tags if (a.get("src") or "").strip()]
    links = [a["href"] for t, a in tags if t in ("a", "link") and a.get("href")]
    assert links
    assert all((link or "").startswith("data:text/csv;base64,") for link in links)
    assert page.count("plotly.js v") == 1
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page


def test_report_escapes_names_and_titles(page: str) -> None:
    assert "<script>alert(1)" not in page
    assert "<i>one</i>" not in page
    assert "<title>A &lt;title&gt;</title>" in page
    assert "a </script><b>title" not in page
    assert "<strong>Bold</strong> &amp; &lt;script&gt;" in page


def test_tables_download_at_full_precision(page: str) -> None:
    (csv,) = re.findall(r'href="data:text/csv;base64,([^"]+)"', page)
    table = pd.read_csv(io.StringIO(base64.b64decode(csv).decode()))
    assert table["value"].tolist() == [0.123456789, 1.0]
    assert 'download="my_table.csv"' in page


def test_markdown_marks_and_nothing_else() -> None:
    assert markdown("*a* **b** `c<d>`") == "<em>a</em> <strong>b</strong> <code>c&lt;d&gt;</code>"


def test_a_run_is_created_once_opened_and_timed(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "r", command="probe", config={"seed": 1})
    with run.timed("step"):
        pass
    run.close("done")
    info = Run.open(tmp_path / "r").info
    assert (info["status"], info["config"], info["command"]) == ("done", {"seed": 1}, "probe")
    assert "step" in info["timings"]
    assert {"torch", "transformers", "numpy"} <= set(info["versions"])
    with pytest.raises(RunError, match="exists already: choose another --out, or continue it with --resume"):
        Run.create(tmp_path / "r", command="probe", config={})
    (tmp_path / "r" / "run.json").write_text("{half")
    with pytest.raises(RunError, match="is not a run folder"):
        Run.open(tmp_path / "r")


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), written_whole(tmp_path / "a") as work:
        (work / "file").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with written_whole(tmp_path / "a") as work:
        (work / "file").write_text("ours")
    with written_whole(tmp_path / "a") as work:  # another process was first: theirs stays
        (work / "file").write_text("late")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "file").read_text() == "ours"


def test_bands_close_and_carry_their_interval() -> None:
    fig = figure("t", "x", "y")
    band(fig, [0.0, 1.0], [0.1, 0.2], [0.3, 0.4], [0.5, 0.6], "c", "#000000")
    traces: Any = fig.data
    around, curve = traces
    np.testing.assert_array_equal(around.y, [0.5, 0.6, 0.2, 0.1])
    assert list(curve.customdata) == ["0.30 [0.10, 0.50]", "0.40 [0.20, 0.60]"]
