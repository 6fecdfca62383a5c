"""The methods paragraph of a probe report, for a paper."""

from affectlens.probing.names import UNITS
from affectlens.probing.report import ProbeReport


def methods(report: ProbeReport) -> str:
    """The methods paragraph of this target, for a paper."""
    meta, unit = report.meta, report.headline.unit
    rungs = ", ".join(report.rungs)
    how = {
        "AUROC": "AUROC compares held-out items within a fold.",
        "concordance": "Concordance is the share of held-out items with different values, within a fold, "
        "that are ordered right.",
    }.get(meta["metric"], "Balanced accuracy is over all held-out items.")
    model = "Ridge regression" if report.main == "ridge" else "L2-regularised logistic regression"
    return (
        f"{report.target.capitalize()} was probed in {meta['model']} ({meta['source'] or 'weights as loaded'}; "
        f"fingerprint {meta['fingerprint'][:12]}) on {meta['n_items']} items in {meta['n_groups']} scenes of the "
        f"battery {meta['battery']} (SHA-256 {meta['battery_sha256'][:12]}). {meta['site']} was captured at all "
        f"{meta['n_layers']} layers (d_model {meta['d_model']}) and pooled by {meta['position']}, the first token left "
        f"out. {model} on standardised activations was scored on the rungs {rungs}; the headline holds whole "
        f"{UNITS[meta['rung']]} out. Layer and penalty were chosen in inner folds of the same grouping by held-out "
        f"loss. {how} Intervals are 95% {report.headline.method} by {unit}; the difference by layer has a simultaneous "
        "(sup-t) band. Floors (TF-IDF unigrams and bigrams, function-word rates, surface features) were fitted and "
        "scored under the same folds. Permutation p are of a ridge with a fixed penalty, labels exchanged inside "
        "scenes where they differ there and else inside domains, 1,000 draws, max-T over layers; against the floor, "
        "what its cross-fitted prediction leaves of the labels is exchanged (Freedman and Lane 1983). "
        f"Seed {meta['seed']}."
    )
