"""What the studies of new contexts found, in sentences. Markdown."""

import pandas as pd

from affectlens.probing.contexts.results import NEUTRAL, NONE, Formats, Malleability, Persistence
from affectlens.probing.names import signed
from affectlens.stats import Estimate, detectable

LEVEL = 0.05


def persisted(found: Persistence) -> list[str]:
    """How long it lasts, how large it is, what the placebos leave of it, and what could have been seen."""
    meta, n = found.meta, found.n_tokens
    span = _count(found.lasts)
    table = found.of()
    passed = {name: table[f"p_{name}_adjusted"] < LEVEL for name in ("random", "shuffled")}
    both = passed["random"] & passed["shuffled"]
    if found.lasts.value < 1:
        lead = (
            f"**No {meta['target']} is shown to outlast its passage**: the band touches zero at the first token after."
        )
    elif not both.iloc[: int(found.lasts.value)].any():
        lead = (
            f"**The {meta['target']} difference stays above zero for {span} tokens after its passage, but its placebos "
            "do not allow a claim.**"
        )
    elif found.open_ended:
        lead = f"**{_name(meta)} outlasts its passage: still above at the last token, {n}** ({span} of {n})."
    else:
        lead = f"**{_name(meta)} outlasts its passage by {span} tokens**, of {n} that were read."
    lines = [
        f"{lead} {meta['n_scenes']} scenes, directions at layer {meta['layer']} of {meta['model']} fitted on other "
        f"{meta['rung']}s' passages, {len(meta['continuations'])} neutral continuation(s), the same after both sides.",
        f"Emotional less neutral, in standard deviations of neutral passages: {signed(found.passage)} on the passages, "
        f"{signed(found.near)} over the first tokens after them, {signed(found.far)} over the last.",
    ]
    if found.half_life is not None:
        reach = n - 4
        half = found.half_life
        said = f"not reached in {reach} tokens" if half.value >= reach else f"{_count(half)} tokens"
        lines.append(f"Half-life of the difference (running mean of five tokens against the first five): {said}.")
    lines.append(
        f"It exceeds {meta['draws']} norm-matched random directions at {passed['random'].sum()} of {n} tokens, "
        f"{meta['draws']} directions refitted to flipped labels at {passed['shuffled'].sum()}, both at "
        f"{both.sum()} ({_p(found.p)} by both; max-T over tokens, least possible "
        f"{1 / (1 + meta['draws']):.3f})."
    )
    lines.append(
        f"A difference of {detectable(found.near):.2f} over the first tokens would have been found with 80% power; "
        f"half the width of the simultaneous band is {meta['half_width']:.2f} at a median token."
    )
    return lines


def swayed(found: Malleability) -> list[str]:
    """Shift, contrast and separation, against no prompt and against the neutral one."""
    meta = found.meta
    lines = [_shifts(found, NONE)]
    if not found.rows("shift", NEUTRAL).empty:
        lines.append(_shifts(found, NEUTRAL))
    base = found.estimate("auroc", NONE)
    lines.append(
        f"Within scenes, emotional texts score above their neutral partners with AUROC {base} without a prompt."
    )
    for measure, name in (("auroc_change", "the AUROC"), ("contrast", "the distance of emotional from neutral texts")):
        table = found.rows(measure)
        moved = _shown(table)
        which = moved if not moved.empty else table.iloc[[int(table["value"].abs().argmax())]]
        said = "; ".join(_cell(found, measure, prompt, NONE) for prompt in which["prompt"])
        lead = f"{len(moved)} of {len(table)} prompts change" if not moved.empty else "No prompt is shown to change"
        lines.append(f"{lead} {name}{': ' if not moved.empty else '; the largest change is by '}{said}.")
    least = max(detectable(found.estimate("shift", prompt)) for prompt in found.rows("shift")["prompt"])
    lines.append(f"A shift of {least:.2f} would have been found with 80% power under any prompt.")
    if meta["own_prompt"]:
        lines.append(
            f"Where no system prompt is given, the template of {meta['model']} writes its own: "
            f'"{meta["own_prompt"]}". The baseline has it.'
        )
    return lines


def carried(found: Formats) -> list[str]:
    """The worst drop, the diagonal, and how alike scores are."""
    fitted, read, drop = found.worst
    meta, cells = found.meta, found.cells
    own = cells[cells["fitted"] == cells["read"]].set_index("fitted")["auroc"]
    other = cells[cells["fitted"] != cells["read"]]
    here = cells[(cells["fitted"] == fitted) & (cells["read"] == read)].iloc[0]
    shown = (other["drop_high"] < 0).sum()
    verdict = "" if shown else ", so no drop is shown"
    if shown:
        verdict = f"; in {shown} of {len(other)} cells a drop is shown"
    least = other.iloc[int(other["correlation"].argmin())]
    alike = Estimate(least["correlation"], least["correlation_low"], least["correlation_high"], drop.n, drop.unit)
    lines = [
        f"**Worst drop by format: fitted in `{fitted}` and read in `{read}`, AUROC changes by {signed(drop)}** from "
        f"{own[fitted]:.2f} to {here['auroc']:.2f} (interval simultaneous over {len(other)} cells{verdict}). "
        f"{meta['n_scenes']} scenes at layer {meta['layer']} of {meta['model']}, whole {meta['rung']}s held out.",
        f"Within one format the AUROC is {own.min():.2f} (`{own.idxmin()}`) to {own.max():.2f} (`{own.idxmax()}`), "
        "intervals in the table.",
        f"One direction's scores of the same items in two formats correlate least between `{least['fitted']}` and "
        f"`{least['read']}`: {alike}.",
    ]
    return lines + [f"The format `{name}` is left out: {why}." for name, why in meta["left_out"].items()]


def _shifts(found: Malleability, against: str) -> str:
    table = found.rows("shift", against)
    base = "no system prompt" if against == NONE else "the neutral prompt"
    both = _shown(table)
    lead = (
        f"**Against {base}, {len(both)} of {len(table)} prompts shift the affect score beyond random directions**"
        if len(both)
        else f"**Against {base}, no prompt shifts the affect score by more than it shifts random directions**"
    )
    said = "; ".join(_cell(found, "shift", prompt, against) for prompt in table["prompt"])
    return f"{lead} (standard deviations of neutral texts): {said}."


def _cell(found: Malleability, measure: str, prompt: str, against: str) -> str:
    rows = found.rows(measure, against)
    row: pd.Series = rows[rows["prompt"] == prompt].iloc[0]
    random = "" if pd.isna(row["p_random_adjusted"]) else f"; {_p(row['p_random_adjusted'])} by random directions"
    return f"`{prompt}` {signed(found.estimate(measure, prompt, against))} ({_p(row['p_adjusted'])}{random})"


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that pass the sign flips and, where there is one, the placebo, both adjusted."""
    return table[(table["p_adjusted"] < LEVEL) & (table["p_random_adjusted"].fillna(0) < LEVEL)]


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _count(tokens: Estimate) -> str:
    return f"{tokens.value:.0f} [{tokens.low:.0f}, {tokens.high:.0f}]"


def _name(meta: dict[str, object]) -> str:
    return str(meta["target"]).capitalize()
