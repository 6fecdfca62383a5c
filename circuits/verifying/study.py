"""``verify``: a circuit's claims, each run on scenes that did not choose it, beside what would undo it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.circuits.linking import on
from affectlens.circuits.scoring import EdgeScores
from affectlens.circuits.space import Edges
from affectlens.circuits.verifying import completing, needing, predicting, ranking, removing
from affectlens.circuits.verifying.plan import FEWER, Amounts, cost
from affectlens.circuits.verifying.ratios import Sums
from affectlens.circuits.verifying.result import Verification
from affectlens.circuits.verifying.running import Passes
from affectlens.circuits.verifying.sizing import kept, rest, to_test
from affectlens.circuits.verifying.stability import stability
from affectlens.circuits.verifying.tabling import divides, facts_of, rows_of, statistics
from affectlens.circuits.verifying.tools import Tools
from affectlens.errors import CircuitError
from affectlens.model import LensModel
from affectlens.patching.metrics import Metric
from affectlens.patching.pairs import PatchPair
from affectlens.stats import band


@dataclass(eq=False)
class _Work:
    """What has been chosen and run so far."""

    passes: Passes
    pairs: Sequence[PatchPair]
    scores: EdgeScores
    amounts: Amounts
    seed: int
    mean: Float[np.ndarray, "sender receiver"]
    circuits: dict[float, Edges]
    parts: list[pd.DataFrame] = field(default_factory=list)

    def run(self, part: str, circuits: dict[str, Edges]) -> None:
        self.parts.append(self.passes.values(part, circuits, self.pairs))

    @property
    def values(self) -> pd.DataFrame:
        return pd.concat([one for one in self.parts if not one.empty], ignore_index=True)


def verify(
    model: LensModel, scores: EdgeScores, pairs: Sequence[PatchPair], metric: Metric, *, amounts: Amounts | None = None,
    rule: str = "greedy", size: float | None = None, choosing: Sequence[PatchPair] = (), seed: int = 0,
    keep: str | Path | None = None, memory: float = 1.0, progress: bool | None = None, tools: Tools | None = None,
) -> Verification:  # fmt: skip
    """Select circuits from scores of discovery scenes and test them on held-out ones.

    If the interval of the gap between the full model and none of its edges holds zero, nothing is divided by it: the
    curve is run, the gap is the finding, and no other part is run.

    Args:
        model: the model.
        scores: of the discovery scenes' pairs.
        pairs: held-out ones, from :func:`affectlens.patching.prepare`.
        metric: the one that the scores are of.
        amounts: how much of each part is run; :func:`affectlens.circuits.verifying.cost` says what it takes.
        rule: how edges are chosen by their scores: ``greedy`` or ``threshold``.
        size: the share of the edges at which the circuit is tested, one of the curve's. None takes the size at 0.8.
        choosing: discovery pairs on which the size at 0.8 is then read; without them it is read on the held-out pairs
            themselves, which favours the circuit over random ones a little, and the result says so.
        seed: of selections, draws, bootstraps and flips.
        keep: a folder in which every table of passes is kept, and from which a stopped verification goes on.
        memory: GB that activations may take.
        progress: show bars.
        tools: what makes the passes and chooses edges; ours by default.

    Raises:
        CircuitError: scenes that scores and pairs share, a size that is not one of the curve's, no pairs.
    """
    asked, used = amounts or Amounts(), tools or Tools.of(rule)
    _check(scores, pairs, choosing, asked, size)
    mean = scores.mean()
    passes = Passes(model, metric, scores.space, used, None if keep is None else Path(keep), memory, progress)
    work = _Work(passes, pairs, scores, asked, seed, mean, dict(used.select(scores.space, mean, asked.fractions)))
    work.run("curve", _curve(work))
    facts = facts_of(scores, metric, pairs, asked, rule, seed)
    facts |= {"passes": cost(len(pairs), asked, choosing=len(choosing)).to_dict("records")}
    facts |= {"sizes": [[one, int(it.sum()), int(on(scores.space, it).sum())] for one, it in work.circuits.items()]}
    if not divides(Sums.of(work.values), seed):
        return Verification(**statistics(work.values, asked, None, seed=seed), values=work.values, meta=facts)
    if not any(work.circuits[one].any() for one in asked.proper):
        raise CircuitError("At no size below 1 does a path reach the end, so there is no circuit: give larger sizes.")
    at, chosen_on = (size, "given") if size else _size(work, choosing)
    if not work.circuits[at].any():
        raise CircuitError(
            f"At {at:g} of the edges no path reaches the end, so no circuit can be tested: give larger ones."
        )
    return _tested(work, at, facts | {"size": at, "chosen_on": chosen_on})


def _tested(work: _Work, at: float, facts: dict[str, object]) -> Verification:
    """Everything that is run at one size."""
    space, circuit, asked, seed = work.scores.space, work.circuits[at], work.amounts, work.seed
    drawn = list(work.passes.tools.randomise(space, circuit, asked.randoms, seed=seed))
    sets = removing.node_sets(space, circuit, asked.sets, seed=seed)
    without = {completing.cut_circuit(i): removing.without_nodes(circuit, rows) for i, rows in enumerate(sets)}
    without |= {completing.cut_model(i): removing.without_nodes(space.allowed, rows) for i, rows in enumerate(sets)}
    plan = removing.drops(space, circuit, work.mean, asked.drops, seed=seed)
    left = {needing.dropped(i): one.left for i, one in enumerate(plan)}
    paths = removing.inflated(space, circuit, asked.references if plan else 0, seed=seed)
    more = {f"more {i}": one for i, (one, _) in enumerate(paths)}
    fewer = {f"less {i}": one for i, (_, one) in enumerate(paths)}
    work.run("tests", _randoms(work, at, drawn) | without | left | more | fewer)  # each call runs the texts anew
    edges = predicting.chosen_edges(space, work.mean, asked.patches, seed=seed)
    effects = work.passes.patch(list(edges["edge"]), work.pairs)

    def again(scores: Float[np.ndarray, "sender receiver"]) -> Edges:
        return work.passes.tools.select(space, scores, (at,))[at]

    stable = stability(work.scores, again, circuit, drawn, resamples=asked.resamples, seed=seed)
    names = [[space.senders[int(row)] for row in rows] for rows in sets]
    tables = statistics(
        work.values, asked, at, plan=plan, sets=names, edges=edges, effects=effects, stable=stable, seed=seed
    )
    return Verification(**tables, circuit=rows_of(space, circuit, work.mean), values=work.values, meta=facts)


def _curve(work: _Work) -> dict[str, Edges]:
    whole = work.scores.space.allowed
    ours = {kept(one): work.circuits[one] for one in work.amounts.fractions}
    return ours | {rest(one): whole & ~work.circuits[one] for one in work.amounts.proper}


def _randoms(work: _Work, at: float, drawn: Sequence[Edges]) -> dict[str, Edges]:
    """Those of the size that is tested, and a few of every other size."""
    out = {ranking.drawn(at, i): one for i, one in enumerate(drawn)}
    few = work.amounts.randoms // FEWER
    for other in work.amounts.proper:
        if other != at and few:
            more = work.passes.tools.randomise(work.scores.space, work.circuits[other], few, seed=work.seed)
            out |= {ranking.drawn(other, i): one for i, one in enumerate(more)}
    return out


def _size(work: _Work, choosing: Sequence[PatchPair]) -> tuple[float, str]:
    """The size to test, the one at 0.8 on the pairs that choose it; and which those are."""
    fractions, sums, chosen_on = work.amounts.fractions, Sums.of(work.values), "held-out pairs"
    if choosing:
        theirs = work.passes.values("choosing", {kept(one): work.circuits[one] for one in fractions}, choosing)
        if divides(Sums.of(theirs), work.seed):
            sums, chosen_on = Sums.of(theirs), "discovery pairs"
    whole = band([sums.one(kept(one)) for one in fractions], len(sums.n), seed=work.seed)
    full = [one for one in fractions if work.circuits[one].any()]
    return to_test(fractions, whole, len(sums.n), full), chosen_on


def _check(
    scores: EdgeScores, pairs: Sequence[PatchPair], choosing: Sequence[PatchPair], amounts: Amounts, size: float | None
) -> None:
    if not pairs:
        raise CircuitError("No held-out pairs were given: a circuit is verified on scenes that did not choose it.")
    found = {str(one) for one in scores.pairs["group"]}
    shared = sorted(found & {pair.group for pair in pairs})
    if shared:
        raise CircuitError(
            f"{len(shared)} scenes are among the scores and among the held-out pairs ({', '.join(shared[:3])}): score "
            "edges on some scenes and verify on others."
        )
    if strange := sorted({pair.group for pair in choosing} - found):
        raise CircuitError(
            f"The size can't be chosen on {strange[0]}, which is no discovery scene: give pairs that were scored."
        )
    if len({pair.name for pair in pairs}) < len(pairs):
        raise CircuitError("Two held-out pairs have one name: give each pair once.")
    if size is not None and size not in amounts.proper:
        raise CircuitError(f"{size:g} is no size of the curve below 1: choose one of {asdict(amounts)['fractions']}.")
