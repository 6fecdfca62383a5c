"""Has an emotion a feature at a layer? Features of a sparse autoencoder, found and on other scenes confirmed.

A yes needs features that survive for keyword-free texts, one of them with an interval above zero; more of them than
under random labels (p of :func:`affectlens.probing.features.enriching.enrichment`, with the largest count over
emotions; times the number of dictionaries, Bonferroni); and not all of the classes keyword and style. A no needs that
an effect of the size worth having would have been found in half of the tested features or more.
A layer without a dictionary is not measured.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from affectlens.circuits.agreeing.marks import LEVEL, NO, UNDECIDED, YES, Mark
from affectlens.circuits.agreeing.using import STREAMS
from affectlens.probing.features.enriching import PAIRED
from affectlens.probing.features.halving import AFFECT
from affectlens.probing.features.report import FeatureReport
from affectlens.probing.features.telling import FREE
from affectlens.sites import Site

NOT_ITS_OWN = frozenset({"keyword", "style"})


def feature_marks(report: FeatureReport, worth: float, source: str, *, dictionaries: int = 1) -> list[Mark]:
    """A mark for each emotion at the dictionary's layer.

    Args:
        report: of a search.
        worth: the smallest effect worth having, in standard deviations of the paired difference.
        source: the run folder, or "in memory".
        dictionaries: how many stand in the same report.
    """
    site = Site.parse(str(report.meta["site"]))
    layer = site.layer + STREAMS.get(site.kind, 0)
    return list(_marks(report, layer, worth, source, dictionaries)) if layer >= 0 else []


def _marks(report: FeatureReport, layer: int, worth: float, source: str, dictionaries: int) -> Iterator[Mark]:
    tested = report.differential[report.differential["texts"] == FREE]
    counts = report.enrichment
    counts = counts[(counts["contrast"] == PAIRED) & (counts["texts"] == FREE)].set_index("emotion")
    for emotion in (name for name in report.emotions if name != AFFECT):
        mine = tested[tested["emotion"] == emotion]
        if mine.empty:
            continue
        kept = report.surviving(emotion)
        p = float(counts["p_adjusted"].get(emotion, np.nan)) * dictionaries
        yield _mark(emotion, layer, mine, kept, _classes(report, emotion, kept), min(p, 1.0), worth, source)


def _classes(report: FeatureReport, emotion: str, kept: pd.DataFrame) -> list[str]:
    """The classes of the features that survive, where they were placed."""
    if report.placed.empty or kept.empty:
        return []
    placed = report.placed[(report.placed["emotion"] == emotion) & report.placed["feature"].isin(kept["feature"])]
    return [str(name) for name in placed["class"]]


def _mark(
    emotion: str, layer: int, mine: pd.DataFrame, kept: pd.DataFrame, classes: list[str], p: float, worth: float,
    source: str,
) -> Mark:  # fmt: skip
    seen = float(mine["detectable"].median())
    many = ", ".join(f"{classes.count(name)} {name}" for name in dict.fromkeys(classes))
    why = f"{len(kept)} of {len(mine)} tested features survive" + (f" ({many})" if many else "")
    borrowed = bool(classes) and set(classes) <= NOT_ITS_OWN
    shown = not kept.empty and bool((_sizes(kept)["low"] > 0).any())
    if shown and p <= LEVEL and not borrowed:
        verdict = YES
    else:
        verdict = NO if kept.empty and seen <= worth else UNDECIDED
        if kept.empty:
            missed = f"half of them needed an effect of {seen:.2f} SD to be found"
            why += f"; {missed if np.isfinite(seen) else 'in half of them so few scenes could have shown no effect'}"
    if borrowed:
        why += "; words or style move them"
    if kept.empty:
        return Mark(layer, emotion, "feature", verdict, control="random labels", p_adjusted=p,
                    n=int(mine["n"].iloc[0]), source=source, why=why)  # fmt: skip
    best = _sizes(kept).sort_values("low").iloc[-1]
    control = "random labels" if not borrowed else "what words or style do"
    return Mark(layer, emotion, "feature", verdict, best["value"], best["low"], best["high"], control, p,
                int(best["n"]), verdict != YES, source, f"F{int(best['feature'])}; {why}")  # fmt: skip


def _sizes(kept: pd.DataFrame) -> pd.DataFrame:
    """Effects of features in standard deviations, turned so that they are positive, with their intervals."""
    scale = (kept["d"] / kept["mean"]).abs()
    ends = np.sort(kept[["low", "high"]].mul(scale * np.sign(kept["d"]), axis=0).to_numpy(dtype=float), axis=1)
    return pd.DataFrame({
        "feature": kept["feature"], "n": kept["n"], "value": kept["d"].abs().astype(float), "low": ends[:, 0],
        "high": ends[:, 1],
    })  # fmt: skip
