"""How likely a language model finds each emotion in a text: two forms, each a log score by text and class.

``quoted``: log P(adjective | 'Someone says: "text" The speaker feels'), by :func:`affectlens.label_logprobs`; one pass.
``channel``: log P(text | "A joyful person says:") - log P(text | "A person says:"), the noisy channel (Min et al. 2022,
ACL, arXiv:2108.04106): the model must explain every word of the text, not only name a class. It takes ten passes.

Either has a bias for some classes before any text is read; :mod:`affectlens.steering.judging.calibrating` takes it out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from affectlens.capturing import budget, plan_batches
from affectlens.labels import label_logprobs
from affectlens.model import LensModel
from affectlens.progress import tracked
from affectlens.readout import token_logprobs
from affectlens.steering.judging.verdicts import NEUTRAL
from affectlens.stimuli.taxonomy import EMOTIONS

Scores = Float[np.ndarray, "item label"]
LABELS = (*EMOTIONS, NEUTRAL)
ADJECTIVES = {
    "joy": "joyful", "trust": "trusting", "fear": "fearful", "surprise": "surprised", "sadness": "sad",
    "disgust": "disgusted", "anger": "angry", "anticipation": "expectant", NEUTRAL: "calm",
}  # fmt: skip
LONGEST = 256  # tokens of a text that are read


def channel_scores(
    model: LensModel, texts: Sequence[str], frames: Sequence[str], plain: str, *, progress: bool | None = None
) -> Scores:
    """log P(text | frame) - log P(text | plain), summed over the text's tokens, in nats.

    Args:
        model: the language model.
        texts: none of them empty; tokens after the 256th are not read.
        frames: what comes before the text, one a class.
        plain: what comes before it where no class is named.
        progress: show a bar; by default where a person is looking.
    """
    heads = [tuple(model.tokenizer(frame)["input_ids"]) for frame in (*frames, plain)]
    bodies = [tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"][:LONGEST]) for text in texts]
    pairs = [(head, body) for head in heads for body in bodies]
    out = np.zeros(len(pairs))
    plan = plan_batches([len(head) + len(body) for head, body in pairs], budget(model, None))
    for rows in tracked(plan, "reading likelihoods", show=progress):
        out[rows] = _batch(model, [pairs[row] for row in rows])
    table = out.reshape(len(heads), len(texts)).T
    return table[:, :-1] - table[:, -1:]


@torch.inference_mode()
def _batch(model: LensModel, pairs: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> Float[np.ndarray, " item"]:
    """The summed log-probabilities of the second part of each pair after the first; padded on the right."""
    width = max(len(head) + len(body) for head, body in pairs)
    ids = torch.zeros(len(pairs), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (head, body) in enumerate(pairs):
        ids[row, : len(head) + len(body)] = torch.tensor(head + body)
        mask[row, : len(head) + len(body)] = 1
    out = model.hf(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False).logits.cpu()
    found = token_logprobs(out[:, :-1], ids[:, 1:, None])[..., 0].double()
    keep = mask[:, 1:].clone()
    for row, (head, _) in enumerate(pairs):
        keep[row, : len(head) - 1] = 0
    return (found * keep).sum(1).numpy()


@dataclass(frozen=True)
class LabelForm:
    """Which label words follow a text: frames around the text, and the words."""

    before: str
    cue: str
    words: dict[str, str]

    def __call__(self, model: LensModel, texts: Sequence[str], *, progress: bool | None = None) -> Scores:
        """log P(word | before, text, cue), in nats."""
        prompts = [self.before + clipped(model, text) for text in texts]
        found = label_logprobs(
            model, prompts, {label: f" {word}" for label, word in self.words.items()}, cue=self.cue, progress=progress
        )
        return found.logprobs.astype(float)


@dataclass(frozen=True)
class ChannelForm:
    """Which frame makes a text likely: one a class, and a plain one to compare with."""

    frame: str  # with {} for the class's word
    plain: str
    words: dict[str, str]

    def __call__(self, model: LensModel, texts: Sequence[str], *, progress: bool | None = None) -> Scores:
        """log P(text | frame) - log P(text | plain), divided by the square root of the text's tokens."""
        frames = [self.frame.format(word) for word in self.words.values()]
        found = channel_scores(model, texts, frames, self.plain, progress=progress)
        size = [len(model.tokenizer(text, add_special_tokens=False)["input_ids"][:LONGEST]) for text in texts]
        return found / np.sqrt(size)[:, None]


def clipped(model: LensModel, text: str) -> str:
    """The text up to its 256th token."""
    spans = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return text[: spans[LONGEST - 1][1]] if len(spans) > LONGEST else text


FORMS: dict[str, Callable[..., Scores]] = {
    "quoted": LabelForm('Someone says: "', '" The speaker feels', ADJECTIVES),
    "channel": ChannelForm('A {} person says: "', 'A person says: "', ADJECTIVES),
}


def read_forms(
    model: LensModel, texts: Sequence[str], forms: Sequence[str], *, progress: bool | None = None
) -> dict[str, Scores]:
    """Each form's scores of the texts.

    Args:
        model: the language model, not steered.
        texts: none of them empty.
        forms: names among :data:`FORMS`.
        progress: show bars; by default where a person is looking.
    """
    if not texts:
        return {form: np.zeros((0, len(LABELS))) for form in forms}
    return {form: FORMS[form](model, texts, progress=progress) for form in forms}
