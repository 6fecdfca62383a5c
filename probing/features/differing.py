"""Which features differ between emotional texts and their neutral twins: found in some domains, confirmed in the rest.

1. A feature is tested for an emotion if either twin has it active in enough discovery pairs. That count is the same
   whichever twin is the emotional one, so choosing by it leaves the p of a sign flip valid (independent filtering;
   Bourgon, Gentleman and Huber 2010, PNAS 107).
2. Discovery: two-sided sign flips by scene, and Benjamini-Hochberg over the features of an emotion that could pass at
   all: with few scenes the least attainable p of most is too large, whatever they do, and it hangs on activity alone
   (Tarone 1990; for false discovery rates Gilbert 2005, JRSS C 54). Each emotion, and "affect", all of them together,
   is a question and a family of its own.
3. Confirmation, on scenes of other domains: one-sided sign flips in the direction that was found, and
   Benjamini-Hochberg over what was found.

Effects are those of the confirmation half: nothing was picked there for being large, except by ``survives`` itself.
Benjamini-Hochberg is proven for independent tests and for some dependent ones (Benjamini and Yekutieli 2001); features
that fire together are a case that simulation covers, not the proof. Scenes are taken to be independent.

Negligible is a claim of its own: two one-sided tests of equivalence on the pairs of both halves.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy import stats

from affectlens.errors import BatteryError
from affectlens.probing.features.effecting import effects, equivalence_bound, equivalence_p, specific
from affectlens.probing.features.flipping import attainable, two_stage_p
from affectlens.probing.features.halving import AFFECT, Pairs, pair

COLUMNS = (
    "emotion", "feature", "n", "active", "mean", "low", "high", "d", "auroc", "auroc_low", "auroc_high", "p", "q",
    "attainable", "detectable", "mean_found", "n_found", "p_confirm", "q_confirm", "survives", "specific",
    "specific_low", "specific_high", "bound", "p_absent", "q_absent", "absent", "dealt",
)  # fmt: skip


def differential(
    pooled: Float[np.ndarray, "item feature"],
    items: pd.DataFrame,
    *,
    emotions: Sequence[str] | None = None,
    seed: int = 0,
    q: float = 0.05,
    fewest: int = 8,
) -> pd.DataFrame:
    """Features that differ between the emotional and the neutral twin, for each emotion and for all together.

    Args:
        pooled: one number an item and feature, rows as in the table.
        items: the battery's table; its scenes are used, not its quadruples.
        emotions: which, "affect" among them; all and "affect" by default.
        seed: of the halves and of the random flips.
        q: false discovery rate, of each half by itself.
        fewest: discovery pairs in which a feature must be active to be tested.

    Returns:
        One row a tested feature and emotion. Of the discovery half: ``n_found`` pairs, ``active`` ones, ``mean_found``,
        ``p``, ``q`` (1 where it could not pass), ``attainable`` (the least p that its non-zero differences allow),
        ``detectable`` (the least effect in SDs that passes with 80% power). Of the confirmation half: ``n``, ``mean``,
        ``low``, ``high`` (the feature's units), ``d`` (SDs of the difference), ``auroc``, ``auroc_low``, ``auroc_high``
        (P(emotional > neutral) within the pair), ``specific``, ``specific_low``, ``specific_high`` (own mean less that
        of the other emotions, in SDs), ``p_confirm``, ``q_confirm`` (NaN unless found). ``survives``: found and
        confirmed with the same sign. Of both: ``absent`` (equivalent to zero within ``bound`` SDs, ``q_absent`` <= q),
        ``p_absent``. ``dealt``: whether the halves share no domain ("domain") or no scene ("scene").

    Raises:
        BatteryError: columns or pairs are missing, or no emotion or one that is not there is named.
    """
    pairs = pair(pooled, items, seed=seed)
    wanted = tuple(dict.fromkeys(emotions)) if emotions is not None else (*pairs.emotions, AFFECT)
    if not wanted:
        raise BatteryError("No emotion was named: name at least one, or leave `emotions` out for all.")
    if unknown := sorted(set(wanted) - {*pairs.emotions, AFFECT}):
        raise BatteryError(f"No scene is of {', '.join(unknown)}: there are {', '.join(pairs.emotions)} and {AFFECT}.")
    tables = [_family(pairs, emotion, seed=seed, q=q, fewest=fewest) for emotion in wanted]
    return pd.concat(tables, ignore_index=True)[list(COLUMNS)]


def tested(pairs: Pairs, emotion: str, fewest: int) -> np.ndarray:
    """The features that are active in enough of an emotion's discovery pairs.

    Args:
        pairs: of the battery.
        emotion: or "affect".
        fewest: pairs.
    """
    return np.flatnonzero(pairs.active[pairs.rows(emotion, True)].sum(0) >= fewest)


def _family(pairs: Pairs, emotion: str, *, seed: int, q: float, fewest: int) -> pd.DataFrame:
    """The rows of an emotion, which are corrected together."""
    table = _tested(pairs, emotion, seed, tested(pairs, emotion, fewest))
    could = reachable(table["attainable"].to_numpy(dtype=float), q)
    table["q"] = 1.0
    table.loc[could, "q"] = _adjusted(table.loc[could, "p"])
    table["q_absent"] = _adjusted(table["p_absent"])
    found = table["q"] <= q
    held = pairs.differences[np.ix_(pairs.rows(emotion, False), table.loc[found, "feature"].to_numpy(dtype=int))]
    signed = held * np.sign(table.loc[found, "mean_found"].to_numpy()).astype(np.float32)
    table["p_confirm"] = table["q_confirm"] = np.nan
    table.loc[found, "p_confirm"] = two_stage_p(signed, sided=1, seed=(seed, 2, _number(pairs, emotion)))
    table.loc[found, "q_confirm"] = _adjusted(table.loc[found, "p_confirm"])
    same = np.sign(table["mean"]) == np.sign(table["mean_found"])
    table["survives"] = found & (table["q_confirm"] <= q) & same
    table["absent"] = table["q_absent"] <= q
    bar = float(table.loc[found, "p"].max()) if found.any() else q / max(int(could.sum()), 1)
    return table.assign(detectable=_detectable(table["n_found"], table["attainable"], bar))


def reachable(attainable: Float[np.ndarray, " feature"], q: float) -> Bool[np.ndarray, " feature"]:
    """The features that could be found: at most K of them could reach q / K, for the least K of which that holds.

    Args:
        attainable: the least p of each.
        q: false discovery rate.
    """
    k = np.arange(1, len(attainable) + 1)
    enough = np.searchsorted(np.sort(attainable), q / k, side="right") <= k
    return attainable <= q / k[enough.argmax()] if len(k) else np.zeros(0, dtype=bool)


def _tested(pairs: Pairs, emotion: str, seed: int, features: np.ndarray) -> pd.DataFrame:
    """Everything about an emotion's features that needs no other rows."""
    found, held = pairs.rows(emotion, True), pairs.rows(emotion, False)
    there = pairs.differences[:, features]
    seen, kept, both = there[found], there[held], there[np.concatenate([found, held])]
    bound = equivalence_bound(len(both))
    by_emotion = {name: there[pairs.rows(name, False)] for name in pairs.emotions}
    return pd.DataFrame(
        {
            "emotion": emotion, "feature": features, "n": len(held), "n_found": len(found),
            "active": pairs.active[np.ix_(found, features)].sum(0), **effects(kept),
            "mean_found": seen.mean(0, dtype=np.float64) if len(found) else np.full(len(features), np.nan),
            "p": two_stage_p(seen, seed=(seed, 1, _number(pairs, emotion))), "attainable": attainable(seen),
            **specific(by_emotion, emotion), "bound": bound, "p_absent": equivalence_p(both, bound),
            "dealt": pairs.dealt,
        }
    )  # fmt: skip


def _adjusted(p: pd.Series) -> np.ndarray:
    """Benjamini and Hochberg (1995)."""
    return stats.false_discovery_control(p.to_numpy(dtype=float)) if len(p) else np.empty(0)


def _detectable(n: pd.Series, least: pd.Series, bar: float) -> np.ndarray:
    """The least effect in SDs that a t test at level ``bar`` finds with 80% power; none where p can't get there."""
    df = np.maximum(n.to_numpy(dtype=float) - 1, 1)
    needed = (stats.t.ppf(1 - bar / 2, df) + stats.t.ppf(0.8, df)) / np.sqrt(df + 1)
    return np.where(least.to_numpy() <= bar, needed, np.inf)


def _number(pairs: Pairs, emotion: str) -> int:
    """A stream of random numbers of its own."""
    return (*pairs.emotions, AFFECT).index(emotion)
