"""Within pairs: overlap, length, sentences, negations, absolutes, quotation marks, and whether a closed list leans."""

from collections.abc import Callable

from scipy.stats import binomtest

from affectlens.stimuli.auditing.designs import Design, Pair
from affectlens.stimuli.auditing.finding import Bounds, Finding, Leak, Worst
from affectlens.stimuli.auditing.floors import SHOWN, sides
from affectlens.stimuli.lexical import ABSOLUTES, NEGATIONS, OFFICE, count, sentences, words

QUOTES = '"\u201c\u201d\u00ab\u00bb'
LISTS = {"negations": NEGATIONS, "absolutes": ABSOLUTES, "office words": OFFICE}


def matching(design: Design, bounds: Bounds) -> list[Finding]:
    """One row a property: the share of pairs outside the bound, which must be none."""
    pairs = design.pairs
    measures: dict[str, tuple[Callable[[Pair], float], float | int, str]] = {
        "word overlap": (lambda p: 1 - jaccard(p), 1 - bounds.overlap, f"Jaccard >= {bounds.overlap:.2f}"),
        "length match": (_length, bounds.length, f"within {bounds.length:.0%}"),
        "sentence match": (lambda p: _apart(p, lambda t: len(sentences(t))), 0, "equal"),
        "negation match": (lambda p: _apart(p, lambda t: count(t, NEGATIONS)), bounds.per_pair,
                           f"within {bounds.per_pair}"),
        "absolutes match": (lambda p: _apart(p, lambda t: count(t, ABSOLUTES)), bounds.per_pair,
                            f"within {bounds.per_pair}"),
        "quotation match": (lambda p: _apart(p, lambda t: sum(map(t.count, QUOTES))), bounds.per_pair,
                            f"within {bounds.per_pair}"),
    }  # fmt: skip
    out = [_row(name, pairs, *measure) for name, measure in measures.items()]
    twins = tuple(Pair(*pair) for pair in design.keywords)
    out.append(
        _row("keyword twin length", twins, _length, bounds.keyword_length, f"within {bounds.keyword_length:.0%}")
    )
    return out + [leaning(name, pairs, among, bounds) for name, among in LISTS.items()]


def leaning(name: str, pairs: tuple[Pair, ...], among: frozenset[str], bounds: Bounds) -> Finding:
    """Whether a closed list stands on one side: pairs with more of it emotional less pairs with more of it neutral.

    Fails beyond the bound if a sign test over the uneven pairs is below 0.05 too: in a few pairs chance leans as far.
    """
    title, said = f"{name} lean to no side", f"net share of pairs within {bounds.net:.2f}, or p >= 0.05"
    if not pairs:
        return Finding(title, None, said, None, "no matched pairs")
    gaps = [count(p.emotional.text, among) - count(p.neutral.text, among) for p in pairs]
    up, down = sum(g > 0 for g in gaps), sum(g < 0 for g in gaps)
    net = (up - down) / len(pairs)
    p = float(binomtest(up, up + down).pvalue) if up + down else 1.0
    side = 1 if up > down else -1
    worst = sorted(zip(gaps, pairs, strict=True), key=lambda x: -side * x[0])
    listed = tuple(
        Worst(pair.group, float(abs(gap)), f"{abs(gap)} more {name} on the {_side(gap)} side")
        for gap, pair in worst[:SHOWN]
        if gap * side > 0
    )
    oftener, rarer = sides(pairs, among)
    used = tuple(Leak(w, oftener[w], rarer[w]) for w in sorted(among) if oftener[w] != rarer[w])
    note = f"more on the emotional side in {up} pairs, on the neutral side in {down}; p {p:.3f}"
    return Finding(title, net, said, abs(net) <= bounds.net or p >= 0.05, note, listed, used)


def jaccard(pair: Pair) -> float:
    """Shared words over all words of a pair."""
    a, b = set(words(pair.emotional.text)), set(words(pair.neutral.text))
    return len(a & b) / len(a | b) if a | b else 1.0


def _row(
    name: str, pairs: tuple[Pair, ...], measure: Callable[[Pair], float], bound: float | int, said: str
) -> Finding:
    if not pairs:
        return Finding(name, None, f"every pair {said}", None, "no pairs")
    found = [(measure(pair), pair) for pair in pairs]
    out = sorted(((x, p) for x, p in found if x > bound + 1e-9), key=lambda x: -x[0])
    worst = tuple(Worst(p.neutral.id, float(x), f"{name}: {x:.2f} apart from {p.emotional.id}") for x, p in out[:200])
    return Finding(name, len(out), f"every pair {said}", not out, f"{len(out)} of {len(pairs)} pairs outside", worst)


def _length(pair: Pair) -> float:
    a, b = len(words(pair.emotional.text)), len(words(pair.neutral.text))
    return abs(a - b) / max(a, 1)


def _apart(pair: Pair, measure: Callable[[str], int]) -> float:
    return float(abs(measure(pair.emotional.text) - measure(pair.neutral.text)))


def _side(gap: int) -> str:
    return "emotional" if gap > 0 else "neutral"
