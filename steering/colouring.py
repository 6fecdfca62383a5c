"""How plain and steered replies are drawn beside each other: coloured tokens for terminals and pages, plain lines.

The palette is that of :mod:`affectlens.probing.tokens.heat`: blue below the scale's zero, orange above it, translucent
on pages so that text keeps the page's own colour, ink and ground both set in a terminal. One scale holds for both
columns and all prompts. The sign and size of each reading are in its title as well.
"""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from affectlens.probing.tokens.heat import GROUND, INK, over, shade
from affectlens.probing.tokens.pieces import Shown, cut, limit, visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from affectlens.steering.plan import SteeringPlan
    from affectlens.steering.sides import Beside, Reply


def strings(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    """The text that each token adds; joined they are the whole, and a sign of several tokens is its last one's.

    Args:
        tokenizer: the model's.
        ids: the tokens.
    """

    def decoded(n: int) -> str:
        text: str = tokenizer.decode(list(ids[:n]), clean_up_tokenization_spaces=False)
        return text

    out, done = [""] * len(ids), ""
    for k in range(len(ids)):
        text = decoded(k + 1)
        whole = k + 1 == len(ids) or not text.endswith("\ufffd")
        if whole and text.startswith(done):
            out[k], done = text[len(done) :], text
    return tuple(out)


def doses_of(plan: "SteeringPlan") -> str:
    """The doses in one line.

    Args:
        plan: whose doses.
    """
    said = [f"{t.direction.emotion} {t.dose:+g}{' of the norm' if t.raw else ''}" for t in plan.terms]
    return ", ".join(dict.fromkeys(said))


def caption(beside: "Beside", column: int = 0, forward: str = "read anew") -> str:
    """What is shown, in three sentences.

    Args:
        beside: the replies.
        column: which reader's.
        forward: which pass's.
    """
    reader = beside.readers[column]
    anew = "Read anew: the plain model reads both finished replies with nothing added, so what differs is in the words."
    if reader.own:
        anew += " The direction that reads is the one that chose the words, so it is no judge of them."
    written = (
        "As written: in the steered reply the added vector itself takes part, and at the steered site it shifts every "
        "token whatever the words are."
    )
    zero = "a logit of 0" if reader.zeroed else f"the plain replies' median token, {beside.centre[column]:+.3f}"
    what = reader.says[0].upper() + reader.says[1:]
    return f"{what}. {anew if forward == 'read anew' else written} The scale's zero is {zero}."


def shown(beside: "Beside", reply: "Reply", column: int, forward: str) -> list[Shown]:
    """A reply in pieces, each with its distance from the scale's zero, the mean over its tokens.

    Args:
        beside: whose reply.
        reply: the reply.
        column: which reader's.
        forward: which pass's.
    """
    ends = np.cumsum([len(text) for text in reply.tokens], dtype=int)
    spans = [(int(end) - len(text), int(end)) for text, end in zip(reply.tokens, ends, strict=True)]
    text = "".join(reply.tokens)
    values = reply.readings(forward)[:, column] - beside.centre[column]
    pieces = cut(text, spans) if text else ()
    return [
        Shown(text[p.start : p.end], float(values[list(p.tokens)].mean()) if p.tokens else 0.0, "",
              "" if p.tokens else "no token", len(p.tokens))
        for p in pieces
    ]  # fmt: skip


def as_text(beside: "Beside", column: int) -> str:
    """Replies and mean readings in plain lines.

    Args:
        beside: the replies.
        column: which reader's.
    """
    lines = []
    for pair in beside.pairs:
        if len(beside) > 1:
            lines.append(f"prompt: {pair.prompt}")
        lines += [f"{version}: {reply.text}" for version, reply in pair.sides]
        lines += [_means(beside, pair.sides, column), ""]
    return "\n".join([*lines, caption(beside, column)])


def for_terminal(beside: "Beside", column: int, forward: str) -> "RenderableType":
    """Two columns of coloured tokens, and the legend.

    Args:
        beside: the replies.
        column: which reader's.
        forward: which pass's.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    drawn, end = _drawn(beside, column, forward)
    grid = Table("plain", f"steered: {doses_of(beside.plan)}", box=None, pad_edge=False, padding=(0, 3, 0, 0),
                 header_style="bold", expand=True)  # fmt: skip
    for one in grid.columns:
        one.ratio, one.overflow = 1, "fold"
    for pair, (left, right) in zip(beside.pairs, drawn, strict=True):
        if len(beside) > 1:
            grid.add_row(Text(f"\n{pair.prompt}", style="italic"), "")
        grid.add_row(_painted(left, end), _painted(right, end))
        grid.add_row(*(Text(_mean(row), style="dim") for row in (left, right)))
    scale = Text(f"\n{-end:+.3f} ")
    for share in range(-10, 11):
        scale.append(" ", style=_style(share / 10))
    scale.append(f" {end:+.3f}\n{caption(beside, column, forward)}")
    return Group(grid, scale)


def as_html(beside: "Beside", column: int, forward: str, *, legend: bool) -> str:
    """Two columns of spans whose titles give token and reading; every word of them is escaped.

    Args:
        beside: the replies.
        column: which reader's.
        forward: which pass's.
        legend: say what is shown.
    """
    drawn, end = _drawn(beside, column, forward)
    parts = [_legend(caption(beside, column, forward), end)] if legend else []
    for pair, rows in zip(beside.pairs, drawn, strict=True):
        heads = ("plain", f"steered: {doses_of(beside.plan)}")
        cells = "".join(_cell(head, row, end) for head, row in zip(heads, rows, strict=True))
        parts.append(
            "<div style='margin:1em 0 .3em;font-style:italic;overflow-wrap:anywhere'>"
            f"{escape(visible(pair.prompt))}</div>"
            "<div style='display:grid;grid-template-columns:repeat(auto-fit,minmax(min(18em,100%),1fr));gap:.5em 2em'>"
            f"{cells}</div>"
        )
    return f"<div style='line-height:1.8;max-width:75em'>{''.join(parts)}</div>"


def _drawn(beside: "Beside", column: int, forward: str) -> tuple[list[list[list[Shown]]], float]:
    """Of each prompt both replies in pieces, and where the one scale ends."""
    drawn = [[shown(beside, reply, column, forward) for _, reply in pair.sides] for pair in beside.pairs]
    return drawn, limit([row for rows in drawn for row in rows])


def _mean(row: Sequence[Shown]) -> str:
    tokens = sum(s.tokens for s in row)
    if not tokens:
        return "no token"
    return f"mean {sum(s.score * s.tokens for s in row) / tokens:+.3f} over {tokens} tokens"


def _means(beside: "Beside", sides: "Sequence[tuple[str, Reply]]", column: int) -> str:
    reader = beside.readers[column]
    said = [f"{version} {_mean(shown(beside, reply, column, 'read anew'))}" for version, reply in sides]
    return f"{reader.emotion} at {reader.site}, read anew: {'; '.join(said)}"


def _painted(row: Sequence[Shown], end: float) -> "Text":
    from rich.text import Text

    text = Text()
    for s in row:
        text.append(visible(s.text), style=_style(s.score / end))
    return text


def _style(share: float) -> str:
    ground = tuple(int(GROUND[i : i + 2], 16) for i in (1, 3, 5))
    return "{} on #{:02x}{:02x}{:02x}".format(INK, *over(*shade(share), (ground[0], ground[1], ground[2])))


def _cell(head: str, row: Sequence[Shown], end: float) -> str:
    spans = "".join(_span(s, end) for s in row)
    return (
        f"<div><div style='font-size:.85em'><b>{escape(head)}</b> &nbsp; {escape(_mean(row))}</div>"
        f"<div dir='auto' lang='' style='white-space:pre-wrap;overflow-wrap:anywhere'>{spans}</div></div>"
    )


def _span(s: Shown, end: float) -> str:
    title = f"{s.text!r} {s.score:+.3f}" + (f", {s.tokens} tokens" if s.tokens > 1 else "")
    words = escape(visible(s.text)).replace("⏎\n", "<i aria-hidden='true'>⏎</i>\n")
    return f"<span style='background:{_ground(s.score / end)}' title='{escape(title)}'>{words}</span>"


def _ground(share: float) -> str:
    colour, opacity = shade(share)
    return f"rgba({','.join(map(str, colour))},{opacity:.3f})"


def _legend(text: str, end: float) -> str:
    stops = f"{_ground(-1.0)},{_ground(-1e-9)} 50%,{_ground(1e-9)} 50%,{_ground(1.0)}"
    return (
        f"<div style='font-size:.85em'>{-end:+.3f} <span style='display:inline-block;width:9em;height:.9em;"
        f"vertical-align:middle;background:linear-gradient(90deg,{stops})'></span> {end:+.3f}<br>{escape(text)}</div>"
    )
