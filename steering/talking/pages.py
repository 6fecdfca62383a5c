"""How exchanges look on a page: spans whose titles give token and reading, in a fragment of HTML, light or dark."""

from collections.abc import Sequence
from html import escape

from affectlens.probing.tokens.heat import shade
from affectlens.probing.tokens.pieces import Shown, limit, visible
from affectlens.steering.talking.exchanges import Exchange
from affectlens.steering.talking.summing import legend, read_out


def as_html(exchange: Exchange, *, explained: bool = True) -> str:
    """What was said, the replies in coloured tokens, and what was read of them; every word is escaped.

    Args:
        exchange: to be drawn.
        explained: say what the colours are.
    """
    rows = [exchange.pieces(side) for _, side in exchange.sides]
    end = limit(rows)
    doses = ", ".join(f"{name} {dose:+g}" for name, dose in exchange.doses.items())
    heads = [f"steered: {doses}" if name == "steered" else name for name, _ in exchange.sides]
    heads[-1] += " (stopped)" * exchange.stopped
    cells = "".join(_cell(head, row, end) for head, row in zip(heads, rows, strict=True))
    notes = [read_out(exchange), legend(exchange) if explained else ""]
    return (
        "<div style='line-height:1.8;max-width:75em'>"
        f"<div style='font-style:italic;overflow-wrap:anywhere'>{escape(visible(exchange.said))}</div>"
        "<div style='display:grid;grid-template-columns:repeat(auto-fit,minmax(min(18em,100%),1fr));gap:.5em 2em'>"
        f"{cells}</div><div style='font-size:.85em'>{'<br>'.join(escape(note) for note in notes if note)}</div></div>"
    )


def _cell(head: str, row: Sequence[Shown], end: float) -> str:
    return (
        f"<div><div style='font-size:.85em'><b>{escape(head)}</b></div>"
        "<div dir='auto' lang='' style='white-space:pre-wrap;overflow-wrap:anywhere'>"
        f"{''.join(_span(s, end) for s in row)}</div></div>"
    )


def _span(s: Shown, end: float) -> str:
    words = escape(visible(s.text)).replace("⏎\n", "<i aria-hidden='true'>⏎</i>\n")
    if s.why_grey:
        return f"<span>{words}</span>"
    colour, opacity = shade(s.score / end)
    ground = f"rgba({','.join(map(str, colour))},{opacity:.3f})"
    return f"<span style='background:{ground}' title='{escape(f'{s.text!r} {s.score:+.3f}')}'>{words}</span>"
