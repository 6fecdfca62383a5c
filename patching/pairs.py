"""Patch pairs: a clean text and a corrupt one, tokenised with what is asked of them, and which of their tokens match.

The clean text is the emotional one (of a pair without roles, the first). Tokens are matched by
:mod:`affectlens.aligning`, and a patch moves a value from a token to its match, never to one without. The matches from
the first differing token on are cut into segments; those before it have the same activations in both runs, so a patch
there changes nothing.

========= =========================================================================================
``changed`` the clause in which the texts differ, matched from its end: places, not equal words
``shared``  the words after it that both texts have, before the ending
``ending``  those of them in the last sentence, or in the item's own ending
``cue``     what follows the text: the cue, and a chat template's tokens
``last``    the last token, at which the next one is predicted (of ``cue``, if there is one)
``all``     every match from the first difference on
========= =========================================================================================
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from affectlens.aligning import Alignment, cut
from affectlens.errors import BatteryError, CaptureError, PatchError
from affectlens.layouts import Layout, lay_out
from affectlens.model import LensModel
from affectlens.patching.tabling import Given, flag, known, tabled
from affectlens.verbalisers import Labels, Prompt, check_labels, encode_prompts

Match = tuple[int, int]  # position in the clean text, position in the corrupt one
SEGMENTS = ("changed", "shared", "ending", "cue", "last", "all")


@dataclass(frozen=True, eq=False)
class Side:
    """One text of a pair as the model reads it."""

    name: str  # the item's id
    prompt: Prompt  # its tokens, the cue's included, and each verbaliser's after them
    layout: Layout
    emotion: str | None = None
    affect: bool | None = None  # whether it evokes an emotion, where that is known
    group: str = ""  # the scene that it is of

    def __len__(self) -> int:
        return len(self.prompt.ids)


@dataclass(frozen=True, eq=False, repr=False)
class PatchPair:
    """Two texts that differ in one thing."""

    name: str
    group: str  # what is resampled together: a scene, a quadruple
    contrast: str  # emotional/neutral, ax/bx
    clean: Side
    corrupt: Side
    alignment: Alignment
    segments: Mapping[str, tuple[Match, ...]]
    emotion: str | None = None  # of the clean text
    valence: int = 0  # of the clean text: -1, 0 or 1
    words: tuple[str, ...] = ()  # the verbalisers, in the order of the prompts' tails
    cue: str = ""
    chat: bool = False
    tokenizer: str = ""  # a hash of the vocabulary that it was tokenised with
    domain: str | None = None  # of the clean text

    @property
    def equal_length(self) -> bool:
        """Whether every token from the first difference on has its match."""
        return len(self.alignment.a.changed) == len(self.alignment.b.changed)

    def swapped(self) -> "PatchPair":
        """The pair with clean and corrupt exchanged; what it is resampled with, and its emotion, stay."""
        turned = {name: tuple((b, a) for a, b in matches) for name, matches in self.segments.items()}
        return replace(
            self, clean=self.corrupt, corrupt=self.clean, alignment=self.alignment.swapped(), segments=turned
        )

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(matches)}" for name, matches in self.segments.items() if name != "all")
        return f"PatchPair({self.name}, {self.contrast}: {len(self.clean)} and {len(self.corrupt)} tokens; {sizes})"


def prepare(
    model: LensModel,
    pairs: Given,
    *,
    labels: Labels | Sequence[str] | None = None,
    cue: str = "",
    chat: bool = False,
) -> list[PatchPair]:
    """Pairs as a sweep reads them.

    Args:
        model: whose tokenizer is used.
        pairs: a battery, whose matched pairs are taken (:func:`affectlens.pairing.matched_pairs`); or tuples of a clean
            and a corrupt text or stimulus.
        labels: what metrics read after the prompts: verbalisers, or labels with theirs
            (:func:`affectlens.patching.metrics.words_of` gives those of several metrics).
        cue: what to write after each text, such as ``" The feeling here is"``.
        chat: make each text the user's message of a conversation.

    Raises:
        BatteryError: no pair, or a pair whose texts are the same.
        CaptureError: texts, labels or tokens that can't be read.
    """
    items, rows = tabled(pairs)
    words = (
        tuple(text for _, text in check_labels(labels))
        if isinstance(labels, Mapping)
        else tuple([labels] if isinstance(labels, str) else labels or ())
    )
    layouts, prompts = encode(model, items, words, cue=cue, chat=chat)
    by_id = items.set_index("id", drop=False)
    sides = {
        name: Side(
            name,
            prompt,
            layout,
            known(by_id, name, "emotion"),
            flag(by_id, name),
            str(known(by_id, name, "group") or name),
        )
        for name, layout, prompt in zip(items["id"], layouts, prompts, strict=True)
    }
    out, key = [], vocabulary(model)
    for group, contrast, a, b in rows.itertuples(index=False):
        if sides[a].prompt.ids == sides[b].prompt.ids:
            raise BatteryError(f"The pair {a} and {b} has one and the same text: there is nothing to patch.")
        alignment = cut(model.tokenizer, sides[a].layout, sides[b].layout)
        end = _text_end(sides[a].layout, len(str(by_id.at[a, "text"])))
        segments = dict(segment(alignment, sides[a].layout, end))
        valence = known(by_id, a, "valence") or 0
        out.append(PatchPair(
            f"{a}|{b}", group, contrast, sides[a], sides[b], alignment, segments, sides[a].emotion, int(valence), words,
            cue, chat, key, known(by_id, a, "domain"),
        ))  # fmt: skip
    return out


def encode(
    model: LensModel, items: pd.DataFrame, words: Sequence[str] = (), *, cue: str = "", chat: bool = False
) -> tuple[list[Layout], list[Prompt]]:
    """Layouts and prompts of texts with their cue; both have the same tokens."""
    asked = items.assign(text=items["text"] + cue)
    layouts = lay_out(model, asked, chat=chat)
    if not words:
        return layouts, [Prompt(tuple(layout.ids), ((),)) for layout in layouts]
    prompts = encode_prompts(model, asked, list(words), chat=chat)
    for layout, prompt in zip(layouts, prompts, strict=True):
        if list(prompt.ids) != layout.ids[: len(prompt.ids)]:
            raise CaptureError(
                f"Text {layout.name!r} begins with a token that the tokenizer adds by itself, {layout.text[:8]!r}: "
                "leave it out."
            )
    return [_shortened(layout, len(p.ids)) for layout, p in zip(layouts, prompts, strict=True)], prompts


def segment(alignment: Alignment, layout: Layout, text_end: int) -> Iterator[tuple[str, tuple[Match, ...]]]:
    """The matches of each segment; ``layout`` is the clean text's, ``text_end`` in its characters."""
    suffix = list(zip(alignment.a.suffix, alignment.b.suffix, strict=True))
    after = {i for i, (start, end) in enumerate(layout.spans) if start >= text_end or (end == start and i > 0)}
    late = [(a, b) for a, b in suffix if a in after]
    within = [(a, b) for a, b in suffix if a not in after]
    # the first token is an attention sink in most models, which no other token stands for
    changed = tuple((a, b) for a, b in alignment.changed_pairs if (a == 0) == (b == 0))
    yield "changed", changed
    yield "shared", tuple((a, b) for a, b in within if a not in alignment.a.ending)
    yield "ending", tuple((a, b) for a, b in within if a in alignment.a.ending)
    yield "cue", tuple(late)
    every = (*changed, *suffix)
    yield "last", tuple(every[-1:])
    yield "all", tuple(every)


def read_of(pairs: Sequence[PatchPair]) -> list[object]:
    """What of the pairs a sweep's numbers depend on, to tell a sweep that is continued from another."""
    sides = ([(one.prompt.ids, one.prompt.tails) for one in (pair.clean, pair.corrupt)] for pair in pairs)
    return [[pair.name, pair.group, pair.emotion, pair.valence, *both] for pair, both in zip(pairs, sides, strict=True)]


def vocabulary(model: LensModel) -> str:
    """A hash of the tokens that a model's texts are made of."""
    return hashlib.sha256(json.dumps(sorted(model.tokenizer.get_vocab().items())).encode()).hexdigest()[:16]


def _text_end(layout: Layout, n_characters: int) -> int:
    return (layout.turns[-1].start if layout.turns else 0) + n_characters


def _shortened(layout: Layout, n: int) -> Layout:
    """Without what the tokenizer puts behind a text, which goes on."""
    return replace(layout, ids=layout.ids[:n], spans=layout.spans[:n], content=layout.content[:n])


def choose(pairs: Sequence[PatchPair], groups: int | None, seed: int = 0) -> list[PatchPair]:
    """All pairs of so many groups, spread evenly over emotions and contrasts; in the given order.

    Args:
        pairs: from :func:`prepare`.
        groups: how many; None, or more than there are, is all.
        seed: of the choice.

    Raises:
        BatteryError: fewer than one.
    """
    if groups is not None and groups < 1:
        raise BatteryError(f"{groups} groups were asked for: take at least one.")
    kinds: dict[str, tuple[str, str]] = {}
    for pair in pairs:
        kinds.setdefault(pair.group, (str(pair.emotion), pair.contrast))
    names = [list(kinds)[i] for i in np.random.default_rng(seed).permutation(len(kinds))]
    rank: dict[str, int] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for name in names:
        rank[name] = counts[kinds[name]]
        counts[kinds[name]] += 1
    kept = set(sorted(names, key=lambda name: rank[name])[:groups])
    return [pair for pair in pairs if pair.group in kept]


def deal(groups: Sequence[str], folds: int, *, least: int = 1, seed: int = 0) -> dict[str, int]:
    """The fold of each group.

    Args:
        groups: each item's.
        folds: how many.
        least: groups that each fold needs, one or two.
        seed: of the dealing.

    Raises:
        PatchError: fewer than two folds, or too few groups.
    """
    names = list(dict.fromkeys(groups))
    if not 2 <= folds <= len(names) // least:
        few = "no more than there are groups" if least == 1 else "two groups to each"
        raise PatchError(f"{folds} folds of {len(names)} groups: give at least 2, and {few}.")
    order = np.random.default_rng(seed).permutation(len(names))
    return {names[at]: number % folds for number, at in enumerate(order)}
