"""Dose and response: what each judge calls the replies at each dose, whether that rises, and what it costs.

All of it on the half ``report``. Dose 0 is the plain replies.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import false_discovery_control

from affectlens.stats import Estimate
from affectlens.steering.evaluating.frames import REPORT, Arm, arms_of, classes_of, judges_of
from affectlens.steering.evaluating.safety import halved, neutral_ratio, reply_ratio
from affectlens.steering.evaluating.shares import called, common, mean_of, record, share, tabled
from affectlens.steering.evaluating.trends import trend

CURVE = ("rise", "spearman", "isotonic")  # of a whole curve: their dose is NaN
_Found = tuple[float, str, str, Estimate]  # dose, judge, quantity


def dose_response(replies: pd.DataFrame, neutral: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """One row a way of steering, dose, judge and quantity, each with its interval.

    Quantities: ``share`` and ``share masked`` (of replies called the target, by a judge that has that class),
    ``degenerate``, ``refusal`` (shares of replies), ``repetition`` and ``distinct2`` (means), ``reply ppl ratio``,
    ``neutral ppl ratio``; and of the whole curve, with no dose, ``rise``, ``spearman`` and ``isotonic``
    (:mod:`affectlens.steering.evaluating.trends`), their p adjusted over the emotions (Benjamini-Hochberg).

    Args:
        replies: one row a reply, with the columns of :func:`affectlens.steering.evaluating.quality.quality`.
        neutral: one row a neutral text and dose.
        seed: of bootstraps and exchanges.
    """
    mine, texts = replies[replies["half"] == REPORT], halved(neutral)
    texts = texts[texts["half"] == REPORT]
    plain = mine[mine["condition"] == "plain"]
    classes = {judge: classes_of(replies, judge) for judge in judges_of(replies)}
    rows = []
    for arm in arms_of(replies):
        curve, read = _curve(arm, mine, plain), arm.of(texts)
        judges = [judge for judge, known in classes.items() if arm.emotion in known]
        found = [*_texts(curve, seed), *_ratios(curve, arm, plain, read, seed), *_judged(curve, arm, judges, seed)]
        about = {"condition": arm.condition, "emotion": arm.emotion, "method": arm.method, "site": arm.site}
        rows += [about | {"dose": dose, "judge": judge, "quantity": quantity} | record(one)
                 for dose, judge, quantity, one in found]  # fmt: skip
    table = tabled(rows, _COLUMNS)
    for _, family in table[table["p"].notna()].groupby(["condition", "method", "judge", "quantity"]):
        table.loc[family.index, "p_adjusted"] = false_discovery_control(family["p"].to_numpy(dtype=float))
    return table


_COLUMNS = ("condition", "emotion", "method", "site", "dose", "judge", "quantity")
Curve = dict[float, pd.DataFrame]


def _curve(arm: Arm, mine: pd.DataFrame, plain: pd.DataFrame) -> Curve:
    rows = arm.of(mine)
    doses = sorted({0.0, *(float(one) for one in rows["dose"].unique())})
    return {dose: arm.of(rows, dose) if dose else plain for dose in doses}


def _texts(curve: Curve, seed: int) -> Iterator[_Found]:
    for dose, part in curve.items():
        values: dict[str, Float[np.ndarray, " reply"]] = {
            "degenerate": part["degenerate"].to_numpy(dtype=float),
            "refusal": (part["refusal"] != "").to_numpy(dtype=float),
            "repetition": part["repetition"].to_numpy(dtype=float),
            "distinct2": part["distinct2"].to_numpy(dtype=float),
        }
        for quantity, each in values.items():
            kept = np.isfinite(each)
            if kept.any():
                yield dose, "", quantity, share(part[kept], each[kept], seed=seed)


def _ratios(curve: Curve, arm: Arm, plain: pd.DataFrame, read: pd.DataFrame, seed: int) -> Iterator[_Found]:
    for dose, part in curve.items():
        if dose:
            ratios = (reply_ratio(part, plain, seed=seed), neutral_ratio(arm.of(read, dose), seed=seed))
            for quantity, ratio in zip(("reply ppl ratio", "neutral ppl ratio"), ratios, strict=True):
                if ratio is not None:
                    yield dose, "", quantity, ratio


def _judged(curve: Curve, arm: Arm, judges: list[str], seed: int) -> Iterator[_Found]:
    for judge in judges:
        for quantity, column in (("share", judge), ("share masked", f"{judge}.masked")):
            for dose, part in curve.items():
                if column in part:
                    yield dose, judge, quantity, share(part, called(part, column, arm.emotion), seed=seed)
        upward = [part for dose, part in sorted(curve.items()) if dose >= 0]
        prompts = common(*upward)
        if len(upward) > 2 and prompts:
            each = [mean_of(part, called(part, judge, arm.emotion), prompts)(np.eye(len(prompts))) for part in upward]
            for quantity, found in trend(np.stack(each, axis=1), seed=seed).items():
                yield np.nan, judge, quantity, found
