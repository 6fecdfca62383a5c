"""The findings of a report in sentences: the claim that survives its floor, before any curve. Markdown."""

from affectlens.probing.beside import alarms, asked, binding, chosen_quadruples, crossed, transfer
from affectlens.probing.by_layer import by_layer, permuted, reach
from affectlens.probing.names import ASKED, FLOOR_NAMES, METHOD_NAMES, READER_NAMES, UNITS, signed
from affectlens.probing.report import ProbeReport
from affectlens.stats import Estimate, detectable


def summary(report: ProbeReport) -> list[str]:
    """The sentences, most important first."""
    lines = [_headline(report), _floor(report), _conditional(report)]
    if not report.layers.empty:
        lines += [by_layer(report), permuted(report)]
    if report.has("control", "neutral_pseudo_label"):
        lines.append(_control(report))
    elif report.meta["no_control"]:
        lines.append(f"There is no control on neutral partners: {report.meta['no_control']}.")
    lines += [*_baselines(report), *_falls(report)]
    lines += [_rung(report, rung) for rung in report.rungs if rung != report.meta["rung"]]
    lines += [f"The {rung} rung does not apply: {why}." for rung, why in report.meta["skipped"].items()]
    if not report.crossed.empty:
        lines.append(crossed(report))
    if facts := binding(report):
        lines += facts.summary()
    if not report.asked.empty:
        lines.append(asked(report))
    if not report.transfer.empty:
        lines.append(transfer(report))
    if not report.false_alarms.empty:
        lines.append(alarms(report))
    return lines


def claim(report: ProbeReport) -> str:
    """The claim that survives, as one clause for the head of a report."""
    where = "" if report.layers.empty else f" ({reach(report)})"
    clause = f"**{report.target}** is {_stands(report)}{where}"
    if report.crossed.empty:
        return clause
    shares = [f"on `{row['split']}` {Estimate(row['wins'], row['wins_low'], row['wins_high'], row['n'], 'quadruple')}"
              for row in chosen_quadruples(report)]  # fmt: skip
    shown = report.meta.get("beyond_binding")
    beyond = (
        "" if not shown else (": affect beyond binding" if shown["low"] > 0 else ": no affect beyond binding is shown")
    )
    return f"{clause}; of the quadruples it wins {', '.join(shares)}{beyond}" if shares else clause


def verdict(difference: Estimate) -> str:
    """What the interval of a paired difference allows one to say."""
    if difference.low > 0:
        return "above its floor"
    return "below its floor" if difference.high < 0 else "not distinguishable from its floor"


def _headline(report: ProbeReport) -> str:
    meta, best = report.meta, report.headline
    over = {
        "mean": "the mean over its tokens",
        "ending": "the mean over its ending",
        "last": "its last token",
    }
    asked = ASKED.get(report.target, f"Column {report.target}")
    return (
        f"**{asked} is read from `{meta['site']}` with {meta['metric']} {best}, {_stands(report)}.** "
        f"A {METHOD_NAMES[report.main]} on {over.get(meta['position'], meta['position'])}, {meta['n_items']} items in "
        f"{meta['n_groups']} scenes, whole {UNITS[meta['rung']]} held out, layer and penalty chosen inside each fold; "
        f"chance is {meta['chance']:.3g}."
    )


def _stands(report: ProbeReport) -> str:
    """The verdict of the headline: what its floor and its control leave of it."""
    stands = verdict(report.estimate("difference", report.strongest_floor))
    if stands != "above its floor" or not report.has("control", "neutral_pseudo_label"):
        return stands
    if _beyond_control(report).low <= 0:
        return "above its floor but not above its neutral partners, so topic could explain it"
    partners, chance = report.estimate("control", "neutral_pseudo_label"), report.meta["chance"]
    if partners.low <= chance:
        return stands
    return f"above its floor and above its neutral partners, which alone give {partners} of it"


def _floor(report: ProbeReport) -> str:
    name = report.strongest_floor
    gap = report.estimate("difference", name)
    if name == "chance":
        best = "All lexical floors under the same folds are at or below chance"
    else:
        floor = report.estimate("floor", name)
        best = f"The strongest lexical floor under the same folds, {FLOOR_NAMES[name]}, reaches {floor}"
    return (
        f"{best}. Probe minus {'chance' if name == 'chance' else 'floor'}: **{signed(gap)}**, resampled by {gap.unit}; "
        f"the least difference that this design finds with 80% power is {detectable(gap):.2f}."
    )


def _conditional(report: ProbeReport) -> str:
    gain = report.estimate("conditional", "gain")
    unit = "nats an item" if report.meta["classes"] else "of the variance"
    said = "adds nothing that could be shown" if gain.low <= 0 <= gain.high else "adds" if gain.low > 0 else "harms"
    return (
        f"Put beside the floor's own prediction, the probe {said}: it takes {signed(gain)} {unit} off the held-out "
        "loss (conditional probing)."
    )


def _baselines(report: ProbeReport) -> list[str]:
    """Layer 0, random directions, the control task and the network, one sentence."""
    first = report.estimate("beyond_control", "layer_0")
    drawn = report.estimate("control", "random_directions")
    bent, more = report.estimate("probe", "network"), report.estimate("beyond_linear", "network")
    lines = [
        f"Against layer 0 the probe gains {signed(first)}. {drawn.n} random directions reach {drawn.value:.2f} (95% of "
        f"them {drawn.low:.2f} to {drawn.high:.2f}). A network with one hidden layer reaches {bent}, {signed(more)} "
        f"more than the linear probe{', so more is there than a line reads' if more.low > 0 else ''}."
    ]
    if report.has("control", "control_task"):
        task, gap = report.estimate("control", "control_task"), report.estimate("selectivity", "control_task")
        lines.append(
            f"A control task, in which recurring words have random labels, is learnt to {task} (by words alone to "
            f"{report.estimate('control', 'control_task_words').value:.2f}): selectivity {signed(gap)}."
        )
    return lines + [f"No {READER_NAMES[name]}: {why}." for name, why in report.meta["skipped_controls"].items()]


def _falls(report: ProbeReport) -> list[str]:
    """That the score does not carry over to held-out topics, or to held-out emotions, if that is so."""
    pairs = (
        ("pair", "domain", "most of what was read under the pair rung is topic, and does not carry over"),
        (report.meta["rung"], "emotion", "what is read belongs to the emotions that were learnt from, and no new one"),
    )
    lines = []
    for near, far, meaning in pairs:
        if near == far or not {near, far} <= set(report.rungs):
            continue
        beyond = [report.estimate("difference", report.strongest(rung), rung).low > 0 for rung in (near, far)]
        here, there = (report.estimate("probe", report.main, rung) for rung in (near, far))
        if beyond == [True, False] and there.value < here.value - 0.1:
            lines.append(f"**With whole {UNITS[far]} held out the score falls from {here} to {there}: {meaning}.**")
    return lines


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
    score = report.estimate("probe", report.main, rung)
    best = report.strongest(rung)
    beside = (
        "floors at or below chance"
        if best == "chance"
        else f"{FLOOR_NAMES[best]}: {report.estimate('floor', best, rung)}"
    )
    gap = report.estimate("difference", best, rung)
    if rung == "split":
        return (
            "Learnt from the keyword-rich twins of other domains and tested on the keyword-free, the probe reaches "
            f"{score} ({beside}; difference {signed(gap)})."
        )
    note = ", twins on both sides, shown for comparison," if rung == "random" else ""
    return f"With {_folds(rung)} held out{note} the probe reaches {score} ({beside}; difference {signed(gap)})."


def _folds(rung: str) -> str:
    return "single items" if rung == "random" else f"whole {UNITS[rung]}"
