"""The target share at the safe dose, beside plain replies, placebos of the same norm, prompting and few-shot prompting.

All of it on the half ``report``. A reply that misses its target is an *incoherence* if it is degenerate, else an
*abstention* if the judge gave no label, else a *violation* (coherent, and of another class). ``coherent`` is the share
called the target that is not degenerate: a judge that is not told about form may call a broken reply joyful.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from affectlens.errors import SteerError
from affectlens.stats import Estimate, detectable
from affectlens.steering.evaluating.frames import (
    ASKED,
    PLACEBOS,
    RATES,
    REPORT,
    STEERED,
    Arm,
    classes_of,
    judges_of,
    placebo_rows,
)
from affectlens.steering.evaluating.placebo import Rank, corrected, rank
from affectlens.steering.evaluating.safety import Choice
from affectlens.steering.evaluating.shares import NUMBERS, RECORD, called, gap, record, share, tabled
from affectlens.steering.judging.agreeing import corrected as rogan_gladen

Row = dict[str, object]


@dataclass(frozen=True)
class _Shown:
    """One condition of one emotion, at the dose that is reported."""

    emotion: str
    condition: str
    method: str
    site: str
    dose: float
    rows: pd.DataFrame

    @property
    def about(self) -> Row:
        names = ("emotion", "condition", "method", "site", "dose")
        return {name: getattr(self, name) for name in names}


def target_shares(
    replies: pd.DataFrame, chosen: Sequence[Choice], *, judges: pd.DataFrame | None = None, seed: int = 0
) -> pd.DataFrame:
    """One row an emotion, condition, judge, reading (``masked`` or not) and quantity, each with its interval.

    Quantities: ``share``; ``less plain``, and of what was steered ``less random`` and so on for each placebo (of which
    ``p`` is the rank's, ``p_adjusted`` over the emotions), ``less prompted`` and ``less fewshot``; ``coherent``,
    ``violation``, ``incoherence``, ``abstention``; ``corrected`` for the judge's
    errors on human texts, as far as ``judges`` has them. ``attainable`` is the least
    p that the ``draws`` can give, before ``correction`` over ``family`` emotions; ``detectable`` the least difference
    that would have been found with 80% power.

    Args:
        replies: one row a reply, with the columns of :func:`affectlens.steering.evaluating.quality.quality`.
        chosen: the safe doses; what has none is not reported.
        judges: one row a judge, source and class: its recall and false alarms with ``.low`` and ``.high``, and ``n``.
        seed: of bootstraps.
    """
    mine = replies[replies["half"] == REPORT]
    plain = mine[mine["condition"] == "plain"]
    arms = [(one.arm, one.safe) for one in chosen if one.safe is not None]
    emotions = list(dict.fromkeys(one.arm.emotion for one in chosen))
    shown = list(_shown(mine, plain, arms, emotions))
    out: list[Row] = []
    for judge in judges_of(replies):
        classes = classes_of(replies, judge)
        known = [one for one in shown if one.emotion in classes]
        for column in (name for name in (judge, f"{judge}.masked") if name in mine):
            about = {"judge": judge, "masked": column != judge}
            for one in known:
                out += [one.about | about | row for row in _alone(one, column, seed)]
                out += [one.about | about | row for row in _less(one, plain, "plain", column, seed)]
            for row in _beside(mine, known, column, seed):
                out.append(row | about)
            if column == judge and judges is not None and set(judges) >= RATES:
                rates = judges[judges["judge"] == judge]
                out += [one.about | about | row for one in known for row in _corrected(one, judge, rates, seed)]
    return tabled(out, _COLUMNS).astype({"masked": bool, "family": float})


_COLUMNS = ("emotion", "condition", "method", "site", "dose", "judge", "masked", "quantity", *RECORD, "correction",
            *NUMBERS, "family")  # fmt: skip


def _shown(
    mine: pd.DataFrame, plain: pd.DataFrame, arms: Sequence[tuple[Arm, float]], emotions: Sequence[str]
) -> Iterator[_Shown]:
    for emotion in emotions:
        yield _Shown(emotion, "plain", "", "", 0.0, plain)
        for arm, dose in arms:
            if arm.emotion == emotion and len(rows := arm.of(mine, dose)):
                yield _Shown(emotion, arm.condition, arm.method, arm.site, dose, rows)
        for dose in dict.fromkeys(dose for arm, dose in arms if arm.emotion == emotion):
            for kind in PLACEBOS:
                if len(rows := placebo_rows(mine, kind, emotion, dose)):
                    yield _Shown(emotion, kind, "", "", dose, rows)
        for kind in ASKED:
            if len(rows := mine[(mine["condition"] == kind) & (mine["emotion"] == emotion)]):
                yield _Shown(emotion, kind, "", "", 0.0, rows)


def _alone(one: _Shown, column: str, seed: int) -> Iterator[Row]:
    hit = called(one.rows, column, one.emotion).astype(bool)
    broken = one.rows["degenerate"].to_numpy(dtype=bool)
    silent = (one.rows[column] == "").to_numpy(dtype=bool)
    parts = {"share": hit, "coherent": hit & ~broken, "violation": ~hit & ~broken & ~silent,
             "incoherence": ~hit & broken, "abstention": ~hit & ~broken & silent}  # fmt: skip
    for quantity, values in parts.items():
        yield {"quantity": quantity} | record(share(one.rows, values.astype(float), seed=seed))


def _corrected(one: _Shown, judge: str, rates: pd.DataFrame, seed: int) -> Iterator[Row]:
    """The share corrected by the judge's rates on each source of human texts; none where it can't tell the class."""
    for row in rates[rates["class"] == one.emotion].dropna(subset=sorted(RATES)).to_dict("records"):
        recall, alarm = (
            Estimate(row[name], row[f"{name}.low"], row[f"{name}.high"], int(row["n"]), "text")
            for name in ("recall", "false_alarm")
        )
        try:
            found = rogan_gladen(share(one.rows, called(one.rows, judge, one.emotion)), recall, alarm, seed=seed)
        except SteerError:
            continue
        yield {"quantity": "corrected", "correction": row["source"]} | record(found)


def _less(one: _Shown, other: pd.DataFrame, name: str, column: str, seed: int) -> Iterator[Row]:
    """The difference, where ``one`` is not ``other`` itself."""
    if one.condition == name:
        return
    found = gap(one.rows, called(one.rows, column, one.emotion), other, called(other, column, one.emotion), seed=seed)
    if found is not None:
        yield {"quantity": f"less {name}", "detectable": detectable(found)} | record(found)


def _beside(mine: pd.DataFrame, known: Sequence[_Shown], column: str, seed: int) -> Iterator[Row]:
    """What was steered less prompting and placebos; ranks among draws, corrected over all that a method steered."""
    steered = [one for one in known if one.condition in STEERED]
    for one in steered:
        for kind in ASKED:
            asked = mine[(mine["condition"] == kind) & (mine["emotion"] == one.emotion)]
            yield from (one.about | row for row in _less(one, asked, kind, column, seed))
    for family in dict.fromkeys((one.condition, one.method) for one in steered):
        members = [one for one in steered if (one.condition, one.method) == family]
        for kind in PLACEBOS:
            matched = [placebo_rows(mine, kind, one.emotion, one.dose) for one in members]
            found = {i: rank(one.rows, matched[i], column, one.emotion) for i, one in enumerate(members)}
            ranks = corrected({i: one for i, one in found.items() if one is not None})
            for i, one in enumerate(members):
                for row in _less(one, matched[i], kind, column, seed):
                    yield one.about | row | (_ranked(ranks[i], len(ranks)) if i in ranks else {})


def _ranked(found: Rank, family: int) -> Row:
    return {"p": found.p, "p_adjusted": found.p_adjusted, "draws": len(found.drawn),
            "attainable": found.attainable, "correction": found.correction, "family": family}  # fmt: skip
