"""Readers of quadruples: those that add up over sentences must be at one half exactly, shallow others near it.

A reader wins a quadruple if s(ax) + s(by) > s(ay) + s(bx). Ties are no evidence: the interval is over untied
quadruples, at 99%, because five readers share an error rate of 0.05. Quadruples scored by readers that learnt from each
other are not quite independent, so the interval is somewhat narrow: a reader just out of bounds deserves a look.
"""

from collections import Counter

import numpy as np
from jaxtyping import Float

from affectlens.stats import Estimate, binomial
from affectlens.stimuli.auditing.designs import Design
from affectlens.stimuli.auditing.finding import Finding, Worst
from affectlens.stimuli.auditing.floors import SHOWN
from affectlens.stimuli.auditing.readers import logistic_held_out, products, tfidf
from affectlens.stimuli.auditing.reported import Encoder, perceptron_held_out, vader
from affectlens.stimuli.battery import Battery
from affectlens.stimuli.crossing import differences
from affectlens.stimuli.lexical import FUNCTION_WORDS, sentences, words
from affectlens.stimuli.stimulus import CELLS, Stimulus

SIGN = {"ax": 1, "ay": -1, "bx": -1, "by": 1}
FEWEST = 6  # quadruples, for a reader that learns from the others; and untied ones, for a test at 0.05
READERS = 5  # shallow readers, whose intervals share an error rate of 0.05
_FUNCTION = frozenset(FUNCTION_WORDS)


def additive(design: Design) -> Finding:
    """Whether all words cancel in every quadruple: then any weights on words win exactly one half."""
    title, said = "additive readers on quadruples", "wins exactly 0.5"
    if not design.quadruples:
        return Finding(title, None, said, None, "no quadruples")
    worst = []
    for group, cells in design.quadruples.items():
        left = Counter[str]()
        for cell, s in cells.items():
            for word in words(s.text):
                left[word] += SIGN[cell]
        if over := sorted(word for word, n in left.items() if n):
            worst.append(Worst(group, float(len(over)), f"these words do not cancel: {' '.join(over[:12])}"))
    wins = 0.5 if not worst else float("nan")
    note = f"words cancel in {len(design.quadruples) - len(worst)} of {len(design.quadruples)} quadruples"
    return Finding(title, wins, said, not worst, note, tuple(worst))


def shallow(design: Design, outside: Battery | None, encoder: Encoder | None) -> list[Finding]:
    """Readers that are no sum over sentences, and understand nothing: their intervals must cover one half.

    Raises:
        BatteryError: if the outside battery has texts of one kind only.
    """
    quadruples = design.crossed()
    names = ("words learnt on the pairs", "words learnt outside", "VADER", "context-by-ending word products",
             "order, distance and position")  # fmt: skip
    title, said = "shallow reader on crossed: {}", "99% interval of untied covers 0.5"
    if len(quadruples) < FEWEST:
        note = f"{len(quadruples)} crossed quadruples"
        return [Finding(title.format(name), None, said, None, note) for name in names]
    items = [cells[cell] for cells in quadruples.values() for cell in CELLS]
    texts, y = [s.text for s in items], np.array([int(s.affect) for s in items])
    folds = _folds(items)
    contexts, endings = [t.text[: t.ending] for t in items], [t.text[t.ending :] for t in items]
    mentions = np.array([mention_features(c, e) for c, e in zip(contexts, endings, strict=True)])
    spread = (mentions - mentions.mean(0)) / np.maximum(mentions.std(0), 1e-9)
    scored: dict[str, Float[np.ndarray, " item"] | str] = {
        names[0]: _trained([(s.text, s.affect) for p in design.pairs for s in (p.emotional, p.neutral)], texts),
        names[1]: _trained([(s.text, s.affect) for s in outside], texts) if outside else "no outside battery given",
        names[2]: vader(texts),
        names[3]: logistic_held_out(products(contexts, endings), y, folds),
        names[4]: logistic_held_out(spread, y, folds),
    }
    out = [_finding(title.format(name), said, scores, quadruples) for name, scores in scored.items()]
    reported = {"names by clause sentiment": clause_sentiment(items)}
    if encoder is not None:
        reported["sentence encoder and perceptron"] = perceptron_held_out(encoder(texts), y, folds)
    return out + [
        _finding(f"reader on crossed: {name}", "reported", scores, quadruples) for name, scores in reported.items()
    ]


def mention_features(context: str, ending: str) -> list[float]:
    """Where the ending takes up words of the context.

    Whether the first two come in the same order, the distance in words from a word's last mention in the context to its
    mention in the ending (first, last), the place of the first and of the last in the ending, and how many there are.
    """
    before, after = words(context), words(ending)
    shared = [w for w in dict.fromkeys(after) if w in before and w not in _FUNCTION]
    if not shared:
        return [0.0] * 6
    last = {w: len(before) - 1 - before[::-1].index(w) for w in shared}
    place = {w: after.index(w) for w in shared}
    order = 0.0 if len(shared) < 2 else 1.0 if before.index(shared[0]) < before.index(shared[-1]) else -1.0
    gaps = [len(before) - last[w] + place[w] for w in (shared[0], shared[-1])]
    return [order, *map(float, gaps), float(place[shared[0]]), float(place[shared[-1]]), float(len(shared))]


def clause_sentiment(items: list[Stimulus]) -> Float[np.ndarray, " item"] | str:
    """Over shared words: sentiment of the sentence that names it times that of the clause that takes it up, summed."""
    out = np.zeros(len(items))
    for row, s in enumerate(items):
        first = sentences(s.text[: s.ending])
        second = [clause for part in sentences(s.text[s.ending :]) for clause in part.replace(" and ", ", ").split(",")]
        scores = vader(first + second)
        if isinstance(scores, str):
            return scores
        for a, x in zip(first, scores, strict=False):
            for b, z in zip(second, scores[len(first) :], strict=True):
                out[row] -= x * z * len((set(words(a)) & set(words(b))) - _FUNCTION)
    return out


def _finding(title: str, said: str, scores: np.ndarray | str, quadruples: dict[str, dict[str, Stimulus]]) -> Finding:
    if isinstance(scores, str):
        return Finding(title, None, said, None, scores)
    d = differences(scores, np.arange(len(scores)).reshape(-1, 4))
    d = np.where(np.abs(d) <= 1e-9 * np.abs(scores).max(), 0.0, d)  # what cancels, cancels to rounding
    won, lost = int((d > 0).sum()), int((d < 0).sum())
    if won + lost < FEWEST:
        share: Estimate | float = (won + 0.5 * (len(d) - won - lost)) / len(d)
        passed, note = True, f"{won} won, {lost} lost of {len(d)}, the rest tied: too little to go on"
    else:
        share = binomial(won, won + lost, "untied quadruple", level=1 - 0.05 / READERS)
        passed, note = share.low <= 0.5 <= share.high, f"{won} won, {lost} lost, {len(d) - won - lost} tied"
    verdict = None if said == "reported" else passed
    worst = [Worst(g, float(x), "its cells are told apart") for g, x in zip(quadruples, d, strict=True) if x > 0]
    return Finding(title, share, said, verdict, note,
                   tuple(sorted(worst, key=lambda w: -w.figure)[:SHOWN]))  # fmt: skip


def _trained(rows: list[tuple[str, bool]], texts: list[str]) -> Float[np.ndarray, " item"] | str:
    if len({affect for _, affect in rows}) < 2:
        return "nothing to learn emotional against neutral from"
    model = tfidf().fit([text for text, _ in rows], [int(affect) for _, affect in rows])
    return model.decision_function(texts)


def _folds(items: list[Stimulus]) -> np.ndarray:
    """By the emotion of ``ax`` where there are three or more, else five folds; quadruples stay whole."""
    emotions = [s.emotion for s in items[::4]]
    if None not in emotions and len(set(emotions)) > 2:
        codes = np.unique([str(e) for e in emotions], return_inverse=True)[1]
        return np.repeat(codes, 4)
    return np.repeat(np.arange(len(items) // 4) % 5, 4)
