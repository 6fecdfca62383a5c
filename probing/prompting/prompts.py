"""How a model is asked: wordings, the words that count as an answer, exemplars, and prompts, plain or in a template.

Every target has at least two wordings, since a score can hang on one (Sclar et al. 2024, arXiv:2310.11324): one that
offers the labels and one that puts the question otherwise. A label's verbalisers are its words in lower case and
capitalised; in a chat template the reply begins with them, in plain text they follow a cue and a space.

Exemplars come from scenes outside the fold that is scored, as many of each label, no two of one scene. Their labels
alternate, and the order is turned by one from fold to fold, so that none is the last one, which weighs most (Zhao et
al. 2021, arXiv:2102.09690), more often than another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int

from affectlens.errors import BatteryError
from affectlens.probing.targets import Target
from affectlens.stimuli.taxonomy import PEAK
from affectlens.verbalisers import Labels

ASKABLE = ("affect", "category", "valence")
Exchange = tuple[str, str]  # what is said up to the answer's place, and the answer; "" where the model is to answer


@dataclass(frozen=True)
class Wording:
    """One way to put a question about a text."""

    name: str
    question: str
    cue: str  # what stands before the answer in plain text
    words: Mapping[str, Sequence[str]]  # label to the words that stand for it; exemplars show the first

    def verbalisers(self, chat: bool) -> Labels:
        """Label to the strings that are read; the first is what an exemplar shows.

        Args:
            chat: they begin a reply, capitalised or not; otherwise they follow the cue and a space.
        """
        return {label: [form for word in words for form in forms(word, chat)] for label, words in self.words.items()}


def forms(word: str, chat: bool) -> tuple[str, str]:
    """The two strings of a word, the usual one first.

    >>> forms("yes", chat=False), forms("yes", chat=True)
    ((' yes', ' Yes'), ('Yes', 'yes'))
    """
    upper = word[:1].upper() + word[1:]
    return (upper, word) if chat else (f" {word}", f" {upper}")


def wordings(target: str, classes: Sequence[str]) -> tuple[Wording, ...]:
    """The ways to ask for a target, the labels in the order of its classes.

    Args:
        target: ``affect``, ``category`` or ``valence``.
        classes: the target's classes; of ``category``, the emotions, which count by their basic and their peak name.
    """
    if target == "affect":
        return (
            Wording("evokes", "Does what happens in this text evoke an emotion? Answer yes or no.", "Answer:",
                    {"neutral": ["no"], "emotional": ["yes"]}),
            Wording("kind", "Is what happens in this text neutral or emotional? Answer with one word.",
                    "What happens is", {"neutral": ["neutral", "ordinary"], "emotional": ["emotional", "moving"]}),
        )  # fmt: skip
    if target == "valence":
        return (
            Wording("feel", "Is what happens in this text unpleasant or pleasant? Answer with one word.", "Answer:",
                    {"unpleasant": ["unpleasant"], "pleasant": ["pleasant"]}),
            Wording("worth", "For those to whom it happens, is what this text tells good or bad? Answer with one word.",
                    "What happens is", {"unpleasant": ["bad", "negative"], "pleasant": ["good", "positive"]}),
        )  # fmt: skip
    words = {name: [name, PEAK[name]] if name in PEAK else [name] for name in classes}
    offered = f"{', '.join(classes[:-1])} or {classes[-1]}"
    return (
        Wording("offered", f"Which emotion does what happens in this text evoke: {offered}? Answer with one word.",
                "Answer:", words),
        Wording("open", "Name the emotion that is evoked by what happens in this text. Answer with one word.",
                "The emotion is", words),
    )  # fmt: skip


def compose(names: Sequence[str], talks: Sequence[Sequence[Exchange]], *, chat: bool) -> pd.DataFrame:
    """Prompts as a table for :func:`affectlens.verbalisers.encode_prompts`; each talk's last answer is left open.

    Args:
        names: the prompts' ids.
        talks: exchanges, the exemplars first.
        chat: as a conversation of a user with an assistant, otherwise one text with an empty line between exchanges.
    """
    if not chat:
        texts = ["\n\n".join(said + answer for said, answer in talk) for talk in talks]
        return pd.DataFrame({"id": list(names), "text": texts})
    messages = [
        [
            {"role": role, "content": words}
            for said, answer in talk
            for role, words in (("user", said), ("assistant", answer))
            if words
        ]
        for talk in talks
    ]
    frame = pd.DataFrame({"id": list(names), "text": [talk[-1][0] for talk in talks]})
    return frame.assign(messages=pd.Series(messages, dtype=object))


def exchange(wording: Wording, text: str, label: str | None, *, chat: bool) -> Exchange:
    """One text with the question, and its answer.

    Args:
        wording: how to ask.
        text: what to ask about.
        label: whose first verbaliser is shown; None leaves the answer to the model.
        chat: without the cue, which the template's own mark of a reply stands for.
    """
    asked = f"{wording.question}\n\nText: {text}"
    return asked if chat else f"{asked}\n{wording.cue}", "" if label is None else wording.verbalisers(chat)[label][0]


def exemplars(
    asked: Target, folds: Int[np.ndarray, " item"], fold: int, shots: int, *, seed: int = 0
) -> Int[np.ndarray, " shot"]:
    """Rows of the target to show before the items of a fold: ``shots`` of each class, none of the fold's scenes.

    Args:
        asked: the target, for its items, labels and classes.
        folds: the fold of each of its items.
        fold: the one to be scored.
        shots: exemplars of each class.
        seed: of the draw; the order of the items in the table does not matter.

    Returns:
        Row numbers within the target, in the order in which they are shown.

    Raises:
        BatteryError: too few scenes outside the fold.
    """
    groups, ids = asked.items["group"].to_numpy(), asked.items["id"].to_numpy()
    inside = folds == fold
    free = ~inside & ~np.isin(groups, groups[inside])
    firsts = sorted(str(ids[folds == other].min()) for other in np.unique(folds))
    turn = firsts.index(str(ids[inside].min()))
    rng = np.random.default_rng([seed, turn])
    k = len(asked.classes)
    chosen: list[int] = []
    for label in ((np.arange(k * shots) + turn) % k).tolist():
        rows = np.flatnonzero(free & (asked.y == label) & ~np.isin(groups, groups[chosen]))
        if not len(rows):
            raise BatteryError(
                f"There are not {shots} exemplars of {asked.classes[label]!r} from scenes of their own outside each "
                f"fold of {asked.name}: ask with fewer shots, or with a larger battery."
            )
        chosen.append(int(rng.choice(rows[np.argsort(ids[rows])])))
    return np.array(chosen, dtype=int)
