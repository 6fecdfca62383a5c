"""What was read of a reply, in one line: each column's mean over its tokens, of probes also their probability."""

import numpy as np
from jaxtyping import Float

from affectlens.steering.talking.exchanges import Column, Exchange, Side

_MOST = 8  # classes of a probe that are said


def read_out(exchange: Exchange) -> str:
    """The means of every column, with those of the plain reply beside them; nothing where nothing was read.

    Args:
        exchange: whose replies.
    """
    columns = exchange.columns
    if not columns or not len(exchange.reply.readings):
        return ""
    own, base = exchange.reply, exchange.plain
    parts = []
    for kind, site in dict.fromkeys((column.kind, column.site) for column in columns):
        at = [i for i, column in enumerate(columns) if (column.kind, column.site) == (kind, site)]
        chosen = [columns[i] for i in at]
        said, other = _said(chosen, own, at), _said(chosen, base, at) if base and len(base.readings) else None
        order = list(np.argsort(-own.means()[at], kind="stable"))[:_MOST] if chosen[0].zeroed else range(len(at))
        told = [f"{chosen[k].emotion} {said[k]}" + (f" (plain {other[k]})" if other else "") for k in order]
        more = f" and {len(at) - _MOST} more" if chosen[0].zeroed and len(at) > _MOST else ""
        parts.append(f"{kind} at {site}: {', '.join(told)}{more}")
    return f"Read anew, {'; '.join(parts)}; means over {len(own.ids)} tokens."


def _said(columns: list[Column], side: Side, at: list[int]) -> list[str]:
    means = side.means()[at]
    chances = _chances(columns[0].chance, means)
    return [f"{mean:+.3f}" if chances is None else f"{mean:+.2f}, {chances[k]:.0%}" for k, mean in enumerate(means)]


def _chances(kind: str, logits: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"] | None:
    if not kind:
        return None
    if kind == "sigmoid":
        return 1 / (1 + np.exp(-np.clip(logits, -500, 500)))
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


def legend(exchange: Exchange) -> str:
    """What the colours are, in two sentences; nothing where nothing is coloured.

    Args:
        exchange: whose replies.
    """
    at = exchange.column
    if at is None:
        return ""
    column = exchange.columns[at]
    whose = "the reply's" if exchange.plain is None else "the plain reply's"
    zero = "a logit of 0" if column.zeroed else f"{whose} median token"
    judge = "" if column.zeroed else " The direction that reads is the one that steers, so it is no judge of the words."
    return (
        f"Colours: {column.says}, read anew by the plain model, with nothing added. Blue is below {zero}, orange above."
        f"{judge}"
    )


def in_lines(exchange: Exchange) -> str:
    """The replies and what was read of them, in plain lines.

    Args:
        exchange: to be said.
    """
    sides = exchange.sides
    lines = [f"{name}: {side.text}" if len(sides) > 1 else side.text for name, side in sides]
    return "\n".join([*lines, *filter(None, [read_out(exchange)])])
