"""What a comparison found, in sentences, and the methods paragraph of a paper."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from affectlens.circuits.modulating.extents import WAYS
from affectlens.stats import DRAWS, FEW_CLUSTERS, Estimate
from affectlens.steering.evaluating.phrases import listed, signed
from affectlens.steering.evaluating.verdicts import LEVEL

if TYPE_CHECKING:
    from affectlens.circuits.modulating.comparison import Comparison

NAMES = {"scale": "scaling the circuit", "replace": "replacing the circuit", "steer": "residual steering",
         "prompted": "prompting", "plain": "plain replies"}  # fmt: skip


def summary(found: "Comparison") -> list[str]:
    """What was found: what is above plain replies and its placebo, then what each way gives, and beside steering.

    Args:
        found: the comparison.
    """
    lines = [*_unable(found)]
    for budget in sorted(found.budgets, reverse=True):
        for judge in found.facts["judges"]:
            lines += [*_claims(found, judge, budget), *_shares(found, judge, budget)]
    return lines


def _unable(found: "Comparison") -> Iterator[str]:
    for judge in found.facts["judges"]:
        blind = [emotion for emotion in found.emotions if not found.able(judge, emotion)]
        if blind:
            yield f"**{judge} can't tell {listed(blind)}** in human-written texts, and neither confirms nor denies it."


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
    for way in ("scale", "replace", "steer"):
        surely = [emotion for emotion in told if above(found, way, emotion, judge, budget)]
        rest = [emotion for emotion in told if emotion not in surely]
        if rest:
            yield (
                f"**{NAMES[way].capitalize()} is not surely above plain replies and its placebo for {listed(rest)}** "
                f"(at most {budget:g} times the perplexity, by {judge})."
            )
        if surely:
            yield (
                f"{NAMES[way].capitalize()} is above plain replies and its placebo for {listed(surely)} "
                f"(at most {budget:g} times the perplexity, by {judge}; both p at most {LEVEL}, adjusted)."
            )


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
        f"the other texts. Placebos ({facts['draws']} draws) are as many random heads, neurons or layers of the same "
        "kind and layer, with the same weights, dose and means of their own, and random directions of the same norm. "
        f"Judges ({', '.join(facts['judges'])}) were told neither target nor way. Intervals are 95% and resample "
        f"prompts ({DRAWS:,} draws; below {FEW_CLUSTERS} prompts the jackknife with Student's t; at a bound the exact "
        "binomial). Differences are paired by prompt, p by flipping the signs of prompts, against placebos by rank, "
        "(1 + hits) / (1 + draws); corrected over ways and emotions by Benjamini and Hochberg (1995). "
        f"Seed {facts['seed']}."
    )
