"""A self-contained HTML report: opens offline, light and dark, on a phone; plotly inlined once; every table downloads.

The core knows sections, figures and tables. What they say comes from the folder that computed it.
"""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from affectlens.paths import write_text
from affectlens.types import Json

_MARKS = (
    (r"\*\*(.+?)\*\*", r"<strong>\1</strong>"),
    (r"`(.+?)`", r"<code>\1</code>"),
    (r"\*(.+?)\*", r"<em>\1</em>"),
)


@dataclass(frozen=True)
class Section:
    """One part of a report: sentences first, then a fragment, then figures, then tables (name to frame)."""

    title: str
    sentences: Sequence[str]
    figures: Sequence[go.Figure] = ()
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    methods: str = ""
    html: str = ""  # a fragment that is safe as it is, shown after the sentences


def markdown(line: str) -> str:
    """The marks we use (bold, code, emphasis) as HTML; everything else is escaped.

    >>> markdown("**0.8** of `resid_post` < 1")
    '<strong>0.8</strong> of <code>resid_post</code> &lt; 1'
    """
    out = escape(line, quote=False)
    for pattern, replacement in _MARKS:
        out = re.sub(pattern, replacement, out)
    return out


def write(path: Path, title: str, lead: Sequence[str], sections: Sequence[Section], info: Json, citation: str) -> Path:
    """Render and write the report."""
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("affectlens", "templates"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["md"] = lambda line: Markup(markdown(line))
    text = environment.get_template("report.html.j2").render(
        title=title,
        lead=lead,
        sections=[_section(number, section) for number, section in enumerate(sections)],
        info=json.dumps(info, indent=1),
        citation=citation,
        plotly=Markup(get_plotlyjs()) if any(section.figures for section in sections) else "",
    )
    write_text(path, text)
    return path


def _section(number: int, section: Section) -> Json:
    figures = [  # plotly writes < and > as escapes, so no title can end the script element
        {"id": f"figure-{number}-{i}", "json": Markup(str(fig.to_json()))} for i, fig in enumerate(section.figures)
    ]
    tables = [_table(name, frame) for name, frame in section.tables.items()]
    return {"title": section.title, "sentences": section.sentences, "figures": figures, "tables": tables,
            "methods": section.methods, "html": Markup(section.html)}  # fmt: skip


def _table(name: str, frame: pd.DataFrame) -> Json:
    csv = base64.b64encode(frame.to_csv(index=False).encode()).decode()
    rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
    return {"name": name, "csv": csv, "columns": list(frame.columns), "rows": rows}


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.3f}"  # NaN: no such figure
    return str(value)
