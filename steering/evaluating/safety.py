"""Perplexity against dose, and the safe dose.

Two perplexities. Of *replies*: the steered reply under the unsteered model, over the plain reply's to the same prompt.
Of *neutral text*: human prose under the steered model, over the same under the unsteered one. Both are ratios of
geometric means. The safe dose is the largest positive one for which, on the half ``choose``, both ratios are at most
1.5, there and at every smaller dose; None if the first dose of the grid is already above. A ratio that was not measured
is not safe; a way of steering that was never run on neutral text is judged by its replies, which the table says.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.stats import Estimate, estimate, less
from affectlens.steering.evaluating.frames import CHOOSE, Arm, arms_of
from affectlens.steering.evaluating.shares import common, mean_of, sound

HIGHEST = 1.5  # METHODS.md: the perplexity ratio up to which a dose is safe
MEASURED = 0.5  # share of replies that must have a perplexity: empty ones have none


def reply_ratio(rows: pd.DataFrame, plain: pd.DataFrame, *, seed: int = 0) -> Estimate | None:
    """Perplexity of replies over that of the plain replies to the same prompts; None where none was measured.

    Args:
        rows: the steered replies.
        plain: the plain ones.
        seed: of the bootstrap.
    """
    one, two = (part[np.isfinite(logarithm(part["ppl"]))] for part in (rows, plain))
    return _ratio(one, logarithm(one["ppl"]), two, logarithm(two["ppl"]), "prompt", seed)


def neutral_ratio(rows: pd.DataFrame, *, seed: int = 0) -> Estimate | None:
    """Perplexity of neutral text under steering over that without; None where none was measured.

    Args:
        rows: one row a text: ``text, nll, plain_nll`` (nats a token).
        seed: of the bootstrap.
    """
    table = rows.rename(columns={"text": "prompt"})
    table = table[np.isfinite(table["nll"]) & np.isfinite(table["plain_nll"])]
    values = [table[name].to_numpy(dtype=float) for name in ("nll", "plain_nll")]
    return _ratio(table, values[0], table, values[1], "text", seed)


def logarithm(perplexity: "pd.Series[float]") -> Float[np.ndarray, " reply"]:
    """Natural logarithms; NaN where there is no perplexity.

    Args:
        perplexity: of each reply.
    """
    values = perplexity.to_numpy(dtype=float)
    return np.log(values, out=np.full(len(values), np.nan), where=np.isfinite(values) & (values > 0))


def typical(plain: pd.DataFrame) -> float | None:
    """The geometric mean of the plain replies' perplexity; None where none was measured.

    Args:
        plain: the plain replies.
    """
    values = logarithm(plain["ppl"])
    return float(np.exp(np.nanmean(values))) if np.isfinite(values).any() else None


def _ratio(
    rows: pd.DataFrame, values: np.ndarray, other: pd.DataFrame, others: np.ndarray, unit: str, seed: int
) -> Estimate | None:
    clusters = common(rows, other) if len(rows) and len(other) else []
    if not clusters:
        return None
    change = less(mean_of(rows, values, clusters), mean_of(other, others, clusters))
    found = sound(estimate(change, len(clusters), unit, seed=seed, bounds=None))
    value, low, high = (float(np.exp(x)) for x in (found.value, found.low, found.high))
    return Estimate(value, low, high, found.n, unit, method=f"{found.method}, of logarithms")


def halved(neutral: pd.DataFrame) -> pd.DataFrame:
    """Neutral texts with a half: the one they came with, or every second text of the sorted ids to ``choose``.

    Args:
        neutral: one row a neutral text and dose.
    """
    if "half" in neutral:
        return neutral
    order = pd.Index(sorted(neutral["text"].unique())).get_indexer(pd.Index(neutral["text"]))
    return neutral.assign(half=np.where(order % 2 == 0, "choose", "report"))


@dataclass(frozen=True)
class Choice:
    """What the half ``choose`` says of one way to steer."""

    arm: Arm
    safe: float | None
    stopped: float | None  # the first dose that is not safe; None if all are
    by: str  # why it is not: reply, neutral, or unmeasured
    ratio: float | None  # the perplexity ratio there
    neutral: bool  # whether neutral text was run

    @property
    def row(self) -> dict[str, object]:
        """As a row of a table, for JSON."""
        facts = {name: getattr(self.arm, name) for name in ("condition", "emotion", "method", "site")}
        return facts | {name: getattr(self, name) for name in ("safe", "stopped", "by", "ratio", "neutral")}


def choices(replies: pd.DataFrame, neutral: pd.DataFrame, highest: float = HIGHEST) -> list[Choice]:
    """The safe dose of every way of steering, from the half ``choose`` alone.

    Args:
        replies: one row a reply.
        neutral: one row a neutral text and dose.
        highest: the perplexity ratio up to which a dose is safe.
    """
    texts = halved(neutral)
    mine, texts = replies[replies["half"] == CHOOSE], texts[texts["half"] == CHOOSE]
    plain = mine[mine["condition"] == "plain"]
    return [choice(arm, arm.of(mine), plain, arm.of(texts), highest) for arm in arms_of(replies)]


def choice(arm: Arm, rows: pd.DataFrame, plain: pd.DataFrame, texts: pd.DataFrame, highest: float) -> Choice:
    """The safe dose of one way of steering.

    Args:
        arm: the way.
        rows: its replies of the half ``choose``.
        plain: the plain replies of that half.
        texts: the neutral texts of that half, as it reads them.
        highest: the perplexity ratio up to which a dose is safe.
    """
    safe, ran = None, not texts.empty
    for dose in sorted(float(one) for one in rows["dose"].unique() if one > 0):
        by, ratio = _unsafe(arm.of(rows, dose), plain, arm.of(texts, dose) if ran else None, highest)
        if by:
            return Choice(arm, safe, dose, by, ratio, ran)
        safe = dose
    return Choice(arm, safe, None, "", None, ran)


def _unsafe(
    rows: pd.DataFrame, plain: pd.DataFrame, texts: pd.DataFrame | None, highest: float
) -> tuple[str, float | None]:
    """Why a dose is not safe, and the ratio; nothing if it is."""
    if np.isfinite(logarithm(rows["ppl"])).mean() < MEASURED:
        return "unmeasured", None
    found = {"reply": reply_ratio(rows, plain)}
    if texts is not None:
        found["neutral"] = neutral_ratio(texts)
    for name, ratio in found.items():
        if ratio is None:
            return "unmeasured", None
        if not ratio.value <= highest:
            return name, ratio.value
    return "", None
