"""What editing features did, in sentences."""

from typing import TYPE_CHECKING

import pandas as pd

from affectlens.patching.features.editing import TOGETHER

if TYPE_CHECKING:
    from affectlens.patching.features.outcome import FeatureEffects


def summary(found: "FeatureEffects") -> list[str]:
    """The design, then each metric's outcome, then what the controls can tell.

    Args:
        found: the outcome.
    """
    meta, m = found.meta, len(found.features)
    done = "set to zero" if meta["kind"] == "ablate" else f"set to {meta['to']}"
    rows = found.effects()
    least = float(rows["attainable"].min())
    ratio = (found.placebos["placebo_density"] / found.placebos["density"]).median()
    out = [
        f"{m} features of {meta['sae']} ({meta['sites'][0]}) were {done} in both texts of {meta['n_pairs']} pairs, the "
        f"reconstruction error kept; each stands beside {meta['placebos']} other features of its frequency (median "
        f"ratio {ratio:.2f}) and size."
    ]
    if silent := meta.get("silent"):
        out.append(f"Features {', '.join(map(str, silent))} are silent in these pairs and left out: take more pairs.")
    out += [line for name in found.metrics for line in _metric(found, rows[rows["metric"] == name])]
    enough = least * m <= 0.05
    out.append(
        f"With {meta['placebos']} placebos p can't be below {least:.3f}; after correction for {m} features a single "
        f"one reaches {min(1.0, least * m):.3f}"
        + ("." if enough else f", so one alone can't pass 0.05: that takes {20 * m - 1} placebos.")
    )
    return out


def _metric(found: "FeatureEffects", rows: pd.DataFrame) -> list[str]:
    name, unit = str(rows["metric"].iloc[0]), found.unit(str(rows["metric"].iloc[0]))
    single, out = rows[rows["feature"] != TOGETHER], []
    most = single.iloc[int(single["value"].abs().to_numpy().argmax())]
    out.append(
        f"{name}: {int(single['specific'].sum())} of {len(single)} features change it in the emotional texts by more "
        f"than their placebos do (adjusted p at most 0.05). The largest change, of feature {int(most['feature'])}, is "
        f"{_said(most)} {unit}; {_beside(most)}."
    )
    together = rows[rows["feature"] == TOGETHER]
    if len(together):
        one = together.iloc[0]
        out.append(f"{name}: all together change it by {_said(one)} {unit}; {_beside(one)}.")
    return out


def _said(row: pd.Series) -> str:
    return f"{row['value']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"


def _beside(row: pd.Series) -> str:
    text = (
        f"placebos reach from {row['placebo_low']:.3g} to {row['placebo_high']:.3g} (p = {row['p']:.3f}, adjusted "
        f"{row['p_adjusted']:.3f})"
    )
    if pd.notna(row["p_direction"]):
        text += f", random directions of the same norm from {row['direction_low']:.3g} to {row['direction_high']:.3g}"
    return text + f"; the smallest change that could have been found is {row['detectable']:.2g}"
