"""Whether the model bound the facts of a quadruple: each cell's own yes-or-no question, by label log-probability.

A model that fails ``crossed`` failed in one of two ways: it didn't bind the facts, or it bound them and no affect
followed. Each quadruple has one question about what became of the thing that mattered; the answer is yes in two cells
and no in the other two. With the margin log P(yes) - log P(no), averaged over wordings,

    d_check = sum over the four cells of (+1 where yes is right, -1 where no is right) x margin,

in which a bias towards yes or no, of the model or of the question, cancels. The facts are bound if d_check > 0; that
d_check is 0 on average, as it is without binding, is tested by sign flips
(:mod:`affectlens.probing.prompting.two_by_two`).

Cost: each cell's text and about 60 more tokens (in a chat template) under each of two wordings.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.errors import BatteryError
from affectlens.model import LensModel
from affectlens.probing.crossed import SPLITS
from affectlens.probing.prompting.prefixes import score_lists
from affectlens.probing.prompting.prompts import compose, forms
from affectlens.readout import pool_labels
from affectlens.stimuli.crossing import quadruples
from affectlens.stimuli.stimulus import CELLS
from affectlens.texts import as_table
from affectlens.types import TextTable
from affectlens.verbalisers import check_labels, encode_prompts

WORDINGS = {  # what is said, and the cue that stands before the answer in plain text
    "after": ("{text}\n\n{question} Answer yes or no.", "\nAnswer:"),
    "before": ("Read the text and answer the question with yes or no.\n\nQuestion: {question}\n\nText: {text}",
               "\n\n{question} Yes or no? The answer is"),
}  # fmt: skip
NOISE = 1e-4  # nats: log-probabilities are the same to this, whatever batch a prompt is in


def comprehension(
    model: LensModel,
    battery: TextTable | pd.DataFrame,
    *,
    chat: bool | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Put to each ``crossed`` and ``crossed_fact`` cell its own question.

    Args:
        model: from :func:`affectlens.load_model`.
        battery: a battery, or its table; ``meta`` holds the checks.
        chat: use the model's chat template; by default where it has one.
        progress: show a bar; by default where a person is looking.

    Returns:
        One row a quadruple, in the order of :func:`affectlens.stimuli.crossing.quadruples`, ``crossed`` first.
        Columns: split, group, hops, distance (words between the facts and the ending), ``d_check`` in nats (0 within
        the noise of 1e-4), ``d_`` and each wording's name, ``bound`` (``d_check`` > 0), ``all_right`` (all four cells
        right once the quadruple's mean margin is taken off), ``right`` (cells of the four right as they are),
        ``margin_ax`` and so on, and ``mass`` (mean probability of yes and no together).

    Raises:
        BatteryError: no complete quadruple, a cell without a check, or answers that aren't two yes and two no.
        CaptureError: prompts longer than the context, or no chat template where one is asked for.
        ModelError: verbalisers of several tokens on a model without a key-value cache.
    """
    items = as_table(battery).frame()
    rows, signs = _cells(items)
    talk = bool(getattr(model.tokenizer, "chat_template", None)) if chat is None else chat
    labels = {answer: forms(answer, talk) for answer in ("yes", "no")}
    strings = [text for _, text in check_labels(labels)]
    cells = items.iloc[rows.ravel()]
    lists = []
    for said, cue in WORDINGS.values():
        asked = said if talk else said + cue
        texts = [
            asked.format(text=text, question=meta["check"]["question"])
            for text, meta in zip(cells["text"], cells["meta"], strict=True)
        ]
        frame = compose([str(name) for name in cells["id"]], [[(text, "")] for text in texts], chat=talk)
        lists.append(encode_prompts(model, frame, strings))
    found = score_lists(model, lists, progress=progress)
    pooled = np.stack([pool_labels(scored, [0, 0, 1, 1]).numpy() for scored in found])
    margins = (pooled[..., 0] - pooled[..., 1]).reshape(len(WORDINGS), *rows.shape)
    mass = np.exp(pooled).sum(-1).mean(0).reshape(rows.shape).mean(1)
    checks = [items["meta"][row]["check"] for row in rows[:, 0]]
    facts = pd.DataFrame({
        "split": items["split"].to_numpy()[rows[:, 0]], "group": items["group"].to_numpy()[rows[:, 0]],
        "hops": [check.get("hops") for check in checks], "distance": [check.get("distance") for check in checks],
    })  # fmt: skip
    return facts.join(score_margins(margins, signs)).assign(mass=mass)


def score_margins(margins: Float[np.ndarray, "wording group 4"], signs: Float[np.ndarray, "group 4"]) -> pd.DataFrame:
    """What the margins of quadruples say: the columns of :func:`comprehension` from ``d_check`` to ``margin_by``.

    Args:
        margins: log P(yes) - log P(no) of the cells ax, ay, bx, by under each wording, in nats.
        signs: +1 where yes is the answer, -1 where no is.
    """
    mean = margins.mean(0)
    d, each = (mean * signs).sum(1), (margins * signs).sum(2)
    d = np.where(np.abs(d) < NOISE, 0.0, d)
    centred = (mean - mean.mean(1, keepdims=True)) * signs
    out = {"d_check": d} | {f"d_{name}": values for name, values in zip(WORDINGS, each, strict=True)}
    out |= {"bound": d > 0, "all_right": (centred > NOISE).all(1), "right": (mean * signs > 0).sum(1)}
    return pd.DataFrame(out | {f"margin_{cell}": mean[:, i] for i, cell in enumerate(CELLS)})


def _cells(items: pd.DataFrame) -> tuple[np.ndarray, Float[np.ndarray, "group 4"]]:
    """The rows of the quadruples' cells, and +1 where the answer is yes, -1 where it is no."""
    if missing := [name for name in ("split", "group", "cell", "meta") if name not in items]:
        raise BatteryError(f"These items have no {missing[0]}: give a battery with crossed quadruples.")
    rows = np.concatenate([quadruples(items, split) for split in SPLITS])
    if not len(rows):
        raise BatteryError("There is no complete crossed or crossed_fact quadruple here: nothing to ask.")
    checks = [(row, items["meta"][row].get("check") or {}) for row in rows.ravel()]
    for row, check in checks:
        if not check.get("question") or check.get("answer") not in ("yes", "no"):
            raise BatteryError(f"Item {items['id'][row]} has no meta.check with a question and an answer, yes or no.")
    signs = np.array([1.0 if check["answer"] == "yes" else -1.0 for _, check in checks]).reshape(rows.shape)
    if (uneven := np.flatnonzero(signs.sum(1))).size:
        group = items["group"][rows[uneven[0], 0]]
        raise BatteryError(f"The check of quadruple {group} must be answered yes in two cells and no in the other two.")
    return rows, signs
