"""Emotion words and cliches where there must be none, and runs of words that two scenes share."""

import re
from collections import Counter
from functools import cache
from importlib import resources

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from affectlens.stimuli.auditing.designs import Design
from affectlens.stimuli.auditing.finding import Bounds, Finding, Worst
from affectlens.stimuli.battery import Battery
from affectlens.stimuli.lexical import CLICHES, grams, words

BLOCK = 512  # rows compared at a time
NEAR = 0.5  # Jaccard of words and word pairs, from which two texts of different groups are near duplicates
_CLICHE = re.compile("|".join(rf"(?<!\w){pattern}" if pattern[0] != "!" else "!" for pattern in CLICHES), re.IGNORECASE)


def keywords(design: Design) -> list[Finding]:
    """Items that should be free of emotion words and cliches, and are not; and decoys and twins that have none."""
    free = design.keyword_free()
    out = [
        _hits("emotion words", {s.id: emotion_words(s.text) for s in free}),
        _hits("cliches and evaluative adverbs", {s.id: [m.group() for m in _CLICHE.finditer(s.text)] for s in free}),
    ]
    rich = [s for s in design.battery if s.role in ("keyword", "decoy")]
    if not rich:
        return [*out, Finding("keyword items have emotion words", None, "all", None, "no keyword items")]
    bare = tuple(Worst(s.id, 1.0, "has no emotion word") for s in rich if not emotion_words(s.text))
    note = f"{len(rich)} keyword twins and decoys"
    return [*out, Finding("keyword items have emotion words", len(bare), "none lacks one", not bare, note, bare)]


def emotion_words(text: str) -> list[str]:
    """The words of ``text`` that our lexicon calls emotional, in order.

    >>> emotion_words("To her delight nothing had happened.")
    ['delight']
    """
    exact, prefixes, exempt = _lexicon()
    return [
        w
        for w in (word.removesuffix("'s") for word in words(text))
        if (w in exact or w.startswith(prefixes)) and not w.startswith(exempt)
    ]


@cache
def _lexicon() -> tuple[frozenset[str], tuple[str, ...], tuple[str, ...]]:
    """Inflected words, prefixes, and exceptions."""
    text = (resources.files("affectlens.stimuli") / "data" / "emotion_words.txt").read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if line and not line.startswith("#")]
    exempt = tuple(line[1:].removesuffix("*") for line in lines if line.startswith("!"))
    prefixes = tuple(line[:-1] for line in lines if line.endswith("*") and not line.startswith("!"))
    exact = {form for line in lines if line.isalpha() for form in inflected(line)}
    return frozenset(exact), prefixes, exempt


def inflected(word: str) -> set[str]:
    """A lemma with its regular endings.

    >>> sorted(inflected("pity"))
    ['pitied', 'pities', 'pity', 'pitying', 'pitys']
    """
    out = {word, f"{word}s"}
    if word.endswith("e"):
        return out | {f"{word}d", f"{word[:-1]}ing"}
    if word.endswith("y") and word[-2] not in "aeiou":
        return out | {f"{word[:-1]}ies", f"{word[:-1]}ied", f"{word}ing"}
    twice = word + word[-1] if re.search(r"[^aeiou][aeiou][bdgklmnprt]$", word) else word
    return out | {f"{word}es", f"{word}ed", f"{word}ing", f"{twice}ed", f"{twice}ing"}


def repeats(battery: Battery, bounds: Bounds) -> list[Finding]:
    """Runs of words that two groups share, and near duplicates."""
    first: dict[tuple[str, ...], tuple[str, str]] = {}
    shared: dict[str, Worst] = {}
    for s in battery:
        found = words(s.text)
        for i in range(len(found) - bounds.run + 1):
            run = tuple(found[i : i + bounds.run])
            group, item = first.setdefault(run, (s.group, s.id))
            if group != s.group and s.id not in shared:
                shared[s.id] = Worst(s.id, float(bounds.run), f'shares "{" ".join(run)}" with {item}')
    worst = tuple(shared.values())
    title = f"repeated runs of {bounds.run} words"
    return [Finding(title, len(worst), "0 items", not worst, "across groups", worst[:200]), _near(battery)]


def _near(battery: Battery) -> Finding:
    """Texts of different groups that share half of their words and word pairs, found in blocks of rows."""
    items = battery.items
    if not any(words(s.text) for s in items):
        return Finding("near duplicates", None, "0 pairs", None, "no text has a word")
    table = CountVectorizer(analyzer=grams, binary=True).fit_transform([s.text for s in items]).astype(np.float32)
    size = np.asarray(table.sum(1)).ravel()
    groups = np.unique([s.group for s in items], return_inverse=True)[1]
    worst, top = [], 0.0
    for start in range(0, len(items), BLOCK):
        both = (table[start : start + BLOCK] @ table.T).tocoo()
        alike = both.data / np.maximum(size[both.row + start] + size[both.col] - both.data, 1)
        other = (groups[both.row + start] != groups[both.col]) & (both.col > both.row + start)
        top = max(top, float(alike[other].max(initial=0.0)))
        for k in np.flatnonzero(other & (alike >= NEAR)):
            first, second = items[int(both.row[k]) + start], items[int(both.col[k])]
            worst.append(Worst(second.id, float(alike[k]), f"near duplicate of {first.id}"))
    return Finding("near duplicates", len(worst), "0 pairs", not worst, f"most alike: {top:.2f}", tuple(worst[:200]))


def _hits(name: str, found: dict[str, list[str]]) -> Finding:
    hit = {item: hits for item, hits in found.items() if hits}
    worst = tuple(
        Worst(item, float(len(hits)), ", ".join(sorted(set(hits))))
        for item, hits in sorted(hit.items(), key=lambda x: -len(x[1]))
    )
    often = Counter(w for hits in hit.values() for w in hits).most_common(8)
    note = f"in {len(hit)} of {len(found)} keyword-free items" + (": " if often else "")
    note += ", ".join(f"{w} {n}" for w, n in often)
    return Finding(name, sum(map(len, hit.values())), "0", not hit, note, worst)
