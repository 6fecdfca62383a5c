"""Bound or not, followed or not: where a model fails ``crossed``, did the facts fail to bind, or affect to follow?

Quadruples are counted by whether the facts were bound (:mod:`affectlens.probing.prompting.checking`) and whether the
affect score followed (d > 0 on the same quadruple). Shares have exact intervals (Clopper and Pearson 1934), rows are
compared by Fisher's exact test, and the interval of their difference is put together from the exact ones of the two
shares (Newcombe 1998, method 10, with exact limits in place of Wilson's).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from affectlens.errors import BatteryError
from affectlens.probing.crossed import SPLITS
from affectlens.probing.names import signed
from affectlens.stats import Estimate, binomial, sign_flips

if TYPE_CHECKING:
    import plotly.graph_objects as go

UNIT = "quadruple"


@dataclass(frozen=True, eq=False, repr=False)
class TwoByTwo:
    """Quadruples of ``crossed`` by facts bound and affect followed, and the shares bound.

    Attributes:
        counts: rows facts not bound and bound, columns affect did not follow and did; a tie of d is half in each.
        ties: quadruples whose affect score is tied; Fisher's test leaves them out.
        followed: the share in which affect followed, of the quadruples not bound and of those bound; None for no such.
        difference: bound less not bound, with Fisher's two-sided p; None where a row is empty.
        bound: by split, the share of quadruples bound, a tie one half; ``p`` is that of sign flips of d_check.
    """

    counts: Float[np.ndarray, "bound followed"]
    ties: int
    followed: tuple[Estimate | None, Estimate | None]
    difference: Estimate | None
    bound: dict[str, Estimate]

    def frame(self) -> pd.DataFrame:
        """One row a share. Columns: split, what, value, low, high, n, unit, p, method."""
        named: list[tuple[str, str, Estimate | None]] = [
            (split, "facts bound", found) for split, found in self.bound.items()
        ]
        named += [
            ("crossed", "affect followed, facts not bound", self.followed[0]),
            ("crossed", "affect followed, facts bound", self.followed[1]),
            ("crossed", "difference", self.difference),
        ]
        keys = ("value", "low", "high", "n", "unit", "p", "method")
        return pd.DataFrame([
            {"split": split, "what": what} | {key: asdict(found)[key] for key in keys}
            for split, what, found in named if found
        ])  # fmt: skip

    def summary(self) -> list[str]:
        """The sentences, most important first."""
        return [*(_bound(split, found) for split, found in self.bound.items()), *_followed(self)]

    def plot(self) -> "go.Figure":
        """The shares with their exact intervals, beside one half."""
        from affectlens.plots import BLUE, GREY, figure

        shown = [row for row in self.frame().to_dict("records") if row["what"] != "difference"]
        names = [f"{row['split']}: {row['what']} ({row['n']})" for row in shown]
        fig = figure("what the model binds, and whether affect follows", "share of quadruples", "")
        fig.add_scatter(
            x=[row["value"] for row in shown], y=names, mode="markers", name="share",
            marker={"color": BLUE, "size": 10}, hovertemplate="%{x:.2f}",
            error_x={"type": "data", "symmetric": False, "array": [row["high"] - row["value"] for row in shown],
                     "arrayminus": [row["value"] - row["low"] for row in shown], "color": BLUE},
        )  # fmt: skip
        fig.add_vline(x=0.5, line={"color": GREY, "width": 1.5, "dash": "dot"})
        fig.update_xaxes(range=[-0.02, 1.02])
        fig.update_yaxes(automargin=True, autorange="reversed")
        fig.update_layout(hovermode="closest")
        return fig

    def table(self) -> pd.DataFrame:
        """The counts, with names."""
        return pd.DataFrame(
            self.counts, index=["facts not bound", "facts bound"], columns=["affect didn't follow", "affect followed"]
        )

    def __repr__(self) -> str:
        return "\n".join([*self.summary(), self.table().to_string()])

    def _repr_html_(self) -> str:
        lines = "".join(f"<p>{escape(line)}</p>" for line in self.summary())
        return lines + self.table().to_html(border=0, float_format="{:g}".format)


def bound_or_not(
    checks: pd.DataFrame, d_affect: pd.Series | Sequence[float] | Float[np.ndarray, " group"], *, seed: int = 0
) -> TwoByTwo:
    """Set whether affect followed against whether the facts were bound.

    Args:
        checks: from :func:`affectlens.probing.prompting.checking.comprehension`.
        d_affect: d of an affect score (:func:`affectlens.stimuli.crossing.differences`) of the ``crossed`` quadruples:
            a series by group, or values in the order of their rows in ``checks``.
        seed: of the sign flips, which are sampled beyond 14 quadruples.

    Raises:
        BatteryError: no ``crossed`` quadruple in ``checks``, or one without d.
    """
    crossed = checks[checks["split"] == "crossed"]
    if crossed.empty:
        raise BatteryError("These checks hold no crossed quadruple: give comprehension a battery that has some.")
    d, bound = _aligned(crossed, d_affect), crossed["bound"].to_numpy(dtype=bool)
    wins = np.array([[(bound == row) & (d < 0), (bound == row) & (d > 0)] for row in (False, True)]).sum(2)
    ties = np.array([(bound == row) & (d == 0) for row in (False, True)]).sum(1)
    counts = wins + 0.5 * ties[:, None]
    without, with_ = (binomial(float(row[1]), int(row.sum()), UNIT) if row.sum() else None for row in counts)
    test: Any = stats.fisher_exact(wins)
    shares = {
        split: _share(part["d_check"].to_numpy(dtype=float), seed)
        for split in SPLITS
        if len(part := checks[checks["split"] == split])
    }
    gap = _difference(with_, without, float(test.pvalue)) if with_ and without else None
    return TwoByTwo(counts, int(ties.sum()), (without, with_), gap, shares)


def _aligned(crossed: pd.DataFrame, given: Any) -> Float[np.ndarray, " group"]:
    if isinstance(given, pd.Series):
        if missing := sorted(set(crossed["group"]) - set(given.index)):
            raise BatteryError(f"There is no d of affect for quadruple {missing[0]}: give one for each crossed group.")
        given = given.loc[crossed["group"].tolist()]
    d = np.asarray(given, dtype=float)
    if d.shape != (len(crossed),) or np.isnan(d).any():
        raise BatteryError(
            f"d of affect has shape {d.shape} for {len(crossed)} crossed quadruples, or holds NaN: give one number "
            "each, in their order, or a series by group."
        )
    return d


def _share(d: Float[np.ndarray, " group"], seed: int) -> Estimate:
    found = binomial(float((d > 0).sum() + 0.5 * (d == 0).sum()), len(d), UNIT)
    flips = sign_flips(d[:, None], seed=seed)
    how = f"{found.method}; p: sign flips of d_check, at least {flips.attainable:.2g} with so many"
    return replace(found, p=float(flips.p[0]), method=how)


def _difference(a: Estimate, b: Estimate, p: float) -> Estimate:
    value = a.value - b.value
    below, above = np.hypot(a.value - a.low, b.high - b.value), np.hypot(a.high - a.value, b.value - b.low)
    low, high = max(-1.0, value - float(below)), min(1.0, value + float(above))
    return Estimate(value, low, high, a.n + b.n, UNIT, p, method="Newcombe, from exact limits; p: Fisher, two-sided")


def _bound(split: str, found: Estimate) -> str:
    if found.low > 0.5:
        verdict = "the model binds them"
    elif found.high < 0.5:
        verdict = "the model answers the wrong way round"
    else:
        verdict = "no evidence that the model binds them"
    test = f"sign flips of d_check, p = {found.p:.3f}"
    return f"{split}: facts bound in {found} of {found.n} quadruples ({test}): {verdict}."


def _followed(found: TwoByTwo) -> list[str]:
    (without, with_), gap = found.followed, found.difference
    said = [
        f"in {share} of the {share.n} {name}" for share, name in ((with_, "bound"), (without, "not bound")) if share
    ]
    lines = [f"Affect followed {' and '.join(said)}{f' ({found.ties} tied, half in each)' if found.ties else ''}."]
    if gap is None:
        lines.append(f"All quadruples are {'bound' if with_ else 'not bound'}, so there is nothing to compare.")
    else:
        shown = gap.p is not None and gap.p < 0.05
        more = "more" if gap.value > 0 else "less"
        verdict = (
            f"affect follows {more} often where facts are bound"
            if shown
            else ("no evidence that affect follows the facts that are bound")
        )
        lines.append(f"Bound less not bound: {signed(gap)} (Fisher's exact p = {gap.p:.3f}): {verdict}.")
    missed, failed = found.counts[:, 0].sum(), found.counts[1, 0]
    if found.bound["crossed"].low > 0.5:
        lines.append(
            f"Affect did not follow in {missed:g}: in {failed:g} of them although the facts were bound, "
            f"in {missed - failed:g} they were not."
        )
    else:
        lines.append(
            "As binding is not shown, a quadruple may be among the bound by luck, and a failure of binding "
            "can't be told from one of affect."
        )
    return lines
