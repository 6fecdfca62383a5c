"""What a verification found, in sentences. What undoes the circuit comes first."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from affectlens.circuits.verifying.completing import MEAN, WORST
from affectlens.circuits.verifying.needing import LEVEL
from affectlens.circuits.verifying.removing import ALL, EDGE, FIRST, NODE, PAIR
from affectlens.circuits.verifying.sizing import WITHIN
from affectlens.circuits.verifying.stability import BOOTSTRAP, HALVES, LEFT, OWN, RANDOM
from affectlens.stats import Estimate, detectable

if TYPE_CHECKING:
    from affectlens.circuits.verifying.result import Verification

NAMED = 3  # nodes of a set that a sentence names


def summary(found: "Verification") -> list[str]:
    """All sentences, those that undo a finding first.

    Args:
        found: the verification.
    """
    if not found.divided:
        return [_nothing(found)]
    against: list[str] = []
    rest: list[str] = []
    for undoes, line in (*_random(found), *_complement(found), *_near(found)):
        (against if undoes else rest).append(line)
    return [
        *against,
        _curve(found),
        *rest,
        *_sets(found),
        *_drops(found),
        *_edges(found),
        *_stable(found),
        *_caveats(found),
    ]


def percent(share: float) -> str:
    """A share of the edges.

    >>> percent(0.005), percent(0.2), percent(float("inf"))
    ('0.5%', '20%', 'none')

    Args:
        share: of all edges; infinite is none.
    """
    return "none" if share == float("inf") else f"{100 * share:g}%"


def without(nodes: Sequence[str]) -> str:
    """A set of nodes that is left out; of a large one the first.

    >>> without(["L2.H1"]), without(["L0.H0", "L0.H1", "L1.H3", "L2.H1", "L2.mlp_out"])
    ('without L2.H1', 'without L0.H0, L0.H1, L1.H3 and 2 more')

    Args:
        nodes: their names.
    """
    more = len(nodes) - NAMED
    return "without " + ", ".join(nodes[:NAMED]) + (f" and {more} more" if more > 0 else "")


def ends(found: Estimate) -> str:
    """A size with its interval.

    Args:
        found: the size.
    """
    return f"{percent(found.value)} [{percent(found.low)}, {percent(found.high)}]"


def _nothing(found: "Verification") -> str:
    return (
        f"**There is nothing for a circuit to carry**: on {found.meta['n_scenes']} held-out scenes the full model and "
        f"the model with no edge kept differ by {found.gap} {found.meta['unit']} in {found.meta['metric']}, an "
        "interval that holds zero. Nothing was divided by it, and no other test was run."
    )


def _at(found: "Verification") -> str:
    return f"{percent(found.meta['size'])} of the edges"


def _random(found: "Verification") -> list[tuple[bool, str]]:
    if not found.has("above_random"):
        return []
    above = found.estimate("above_random")
    drawn = found.randoms.loc[found.randoms["fraction"] == found.meta["size"], "f"]
    near = found.estimate("near_random")
    few = 1 / (1 + len(drawn)) > LEVEL
    as_good = above.low <= 0 or (not few and (above.p is None or above.p > LEVEL))
    said = (
        f"at {_at(found)} f is {found.estimate('f')}, and of {len(drawn)} random circuits of that size, connected and "
        f"with as many edges between the same layers, half lie below {drawn.median():.2f} and 97.5% below "
        f"{drawn.quantile(0.975):.2f}, best {drawn.max():.2f} (rank p = {above.p:.3g}; f less their mean {above}). As "
        f"near to 1 is a share of {near} (p = {near.p:.3g})"
    )
    if few:
        said += f"; {len(drawn)} draws can't give p = {LEVEL}"
    if as_good:
        said += f"; a difference of {detectable(above):.2g} from their mean would have been found with 80% power"
    lead = "Random circuits do not do as well: "
    if as_good:
        lead = "**Not told from random circuits**: "
    elif few:
        lead = "Whether random circuits do as well was asked of too few: "
    return [(as_good, f"{lead}{said}.")]


def _complement(found: "Verification") -> list[tuple[bool, str]]:
    lead = found.estimate("lead")
    other = found.estimate("complement")
    undoes = lead.low <= 0 or other.low >= WITHIN[0]
    what = "Part of it is done without the circuit: "
    if other.low <= 0:
        lost = other.high < 1 - WITHIN[0]
        what = "Without the circuit it is lost: " if lost else "How much is left without the circuit is not told: "
    if undoes and other.high < 1 - WITHIN[0]:
        what = "**Neither the circuit nor what is outside of it does it alone**: "
    elif undoes:
        as_well = "as well" if lead.low <= 0 else "too"
        what = f"**All other edges do it without the circuit {as_well}**: "
    return [(undoes, f"{what}the complement of {_at(found)} has f {other}, the circuit {found.estimate('f')} "
                     f"(difference {lead}).")]  # fmt: skip


def _near(found: "Verification") -> list[tuple[bool, str]]:
    if found.size.value < 1:
        return []
    low, high = WITHIN
    return [(True, f"**No circuit smaller than the model does what the model does**: no size that was tried stays "
                   f"within {low} and {high} of f from there on. The tests are made at {_at(found)}, whose f is the "
                   "nearest to 1.")]  # fmt: skip


def _curve(found: "Verification") -> str:
    small = f" The smallest size from which on f stays within 0.8 and 1.2 is {ends(found.size)} of the edges." if (
        found.size.value < 1) else ""  # fmt: skip
    most = max(found.meta["fractions"]) - min(found.meta["fractions"])
    return (
        f"On {found.meta['n_scenes']} held-out scenes ({found.meta['n_pairs']} pairs) CPR is {found.cpr} and CMD "
        f"{found.cmd}, where one that does all at every size has {most:.3g} and 0.{small} The full model and "
        f"none of its edges differ by {found.gap} {found.meta['unit']}."
    )


def _sets(found: "Verification") -> list[str]:
    if found.sets.empty:
        return []
    n, differ = len(found.sets), int(found.sets["differs"].sum())
    return [
        f"Completeness: without {n} random sets of the circuit's nodes, circuit and model differ by "
        f"{found.estimate(MEAN)} in f on average, and by {found.estimate(WORST)} in the worst, {without(found.worst)}; "
        f"{differ} of {n} differences are told from zero (max-T)."
    ]


def _drops(found: "Verification") -> list[str]:
    out = []
    edges = found.drops[found.drops["kind"] == EDGE] if len(found.drops) else pd.DataFrame()
    for chosen, part in edges.groupby("chosen", sort=False) if len(edges) else ():
        suffix = "" if chosen == ALL else f", {chosen}"
        needed, idle = (found.estimate(f"{what}{suffix}") for what in ("needed", "superfluous"))
        which = f"all {len(part)} edges" if chosen == ALL else f"{len(part)} edges ({chosen})"
        out.append(
            f"Minimality, {which}: dropping one lowers f for a share of {needed} (max-T), and a share of "
            f"{idle} is superfluous: it costs less than random added edges do (Shi et al.'s test, Holm)."
        )
    for kind, what in ((NODE, "nodes"), (PAIR, "pairs of edges")):
        part = found.drops[found.drops["kind"] == kind] if len(found.drops) else pd.DataFrame()
        if len(part):
            apart = f"; {int((part['interaction_low'] > 0).sum())} pairs cost more than their edges one by one, each "\
                    "interval by itself" if kind == PAIR else ""  # fmt: skip
            out.append(f"Of {len(part)} {what} dropped, {int(part['needed'].sum())} are needed (max-T){apart}.")
    if len(edges) and edges["superfluous"].any():
        out.append("So the circuit is not minimal.")
    return out


def _edges(found: "Verification") -> list[str]:
    if not found.has("spearman"):
        return []
    n = int((found.edges["chosen"] == FIRST).sum())
    nothing = (
        f" Of edges predicted to be nothing, a share of {found.estimate('nothing')} is shown to be." if (
            found.has("nothing")) else ""
    )  # fmt: skip
    return [
        f"Predicted, patched, compared: over the first edges by score ({n}) estimates of discovery scenes and exact "
        f"effects on held-out scenes rank alike by {found.estimate('spearman')} (Spearman), agree in sign for a share "
        f"of {found.estimate('sign')}, and one unit predicted is {found.estimate('slope')} found.{nothing}"
    ]


def _stable(found: "Verification") -> list[str]:
    if found.stability.empty:
        return []
    rows = found.stability.set_index("kind")
    names = {BOOTSTRAP: "resampled scenes", HALVES: "two halves of them", LEFT: "all domains but one",
             OWN: "one domain alone", RANDOM: "random circuits"}  # fmt: skip
    said = [f"{names[str(kind)]} {row['edges']:.2f} [{row['edges_low']:.2f}, {row['edges_high']:.2f}]"
            for kind, row in rows.iterrows() if row["selections"]]  # fmt: skip
    return [f"Stability of the edges (Jaccard, with 95% of the selections or all domains): {', '.join(said)}."]


def _caveats(found: "Verification") -> list[str]:
    out = []
    if found.meta["chosen_on"] == "held-out pairs":
        out.append("The size was read on the same held-out pairs as the tests, which favours it over random circuits.")
    least = 2 / 2 ** found.meta["n_scenes"]
    if least > LEVEL:
        out.append(
            f"With {found.meta['n_scenes']} scenes the least p that flipped signs can give is {least:.3g}: no set of "
            "nodes, edge or node could have been told from zero."
        )
    return out
