"""What a comparison found, in sentences, and the methods paragraph of a paper."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from affectlens.circuits.modulating.extents import WAYS
from affectlens.stats import DRAWS, FEW_CLUSTERS, Estimate
from affectlens.steering.evaluating.phrases import listed, signed
from affectlens.steering.evaluating.verdicts import LEVEL

if TYPE_CHECKING:
    from affectlens.circuits.modulating.comparison import Comparison

_ROUNDING = 1e-9
NAMES = {"scale": "scaling the circuit", "replace": "replacing the circuit", "steer": "residual steering",
         "prompted": "prompting", "plain": "plain replies"}  # fmt: skip


def summary(found: "Comparison") -> list[str]:
    """What was found: what is above plain replies and its placebo, then what each way gives, and beside steering.

    Args:
        found: the comparison.
    """
    lines = [*_unable(found), *_placebos(found)]
    for budget in sorted(found.budgets, reverse=True):
        for judge in found.facts["judges"]:
            lines += [*_claims(found, judge, budget), *_shares(found, judge, budget)]
    return lines


def _unable(found: "Comparison") -> Iterator[str]:
    for judge in found.facts["judges"]:
        blind = [emotion for emotion in found.emotions if not found.able(judge, emotion)]
        if blind:
            yield f"**{judge} can't tell {listed(blind)}** in human-written texts, and neither confirms nor denies it."


def _placebos(found: "Comparison") -> Iterator[str]:
    for one in found.facts.get("modulations", ()):
        made, asked, emotion = one.get("placebos", 0), found.facts["draws"], one["emotion"]
        if made and one["crowded"]:
            yield (
                f"**A placebo of parts says little for {emotion}**: the circuit has more than half of the parts of its "
                f"layers, and a placebo holds {one['placebo_overlap']:.0%} of the circuit on average."
            )
        if 0 < made < asked:
            yield (
                f"For {emotion} only {made} other sets of as many parts of the same layers exist; they are the "
                f"placebos, in place of {asked} draws."
            )


def above(found: "Comparison", way: str, emotion: str, judge: str, budget: float) -> bool:
    """Whether a way is above plain replies and above its placebo, both p adjusted at most 0.05.

    Args:
        found: the comparison.
        way: scale, replace or steer.
        emotion: the target.
        judge: its name.
        budget: the perplexity ratio.
    """
    both = [found.get(f"less {name}", way=way, emotion=emotion, judge=judge, budget=budget)
            for name in ("plain", "random")]  # fmt: skip
    return all(one is not None and one.value > 0 and (one.p_adjusted or 1.0) <= LEVEL for one in both)


def _claims(found: "Comparison", judge: str, budget: float) -> Iterator[str]:
    told = [emotion for emotion in found.emotions if found.able(judge, emotion)]
    at = f"at most {budget:g} times the perplexity, by {judge}"
    for way in ("scale", "replace", "steer"):
        name, cases = NAMES[way], dict[str, list[str]]()
        for emotion in told:
            cases.setdefault(_case(found, way, emotion, judge, budget), []).append(emotion)
        if some := cases.get(_NO_DOSE):
            yield f"**{name.capitalize()} has no dose within the budget for {listed(some)}** ({at})."
        if some := cases.get(_NO_PLACEBO):
            yield (
                f"**Whether {name} is above a placebo is unchecked for {listed(some)}** ({at}): there is no placebo, "
                "as no other set of as many parts of these layers exists."
            )
        if some := cases.get(_TOO_FEW):
            least = max(least_p(found, way, emotion, judge, budget) for emotion in some)
            yield (
                f"**Nothing could have been shown of {name} for {listed(some)}** ({at}): with so few prompts or "
                f"placebos the least adjusted p of one way alone is {least:.2g}, so whether it is above is unchecked."
            )
        if some := cases.get(_NOT):
            yield (
                f"**{name.capitalize()} is not surely above plain replies and its placebo for {listed(some)}** ({at})."
            )
        if some := cases.get(_ABOVE):
            yield (
                f"{name.capitalize()} is above plain replies and its placebo for {listed(some)} "
                f"({at}; both p at most {LEVEL}, adjusted)."
            )


_ABOVE, _NOT, _TOO_FEW, _NO_PLACEBO, _NO_DOSE = "above", "not", "too few", "no placebo", "no dose"


def _case(found: "Comparison", way: str, emotion: str, judge: str, budget: float) -> str:
    if above(found, way, emotion, judge, budget):
        return _ABOVE
    rows = _tests(found, way, emotion, judge, budget)
    if not len(rows):
        return _NO_DOSE
    if "less random" not in set(rows["quantity"]):
        return _NO_PLACEBO
    return _TOO_FEW if float(rows["least"].max()) > LEVEL + _ROUNDING else _NOT


def least_p(found: "Comparison", way: str, emotion: str, judge: str, budget: float) -> float:
    """The larger of the least adjusted p against plain replies and against the placebo; NaN where neither was tested.

    Args:
        found: the comparison.
        way: scale, replace or steer.
        emotion: the target.
        judge: its name.
        budget: the perplexity ratio.
    """
    return float(_tests(found, way, emotion, judge, budget)["least"].max())


def _tests(found: "Comparison", way: str, emotion: str, judge: str, budget: float) -> pd.DataFrame:
    rows = found.outcomes[found.outcomes["quantity"].isin(["less plain", "less random"]) & ~found.outcomes["masked"]]
    rows = rows[(rows["way"] == way) & (rows["emotion"] == emotion)]
    return rows[(rows["judge"] == judge) & (rows["budget"] == budget)]


def _shares(found: "Comparison", judge: str, budget: float) -> Iterator[str]:
    for emotion in found.emotions:
        said = []
        for way in WAYS:
            one = found.get("share", way=way, emotion=emotion, judge=judge, budget=budget)
            said.append(f"{NAMES[way]} {one}{_at(found, way, emotion, budget)}" if one else f"{NAMES[way]} no dose")
        rows = found.curves[(found.curves["way"] == "plain") & (found.curves["emotion"] == emotion)]
        row = rows[rows["judge"] == judge].iloc[0]
        plain = Estimate(row["value"], row["low"], row["high"], int(row["n"]), "prompt")
        less = [f"{NAMES[way]} {signed(one)}" for way in ("scale", "replace")
                if (one := found.get("less steer", way=way, emotion=emotion, judge=judge, budget=budget))]  # fmt: skip
        more = f" Less residual steering: {', '.join(less)}." if less else ""
        yield (
            f"Replies called {emotion} by {judge}, at most {budget:g} times the perplexity: plain {plain}, "
            f"{', '.join(said)}.{more}"
        )


def _at(found: "Comparison", way: str, emotion: str, budget: float) -> str:
    rows = found.outcomes[(found.outcomes["way"] == way) & (found.outcomes["emotion"] == emotion)]
    row = rows[rows["budget"] == budget].iloc[0]
    cost = found.get("cost", way=way, emotion=emotion, budget=budget)
    said = {"scale": f"gain {row['dose'] + 1:g}, ", "prompted": "" if row["within"] else "over the budget, "}
    dose = said.get(way, f"dose {row['dose']:g}, ")
    return f" ({dose}cost {cost})"


def methods(found: "Comparison") -> str:
    """The methods paragraph.

    Args:
        found: the comparison.
    """
    facts = found.facts
    parts = "; ".join(f"{one['emotion']}: {', '.join(one['parts'])}" for one in facts["modulations"])
    return (
        f"Parts of circuits in {facts['model']} ({parts}) were modulated as text was written: scaled, z + (g - 1) w "
        "(z - m), m being the part's mean over neutral texts, w its weight; or shifted by d w (e - m), e being its "
        f"mean over texts of the emotion ({facts['battery']}). Beside them stand residual steering "
        f"({facts['directions']}) and prompting ('{facts['instruction']}'). Two perplexities count as cost, as ratios "
        "of geometric means to the plain model: of the replies under the plain model, and of neutral human texts "
        "under the changed one; of prompting, of neutral texts as replies to the prompt with the wish. For each "
        "budget, way and "
        f"emotion the largest dose with both ratios within it, there and at every smaller dose, was chosen on "
        f"{facts['n_choose']} prompts and half of the texts; all is reported on {facts['n_report']} other prompts and "
        f"the other texts. Placebos ({facts['draws']} draws, or all if there are fewer) are other sets of as many "
        "heads, neurons or layers of the same kind and layer at random, of the circuit's parts or not, no set twice, "
        "with the same weights, dose and means of their own, and random directions of the same norm. "
        f"Judges ({', '.join(facts['judges'])}) were told neither target nor way. Intervals are 95% and resample "
        f"prompts ({DRAWS:,} draws; below {FEW_CLUSTERS} prompts the jackknife with Student's t; at a bound the exact "
        "binomial). Differences are paired by prompt, p by flipping the signs of prompts, against placebos by rank, "
        "(1 + hits) / (1 + draws); corrected over ways and emotions, ranks among as many draws by max-T (Westfall and "
        "Young 1993), all else by Benjamini and Hochberg (1995). "
        f"Seed {facts['seed']}."
    )
