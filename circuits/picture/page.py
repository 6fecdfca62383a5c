"""The page: circuits to walk through, in one HTML file that loads nothing and works offline, and the same in a frame.

What it shows of texts, tokens and names reaches it as data and is set as text, never as markup; the data stand in an
element that no script runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from affectlens.circuits.graph import CircuitGraph
from affectlens.circuits.picture.data import Detail, payload
from affectlens.paths import write_text
from affectlens.probing.features.dashboard import embedded


@dataclass(frozen=True, repr=False)
class Frame:
    """The page in a frame of its own, as a notebook and a report show it."""

    page: str
    height: int = 760  # pixels

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{escape(self.page)}" sandbox="allow-scripts allow-downloads" title="Circuit" '
            f'style="width:100%;height:{self.height}px;border:1px solid #8885;border-radius:8px"></iframe>'
        )

    def __repr__(self) -> str:
        return f"Frame({len(self.page) / 1024:.0f} kB; a notebook draws it)"


def write_picture(
    path: str | Path, graphs: Mapping[str, CircuitGraph], *, details: Mapping[str, Detail] | None = None,
    title: str = "", most: int = 5000,
) -> Path:  # fmt: skip
    """Write the page; ``#node=L5.H3`` in its address opens a room, ``#circuit=grief&node=L5.H3`` one of a circuit.

    Args:
        path: of the file.
        graphs: circuits by name, such as one an emotion; all of one model and one end.
        details: by the same names, what a click on a head shows beside its edges.
        title: of the page; by default the model's name, and a single circuit's emotion.
        most: edges a circuit that the page holds, the largest.

    Raises:
        CircuitError: see :func:`affectlens.circuits.picture.data.payload`.
    """
    write_text(Path(path), rendered(graphs, details=details, title=title, most=most))
    return Path(path)


def show(
    graph: CircuitGraph | Mapping[str, CircuitGraph], *, details: Mapping[str, Detail] | None = None, title: str = "",
    most: int = 1500, height: int = 760,
) -> Frame:  # fmt: skip
    """The page in a notebook; needs a notebook whose scripts may run.

    Args:
        graph: a circuit, or several by name.
        details: by the same names; of a single circuit its name is its emotion, or ``circuit``.
        title: of the page.
        most: edges a circuit.
        height: in pixels.

    Raises:
        CircuitError: see :func:`write_picture`.
    """
    graphs = graph if isinstance(graph, Mapping) else {str(graph.meta.get("emotion") or "circuit"): graph}
    return Frame(rendered(graphs, details=details, title=title, most=most), height)


def fragment(
    graphs: Mapping[str, CircuitGraph],
    *,
    details: Mapping[str, Detail] | None = None,
    most: int = 1500,
    height: int = 760,
) -> str:
    """The frame as the ``html`` of a report's :class:`affectlens.report.Section`.

    Args:
        graphs: circuits by name.
        details: by the same names.
        most: edges a circuit.
        height: in pixels.

    Raises:
        CircuitError: see :func:`write_picture`.
    """
    return show(graphs, details=details, most=most, height=height)._repr_html_()


def rendered(
    graphs: Mapping[str, CircuitGraph],
    *,
    details: Mapping[str, Detail] | None = None,
    title: str = "",
    most: int = 5000,
) -> str:
    """The page's text; see :func:`write_picture`.

    Args:
        graphs: circuits by name.
        details: by the same names.
        title: of the page.
        most: edges a circuit.

    Raises:
        CircuitError: see :func:`write_picture`.
    """
    data = payload(graphs, details or {}, most=most)
    meta = next(iter(graphs.values())).meta
    name = f"Circuit of {meta['emotion']}" if len(graphs) == 1 and meta.get("emotion") else "Circuits"
    loader = PackageLoader("affectlens.circuits.picture", "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template("picture.html.j2").render(
        title=title or (f"{name} in {meta['model']}" if meta.get("model") else name), data=Markup(embedded(data))
    )
