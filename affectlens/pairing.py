"""Which texts of a battery form matched pairs, and how well matched each pair is, in tokens."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from affectlens.aligning import align_rows
from affectlens.errors import BatteryError
from affectlens.types import TextTable

MINIMAL = (("ax", "ay"), ("ax", "bx"), ("by", "bx"), ("by", "ay"))


def matched_pairs(battery: TextTable) -> pd.DataFrame:
    """The matched pairs of a battery: within a group, what was written to differ in one thing.

    - **Crossed quadruples**: the four pairs of cells that differ in one letter, ``ax/ay``, ``ax/bx``, ``by/bx`` and
      ``by/ay``: each one emotional text and one neutral, the emotional one first (of ``crossed_fact``, two texts whose
      question has different answers). ``ax/by`` and ``ay/bx`` differ in both letters and agree in what they evoke, so
      they are no contrast.
      In ``ax/bx`` and ``by/ay`` the facts differ and the ending is the same, token for token: what differs there was
      carried over from the facts. In ``ax/ay`` and ``by/bx`` the facts are the same and the ending differs.
    - **Other groups**: the emotional text with each of its partners (neutral, keyword, mild and so on); partners are
      not paired among themselves. Groups without an emotional text, and single texts, have none.

    Args:
        battery: a battery; its frame needs ``group`` and ``role`` beside ``id``, and may have ``cell``.

    Returns:
        Columns ``group``, ``contrast`` (``ax/bx``, ``emotional/neutral``), ``a`` and ``b`` (ids); the battery's order.

    Raises:
        BatteryError: if there is no pair.
    """
    items = battery.frame()
    missing = {"group", "role"} - set(items.columns)
    rows = [] if missing else [row for _, group in items.groupby("group", sort=False) for row in _within(group)]
    if not rows:
        raise BatteryError(
            f"{battery.name} has no matched pairs: they are an emotional text and its partners, or the cells of a "
            "crossed quadruple, that share a group."
        )
    return pd.DataFrame(rows, columns=["group", "contrast", "a", "b"])


def align_pairs(model: Any, battery: TextTable, *, chat: bool = False) -> pd.DataFrame:
    """How well matched a battery is, in this model's tokens: one row a matched pair.

    A pair can be looked at with ``print(align(model, battery[a], battery[b]))``.

    Args:
        model: a :class:`LensModel`, or a fast tokenizer.
        battery: a battery with matched pairs (:func:`matched_pairs`).
        chat: make each text the user's message of a conversation; the template's tokens then count too.

    Returns:
        The columns of :func:`matched_pairs`, and lengths in tokens, BOS included: ``tokens_a``, ``tokens_b``,
        ``prefix``, ``changed_a``, ``changed_b``, ``suffix``, ``ending_a``, ``ending_b``; ``shared``, the share of both
        texts' tokens that lies in prefix and suffix; ``ending_shared``, whether the endings are equal, token for token.

    Raises:
        BatteryError: if there is no pair.
        CaptureError: a text without tokens or longer than the context.
    """
    pairs = matched_pairs(battery)
    lengths = []
    for found in align_rows(model, battery.frame(), zip(pairs["a"], pairs["b"], strict=True), chat=chat):
        a, b = found.a, found.b
        lengths.append(
            {
                "tokens_a": len(a.ids),
                "tokens_b": len(b.ids),
                "prefix": len(a.prefix),
                "changed_a": len(a.changed),
                "changed_b": len(b.changed),
                "suffix": len(a.suffix),
                "ending_a": len(a.ending),
                "ending_b": len(b.ending),
                "shared": 2 * len(found.pairs) / (len(a.ids) + len(b.ids)),
                "ending_shared": found.ending_shared,
            }
        )
    return pairs.join(pd.DataFrame(lengths))


def _within(group: pd.DataFrame) -> Iterator[tuple[str, str, str, str]]:
    """``(group, contrast, a, b)`` for the pairs of one group."""
    cells = group["cell"] if "cell" in group else pd.Series([None] * len(group))
    rows = list(zip(group["group"], group["id"], group["role"], cells, strict=True))
    crossed = {cell: name for _, name, _, cell in rows if isinstance(cell, str)}
    for one, other in MINIMAL:
        if one in crossed and other in crossed:
            yield str(rows[0][0]), f"{one}/{other}", crossed[one], crossed[other]
    plain = [(name, role) for _, name, role, cell in rows if not isinstance(cell, str)]
    for peak in (name for name, role in plain if role == "emotional"):
        for name, role in plain:
            if role != "emotional":
                yield str(rows[0][0]), f"emotional/{role}", peak, name
