"""What a report says of what stands beside the ladder: quadruples, checks, asking, transfer, false alarms. Markdown."""

from typing import TYPE_CHECKING

from affectlens.probing.crossed import SPLITS
from affectlens.probing.names import signed
from affectlens.probing.report import ProbeReport
from affectlens.stats import Estimate
from affectlens.types import Json

if TYPE_CHECKING:
    from affectlens.probing.prompting.two_by_two import TwoByTwo


def chosen_quadruples(report: ProbeReport) -> list[Json]:
    """The rows of the chosen layer, one a split."""
    table = report.crossed
    rows = table[(table["method"] == report.main) & table["chosen"]]
    found = [row for split in SPLITS for row in rows[rows["split"] == split].to_dict("records")]
    return [{str(k): v for k, v in row.items()} for row in found]


def crossed(report: ProbeReport) -> str:
    """Quadruples won, beside those with nothing at stake."""
    meta, said = report.meta, []
    for row in chosen_quadruples(report):
        share = Estimate(row["wins"], row["wins_low"], row["wins_high"], int(row["n"]), "quadruple")
        said.append(
            f"{share} of {share.n} `{row['split']}` quadruples (sign-flip p = {row['p']:.3f}, "
            f"{row['p_adjusted']:.3f} over all layers; the least that {share.n} can give is "
            f"{row['attainable']:.4f})"
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


def alarms(report: ProbeReport) -> str:
    """How often items without affect are called emotional."""
    names = {"decoys": "decoys (emotion words, no emotion)", "vivid_neutral": "vivid scenes without affect"}
    parts = []
    chosen = report.false_alarms[report.false_alarms["method"] == report.main]
    for row in chosen.to_dict("records"):
        share = Estimate(row["share"], row["low"], row["high"], row["n"], "item")
        parts.append(f"{share} of {share.n} {names[row['split']]}")
    return f"The layer-{report.probes.layer} probe calls emotional: {'; '.join(parts)}."


def binding(report: ProbeReport) -> "TwoByTwo | None":
    """The quadruples by whether the facts were bound and whether affect followed, where the checks were asked."""
    from affectlens.probing.prompting.two_by_two import bound_or_not

    if report.checks.empty or report.quadruples.empty:
        return None
    crossed = report.quadruples[report.quadruples["split"] == "crossed"]
    return bound_or_not(report.checks, crossed.set_index("group")["d"], seed=report.meta["seed"])


def asked(report: ProbeReport) -> str:
    """What asking gives beside reading."""
    table = report.asked[
        (report.asked["wording"] == "mean")
        & (report.asked["calibration"] == "batch")
        & (report.asked["metric"] == report.meta["metric"])
    ]
    parts = []
    for row in table.to_dict("records"):
        given = f"{row['shots']} exemplars of each class" if row["shots"] else "no exemplars"
        parts.append(f"{given} {Estimate(row['value'], row['low'], row['high'], int(row['n']), row['unit'])}")
    mass = float(table["mass"].median())
    return (
        f"Asked instead of read, by the log-probability of the labels over {len(report.asked['wording'].unique()) - 1} "
        f"wordings: {'; '.join(parts)}. The labels hold {mass:.2g} of the model's answer (median)."
    )


def transfer(report: ProbeReport) -> str:
    """From keyword-rich to keyword-free items and back."""
    cells = report.transfer_cells()
    parts = [
        f"{trained} to {tested} {cells[report.main, trained, tested]} (words {cells['tfidf', trained, tested]})"
        for trained, tested in (("keyword-rich", "keyword-free"), ("keyword-free", "keyword-rich"))
        if (report.main, trained, tested) in cells
    ]
    return f"Transfer to other domains: {'; '.join(parts)}."
