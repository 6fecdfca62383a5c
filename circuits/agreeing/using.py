"""Is an emotion used at a layer? What patching its pairs there restores, less what every control restores.

The rule is that of :func:`affectlens.patching.effects.beside`, for the pairs of one emotion: the effect and its
difference from each null control must all be above zero. p is max-T over the layers and controls of the emotion, then
corrected over emotions (:func:`affectlens.circuits.agreeing.marks.across`).

Row k of the report is the stream that leaves block k, so ``resid_pre`` of layer k + 1 counts there. The metric is what
the model would say where that was measured, and the segment is ``ending``: words that both texts have, so that what is
patched is what the model made of the difference and not the words that differ.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from affectlens.circuits.agreeing.marks import LEVEL, NO, NOT_MEASURED, UNDECIDED, Mark, across, blank, decided
from affectlens.errors import PatchError
from affectlens.patching.effects import MATCHED, NOTHING, beside, lay_out
from affectlens.patching.results import PatchSweep
from affectlens.patching.words import CONTROLS
from affectlens.types import Json

SEGMENTS = ("ending", "last", "shared", "all", "changed")  # the first that was patched is taken
STREAMS = {"resid_post": 0, "resid_pre": -1}  # and how far the row lies from the layer
SAID = "said_category"


_FACTS = ("layer", "emotion", "value", "low", "high", "n", "control", "p", "own", "verdict", "attainable", "why")


def place(sweep: PatchSweep, metric: str | None, segment: str | None) -> Json:
    """Which of a sweep's cells are taken: ``metric, kind, segment``.

    Args:
        sweep: what was patched.
        metric: its name; what the model would say if there, else the first.
        segment: where it was patched; ``ending`` if there, else the first of those left.

    Raises:
        PatchError: no such metric or segment, or the residual stream was not patched.
    """
    whole = sweep.table[(sweep.table["position"] < 0) & (sweep.table["index"] < 0)]
    kinds = [kind for kind in STREAMS if kind in set(whole["kind"])]
    if not kinds:
        raise PatchError("This sweep patched no whole residual stream: patch resid_pre or resid_post, at a segment.")
    there = whole.loc[whole["kind"] == kinds[0], "segment"].unique()
    found = {
        "metric": metric or (SAID if SAID in sweep.metrics else sweep.metrics[0]), "kind": kinds[0],
        "segment": segment or next((name for name in SEGMENTS if name in there), str(there[0])),
    }  # fmt: skip
    if found["metric"] not in sweep.metrics or found["segment"] not in there:
        raise PatchError(
            f"This sweep has no {found['metric']} at {found['segment']}: its metrics are {', '.join(sweep.metrics)}, "
            f"its segments {', '.join(map(str, there))}."
        )
    return found


def causal_marks(sweep: PatchSweep, worth: float, at: Json, source: str) -> list[Mark]:
    """A mark for each emotion and layer that was patched.

    Args:
        sweep: what was patched, with its controls.
        worth: the smallest difference worth having, a share of the gap.
        at: by :func:`place`.
        source: the run folder, or "in memory".
    """
    table = sweep.table
    rows = table[(table["metric"] == at["metric"]) & (table["kind"] == at["kind"]) & (table["position"] < 0)
                 & (table["segment"] == at["segment"]) & (table["index"] < 0)]  # fmt: skip
    found = [one for emotion in rows["emotion"].dropna().unique() for one in _cells(rows, str(emotion), sweep.meta)]
    every = pd.DataFrame(found).reindex(columns=list(_FACTS))
    every["p_adjusted"] = across(every["p"], every["emotion"])
    every["undone"] = (across(every["own"], every["emotion"]) <= LEVEL) & (every["low"] <= 0)
    return [_mark({str(name): value for name, value in row.items()}, worth, at, source)
            for row in every.to_dict("records")]  # fmt: skip


def _cells(rows: pd.DataFrame, emotion: str, meta: Json) -> Iterator[Json]:
    """Each layer's least difference of one emotion's pairs."""
    mine, direction, seed = rows[rows["emotion"] == emotion], meta["direction"], meta["seed"]
    layers = sorted(int(layer) + STREAMS[str(mine["kind"].iloc[0])] for layer in mine["layer"].unique())
    try:
        less = beside(mine, direction, seed=seed)
        grid = lay_out(mine, str(mine["metric"].iloc[0]), direction)
    except PatchError as error:
        yield from ({"layer": layer, "emotion": emotion, "p": np.nan, "why": str(error), "verdict": NOT_MEASURED}
                    for layer in layers if layer >= 0)  # fmt: skip
        return
    short = np.abs(grid.change[MATCHED] - grid.gap[:, None]) > 1e-3 * np.abs(grid.gap)[:, None]
    complete = {
        int(at): bool(whole)
        for at, whole in zip(grid.cells["layer"], np.logical_not(short.any(0)).tolist(), strict=True)
    }
    nulls = less[less["null"]]
    for layer in complete:
        row = layer + STREAMS[str(mine["kind"].iloc[0])]
        if row >= 0:
            yield {"layer": row, "emotion": emotion} | _least(nulls[nulls["layer"] == layer], complete[layer])


def _least(part: pd.DataFrame, complete: bool) -> Json:
    """The difference that decides a cell, and what can't be decided there."""
    least = part.sort_values("low").to_dict("records")[0]
    effect = part[part["control"] == NOTHING].to_dict("records")[0]
    out: Json = {name: least[name] for name in ("value", "low", "high", "n", "control")}
    own = float(effect["p_adjusted"]) if effect["low"] > 0 else 1.0
    out |= {"p": float(part["p_adjusted"].max()), "own": own, "verdict": "",
            "attainable": float(part["attainable"].max()),
            "why": f"effect {effect['value']:.2f} [{effect['low']:.2f}, {effect['high']:.2f}] of the gap"}  # fmt: skip
    if complete:
        return out | {"p": np.nan, "own": np.nan, "verdict": NOT_MEASURED,
                      "why": "a patch here carries the whole difference: it could not but restore it"}  # fmt: skip
    if effect["value"] == effect["low"] == effect["high"] == 0:
        return out | {
            "p": np.nan,
            "own": np.nan,
            "verdict": NOT_MEASURED,
            "why": "nothing that the metric reads comes after it",
        }
    if not part["normalised"].all():
        return out | {"p": np.nan, "verdict": UNDECIDED, "own": np.nan,
                      "why": "the metric does not surely tell these texts from their partners"}  # fmt: skip
    if len(part) < 2:
        return out | {"verdict": NO if out["high"] <= 0 else UNDECIDED, "why": "no null control was run"}
    return out


def _mark(row: Json, worth: float, at: Json, source: str) -> Mark:
    layer, emotion = int(row["layer"]), str(row["emotion"])
    about = f"{at['metric']} at {at['segment']}, {at['kind']}"
    if row["verdict"] == NOT_MEASURED:
        return blank(layer, emotion, "causal", f"{about}: {row['why']}", source)
    low, high, p = (float(row[name]) for name in ("low", "high", "p_adjusted"))
    verdict = row["verdict"] or decided(low, high, p, worth)
    why = f"{about}: {row['why']}"
    if verdict == UNDECIDED and row["attainable"] > LEVEL:
        why += f"; {int(row['n'])} groups can't give a p below {row['attainable']:.2g}"
    control = CONTROLS.get(str(row["control"]), str(row["control"]))
    return Mark(layer, emotion, "causal", verdict, float(row["value"]), low, high, control, p, int(row["n"]),
                bool(row["undone"]), source, why)  # fmt: skip
