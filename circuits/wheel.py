"""Do circuits of emotions lie as on Plutchik's wheel? A dendrogram of their overlaps, against the wheel.

Give circuits of one size: of unequal ones the index can't be more than the ratio of the sizes, and the tree is one of
sizes.

1 less the Jaccard index of edges is a distance between circuits, which average linkage makes a tree. The agreement is
the correlation, over pairs of emotions, of the height at which the tree joins them with their angle on the wheel (45
degrees a step; Sokal and Rohlf 1962, with the wheel in the place of the data), and, without the tree, that of the
distance itself. The null re-orders the emotions, all orders of them: up to eight, 40,320. Beside the wheel stands
valence by itself, the difference of people's ratings, as eight points can't tell a circle from one axis.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.cluster.hierarchy import dendrogram as laid_out
from scipy.spatial.distance import squareform

from affectlens.circuits import linking
from affectlens.circuits.overlapping import jaccard
from affectlens.errors import BatteryError, CircuitError
from affectlens.plots import BLUE, figure
from affectlens.probing.geometry.models import LEAST, coordinates, steps
from affectlens.probing.geometry.nulls import compare, orders
from affectlens.stimuli.taxonomy import canonical

if TYPE_CHECKING:
    from affectlens.circuits.graph import CircuitGraph

DEGREES = 45.0


@dataclass(frozen=True, eq=False)
class Wheel:
    """A tree of circuits and its agreement with the wheel.

    ``agreement`` has a row each ``of`` (tree, overlap) and ``against`` (wheel, valence): ``value`` (Pearson), ``p``
    (one-sided, exact over the orders of the emotions), ``attainable`` (the least p that is possible, as many orders
    give the same), ``null`` (its mean under them), ``n`` emotions.
    """

    names: tuple[str, ...]
    distance: Float[np.ndarray, "emotion emotion"]  # 1 less the Jaccard index of edges
    joins: Float[np.ndarray, "join four"]  # SciPy's linkage matrix
    agreement: pd.DataFrame
    fidelity: float  # correlation of the tree's heights with the distances it was made of; describes, tests nothing

    def summary(self) -> list[str]:
        """What was found, in sentences; Markdown."""
        rows = {(row["of"], row["against"]): row for _, row in self.agreement.iterrows()}
        wheel, valence = rows["tree", "wheel"], rows["tree", "valence"]
        found = "agrees" if wheel["p"] <= 0.05 else "does not show agreement"
        return [
            f"The tree of {len(self.names)} circuits {found} with Plutchik's wheel: cophenetic correlation "
            f"{wheel['value']:.2f} (exact p {wheel['p']:.2g}; the least possible is {wheel['attainable']:.2g}).",
            f"With valence alone it is {valence['value']:.2f} (exact p {valence['p']:.2g}). So few emotions "
            "can't tell a circle from one axis, and emotions were not sampled, so neither value has an interval.",
        ]

    def plot(self) -> go.Figure:
        """The tree."""
        plan = laid_out(self.joins, labels=list(self.names), no_plot=True)
        fig = figure("circuits clustered by the edges that they share", "1 - Jaccard index of edges", "")
        for ys, xs in zip(plan["icoord"], plan["dcoord"], strict=True):
            fig.add_scatter(x=xs, y=ys, mode="lines", line={"color": BLUE, "width": 1.3}, showlegend=False,
                            hoverinfo="skip")  # fmt: skip
        fig.update_yaxes(tickvals=[5 + 10 * k for k in range(len(self.names))], ticktext=plan["ivl"], showgrid=False)
        return fig

    def _repr_html_(self) -> str:
        from affectlens.report import markdown

        lines = "".join(f"<p>{markdown(line)}</p>" for line in self.summary())
        return lines + self.agreement.to_html(index=False, border=0, float_format="{:.3g}".format)


def dendrogram(graphs: Mapping[str, "CircuitGraph"]) -> Wheel:
    """Cluster circuits of emotions by the edges that they share, and compare with Plutchik's wheel.

    Args:
        graphs: by emotion, in its basic or its peak form.

    Raises:
        CircuitError: fewer than five emotions, a name that is none, the same emotion twice, or two spaces.
    """
    listed = list(graphs.items())
    try:
        petals = [canonical(name) for name in graphs]
    except BatteryError as error:
        raise CircuitError(f"Circuits are compared with Plutchik's wheel by emotion. {error}") from None
    if len(listed) < LEAST or len(set(petals)) < len(petals):
        raise CircuitError(f"The wheel needs {LEAST} emotions at least, each once: got {', '.join(graphs) or 'none'}.")
    for _, graph in listed[1:]:
        linking.same(listed[0][1], graph)
    edges = np.stack([graph.mask[graph.space.allowed] for _, graph in listed])
    distance = 1 - jaccard(edges[:, None], edges[None])
    np.fill_diagonal(distance, 0.0)
    valence = coordinates(petals)[:, 0]
    models = {"wheel": DEGREES * steps(petals), "valence": np.abs(valence[:, None] - valence)}
    return against(tuple(graphs), distance, models)


def against(
    names: tuple[str, ...], distance: Float[np.ndarray, "emotion emotion"],
    models: Mapping[str, Float[np.ndarray, "emotion emotion"]],
) -> Wheel:  # fmt: skip
    """The tree of a distance, and its agreement with others.

    Args:
        names: of what is clustered.
        distance: between each two.
        models: by name, distances to compare with.
    """
    upper = np.triu_indices(len(names), 1)
    pairs = squareform(distance, checks=False)
    joins = linkage(pairs, "average")
    heights = cophenet(joins)
    moved, exact = orders(len(names))
    rows = []
    for of, values in (("tree", heights), ("overlap", pairs)):
        for name, model in models.items():
            drawn = _standard(model[moved[:, upper[0]], moved[:, upper[1]]]) @ _standard(np.asarray(values)[None])[0]
            seen = _standard(model[upper][None]) @ _standard(np.asarray(values)[None])[0]
            null = compare(seen, drawn[:, None], exact=exact)
            rows.append({"of": of, "against": name, "value": float(seen[0]), "p": float(null.p[0]),
                         "attainable": null.attainable, "null": float(null.mean[0]), "n": len(names)})  # fmt: skip
    fidelity = float(_standard(np.asarray(heights)[None])[0] @ _standard(np.asarray(pairs)[None])[0])
    return Wheel(names, distance, joins, pd.DataFrame(rows), fidelity)


def _standard(values: np.ndarray) -> np.ndarray:
    values = values - values.mean(-1, keepdims=True)
    size = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.divide(values, size, out=np.zeros_like(values), where=size > 1e-12)
