"""What each way gives at equal cost, on prompts that chose nothing: shares, paired differences, costs.

``less plain``, ``less steer`` and ``less prompted`` are tested by flipping the signs of whole prompts; ``less random``
by the rank of the share among the placebo's draws, (1 + hits) / (1 + draws). p is corrected over the ways and emotions
of one budget, judge, reading and quantity: ranks among as many draws by max-T
(:func:`affectlens.steering.evaluating.placebo.corrected`), all else by Benjamini and Hochberg (1995). ``attainable`` is
the least p that so many prompts or ``draws`` can give, ``least`` what a row alone can reach of it once corrected: above
0.05, nothing could have been shown. A placebo is of the same dose, which may cost it more or less: ``random reply ppl
ratio`` says what it cost.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from affectlens.circuits.modulating.extents import WAYS
from affectlens.stats import Estimate, sign_flips
from affectlens.steering.evaluating.frames import REPORT, at_dose, judges_of
from affectlens.steering.evaluating.placebo import ALONE, BH, Rank, corrected, rank
from affectlens.steering.evaluating.safety import Choice, halved, neutral_ratio, reply_ratio
from affectlens.steering.evaluating.shares import RECORD, called, common, gap, record, share, summed, tabled

Row = dict[str, object]
_ABOUT = ("budget", "emotion", "way", "dose", "within", "judge", "masked", "quantity")
_TESTED = ("draws", "attainable", "family", "correction", "least")


@dataclass(frozen=True)
class Shown:
    """One way to one emotion at one dose, on the half ``report``."""

    emotion: str
    way: str
    dose: float
    rows: pd.DataFrame
    texts: pd.DataFrame  # neutral, its half of them

    def costs(self, plain: pd.DataFrame, seed: int) -> dict[str, Estimate]:
        """Both perplexity ratios, and the larger as ``cost``; what was not measured is left out.

        Args:
            plain: the plain replies.
            seed: of bootstraps.
        """
        both = {"reply ppl ratio": reply_ratio(self.rows, plain, seed=seed),
                "neutral ppl ratio": neutral_ratio(self.texts, seed=seed) if len(self.texts) else None}  # fmt: skip
        found = {name: one for name, one in both.items() if one is not None}
        return found | ({"cost": max(found.values(), key=lambda one: one.value)} if found else {})


def shown(replies: pd.DataFrame, neutral: pd.DataFrame) -> dict[tuple[str, str, float], Shown]:
    """Every way, emotion and dose of the half ``report``.

    Args:
        replies: one row a reply.
        neutral: one row a neutral text, way and dose.
    """
    texts = halved(neutral)
    texts = texts[texts["half"] == REPORT]
    mine = replies[(replies["half"] == REPORT) & replies["condition"].isin(WAYS)]
    found = {}
    for (way, emotion), rows in mine.groupby(["condition", "emotion"], sort=False):
        read = texts[(texts["condition"] == way) & (texts["emotion"] == emotion)]
        for dose in map(float, rows["dose"].unique()):
            found[str(emotion), str(way), dose] = Shown(
                str(emotion), str(way), dose, at_dose(rows, dose), at_dose(read, dose)
            )
    return found


def curves(replies: pd.DataFrame, neutral: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Share called the target, and cost, of every way at every dose; ``plain`` is beside them at cost 1.

    Args:
        replies: one row a reply, judged.
        neutral: one row a neutral text, way and dose.
        seed: of bootstraps.
    """
    plain, every = _plain(replies), shown(replies, neutral)
    out: list[Row] = []
    for judge in judges_of(replies):
        for one in every.values():
            about: Row = {"emotion": one.emotion, "way": one.way, "dose": one.dose, "judge": judge}
            about |= {f"cost.{name}": getattr(one.costs(plain, seed).get("cost"), name, np.nan)
                      for name in ("value", "low", "high")}  # fmt: skip
            out.append(about | record(share(one.rows, called(one.rows, judge, one.emotion), seed=seed)))
        for emotion in dict.fromkeys(emotion for emotion, _, _ in every):
            about = {"emotion": emotion, "way": "plain", "dose": 0.0, "judge": judge, "cost.value": 1.0}
            out.append(about | record(share(plain, called(plain, judge, emotion), seed=seed)))
    return tabled(out, ("emotion", "way", "dose", "judge", "cost.value", "cost.low", "cost.high", *RECORD))


def outcomes(
    replies: pd.DataFrame, neutral: pd.DataFrame, chosen: Mapping[tuple[float, str, str], Choice], *, seed: int = 0
) -> pd.DataFrame:
    """One row a budget, emotion, way, judge, reading (``masked`` or not) and quantity, each with its interval.

    Quantities: ``share``, ``coherent`` (and not degenerate), ``less plain``, ``less random``, ``less steer``, ``less
    prompted``; without a judge ``degenerate`` and the costs. A way without a dose within the budget has no rows, but
    asking, which has one dose, is always there: ``within`` says whether the choosing half had it in the budget. Of what
    is tested ``draws`` (of a placebo), ``attainable``, ``family`` (how many tests), ``correction`` and ``least``.

    Args:
        replies: one row a reply, judged, with the columns of
            :func:`affectlens.steering.evaluating.quality.quality`.
        neutral: one row a neutral text, way and dose.
        chosen: doses by budget, emotion and way.
        seed: of bootstraps and flips.
    """
    plain, every, out, places = _plain(replies), shown(replies, neutral), list[Row](), dict[int, Rank]()
    for budget in dict.fromkeys(budget for budget, _, _ in chosen):
        mine = {(emotion, way): (every[emotion, way, dose], found.safe is not None)
                for (at, emotion, way), found in chosen.items() if at == budget
                if (dose := 1.0 if way == "prompted" else found.safe) is not None}  # fmt: skip
        for one, within in mine.values():
            about: Row = {"budget": budget, "emotion": one.emotion, "way": one.way, "dose": one.dose, "within": within}
            beside = {"plain": plain}
            beside |= {way: other.rows for (emotion, way), (other, _) in mine.items()
                       if emotion == one.emotion and way in ("steer", "prompted") and way != one.way}  # fmt: skip
            draws = replies[(replies["condition"] == f"random {one.way}") & (replies["emotion"] == one.emotion)]
            draws = at_dose(draws, one.dose)
            broken = share(one.rows, one.rows["degenerate"].to_numpy(dtype=float), seed=seed)
            parts = one.costs(plain, seed) | {"degenerate": broken}
            if (ratio := reply_ratio(draws, plain, seed=seed)) is not None:
                parts["random reply ppl ratio"] = ratio
            out += [about | {"judge": "", "masked": False, "quantity": name} | record(e) for name, e in parts.items()]
            for judge in judges_of(replies):
                for column in (judge, f"{judge}.masked"):
                    who: Row = about | {"judge": judge, "masked": column != judge}
                    out += [who | row for row in _read(one, beside, column, seed)]
                    if (placed := _placed(one, draws, column, seed)) is not None:
                        places[len(out)] = placed[1]
                        out.append(who | placed[0])
    table = tabled(out, (*_ABOUT, *RECORD, *_TESTED)).assign(correction="")
    return _corrected(table.astype({"masked": bool, "within": bool}), places)


def _plain(replies: pd.DataFrame) -> pd.DataFrame:
    return replies[(replies["half"] == REPORT) & (replies["condition"] == "plain")]


def _read(one: Shown, beside: Mapping[str, pd.DataFrame], column: str, seed: int) -> Iterator[Row]:
    hit = called(one.rows, column, one.emotion)
    yield {"quantity": "share"} | record(share(one.rows, hit, seed=seed))
    sound = hit * ~one.rows["degenerate"].to_numpy(dtype=bool)
    yield {"quantity": "coherent"} | record(share(one.rows, sound, seed=seed))
    for name, other in beside.items():
        found = difference(one.rows, hit, other, called(other, column, one.emotion), seed)
        if found is not None:
            least = sign_flips(np.ones((found.n, 1)), seed=seed).attainable
            yield {"quantity": f"less {name}"} | record(found) | {"attainable": least}


def _placed(one: Shown, draws: pd.DataFrame, column: str, seed: int) -> tuple[Row, Rank] | None:
    """The difference from a placebo, with the p of the rank among its draws; None without draws."""
    hit = called(one.rows, column, one.emotion)
    found = gap(one.rows, hit, draws, called(draws, column, one.emotion), seed=seed)
    place = rank(one.rows, draws, column, one.emotion)
    if found is None or place is None:
        return None
    facts = {"draws": len(place.drawn), "attainable": place.attainable}
    return {"quantity": "less random"} | record(replace(found, p=place.p)) | facts, place


def difference(
    rows: pd.DataFrame, hits: np.ndarray, other: pd.DataFrame, others: np.ndarray, seed: int
) -> Estimate | None:
    """The share less that of another condition, paired by prompt; p by flipping the signs of prompts.

    Args:
        rows: the replies of one condition.
        hits: 1 or 0 of each.
        other: those of another.
        others: 1 or 0 of each.
        seed: of bootstraps and flips.
    """
    found = gap(rows, hits, other, others, seed=seed)
    if found is None:
        return None
    prompts = common(rows, other)
    means = [total / count for total, count in (summed(rows, hits, prompts), summed(other, others, prompts))]
    return replace(found, p=float(sign_flips((means[0] - means[1])[:, None], seed=seed).p[0]))


def _corrected(table: pd.DataFrame, places: Mapping[int, Rank]) -> pd.DataFrame:
    """``p_adjusted`` and what it is corrected by, over the ways and emotions of a budget, judge, reading and quantity.

    By max-T a row can reach ``attainable`` itself; by Benjamini and Hochberg a row alone reaches that times ``family``.
    """
    out, tested = table.copy(), table[table["p"].notna()]
    for _, rows in tested.groupby(["budget", "judge", "masked", "quantity"], sort=False):
        at, size = rows.index, len(rows)
        ranks = {int(i): places[int(i)] for i in at if int(i) in places}
        if ranks:
            done = corrected(ranks)
            adjusted, by = [done[int(i)].p_adjusted for i in at], done[int(at[0])].correction
        else:
            adjusted = list(false_discovery_control(rows["p"].to_numpy(dtype=float)))
            by = ALONE if size == 1 else BH
        out.loc[at, "p_adjusted"] = np.array(adjusted, dtype=float)
        out.loc[at, "family"], out.loc[at, "correction"] = float(size), by
        out.loc[at, "least"] = (rows["attainable"] * (size if by == BH else 1)).clip(upper=1.0).astype(float)
    return out
