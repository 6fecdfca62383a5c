"""A supervised dictionary to compare with: one latent a label, its decoder row fitted to the labels.

Makelov, Lange and Nanda (2024) tie latents to the attributes that are known, which bounds what a dictionary of these
attributes can do. Here an activation is a mean plus a latent for affect, one for each emotion and one for each domain:

1. decoder rows are the least-squares coefficients of the training activations on the centred labels;
2. codes are a ridge read-out of the labels from the activations, so that held-out items need no label;
3. held out: the share of variance that the dictionary explains, given the labels and given the codes, beside as many
   principal components and labels shuffled over items; and each latent's AUROC less that of the best single feature of
   the unsupervised dictionary (chosen on the training items) and than that of the dense probe, in the same folds.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from affectlens.errors import BatteryError
from affectlens.probing import targets
from affectlens.probing.features.codes import Codes
from affectlens.probing.features.sparse import inputs_of
from affectlens.probing.features.sparse_latents import Dictionary, held_out_codes, label_table, score_latent, variance
from affectlens.probing.parts import stage
from affectlens.stats import Estimate
from affectlens.store import Activations
from affectlens.types import Json


@dataclass(frozen=True)
class Supervised:
    """The outcome of :func:`supervised`.

    ``scores`` has one row a latent and reader: ``label, kind, reader, value, low, high, n, unit, p, p_adjusted,
    method``: kind auroc (readers latent, feature, dense) and latent_less (of the reader named). A latent of an emotion
    is scored among the emotional items, the others among all. ``variance`` has shares of held-out variance: readers
    labels (the dictionary given the labels), codes (given their read-out, which sees the activation and can explain
    more than the labels), components (as many principal components), shuffled (labels shuffled over items: mean and
    95% range, p that a shuffle explains as much as the labels) and components_less_codes.
    """

    meta: Json
    scores: pd.DataFrame
    variance: pd.DataFrame
    decoder: pd.DataFrame  # label by dimension: rows fitted to all items

    def estimate(self, label: str, kind: str, reader: str) -> Estimate:
        """One row of ``scores``.

        Raises:
            KeyError: no such row.
        """
        table = self.scores
        rows = table[(table["label"] == label) & (table["kind"] == kind) & (table["reader"] == reader)]
        if rows.empty:
            raise KeyError(f"no {kind} of {reader} for {label} here")
        row = rows.iloc[0]
        return Estimate(row["value"], row["low"], row["high"], int(row["n"]), row["unit"], method=row["method"])

    def explained(self, reader: str) -> Estimate:
        """One row of ``variance``."""
        row = self.variance[self.variance["reader"] == reader].iloc[0]
        return Estimate(row["value"], row["low"], row["high"], int(row["n"]), row["unit"], method=row["method"])

    def summary(self) -> list[str]:
        """What was found, in sentences; Markdown."""
        meta = self.meta
        affect = {reader: self.estimate("affect", "auroc", reader) for reader in ("latent", "feature", "dense")}
        gaps = self.scores[(self.scores["kind"] == "latent_less") & (self.scores["reader"] == "feature")]
        above = gaps.loc[gaps["low"] > 0, "label"].tolist()
        return [
            f"**A dictionary of {meta['n_latents']} latents that are tied to labels explains "
            f"{self.explained('codes')} of the held-out variance of `{meta['site']}`** through a read-out, "
            f"{self.explained('labels')} given the labels, where as many principal components explain "
            f"{self.explained('components')} and shuffled labels {self.explained('shuffled')} (rung {meta['rung']}).",
            f"Affect is read from its own latent with AUROC {affect['latent']}, from the best single feature of "
            f"`{meta['sae']}` with {affect['feature']}, by the dense probe with {affect['dense']}.",
            f"For {len(above)} of {len(gaps)} labels the tied latent reads more than the best single feature"
            + (f": {', '.join(above)}." if above else "."),
            *(f"The labels {name} are not scored: {why}." for name, why in meta["skipped"].items()),
        ]


def supervised(
    codes: Codes,
    dense: Activations,
    *,
    rung: str = "pair",
    how: str = "mean",
    position: str | None = None,
    seed: int = 0,
) -> Supervised:
    """Fit and score a supervised dictionary of affect, emotions and domains beside an unsupervised one.

    Args:
        codes: the unsupervised dictionary's features, for the best single feature.
        dense: the same items' activations at the site that the dictionary reads.
        rung: what is held out whole; labels that a fold's training items lack are not scored.
        how: pooling of the features.
        position: pooling of the activations; as for :func:`affectlens.probing.features.sparse.sparse_probe`.
        seed: of folds, bootstraps and shuffles.

    Raises:
        BatteryError: other items in ``dense`` than in ``codes``, or a rung that does not apply.
    """
    inputs, where = inputs_of(codes, dense, how, position)
    asked = targets.select(inputs.items, "affect")
    staged = stage(inputs.items, asked, rung, seed=seed)
    if isinstance(staged, str) or staged.source is not staged.part:
        why = staged if isinstance(staged, str) else "it learns from other items than it scores"
        raise BatteryError(f"The rung {rung} does not apply to a supervised dictionary: {why}.")
    labels, among = label_table(asked)
    truth = labels.to_numpy()
    x = inputs.residual[asked.rows, 0].astype(np.float64)
    latents = held_out_codes(x, truth, staged.part.folds)
    tables, skipped = [], dict[str, list[str]]()
    for column, name in enumerate(labels):
        kept = among[name].to_numpy()
        found = score_latent(str(name), truth[:, column], kept, latents[:, column], staged, inputs, seed=seed)
        if isinstance(found, str):
            skipped.setdefault(found, []).append(str(name))
        else:
            tables.append(found)
    meta = {
        "rung": rung, "n_latents": labels.shape[1], "n_items": len(asked.y), "site": str(codes.site), "sae": codes.sae,
        "sae_sha256": codes.sae_sha256, "how": how, "position": where, "model": codes.model,
        "fingerprint": codes.fingerprint, "battery": codes.battery, "battery_sha256": codes.battery_sha256,
        "seed": seed, "skipped": {", ".join(names): why for why, names in skipped.items()},
    }  # fmt: skip
    rows = pd.DataFrame(Dictionary.of(x, truth).rows, index=labels.columns)
    return Supervised(
        meta,
        pd.concat(tables, ignore_index=True),
        variance(x, truth, latents, staged, seed=seed),
        rows,
    )
