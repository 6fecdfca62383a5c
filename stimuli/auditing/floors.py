"""Floors: how well readers of words, function words and surface marks tell emotional items from their neutral partners.

Whole emotions are held out, so what is read is common to the emotions. AUROC counts comparisons within a fold; the
interval resamples pairs. The same scores pooled over folds, as some papers report them, stand in the note.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from affectlens.errors import BatteryError
from affectlens.metrics import auroc
from affectlens.stats import Estimate, Statistic, Weights, estimate, less
from affectlens.stimuli.auditing.designs import Design, Pair, Paired
from affectlens.stimuli.auditing.finding import Bounds, Finding, Leak, Worst
from affectlens.stimuli.auditing.readers import READERS, held_out
from affectlens.stimuli.lexical import FUNCTION_WORDS, words
from affectlens.stimuli.stimulus import Stimulus

SHOWN = 12  # worst items and leaking words that a finding keeps


def floors(design: Design, bounds: Bounds) -> list[Finding]:
    """Bag of words, function words, surface: emotional against neutral, whole emotions held out."""
    rows = design.paired("emotion", "domain")
    plan = {
        "bag-of-words floor": (("naive_bayes", "tfidf"), bounds.words),
        "function-word floor": (("function_counts", "function_rates"), bounds.function_words),
        "surface floor": (("surface",), bounds.surface),
    }
    if isinstance(rows, str):
        return [Finding(name, None, f"AUROC <= {bound:.2f}", None, rows) for name, (_, bound) in plan.items()]
    out = []
    for name, (readers, bound) in plan.items():
        scored = {r: held_out(r, rows.texts, rows.y, rows.folds, 2)[:, 0] for r in readers}
        found = {r: paired_auroc(scores, rows) for r, scores in scored.items()}
        top = max(found, key=lambda r: found[r].value)
        pooled = {r: float(roc_auc_score(rows.y, scores)) for r, scores in scored.items()}
        right = {r: int((s[::2] > s[1::2]).sum()) for r, s in scored.items()}
        note = f"{rows.said}; " + "; ".join(
            f"{r} {found[r].value:.3f}, pooled over folds {pooled[r]:.3f}, {right[r]} of {len(rows.pairs)} pairs right"
            for r in readers
        )
        only = {"function-word floor": frozenset(FUNCTION_WORDS), "surface floor": frozenset[str]()}.get(name)
        out.append(Finding(name, found[top], f"AUROC <= {bound:.2f}", found[top].value <= bound, note,
                           _worst_pairs(rows.pairs, scored[top]), leaks(rows.pairs, only)))  # fmt: skip
    return out


def category(design: Design, bounds: Bounds) -> list[Finding]:
    """The emotion of an item, and of its neutral partner under the same label; whole domains held out.

    AUROC of one emotion against the rest, averaged over emotions.
    """
    rows, said = design.paired("domain"), f"AUROC <= {bounds.category:.2f}"
    names = ("category floor", "category floor of neutral partners", "category: emotional less neutral")
    if isinstance(rows, str):
        return [Finding(name, None, said, None, rows) for name in names]
    named = np.array([pair.emotional.emotion is not None for pair in rows.pairs])
    rows = Paired(tuple(p for p, kept in zip(rows.pairs, named, strict=True) if kept), rows.fold[named], rows.said)
    labels = sorted({str(pair.emotional.emotion) for pair in rows.pairs})
    y = np.array([labels.index(str(pair.emotional.emotion)) for pair in rows.pairs])
    if len(labels) < 3 or any(len(set(rows.fold[y == k])) < 2 for k in range(len(labels))):
        reason = "fewer than three emotions" if len(labels) < 3 else "some emotions stand in one domain only"
        return [Finding(name, None, said, None, reason) for name in names]
    out, statistics = [], {}
    for side, name in zip(("emotional", "neutral"), names, strict=False):
        items: list[Stimulus] = [getattr(pair, side) for pair in rows.pairs]
        scores = {r: held_out(r, [s.text for s in items], y, rows.fold, len(labels)) for r in ("naive_bayes", "tfidf")}
        found = {r: one_against_rest(s, y, rows.fold) for r, s in scores.items()}
        value = {r: estimate(found[r], len(y), "scene") for r in found}
        top = max(value, key=lambda r: value[r].value)
        statistics[side] = found
        right = float((scores[top].argmax(1) == y).mean())
        note = f"{rows.said}; {top}; named right {right:.2f} of chance {1 / len(labels):.3f}"
        out.append(Finding(name, value[top], said, value[top].value <= bounds.category, note,
                           _telling(items, scores[top], y, labels), ()))  # fmt: skip
    gaps = {
        r: estimate(less(statistics["emotional"][r], statistics["neutral"][r]), len(y), "scene", bounds=None)
        for r in statistics["emotional"]
    }
    widest = max(gaps, key=lambda r: abs(gaps[r].value))
    within = abs(gaps[widest].value) <= bounds.category_gap
    out.append(Finding(names[2], gaps[widest], f"within {bounds.category_gap:.2f}", within, widest))
    return out


def one_against_rest(scores: Float[np.ndarray, "item k"], y: np.ndarray, folds: np.ndarray) -> Statistic:
    """The mean over classes of within-fold AUROC, as a statistic over items (each its own cluster)."""
    chances = np.exp(scores - scores.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    own = np.arange(len(y))
    each = [auroc(chances[:, k], (y == k).astype(int), folds, own) for k in range(scores.shape[1])]

    def statistic(weights: Weights) -> Float[np.ndarray, " draw"]:
        with np.errstate(invalid="ignore"):
            return np.nanmean([one(weights) for one in each], axis=0)

    return statistic


def leaks(pairs: tuple[Pair, ...], only: frozenset[str] | None = None) -> tuple[Leak, ...]:
    """Words that lean to one side of the pairs, by the sign test's p, strongest first."""
    up, down = sides(pairs, only)
    uneven = [w for w in {*up, *down} if abs(up[w] - down[w]) > 1]
    ranked = sorted(uneven, key=lambda w: (binomtest(up[w], up[w] + down[w]).pvalue, w))
    return tuple(Leak(w, up[w], down[w]) for w in ranked[: 2 * SHOWN])


def sides(pairs: tuple[Pair, ...], only: frozenset[str] | None = None) -> tuple[Counter[str], Counter[str]]:
    """For each word, in how many pairs the emotional item has it oftener, and in how many the neutral."""
    up, down = Counter[str](), Counter[str]()
    for pair in pairs:
        a, b = Counter(words(pair.emotional.text)), Counter(words(pair.neutral.text))
        for word in {*a, *b}:
            if only is None or word in only:
                up[word] += a[word] > b[word]
                down[word] += a[word] < b[word]
    return up, down


def contrast(one: Iterable[Stimulus], other: Iterable[Stimulus], *, by: str = "domain") -> pd.DataFrame:
    """How well readers of words tell two kinds of texts apart, with whole values of ``by`` held out.

    Args:
        one: texts of one kind, for example ``battery.where(role="emotional")``.
        other: texts of the other kind.
        by: the field that makes the folds: domain, emotion, author, group.

    Returns:
        One row a reader: reader, auroc, low, high, n (groups).

    Raises:
        BatteryError: if an item lacks the field, or it has fewer than three values with both kinds.
    """
    kinds = [*((s, 1) for s in one), *((s, 0) for s in other)]
    values = pd.Series([getattr(s, by) for s, _ in kinds], dtype=object)
    if values.isna().any():
        raise BatteryError(f"{int(values.isna().sum())} items have no {by}: take another field to hold out.")
    y = np.array([kind for _, kind in kinds])
    both = [value for value in values.unique() if len(set(y[values == value])) == 2]
    if len(both) < 3:
        raise BatteryError(f"There are {len(both)} values of {by} with texts of both kinds: three are needed.")
    kept = np.flatnonzero(values.isin(both))
    folds, clusters = (np.asarray(pd.factorize(pd.Series(x))[0]) for x in (
        [values[i] for i in kept], [kinds[i][0].group for i in kept]))  # fmt: skip
    rows = []
    for reader in READERS:
        scores = held_out(reader, [kinds[i][0].text for i in kept], y[kept], folds, 2)[:, 0]
        found = estimate(auroc(scores, y[kept], folds, clusters), int(clusters.max()) + 1, "group")
        rows.append((reader, found.value, found.low, found.high, found.n))
    return pd.DataFrame(rows, columns=["reader", "auroc", "low", "high", "n"])


def paired_auroc(scores: Float[np.ndarray, " item"], rows: Paired) -> Estimate:
    """AUROC within folds of scores of the pairs' items; the interval resamples groups."""
    return estimate(auroc(scores, rows.y, rows.folds, rows.clusters), int(rows.clusters.max()) + 1, "pair")


def _worst_pairs(pairs: tuple[Pair, ...], scores: Float[np.ndarray, " item"]) -> tuple[Worst, ...]:
    gap = scores[::2] - scores[1::2]
    out = []
    for i in np.argsort(-gap)[:SHOWN]:
        a, b = (Counter(words(s.text)) for s in (pairs[i].emotional, pairs[i].neutral))
        said = f"only emotional: {' '.join(sorted(a - b))}; only neutral: {' '.join(sorted(b - a))}"
        out.append(Worst(pairs[i].group, float(gap[i]), said))
    return tuple(out)


def _telling(
    items: list[Stimulus], scores: Float[np.ndarray, "item k"], y: np.ndarray, labels: list[str]
) -> tuple[Worst, ...]:
    """The items whose emotion is read off with most confidence."""
    rest = scores.copy()
    rest[np.arange(len(y)), y] = -np.inf
    margin = scores[np.arange(len(y)), y] - rest.max(1)
    return tuple(
        Worst(items[i].id, float(margin[i]), f"read as {labels[y[i]]} from its words alone")
        for i in np.argsort(-margin)[:SHOWN]
    )
