"""``select_parts``: which heads, or which neurons, tell an emotion apart, chosen and confirmed on different scenes.

1. The groups are dealt into two halves, whole domains where there are domains.
2. On the first half every part is scored by the AUROC of its held-out projection (by inner folds, fitted without the
   fold); the best k are kept, and their vectors are fitted on that half alone.
3. On the second half the vectors are read: an AUROC with its interval, and a p from labels that groups swapped within
   their domain, corrected over the k by the largest (max-T).

The score that chose a part is the best of many and flatters it; only the second figure is evidence.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import rankdata

from affectlens.capturing import capture
from affectlens.errors import BatteryError, SteerError
from affectlens.model import LensModel
from affectlens.probing.folds import split
from affectlens.sites import Site
from affectlens.stats import Estimate
from affectlens.steering.directions import Direction, Directions, unit
from affectlens.steering.extracting.chosen import Selection
from affectlens.steering.extracting.contrasts import Contrast, LeaveOut, contrast
from affectlens.steering.extracting.methods import differences, fit
from affectlens.steering.extracting.norming import over_tokens, pooled_norms
from affectlens.steering.extracting.places import Place
from affectlens.steering.extracting.scoring import plain, separation
from affectlens.steering.extracting.shuffling import shuffle
from affectlens.stimuli.battery import load_battery
from affectlens.store import Activations
from affectlens.texts import Texts

KINDS = {"heads": "z", "neurons": "neurons"}
DRAWS = 999
FOLDS = 4  # in which the choosing half scores


def select_parts(
    model: LensModel | Activations,
    battery: str | Path | Texts = "core",
    emotion: str = "joy",
    *,
    kind: str = "heads",
    k: int = 10,
    position: str = "mean",
    against: str = "others",
    label: str = "emotion",
    positive: str | None = None,
    negative: str | None = None,
    leave_out: LeaveOut | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Selection:
    """The k heads or neurons whose projections tell a class best from the others, each confirmed on other scenes.

    Args:
        model: from :func:`affectlens.load_model`, or activations of ``z`` or ``neurons``.
        battery: as for ``extract``.
        emotion: the class, basic or peak word; with ``positive`` it is not read.
        kind: ``heads`` or ``neurons``.
        k: how many.
        position: how tokens are pooled.
        against: ``others``, whose topics may differ too; or ``neutral``: an item less its neutral partner, against the
            other classes' items less theirs, where topic is no help.
        label: the column of the classes.
        positive: the one value of it that is contrasted, for an axis of your own.
        negative: the value that stands against it.
        leave_out: as for ``extract``.
        seed: of halves, folds and draws.
        progress: show a bar; by default where a person is looking.

    Raises:
        SteerError: an unknown kind, more parts than there are, or too few groups for two halves.
        SiteError: a model without such parts.
    """
    if against not in ("others", "neutral"):
        raise SteerError(f"Parts are scored against others or neutral, not {against!r}.")
    if kind not in KINDS:
        raise SteerError(f"There is no kind of parts {kind!r}; choose from {', '.join(KINDS)}.")
    acts = model
    if isinstance(model, LensModel):
        table = load_battery(battery) if isinstance(battery, str | Path) else battery
        acts = capture(model, table, sites=KINDS[kind], positions=position, progress=progress)
    if not isinstance(acts, Activations):
        raise SteerError(f"select_parts takes a model of load_model or activations, not {type(model).__name__}.")
    asked = contrast(acts.items, emotions=None if positive else [emotion], label=label, positive=positive,
                     negative=negative, leave_out=leave_out)  # fmt: skip
    parts, x = _parts(acts, kind, position, asked)
    everyone = asked
    if against == "neutral" and not asked.binary:
        x, asked = _less_partners(x, asked)
    if not 0 < k <= len(parts):
        raise SteerError(f"There are {len(parts)} {kind}: select from 1 to as many, not {k}.")
    try:
        half = _halves(asked, seed)
        first, second = asked.part(half == 0), asked.part(half == 1)
        chosen = _scores(x[half == 0], first, seed)
    except BatteryError as error:
        raise SteerError(f"Selecting needs two halves with folds, and {error}: give more groups.") from None
    best = np.argsort(-chosen, kind="stable")[:k]
    vectors = _vectors(x[half == 0][:, best], first)
    score = np.einsum("ipd,pd->ip", x[half == 1][:, best], vectors)
    found = _confirmed(score, second, seed)
    rows = pd.DataFrame([
        {"part": parts[i].text, "chosen": float(chosen[i]), "confirmed": e.value, "low": e.low, "high": e.high,
         "p": e.p, "p_adjusted": e.p_adjusted}
        for i, e in zip(best, found, strict=True)
    ])  # fmt: skip
    made = _directions(model, acts, everyone, [parts[i] for i in best], vectors, found, kind, position, seed, progress)
    return Selection(made, rows, len(parts))


def _parts(
    acts: Activations, kind: str, position: str, asked: Contrast
) -> tuple[list[Site], Float[np.ndarray, "item part d"]]:
    """Every head ``[d_head]`` or neuron ``[1]`` of every layer, in float64."""
    what = KINDS[kind]
    if what not in acts.sites:
        raise SteerError(f"These activations have no {what}, only {', '.join(acts.sites)}: capture sites={what!r}.")
    values = np.asarray(acts.at(position, what)[asked.rows], dtype=np.float64)  # [item, layer, head, d] or [.., neuron]
    n_parts = values.shape[2]
    sites = [Site(what, layer, index) for layer in acts.layers[what] for index in range(n_parts)]
    return sites, values.reshape(len(values), len(sites), -1)


def _less_partners(x: Float[np.ndarray, "item part d"], asked: Contrast) -> tuple[np.ndarray, Contrast]:
    """One row a group: its emotional items less their neutral partners."""
    pairs = differences(asked.group, asked.code >= 0, asked.baseline >= 0)
    if not len(pairs):
        raise SteerError("Scoring against neutral needs neutral partners, and this battery has none.")
    shown = (pairs > 0).argmax(1)
    order = np.argsort(shown)
    rows = np.isin(np.arange(len(x)), shown)
    return np.einsum("gi,ipd->gpd", pairs[order], x, optimize=True), asked.part(rows)


def _halves(asked: Contrast, seed: int) -> Int[np.ndarray, " item"]:
    """0 or 1 an item: whole keys, every class on both sides."""
    fitted = asked.code >= 0 if not asked.binary else (asked.code >= 0) | (asked.baseline >= 0)
    labels = (asked.code[fitted] >= 0).astype(int) if asked.binary else asked.code[fitted]
    fold = split(asked.keys[fitted], labels, 2, seed=seed)
    of = dict(zip(asked.keys[fitted].tolist(), fold.tolist(), strict=True))
    return np.array([of.get(key, -1) for key in asked.keys.tolist()])


def _against(asked: Contrast) -> tuple[np.ndarray, np.ndarray]:
    """Which items are scored, and which of them are of the class."""
    k = asked.asked[0]
    rows = (asked.code >= 0) | (asked.baseline == k) if asked.binary else asked.code >= 0
    return rows, asked.code[rows] == k


def _vectors(x: Float[np.ndarray, "item part d"], asked: Contrast) -> Float[np.ndarray, "part d"]:
    """Class means less the mean of means, of any length: ranks don't see it."""
    return fit("centred", x, asked, "neutral" if asked.binary else "others").vectors[0]


def _scores(x: Float[np.ndarray, "item part d"], asked: Contrast, seed: int) -> Float[np.ndarray, " part"]:
    """Each part's held-out AUROC over inner folds: wins over comparisons, folds pooled by their comparisons."""
    rows, mine = _against(asked)
    labels = mine.astype(int) if asked.binary else asked.code[rows]
    fold = np.full(len(rows), -1)
    fold[rows] = split(asked.keys[rows], labels, FOLDS, seed=seed)
    wins, pairs = np.zeros(x.shape[1]), 0
    for held in range(int(fold.max()) + 1):
        test = fold == held
        of_it = np.isin(asked.keys, asked.keys[test])
        vectors = _vectors(x[~of_it], asked.part(~of_it))
        score = np.einsum("ipd,pd->ip", x[test], vectors, optimize=True)
        high = asked.code[test] == asked.asked[0]
        n = int(high.sum()) * int((~high).sum())
        wins, pairs = wins + n * areas(score, high[None])[0], pairs + n
    return wins / max(pairs, 1)


def areas(score: Float[np.ndarray, "item part"], high: np.ndarray) -> Float[np.ndarray, "draw part"]:
    """AUROC of every column for every row of labels ``[draw, item]``, by ranks: one matrix product for all.

    Args:
        score: what is ranked.
        high: which items should rank higher, a row a draw.
    """
    up = high.sum(1, keepdims=True)
    over = (up * (high.shape[1] - up)).clip(min=1)
    return (high.astype(float) @ rankdata(score, axis=0) - up * (up + 1) / 2) / over


def _confirmed(score: Float[np.ndarray, "item part"], asked: Contrast, seed: int) -> list[Estimate]:
    """On the other half: intervals by scene, p by permutation, max-T over the parts."""
    rows, mine = _against(asked)
    rng, k = np.random.default_rng(seed), asked.asked[0]
    drawn = np.stack([shuffle(asked, rng).code[rows] == k for _ in range(DRAWS)])
    null, seen = areas(score[rows], drawn), areas(score[rows], mine[None])[0]
    p = (1 + (null >= seen - 1e-12).sum(0)) / (1 + DRAWS)
    most = (1 + (null.max(1, keepdims=True) >= seen - 1e-12).sum(0)) / (1 + DRAWS)
    one_fold, groups = np.zeros(int(rows.sum()), dtype=int), asked.group[rows]
    out = []
    for i in range(score.shape[1]):
        e = separation(score[rows, i], mine, one_fold, groups, "scene", seed)
        out.append(Estimate(e.value, e.low, e.high, e.n, e.unit, float(p[i]), float(most[i]), e.method))
    return out


def _directions(
    model: LensModel | Activations, acts: Activations, asked: Contrast, parts: list[Site],
    vectors: Float[np.ndarray, "part d"], found: list[Estimate], kind: str, position: str, seed: int,
    progress: bool | None,
) -> Directions:  # fmt: skip
    """One direction a head; of neurons one a layer, their differences of means as weights."""
    out = []
    if kind == "heads":
        made = [
            (Place(part), vector, {part.text: plain(e)}) for part, vector, e in zip(parts, vectors, found, strict=True)
        ]
    else:
        width = acts.at(position, "neurons").shape[-1]
        made = []
        for layer in sorted({part.layer for part in parts}):
            mine = [(p.index or 0, float(v[0]), plain(e)) for p, v, e in zip(parts, vectors, found, strict=True)
                    if p.layer == layer]  # fmt: skip
            mine.sort(key=lambda one: one[0])
            place = Place(Site("neurons", layer), tuple(i for i, _, _ in mine), width)
            said = {Site.neuron(layer, i).text: e for i, _, e in mine}
            made.append((place, np.array([v for _, v, _ in mine]), said))
    norms = pooled_norms(acts, [place for place, _, _ in made], position, asked, None)
    for place, vector, said in made:
        norm, over = norms[place.site.text]
        facts = {"confirmed": said, "norm_over": over, "seed": seed, "half": f"fitted on one half of the {asked.unit}s"}
        if place.neurons:
            facts["neurons"] = list(place.neurons)
        out.append(Direction(
            asked.names[0], place.site.text, place.whole(unit(vector)), norm, kind, acts.model, acts.fingerprint,
            acts.battery, acts.battery_sha256, position,
            fixed=np.zeros((0, place.width or len(vector)), np.float32), facts=facts,
        ))  # fmt: skip
    return Directions(over_tokens(model, out, acts, asked, progress) if isinstance(model, LensModel) else out)
