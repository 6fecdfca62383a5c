"""The findings of a report in sentences: the claim that survives its floor, before any curve. Markdown."""

import re

from affectlens.probing.report import ProbeReport
from affectlens.stats import Estimate

ASKED = {
    "affect": "Whether a text evokes an emotion",
    "category": "Which emotion a text evokes",
    "valence": "Whether an emotional text is pleasant or unpleasant",
}
FLOOR_NAMES = {"tfidf": "TF-IDF words", "function_words": "function words", "surface": "surface marks"}
READER_NAMES = {
    **FLOOR_NAMES,
    "logistic": "logistic probe",
    "mean_difference": "mean-difference probe",
    "neutral_pseudo_label": "neutral partners, same labels",
    "chance": "chance",
}


def summary(report: ProbeReport) -> list[str]:
    """The sentences, most important first."""
    lines = [_headline(report), _floor(report)]
    if _has_control(report):
        lines.append(_control(report))
    elif report.meta["no_control"]:
        lines.append(f"There is no control on neutral partners: {report.meta['no_control']}.")
    lines += [_rung(report, rung) for rung in report.rungs[:-1]]
    lines += [f"The {rung} rung does not apply: {why}." for rung, why in report.meta["skipped"].items()]
    if not report.crossed.empty:
        lines.append(_crossed(report))
    if not report.false_alarms.empty:
        lines.append(_alarms(report))
    return lines


def plain(line: str) -> str:
    """A Markdown sentence without its marks."""
    return re.sub(r"\*\*|`", "", line)


def verdict(difference: Estimate) -> str:
    """What the interval of a paired difference allows one to say."""
    if difference.low > 0:
        return "above its floor"
    return "below its floor" if difference.high < 0 else "not distinguishable from its floor"


def _headline(report: ProbeReport) -> str:
    meta, best = report.meta, report.headline
    stands = _stands(report)
    over = {
        "mean": "the mean over its tokens",
        "ending": "the mean over its ending",
        "last": "its last token",
    }
    return (
        f"**{ASKED[report.target]} is read from `{meta['site']}` with {meta['metric']} {best}, {stands}.** "
        f"A logistic probe on {over[meta['position']]}, {meta['n_items']} items in {meta['n_groups']} scenes, whole "
        f"{_folds(report.rungs[-1])} held out, layer and penalty chosen inside each fold; "
        f"chance is {meta['chance']:.3g}."
    )


def _stands(report: ProbeReport) -> str:
    """The verdict of the headline: what its floor and its control leave of it."""
    stands = verdict(report.estimate("difference", report.strongest_floor))
    if stands == "above its floor" and _has_control(report) and _beyond_control(report).low <= 0:
        return "above its floor but not above its neutral partners, so topic could explain it"
    return stands


def _floor(report: ProbeReport) -> str:
    name = report.strongest_floor
    gap = report.estimate("difference", name)
    if name == "chance":
        best = "All lexical floors under the same folds are at or below chance"
    else:
        floor = report.estimate("floor", name)
        best = f"The strongest lexical floor under the same folds, {FLOOR_NAMES[name]}, reaches {floor}"
    return (
        f"{best}. Probe minus {'chance' if name == 'chance' else 'floor'}: **{signed(gap)}**, resampled by {gap.unit}."
    )


def _has_control(report: ProbeReport) -> bool:
    return bool((report.scores["kind"] == "control").any())


def _beyond_control(report: ProbeReport) -> Estimate:
    return report.estimate("beyond_control", "neutral_pseudo_label")


def _control(report: ProbeReport) -> str:
    control = report.estimate("control", "neutral_pseudo_label")
    gap = _beyond_control(report)
    meaning = "so more than topic is read" if gap.low > 0 else "so **topic alone could explain the score**"
    return (
        f"The same labels read off the *neutral* partners, where no emotion is, give {control}; "
        f"the difference is {signed(gap)}, {meaning}."
    )


def _rung(report: ProbeReport, rung: str) -> str:
    floors = {name: report.estimate("floor", name, rung) for name in FLOOR_NAMES}
    best = max(floors, key=lambda name: floors[name].value)
    score = report.estimate("probe", "logistic", rung)
    return f"With whole {_folds(rung)} held out the probe reaches {score} ({FLOOR_NAMES[best]}: {floors[best]})."


def _crossed(report: ProbeReport) -> str:
    table, meta = report.crossed, report.meta
    said = []
    for split in ("crossed", "crossed_fact"):
        rows = table[(table["split"] == split) & (table["method"] == "logistic") & table["chosen"]]
        if not rows.empty:
            row = rows.iloc[0]
            share = Estimate(row["wins"], row["wins_low"], row["wins_high"], int(row["n"]), "quadruple")
            said.append(
                f"{share} of {share.n} `{split}` quadruples (exact sign-flip p = {row['p']:.3f}, "
                f"{row['p_adjusted']:.3f} over all layers; the least that {share.n} can give is "
                f"{row['attainable']:.3f})"
            )
    line = (
        f"Trained on vignettes and read over the {meta['crossed_position']} at layer {meta['crossed_layer']}, "
        "the probe wins " + " and ".join(said)
    )
    beyond = meta.get("beyond_binding")
    if not beyond:
        return line + "."
    gap = Estimate(beyond["value"], beyond["low"], beyond["high"], beyond["n"], "quadruple", beyond["p"])
    shown = "affect beyond binding is shown" if gap.low > 0 else "**no affect beyond binding is shown**"
    return f"{line}. `crossed` minus `crossed_fact`: {signed(gap)} standard deviations of d, so {shown}."


def _alarms(report: ProbeReport) -> str:
    names = {"decoys": "decoys (emotion words, no emotion)", "vivid_neutral": "vivid scenes without affect"}
    parts = []
    for row in report.false_alarms.to_dict("records"):
        share = Estimate(row["share"], row["low"], row["high"], row["n"], "item")
        parts.append(f"{share} of {share.n} {names[row['split']]}")
    return f"The layer-{report.probes.layer} probe calls emotional: {'; '.join(parts)}."


def _folds(rung: str) -> str:
    return {"pair": "scenes", "domain": "domains"}[rung]


def signed(gap: Estimate) -> str:
    """A difference with its sign.

    >>> signed(Estimate(0.1, -0.02, 0.22, 32, "scene"))
    '+0.10 [-0.02, +0.22]'
    """
    return f"{gap.value:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]"


def methods(report: ProbeReport) -> str:
    """The methods paragraph of this target, for a paper."""
    meta, unit = report.meta, report.headline.unit
    rungs = " and ".join(_folds(r) for r in report.rungs)
    auroc = meta["metric"] == "AUROC"
    how = "AUROC compares held-out items within a fold." if auroc else "Balanced accuracy is over all held-out items."
    return (
        f"{report.target.capitalize()} was probed in {meta['model']} ({meta['source'] or 'weights as loaded'}; "
        f"fingerprint {meta['fingerprint'][:12]}) on {meta['n_items']} items in {meta['n_groups']} scenes of the "
        f"battery {meta['battery']} (SHA-256 {meta['battery_sha256'][:12]}). {meta['site']} was captured at all "
        f"{meta['n_layers']} layers (d_model {meta['d_model']}) and pooled by {meta['position']}, the first token left "
        "out. L2-regularised logistic regression on standardised activations was scored with whole "
        f"{rungs} held out; layer and C were chosen in inner folds of the same grouping by log-loss. {how} "
        f"Intervals are 95% {report.headline.method} by {unit}. Floors (TF-IDF unigrams "
        "and bigrams, function-word rates, surface features) were fitted and scored under the same folds. "
        f"Seed {meta['seed']}."
    )
