"""The ways to ask: as it is, in words for a mood, and by examples of one."""

from collections.abc import Sequence

import numpy as np

from affectlens.errors import SteerError
from affectlens.layouts import Layout, Message, lay_out
from affectlens.model import LensModel
from affectlens.steering.evaluating.prompts import PROMPTS, instruction
from affectlens.stimuli.battery import Battery
from affectlens.texts import as_table

Conversations = list[list[Message]]
_ASK = "Write a few lines."


def conversations(
    prompts: Sequence[str], condition: str, emotion: str, battery: Battery, *, shots: int = 3, seed: int = 0
) -> Conversations:
    """Lists of messages: the prompt, ``prompted`` with the wish in words, or ``fewshot`` after texts of the emotion.

    Args:
        prompts: what is asked.
        condition: plain, prompted or fewshot.
        emotion: the target; not read for plain.
        battery: whose emotional texts are the examples, as replies of the model's own.
        shots: how many examples.
        seed: of the choice of examples, which are other ones for each prompt.
    """
    if condition == "plain":
        return [[_said("user", prompt)] for prompt in prompts]
    if condition == "prompted":
        return [[_said("user", f"{prompt} {instruction(emotion)}")] for prompt in prompts]
    items = battery.frame()
    shown = items[(items["role"] == "emotional") & (items["emotion"] == emotion)]["text"].tolist()
    if len(shown) < shots:
        raise SteerError(
            f"{battery.name} has {len(shown)} emotional texts of {emotion}; {shots} are shown as examples."
        )
    rng = np.random.default_rng([seed, *emotion.encode()])
    found: Conversations = []
    for prompt in prompts:
        texts = [shown[i] for i in rng.choice(len(shown), shots, replace=False)]
        turns = [turn for text in texts for turn in (_said("user", _ASK), _said("assistant", text))]
        found.append([*turns, _said("user", prompt)])
    return found


def laid_out(model: LensModel, said: Conversations) -> list[Layout]:
    """The prompts' tokens, up to where the reply begins; a model without a template goes on with the last text.

    Args:
        model: whose template is used.
        said: lists of messages.
    """
    if getattr(model.tokenizer, "chat_template", None):
        return lay_out(model, as_table(said).frame(), chat=True)
    plain = ["\n\n".join(message["content"] for message in turns) + "\n\n" for turns in said]
    return lay_out(model, as_table(plain).frame())


def asked(n: int) -> list[tuple[str, str, str]]:
    """``n`` prompts of each half: id, half, text.

    Args:
        n: up to half of what there is.
    """
    if not 1 < n <= len(PROMPTS) // 2:
        raise SteerError(f"There are {len(PROMPTS) // 2} prompts in each half: ask for 2 or more of them, not {n}.")
    halves = ("choose", "report")
    return [(f"p{i:02}", halves[i % 2], PROMPTS[i]) for i in range(2 * n)]


def _said(role: str, content: str) -> Message:
    return {"role": role, "content": content}
