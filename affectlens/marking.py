"""How an alignment is shown: one screen of text, or coloured HTML that is legible on a light and on a dark page."""

import textwrap
from html import escape

from affectlens.aligning import Alignment, Side

WIDTH = 92  # characters of text a line
LINES = 3  # of each changed clause
_COLOURS = {"prefix": "138,143,152", "changed": "217,121,28", "suffix": "59,125,216"}  # grey, orange, blue


def as_text(found: Alignment) -> str:
    """The segments with their token counts, a line each and a few for the changed clause; long ones lose their middle.

    >>> from affectlens.aligning import align
    >>> from affectlens.testing import tiny_tokenizer
    >>> print(align(tiny_tokenizer(), "It rained. He ran.", "It thawed. He ran."))
    tokens    18 | 18   a | b
    prefix     3 | 3    It
    changed    4 | 4    a: rain
                        b: thaw
    suffix    11 | 11   ed. He ran.
    ending     7 | 7    shared, token for token
    """
    a, b = found.a, found.b
    rows = [
        _row("tokens", len(a.ids), len(b.ids), f"{a.name} | {b.name}"),
        _row("prefix", len(a.prefix), len(b.prefix), _clip(a.text(a.prefix), WIDTH)),
    ]
    if a.changed or b.changed:
        first, *more = [*_clause("a", a), *_clause("b", b), *_unpaired(found)]
        rows += [_row("changed", len(a.changed), len(b.changed), first), *(" " * 20 + line for line in more)]
    else:
        rows.append(_row("changed", 0, 0, "nothing"))
    rows.append(_row("suffix", len(a.suffix), len(b.suffix), _clip(a.text(a.suffix), WIDTH)))
    rows.append(_row("ending", len(a.ending), len(b.ending), _ending(found)))
    return "\n".join(row.rstrip() for row in rows)


def as_html(found: Alignment) -> str:
    """Both texts, token by token: segments by colour, the changed clause bold, the ending underlined.

    A token's tooltip gives its position and its partner's.
    """
    a, b = found.a, found.b
    there = dict((*found.pairs, *found.changed_pairs))
    back = {j: i for i, j in there.items()}
    counts = (
        ("prefix", f"{len(a.prefix)}"),
        ("changed", f"{len(a.changed)} | {len(b.changed)}"),
        ("suffix", f"{len(a.suffix)}"),
    )
    legend = " ".join(f"<span style='{_style(name)}'>{name} {count}</span>" for name, count in counts)
    notes = "".join(f"; {line}" for line in _unpaired(found))
    ending = f"<u>ending</u> {len(a.ending)} | {len(b.ending)}, {_ending(found)}"
    return (
        "<div style='line-height:1.7;max-width:75em'>"
        f"<div>{legend} {ending}{escape(notes)} (in tokens)</div>{_paragraph(a, there)}{_paragraph(b, back)}</div>"
    )


def _row(name: str, a: int, b: int, said: str) -> str:
    return f"{name:<8}{a:>4} | {b:<4} {said}"


def _clause(name: str, side: Side) -> list[str]:
    text = _clip(side.text(side.changed).strip(" "), LINES * (WIDTH - 8))
    lines = textwrap.wrap(text, WIDTH - 3) or ["(blank)" if side.changed else "(nothing)"]
    return [f"{name}: {lines[0]}", *("   " + line for line in lines[1:])]


def _unpaired(found: Alignment) -> list[str]:
    gap = len(found.a.changed) - len(found.b.changed)
    longer = "a" if gap > 0 else "b"
    return [f"(paired from the right: the first {abs(gap)} of {longer} have no partner)"] if gap else []


def _ending(found: Alignment) -> str:
    return "shared, token for token" if found.ending_shared else "not shared"


def _clip(text: str, width: int) -> str:
    """``text`` on one line, without its middle where it is longer than ``width``."""
    seen = text.replace("\n", "⏎")
    half = (width - 3) // 2
    return seen if len(seen) <= width else f"{seen[:half]}...{seen[-half:]}"


def _style(segment: str, *, paired: bool = True, ending: bool = False) -> str:
    """Colours are translucent, so that the page's own text colour stays readable on them."""
    bold = "font-weight:600;" if segment == "changed" else ""
    under = "text-decoration:underline;" if ending else ""
    return f"background:rgba({_COLOURS[segment]},{0.28 if paired else 0.12});{bold}{under}padding:2px 0"


def _paragraph(side: Side, partner: dict[int, int]) -> str:
    spans = []
    for segment in ("prefix", "changed", "suffix"):
        for pos in getattr(side, segment):
            style = _style(segment, paired=pos in partner, ending=pos in side.ending)
            said = f"{pos}, paired with {partner[pos]}" if pos in partner else f"{pos}, no partner"
            spans.append(f"<span style='{style}' title='{said}'>{escape(side.tokens[pos])}</span>")
    name = f"<b>{escape(side.name)}</b> ({len(side.ids)} tokens)"
    return f"<p style='margin:.4em 0'>{name}<br><span style='white-space:pre-wrap'>{''.join(spans)}</span></p>"
