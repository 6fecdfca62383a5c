"""The features as one page that works offline: the plane, a table to sort, and for each feature a card.

What the page shows of texts, tokens and names reaches it as data and is set as text, never as markup; the data stands
in an element that no script runs, with every ``<`` written as an escape, so that no text can end it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from affectlens.errors import RunError, SiteError
from affectlens.paths import write_text
from affectlens.probing.features.classing import BOUND, CLASSES
from affectlens.probing.features.examples import Example, examples, examples_by_role
from affectlens.probing.features.figures import COLOURS, plane_figure
from affectlens.probing.features.plane import SHOWN
from affectlens.probing.features.promoting import logit_effects
from affectlens.types import Json

if TYPE_CHECKING:
    from affectlens.model import LensModel
    from affectlens.probing.features.codes import Codes
    from affectlens.probing.sae import Sae

NEEDED = ("emotion", "feature", "class", "nearest", "support", *SHOWN)
TESTED = ("d", "auroc", "auroc_low", "auroc_high", "p", "q", "q_confirm", "crossed_p", "crossed_q", "why", "unit",
          "active", "words_needed", "affect_needed", "scenes", "decoys", "quadruples")  # fmt: skip


@dataclass(frozen=True)
class Card:
    """What is shown of a feature beside its responses."""

    feature: int
    density: float  # share of the battery's tokens at which it is active
    texts: tuple[Example, ...]  # the highest peaks
    by_role: Mapping[str, tuple[Example, ...]]  # the highest peaks of each role
    promoted: tuple[tuple[str, float], ...] = ()  # token and logits
    suppressed: tuple[tuple[str, float], ...] = ()
    link: str | None = None  # its Neuronpedia page
    notes: tuple[str, ...] = ()  # further sentences, for example what ablating it does


def make_cards(
    codes: "Codes", features: Sequence[int], *, model: "LensModel", sae: "Sae", n: int = 6, tokens: int = 10
) -> dict[int, Card]:
    """The cards of some features; one that is never active has no texts, and a note says so.

    Args:
        codes: of the battery.
        features: their numbers.
        model: which read the battery.
        sae: whose features these are.
        n: how many texts a feature.
        tokens: how many promoted and suppressed tokens.

    Raises:
        CaptureError: codes of another model.
    """
    chosen = list(dict.fromkeys(int(one) for one in features))
    unread: tuple[str, ...] = ()
    try:
        effects = logit_effects(model, sae, chosen, n=tokens)
    except SiteError as error:  # heads and neurons do not write into the stream themselves
        effects, unread = pd.DataFrame({"feature": [], "side": [], "token": [], "effect": []}), (str(error),)
    out = {}
    for one in chosen:
        active = codes.density[one] > 0
        part = effects[effects["feature"] == one]
        sides = [part[part["side"] == side] for side in ("promoted", "suppressed")]
        promoted, suppressed = (tuple(zip(side["token"], side["effect"].astype(float), strict=True)) for side in sides)
        roles = examples_by_role(codes, one, model=model, n=2) if active else {}
        out[one] = Card(
            one, float(codes.density[one]), tuple(examples(codes, one, model=model, n=n)) if active else (),
            {role: tuple(some) for role, some in roles.items()}, promoted, suppressed, sae.neuronpedia(one),
            (*unread, *(() if active else (f"It is never active on {codes.battery}.",))),
        )  # fmt: skip
    return out


def write_dashboard(
    path: str | Path, *, title: str, placed: pd.DataFrame, cards: Mapping[int, Card], info: Json, bound: float = BOUND,
    lead: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Write the page; ``#feature=17`` in its address opens a card.

    Args:
        path: of the file.
        title: of the page.
        placed: the table of :func:`affectlens.probing.features.classing.classed`; columns of a differential table such
            as ``auroc`` and ``q`` are shown if they are there.
        cards: by the feature's number; a placed feature without one shows its responses alone.
        info: what is needed to make it again: command, versions, hashes.
        bound: r of the rule.
        lead: sentences that stand first.

    Raises:
        RunError: the table lacks a column, or has no row.
    """
    if missing := [name for name in NEEDED if name not in placed]:
        raise RunError(f"The table of placed features lacks {missing[0]!r}: give the table that classed() makes.")
    if placed.empty:
        raise RunError("No feature is placed, so there is nothing to browse: the page needs one row at least.")
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("affectlens", "templates"), autoescape=True, undefined=StrictUndefined
    )
    text = environment.get_template("features.html.j2").render(
        title=title, lead=list(lead), data=Markup(embedded(payload(placed, cards, bound=bound))),
        emotions=list(dict.fromkeys(placed["emotion"].astype(str))), classes=CLASSES,
        info=json.dumps(info, indent=1), plotly=Markup(get_plotlyjs()),
    )  # fmt: skip
    write_text(Path(path), text)
    return Path(path)


def payload(placed: pd.DataFrame, cards: Mapping[int, Card], *, bound: float = BOUND) -> Json:
    """What the page reads: rows, cards, each text's pieces once, and the figure.

    Args:
        placed: the table of placed features.
        cards: by the feature's number.
        bound: r of the rule.
    """
    rows = placed.reset_index(drop=True)
    kept = [
        name
        for name in (*NEEDED, *(f"{one}_{end}" for one in SHOWN for end in ("low", "high")), *TESTED)
        if name in rows
    ]
    texts: dict[str, tuple[str, ...]] = {}
    shown = {str(number): _card(card, texts) for number, card in cards.items()}
    return {
        "rows": [{str(key): plain(value) for key, value in row.items()} for row in rows[kept].to_dict("records")],
        "cards": shown, "texts": {name: list(pieces) for name, pieces in texts.items()}, "responses": list(SHOWN),
        "colours": COLOURS, "figure": json.loads(str(plane_figure(rows, bound=bound).to_json())),
    }  # fmt: skip


def embedded(data: Json) -> str:
    r"""JSON that no HTML parser takes for markup, whatever texts it holds.

    >>> embedded({"text": "</script>"})
    '{"text":"\\u003c/script\\u003e"}'
    """
    out = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        out = out.replace(sign, f"\\u{ord(sign):04x}")
    return out


def plain(value: object) -> object:
    """A cell as JSON: numbers to five digits, null where there is none.

    >>> plain(float("nan")), plain(0.1234567), plain("x")
    (None, 0.12346, 'x')
    """
    if value is None or isinstance(value, str | bool):
        return value
    if not isinstance(value, int | float | np.number):
        return str(value)
    number = float(value)
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 1e15 else float(f"{number:.5g}")


def _card(card: Card, texts: dict[str, tuple[str, ...]]) -> Json:
    def brief(one: Example) -> Json:
        texts.setdefault(one.id, one.pieces)
        active = [[i, plain(value)] for i, value in enumerate(one.activations) if value > 0]
        return {"id": one.id, "role": one.role, "emotion": one.emotion, "peak": plain(one.peak), "active": active}

    link = card.link if card.link and card.link.startswith("https://") else None
    return {
        "density": plain(card.density), "texts": [brief(one) for one in card.texts], "link": link,
        "by_role": {role: [brief(one) for one in some] for role, some in card.by_role.items()},
        "promoted": [[token, plain(effect)] for token, effect in card.promoted],
        "suppressed": [[token, plain(effect)] for token, effect in card.suppressed], "notes": list(card.notes),
    }  # fmt: skip
