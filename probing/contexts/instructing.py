"""``malleability``: how far a system prompt moves what is read from the same texts.

Each item is the user's message of a conversation: without a system prompt, under a neutral one, under prompts that ask
for detachment and under prompts that ask for feeling. Directions are fitted without a system prompt, on other domains,
and read the held-out scenes under each prompt, pooled over the tokens of the user's message alone, which are the same
everywhere.

Two things are told apart: the *shift* of all scores, emotional and neutral alike, and the change of the *contrast*
between them. Any words before a text move every direction; so both stand beside random unit directions, each in its
own standard deviations.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.errors import CaptureError
from affectlens.layouts import Message, lay_out
from affectlens.model import LensModel
from affectlens.probing.contexts.fading import exceeding
from affectlens.probing.contexts.matching import (
    Fit,
    Matched,
    activations_of,
    cross_fitted,
    matched,
    mean_difference,
    mean_of,
    random_directions,
    read,
    spread,
    table_of,
)
from affectlens.probing.contexts.results import NEUTRAL, NONE, UNIT, Malleability
from affectlens.stats import Estimate, estimate, paired, sign_flips
from affectlens.texts import Texts
from affectlens.types import Json

PROMPTS = {
    NEUTRAL: "You are a helpful assistant. Read what the user sends and answer in plain English.",
    "detached 1": "Stay calm and detached. Treat whatever the user sends as a plain record of facts.",
    "detached 2": "You are an impartial clerk. Keep your distance from what you read and let nothing move you.",
    "feeling 1": "Feel with the people you read about. Let whatever happens to them move you deeply.",
    "feeling 2": "You are warm and tender. Take what the user sends to heart and live through it yourself.",
}


def malleability(
    model: LensModel,
    battery: Texts,
    *,
    layer: int,
    prompts: Mapping[str, str] | None = None,
    position: str = "turn(-1)",
    rung: str = "domain",
    method: Fit = mean_difference,
    draws: int = 199,
    seed: int = 0,
    progress: bool | None = None,
) -> Malleability:
    """Read the same messages under several system prompts by directions that were fitted without one.

    The cost is one pass up to ``layer`` over every emotional and neutral item for each prompt and for none.

    Args:
        model: from :func:`affectlens.load_model`, with a chat template that takes a system message.
        battery: a battery, or a table like one.
        layer: which layer's ``resid_post`` is read.
        prompts: system prompts by name; one named ``neutral`` is also compared with. Ours by default.
        position: the tokens that are pooled; ``template_end`` is where the reply begins.
        rung: what is held out whole: ``domain``, ``pair``, ``author`` or ``emotion``.
        method: fits a direction, see :func:`affectlens.probing.contexts.matching.cross_fitted`.
        draws: of random directions.
        seed: of folds, random directions and bootstraps.
        progress: show a bar; by default where a person is looking.

    Raises:
        CaptureError: no chat template, or one without system messages; no prompts, or one named ``none``.
        BatteryError: no scenes told both ways, or too few domains.
    """
    asked = dict(PROMPTS if prompts is None else prompts)
    if not asked or NONE in asked:
        raise CaptureError("Give at least one system prompt by name, and name none of them 'none', the baseline.")
    own = own_prompt(model)
    frame, origin = table_of(battery, model, layer)
    pairs = matched(frame, rung=rung, seed=seed)
    x = {
        name: activations_of(model, spoken(pairs.items, system), layer=layer, position=position, progress=progress)
        for name, system in {NONE: None, **asked}.items()
    }
    readers = cross_fitted(x[NONE], pairs.labels, pairs.folds, method=method)
    scores = {name: read(readers, values, pairs.folds) for name, values in x.items()}
    random = random_directions(draws, x[NONE].shape[1], seed)
    placebo = {name: values @ random.T for name, values in x.items()}
    for one in (scores, placebo):
        unit = spread(one[NONE], pairs.folds, ~pairs.emotional)
        one |= {name: values / unit for name, values in one.items()}
    rows = _levels(pairs, scores, seed)
    for against in (NONE, NEUTRAL) if NEUTRAL in asked else (NONE,):
        rows += _changes(pairs, scores, placebo, [name for name in asked if name != against], against, seed)
    meta = origin | {
        "position": position, "rung": rung, "prompts": asked, "own_prompt": own, "draws": draws, "seed": seed,
        "n_items": len(pairs.items), "n_scenes": pairs.n, "n_folds": len(readers),
    }  # fmt: skip
    return Malleability(meta, pd.DataFrame(rows))


def spoken(items: pd.DataFrame, system: str | None) -> pd.DataFrame:
    """The items as messages of a user, under a system prompt or none."""
    talks = [conversation(str(text), system) for text in items["text"]]
    return items[["id", "text"]].assign(messages=pd.Series(talks, dtype=object))


def conversation(text: str, system: str | None) -> list[Message]:
    """One message of a user, after a system message if there is one."""
    before = [{"role": "system", "content": system}] if system is not None else []
    return [*before, {"role": "user", "content": text}]


def own_prompt(model: LensModel) -> str:
    """The system prompt that the chat template writes where none is given; empty if it writes none.

    Raises:
        CaptureError: no chat template, or one that refuses or rewrites system messages.
    """
    if not getattr(model.tokenizer, "chat_template", None):
        raise CaptureError(f"{model.name} has no chat template, so it takes no system prompt: use an instruct model.")
    talks = pd.Series([conversation("words", "instruction"), conversation("words", None)], dtype=object)
    table = pd.DataFrame({"id": ["with", "without"], "text": "words", "messages": talks})
    try:
        given, bare = lay_out(model, table)
    except CaptureError as error:
        raise CaptureError(
            f"The chat template of {model.name} takes no system message, so its malleability can't be measured: use a "
            f"model whose template does ({error})"
        ) from None
    system, user = given.turns
    before, between = given.text[: system.start], given.text[system.end : user.start]
    lead = bare.text[: bare.turns[0].start]
    if lead.startswith(before) and lead.endswith(between) and len(lead) > len(before) + len(between):
        return lead[len(before) : len(lead) - len(between)].strip()
    return ""


def within(pairs: Matched, scores: Float[np.ndarray, " item"]) -> Float[np.ndarray, " group"]:
    """Of each scene the share of emotional items above neutral ones, ties one half: AUROC within the scene."""
    out = np.empty(pairs.n)
    for scene in range(pairs.n):
        own = pairs.scenes == scene
        gap = scores[own & pairs.emotional][:, None] - scores[own & ~pairs.emotional][None]
        out[scene] = ((gap > 0) + 0.5 * (gap == 0)).mean()
    return out


def _levels(pairs: Matched, scores: dict[str, np.ndarray], seed: int) -> list[Json]:
    """AUROC within scenes under each prompt."""
    return [
        _row("auroc", name, "", estimate(mean_of(within(pairs, values)), pairs.n, UNIT, seed=seed))
        for name, values in scores.items()
    ]


def _changes(
    pairs: Matched, scores: dict[str, np.ndarray], placebo: dict[str, np.ndarray], names: list[str], against: str,
    seed: int,
) -> list[Json]:  # fmt: skip
    """What each prompt changes against another, one family of tests a measure."""
    if not names:
        return []
    rows: list[Json] = []
    both = (pairs.means(pairs.emotional) + pairs.means(~pairs.emotional)) / 2
    for measure, weigh in (("shift", both), ("contrast", pairs.contrasts)):
        moved = np.stack([weigh @ (scores[name] - scores[against]) for name in names], axis=1)
        moved[np.abs(moved) < 1e-9] = 0.0  # a test of rounding errors would find what they have in common
        drawn = np.stack([(weigh @ (placebo[name] - placebo[against])).mean(0) for name in names], axis=1)
        flips, random = sign_flips(moved, seed=seed), exceeding(np.abs(moved.mean(0)), np.abs(drawn))
        for i, name in enumerate(names):
            found = estimate(mean_of(moved[:, i]), pairs.n, UNIT, seed=seed, bounds=None)
            rows.append(_row(measure, name, against, found, flips.p[i], flips.p_adjusted[i], random[0][i],
                             random[1][i]))  # fmt: skip
    wins = {name: within(pairs, scores[name]) for name in (*names, against)}
    flips = sign_flips(np.stack([wins[name] - wins[against] for name in names], axis=1), seed=seed)
    for i, name in enumerate(names):
        found = paired(mean_of(wins[name]), mean_of(wins[against]), pairs.n, UNIT, seed=seed)
        rows.append(_row("auroc_change", name, against, found, flips.p[i], flips.p_adjusted[i]))
    return rows


def _row(measure: str, prompt: str, against: str, found: Estimate, *p: float) -> Json:
    tests = dict(zip(("p", "p_adjusted", "p_random", "p_random_adjusted"), [*map(float, p), *[np.nan] * 4],
                     strict=False))  # fmt: skip
    return {"measure": measure, "prompt": prompt, "against": against, "value": found.value, "low": found.low,
            "high": found.high, "n": found.n, **tests, "method": found.method}  # fmt: skip
