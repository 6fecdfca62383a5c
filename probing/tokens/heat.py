"""How token scores are drawn: coloured text for terminals and pages, plain lines without colour, layers as a heat map.

Colours run from blue (low) over the ground to orange (high), which the colour-blind tell apart; the same distance from
zero is the same strength. On pages they are translucent, so that text keeps the page's own colour; in a terminal both
ink and ground are set, as its theme isn't known. The strength is capped where contrast would fall below 4.5 to 1
(WCAG 2.2, 1.4.3). The sign and size of each score are in its title as well.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from affectlens.errors import CaptureError
from affectlens.plots import BLUE, GREY, ORANGE, figure
from affectlens.probing.tokens.pieces import Shown, limit, shown, visible

if TYPE_CHECKING:
    from rich.text import Text

    from affectlens.probing.tokens.scores import TextScores, TokenScores

INK, GROUND = "#14171b", "#f4f4f2"  # of text in a terminal, and what is behind it at zero
STRONGEST = 0.6  # opacity of the ends of the scale
Rgb = tuple[int, int, int]


def shade(share: float) -> tuple[Rgb, float]:
    """The colour and opacity of a score, given as its share of the scale's end, -1 to 1; beyond it stays at the end.

    >>> shade(-0.5)
    ((59, 125, 216), 0.3)
    """
    return _rgb(ORANGE if share > 0 else BLUE), STRONGEST * min(abs(share), 1.0)


def over(colour: Rgb, opacity: float, ground: Rgb) -> Rgb:
    """A translucent colour on an opaque ground, as one opaque colour."""
    r, g, b = (round(opacity * c + (1 - opacity) * under) for c, under in zip(colour, ground, strict=True))
    return r, g, b


def caption(scores: "TokenScores") -> str:
    """What is shown, in one sentence."""
    probes, reference = scores.probes, scores.scale.reference
    what = f"Score of {scores.shown}" if scores.shown else "Margin of the winning class over the next"
    unit = f"standard deviations from the mean of {reference}" if reference else "logits"
    return (
        f"{what} at each token, in {unit}: the {scores.method.replace('_', ' ')} probe of {probes.target} at "
        f"layer {scores.layer} of {probes.site} of {probes.model}, fitted on texts pooled by {probes.position}, is "
        "applied to single tokens, and what is grey (the first token, outlying norms, what is not the text's own) is "
        "left out of the scale, which the strongest twentieth may exceed."
    )


def headline(scores: "TokenScores", one: "TextScores", row: Sequence[Shown], n: int = 3) -> str:
    """A text's name, score and peaks, in one line."""
    at = scores.layers.index(scores.layer)
    values, winners = scores.scale(one.logit)
    named = f"{scores.named(winners, at)} " if winners is not None else ""
    pooled = int(one.pooled.sum())
    mean = f"mean over {pooled} tokens" if pooled > 1 else "at its one token"
    mean = mean if scores.probes.position == "mean" else f"{mean} ({scores.probes.position})"
    ranked = sorted((s for s in row if not s.why_grey), key=lambda s: -s.score)
    ends = [("highest", ranked[:n])] + ([] if winners is not None else [("lowest", ranked[: -n - 1 : -1])])
    peaks = [f"{name} {', '.join(f'{s.text!r} {s}' for s in some)}" for name, some in ends if some]
    won = Counter(s.winner for s in ranked if s.winner).most_common(n)
    shares = [f"wins {', '.join(f'{name} {times}' for name, times in won)} of {len(ranked)}"] if won else []
    return "; ".join([f"{one.name}: {named}{float(values[at]):+.2f} {mean}", *shares, *peaks])


def as_text(scores: "TokenScores") -> str:
    """A line a piece, score first: for pipes, and where there is no colour."""
    lines = [caption(scores)]
    for one in scores:
        row = shown(scores, one)
        lines += ["", headline(scores, one, row)]
        lines += [f"{s.why_grey or str(s):>24}  {s.text!r}" for s in row]
    return "\n".join(lines)


def for_terminal(scores: "TokenScores", *, coloured: bool) -> "Iterator[Text]":
    """What rich prints: coloured texts, or plain lines."""
    from rich.text import Text

    if not coloured:
        yield Text(as_text(scores))
        return
    rows = [shown(scores, one) for one in scores]
    end = limit(rows)
    yield Text(caption(scores))
    scale = Text.assemble(f"{'0' if scores.scale.column is None else f'{-end:+.2f}'} ")
    for share in range(-10 if scores.scale.column is not None else 0, 11):
        scale.append(" ", style=_style(share / 10))
    yield scale.append(f" {end:+.2f}  ").append("grey", style=_style(None))
    for one, row in zip(scores, rows, strict=True):
        yield Text("\n" + headline(scores, one, row))
        text = Text()
        for s in row:
            text.append(visible(s.text), style=_style(None if s.why_grey else s.score / end))
        yield text


def as_html(scores: "TokenScores", *, legend: bool) -> str:
    """The texts as spans whose titles give token and score; every word of them is escaped."""
    rows = [shown(scores, one) for one in scores]
    end = limit(rows)
    parts = [_legend(scores, end)] if legend else []
    for one, row in zip(scores, rows, strict=True):
        spans = "".join(_span(s, end) for s in row)
        parts.append(
            f"<div style='margin:1em 0'><div style='font-size:.85em'>{escape(headline(scores, one, row))}</div>"
            "<div dir='auto' lang='' style='white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:plaintext'>"
            f"{spans}</div></div>"
        )
    return f"<div style='line-height:1.8;max-width:60em'>{''.join(parts)}</div>"


def by_layer(scores: "TokenScores", text: int) -> go.Figure:
    """The figure of :meth:`TokenScores.plot`; each layer's logits are those of its own probe.

    Raises:
        CaptureError: if one layer alone was read.
    """
    if len(scores.layers) == 1:
        raise CaptureError("One layer alone was read: read_tokens(..., by_layer=True) reads every one.")
    one = scores.texts[text]
    rows = [shown(scores, one, layer) for layer in scores.layers]
    end, ground = limit(rows), "rgba(128,128,128,0.08)"
    signed = scores.scale.column is not None
    low, colours = (-end, [[0, BLUE], [0.5, ground], [1, ORANGE]]) if signed else (0, [[0, ground], [1, ORANGE]])
    fig = figure(
        f"{escape(one.name)}: {scores.shown or 'winning class'} by layer", "", f"layer of {scores.probes.site}"
    )
    fig.add_heatmap(
        z=[[None if s.why_grey else s.score for s in row] for row in rows], y=list(scores.layers), zmin=low, zmax=end,
        customdata=[[f"{escape(repr(s.text))} {s.winner or ''}" for s in row] for row in rows],
        colorscale=colours, hoverongaps=False,
        hovertemplate="%{customdata}<br>layer %{y}: %{z:+.2f}<extra></extra>", colorbar={"thickness": 12},
    )  # fmt: skip
    every = range(0, len(rows[0]), 1 + len(rows[0]) // 45)  # more labels would overlap
    names = [escape(visible(rows[0][i].text).replace("\n", "")) for i in every]
    fig.update_xaxes(tickvals=list(every), ticktext=names, tickangle=-60, showgrid=False,
                     range=[-0.5, len(rows[0]) - 0.5])  # fmt: skip
    fig.update_yaxes(dtick=1 + len(scores.layers) // 10)
    fig.update_layout(hovermode="closest")
    return fig


def page(scores: "TokenScores") -> str:
    """A page of its own, with the layers' figures where several were read; opens offline, light and dark."""
    figures = [scores.plot(i) for i in range(len(scores))] if len(scores.layers) > 1 else []
    drawn = [fig.to_html(full_html=False, include_plotlyjs=not i) for i, fig in enumerate(figures)]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Token scores</title>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'><style>:root{color-scheme:light dark}"
        "body{margin:0 auto;max-width:60rem;padding:1.5rem 1rem;font:16px/1.55 system-ui,sans-serif;background:#fff;"
        "color:#1d2127}@media (prefers-color-scheme:dark){body{background:#14171b;color:#e6e8eb}}</style></head>"
        f"<body>{scores.html()}{''.join(drawn)}</body></html>\n"
    )


def _rgb(colour: str) -> Rgb:
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return r, g, b


def _style(share: float | None) -> str:
    colour, opacity = (_rgb(GREY), 0.45) if share is None else shade(share)
    return "{} on #{:02x}{:02x}{:02x}".format(INK, *over(colour, opacity, _rgb(GROUND)))


def _ground(colour: Rgb, opacity: float) -> str:
    return f"rgba({','.join(map(str, colour))},{opacity:.3f})"


def _span(s: Shown, end: float) -> str:
    colour, opacity = (_rgb(GREY), 0.3) if s.why_grey else shade(s.score / end)
    score = "" if s.why_grey == "no token" else f" {s}"
    title = f"{s.text!r}{score}" + (f", {s.tokens} tokens" if s.tokens > 1 else "")
    title += f", left out: {s.why_grey}" if s.why_grey else ""
    words = escape(visible(s.text)).replace("⏎\n", "<i aria-hidden='true'>⏎</i>\n")
    return f"<span style='background:{_ground(colour, opacity)}' title='{escape(title)}'>{words}</span>"


def _legend(scores: "TokenScores", end: float) -> str:
    blue, orange = _rgb(BLUE), _rgb(ORANGE)
    low = "0" if scores.scale.column is None else f"{-end:+.2f}"
    left = f"{_ground(blue, STRONGEST)},{_ground(blue, 0.0)} 50%," if scores.scale.column is not None else ""
    start = f"{_ground(orange, 0.0)} 50%" if left else _ground(orange, 0.0)
    bar = f"linear-gradient(90deg,{left}{start},{_ground(orange, STRONGEST)})"
    grey = f"<span style='background:{_ground(_rgb(GREY), 0.3)};padding:0 .3em'>grey</span>"
    return (
        f"<div style='font-size:.85em'>{low} <span style='display:inline-block;width:9em;height:.9em;"
        f"vertical-align:middle;background:{bar}'></span> {end:+.2f} &nbsp; {grey}<br>{escape(caption(scores))}</div>"
    )
