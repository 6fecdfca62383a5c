"""Label log-probabilities: what a model would answer, read without generating.

log P(verbaliser | prompt) is the sum over its tokens of log P(token | prompt, tokens before); log P(label | prompt) is
the log-sum-exp over the label's verbalisers, which are disjoint events (see :mod:`affectlens.verbalisers`). All are
natural logarithms of probabilities over the whole vocabulary.

Nothing is divided by length: the values are those of the strings themselves, and a label with more, shorter or more
frequent verbalisers has more probability before any prompt is read ("surface form competition", Holtzman et al. 2021,
arXiv:2104.08315). So compare an item with its matched partner rather than one label with another, and look at ``mass``:
where it is small, the model answers with none of the labels.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from affectlens.capturing import budget, plan_batches
from affectlens.errors import CaptureError
from affectlens.layouts import Message
from affectlens.model import LensModel
from affectlens.progress import tracked
from affectlens.readout import pool_labels, score_batch
from affectlens.texts import TextList
from affectlens.types import TextTable
from affectlens.verbalisers import Labels, check_labels, encode_prompts


@dataclass(frozen=True, eq=False, repr=False)
class LabelScores:
    """Log-probabilities (natural) of labels after prompts.

    Attributes:
        items: the prompts' table, in order.
        labels: the labels, in the given order.
        verbalisers: ``(label, verbaliser)``, in the given order.
        logprobs: log P(label | prompt).
        by_verbaliser: log P(verbaliser | prompt).
        model: the model's name.
    """

    items: pd.DataFrame
    labels: tuple[str, ...]
    verbalisers: tuple[tuple[str, str], ...]
    logprobs: Float[np.ndarray, "item label"]
    by_verbaliser: Float[np.ndarray, "item verbaliser"]
    model: str = ""

    @property
    def mass(self) -> Float[np.ndarray, " item"]:
        """The probability of all labels together: how much of the model's answer the labels cover."""
        return np.exp(self.logprobs.astype(np.float64)).sum(1).astype(np.float32)

    @property
    def probabilities(self) -> Float[np.ndarray, "item label"]:
        """P(label | prompt, some label): normalised over the labels, rows sum to one."""
        shifted = np.exp(self.logprobs.astype(np.float64) - self.logprobs.max(1, keepdims=True))
        return (shifted / shifted.sum(1, keepdims=True)).astype(np.float32)

    @property
    def best(self) -> list[str]:
        """The most probable label of each item; the first of equals."""
        return [self.labels[i] for i in self.logprobs.argmax(1)]

    def at(self, label: str) -> Float[np.ndarray, " item"]:
        """log P(label | prompt).

        Raises:
            CaptureError: an unknown label.
        """
        if label not in self.labels:
            raise CaptureError(f"There is no label {label!r}; these were read: {', '.join(self.labels)}.")
        return self.logprobs[:, self.labels.index(label)]

    def difference(self, a: str, b: str) -> Float[np.ndarray, " item"]:
        """The log-odds of ``a`` against ``b`` in nats, log P(a) - log P(b): a metric for activation patching."""
        return self.at(a) - self.at(b)

    def frame(self) -> pd.DataFrame:
        """One row an item and label: ``id``, ``label``, ``logprob``, ``probability`` (normalised over the labels)."""
        n = len(self.labels)
        return pd.DataFrame(
            {
                "id": np.repeat(self.items["id"].to_numpy(), n),
                "label": np.tile(np.array(self.labels, dtype=object), len(self.items)),
                "logprob": self.logprobs.ravel(),
                "probability": self.probabilities.ravel(),
            }
        )

    def __repr__(self) -> str:
        best = ", ".join(f"{count} {label}" for label, count in Counter(self.best).most_common())
        return (
            f"LabelScores({len(self.items)} items, {len(self.labels)} labels, {len(self.verbalisers)} verbalisers on "
            f"{self.model}; best: {best}; median probability of all labels {np.median(self.mass):.2g})"
        )


def label_logprobs(
    model: LensModel,
    prompts: TextTable | Iterable[str | Sequence[Message]],
    labels: Labels,
    *,
    cue: str = "",
    chat: bool = False,
    token_budget: int | None = None,
    progress: bool | None = None,
) -> LabelScores:
    """The log-probability of each label after each prompt.

    Args:
        model: from :func:`affectlens.load_model`.
        prompts: texts, a battery, or conversations as lists of messages.
        labels: label to verbaliser or verbalisers, most often with a space before the word:
            ``{"joy": [" joy", " happiness"], "grief": " grief"}``. Verbalisers may have several tokens.
        cue: what to write after each text, such as ``" The feeling here is"``, without a last space.
        chat: make each text the user's message of a conversation; the verbaliser then begins the reply.
        token_budget: padded tokens a batch, as for :func:`affectlens.capture`.
        progress: show a bar; by default where a person is looking.

    Returns:
        :class:`LabelScores`; ``logprobs`` is ``[item, label]`` in float32.

    Raises:
        CaptureError: no prompts, labels that can't be read (:func:`affectlens.verbalisers.check_labels`), or tokens
            that don't fit (:func:`affectlens.verbalisers.encode_prompts`).
        ModelError: verbalisers of several tokens on a model without a key-value cache.
    """
    if isinstance(prompts, str):
        raise CaptureError("label_logprobs takes a list of prompts or a battery: put a single prompt into a list.")
    pairs = check_labels(labels)
    table = prompts if isinstance(prompts, TextTable) else TextList(list(prompts))
    items = table.frame()
    if items.empty:
        raise CaptureError(f"{table.name} has no items: there is nothing to read.")
    if cue and "messages" in items:
        raise CaptureError("A cue goes after plain texts; write it into the conversations' last messages yourself.")
    items = items.assign(text=items["text"] + cue) if cue else items
    encoded = encode_prompts(model, items, [text for _, text in pairs], chat=chat)
    values = torch.empty(len(encoded), len(pairs), dtype=torch.float64)
    for rows in tracked(
        plan_batches([len(p) for p in encoded], budget(model, token_budget)), "reading labels", show=progress
    ):
        values[rows] = score_batch(model, [encoded[row] for row in rows]).cpu()
    names = tuple(labels)
    pooled = pool_labels(values, [names.index(label) for label, _ in pairs])
    return LabelScores(items, names, pairs, pooled.float().numpy(), values.float().numpy(), model.name)
