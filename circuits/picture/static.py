"""The picture as one drawing without a browser: SVG made here, and PNG made of it where a renderer is installed."""

import importlib
import re
import textwrap
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import pandas as pd

from affectlens.circuits.graph import CircuitGraph
from affectlens.circuits.picture.data import COLOURS, extra_rooms, on_circuit
from affectlens.circuits.picture.layout import SHARED, WIDTH, Box, Plan, curve, entries, plan, port_of, room_of, rooms
from affectlens.errors import CircuitError
from affectlens.paths import replacing
from affectlens.plots import GREY

DASHES = {"k": "7 4", "v": "2 3.5"}
INK, SOFT, LINE, PAPER = "#1d2127", "#5b626c", "#dfe3e8", "#ffffff"
WEIGHTS = {"score": "|score| (estimated)", "effect": "|effect| (exact path patching)"}
LEAST = 440  # pixels of width, for the words


def svg(graph: CircuitGraph, *, most: int = 300, full: bool = False, weight: str = "score", title: str = "") -> str:
    """A static drawing: the same rooms and curves as in the page, numbers in titles that a browser shows on hover.

    Args:
        graph: the circuit.
        most: edges to draw, the largest; the drawing says how many there are.
        full: draw every room of the model, those off the circuit faint.
        weight: what width and colour tell: ``score`` (estimated) or ``effect`` (exact path patching).
        title: what stands above; by default the emotion, the model and the metric.

    Raises:
        CircuitError: an unknown weight, or no edge with one.
    """
    space = graph.space
    if weight not in WEIGHTS:
        raise CircuitError(f"weight={weight!r} is not known: choose score or effect.")
    table = graph.edges[graph.edges[weight].notna()].sort_values(weight, key=abs, ascending=False, kind="stable")
    if table.empty and len(graph.edges):
        raise CircuitError(f"No edge has {weight!r}, so none can be drawn: choose the other weight.")
    drawn = table.head(most)
    on = on_circuit(graph) | {"embedding", "end"}
    every = rooms(space, extra_rooms(graph))
    at = plan(space, every, [room.name for room in every] if full else on)
    share = drawn[weight].abs().sum() / (table[weight].abs().sum() or 1)
    said = [f"{len(drawn):,} of {len(graph.edges):,} edges, {share:.0%} of the total {WEIGHTS[weight]}.",
            "Blue supports the metric, orange opposes it."]  # fmt: skip
    named = [_room(at.boxes[room.name], _label(room.name, space.end), room.kind, room.name in on)
             for room in every if room.name in at.boxes]  # fmt: skip
    return "\n".join([*_frame(at, title or _title(graph), said), *_edges(graph, at, drawn, weight), *named, "</svg>\n"])


def png(graph: CircuitGraph, path: str | Path, *, scale: int = 2, most: int = 300, full: bool = False) -> Path:
    """The drawing of :func:`svg` as a PNG; needs the renderer ``resvg-py``. The page exports PNG without it.

    Args:
        graph: the circuit.
        path: of the file.
        scale: pixels of the image a pixel of the drawing.
        most: edges to draw.
        full: draw every room of the model.

    Raises:
        CircuitError: the renderer is not installed, or see :func:`svg`.
    """
    drawing = svg(graph, most=most, full=full)
    try:
        renderer = importlib.import_module("resvg_py")
    except ImportError:
        raise CircuitError(
            "PNG needs a renderer that is not installed: pip install resvg-py; or save svg(graph), or press PNG in the "
            "page that write_picture writes."
        ) from None
    image = bytes(renderer.svg_to_bytes(svg_string=drawing, zoom=scale))
    with replacing(Path(path)) as work:
        work.write_bytes(image)
    return Path(path)


def safe(text: str) -> str:
    """Text that may stand in XML: signs escaped, characters that XML forbids left out.

    >>> safe("a < b & c\\x00")
    'a &lt; b &amp; c'

    Args:
        text: anything.
    """
    return escape(re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text))


def _title(graph: CircuitGraph) -> str:
    given = [str(graph.meta[key]) for key in ("emotion", "model", "metric") if graph.meta.get(key)]
    return ", ".join(given) or "Circuit"


def _label(name: str, end: str) -> str:
    return end if name == "end" else name.replace(".mlp", ".MLP")


def _frame(at: Plan, title: str, said: Sequence[str]) -> list[str]:
    width = max(at.width, LEAST)
    titles = textwrap.wrap(title, int(width / 9.8)) or [""]
    head = 18 * len(titles) + 15 * len(said) + 16
    height = at.height + head + 34
    texts = [(18 * (i + 1) - head, line, 'font-size="15" font-weight="600"', INK) for i, line in enumerate(titles)]
    texts += [(18 * len(titles) + 15 * (i + 1) - head, line, 'font-size="11.5"', SOFT) for i, line in enumerate(said)]
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {-head} {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" font-family="system-ui, \'DejaVu Sans\', Arial, sans-serif" role="img">',
        f"<title>{safe(title)}</title>",
        f'<rect x="0" y="{-head}" width="{width:g}" height="{height:g}" fill="{PAPER}"/>',
        *(f'<text x="10" y="{y:g}" fill="{fill}" {font}>{safe(line)}</text>' for y, line, font, fill in texts),
        *(f'<path d="M8 {y + 5:.1f}H{width - 8:.1f}" stroke="{LINE}"/>'
          f'<text x="10" y="{y - 4:.1f}" fill="{SOFT}" font-size="11">L{layer}</text>' for layer, y in at.floors),
        *_legend(at.height + 14),
    ]  # fmt: skip


def _legend(y: float) -> Iterator[str]:
    for x, port, name in ((10, "q", "into queries, MLPs, the end"), (220, "k", "into keys"), (330, "v", "into values")):
        dash = f' stroke-dasharray="{DASHES[port]}"' if port in DASHES else ""
        yield f'<path d="M{x} {y:g}h28" stroke="{SOFT}" stroke-width="2.5"{dash}/>'
        yield f'<text x="{x + 34}" y="{y + 4:g}" fill="{SOFT}" font-size="11">{name}</text>'


def _edges(graph: CircuitGraph, at: Plan, drawn: pd.DataFrame, weight: str) -> Iterator[str]:
    """The smallest first, so that the largest lie on top."""
    largest, shares = float(drawn[weight].abs().max() or 1.0), entries(graph.space)
    unit = str(graph.meta.get("unit") or "")
    for _, row in drawn.iloc[::-1].iterrows():
        sender, receiver, value = str(row["sender"]), str(row["receiver"]), float(row[weight])
        port = port_of(receiver)
        boxes = at.boxes[room_of(graph.space, sender)], at.boxes[room_of(graph.space, receiver)]
        path = curve(*boxes, shares[port], at.width / 2)
        dash = f' stroke-dasharray="{DASHES[port]}"' if port in DASHES else ""
        said = safe(f"{sender} -> {receiver}: {interval(row, 'score')} {unit}; exact {interval(row, 'effect')}")
        yield (
            f'<path d="{path}" fill="none" stroke="{COLOURS["up" if value >= 0 else "down"]}" stroke-opacity=".7" '
            f'stroke-width="{0.7 + 6.3 * abs(value) / largest:.2f}"{dash}><title>{said}</title></path>'
        )


def interval(row: pd.Series, name: str) -> str:
    """A number with its interval in words.

    Args:
        row: of the edge table.
        name: score or effect.
    """
    if pd.isna(row[name]):
        return "not measured"
    bounds = [float(row[f"{name}_{end}"]) for end in ("low", "high")]
    around = "" if any(pd.isna(bound) for bound in bounds) else f" [{bounds[0]:.3g}, {bounds[1]:.3g}]"
    return f"{float(row[name]):.3g}{around}"


def _room(box: Box, label: str, kind: str, on: bool) -> str:
    fill, rim, ink = ("#f6f7f9", GREY, INK) if on else (PAPER, LINE, "#b4b9c0")
    radius = 9 if kind in ("mlp", "embedding", "end") else 3
    words, size = [(0.5, label if len(label) <= (14 if box.w > WIDTH else 9) else f"{label[:8]}…")], 10.5
    if kind == "kv":
        words, size = [(SHARED[port], port) for port in "kv"], 7
    texts = [
        f'<text x="{box.x + box.w * share:.1f}" y="{box.y + box.h / 2 + size * 0.36:.1f}" font-size="{size}" '
        f'fill="{ink}" text-anchor="middle">{safe(word)}</text>'
        for share, word in words
    ]
    return (
        f'<rect x="{box.x:g}" y="{box.y:g}" width="{box.w:g}" height="{box.h:g}" rx="{radius}" fill="{fill}" '
        f'stroke="{rim}"><title>{safe(label)}</title></rect>{"".join(texts)}'
    )
