"""Where a feature fires: the texts at which it peaks, cut into pieces with the feature's activation on each."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from affectlens.errors import CaptureError
from affectlens.layouts import lay_out
from affectlens.probing.tokens.pieces import cut

if TYPE_CHECKING:
    from affectlens.model import LensModel
    from affectlens.probing.features.codes import Codes


@dataclass(frozen=True)
class Example:
    """A text and one feature's activations on it; joined, the pieces are the text."""

    id: str
    role: str  # empty if the table has none
    emotion: str
    peak: float  # in the feature's own units
    pieces: tuple[str, ...]
    activations: tuple[float, ...]  # of each piece the highest of its tokens; 0 where no token is active


def examples(codes: "Codes", feature: int, *, model: "LensModel", n: int = 8, role: str | None = None) -> list[Example]:
    """The texts at which a feature peaks highest, one a group at most, highest first.

    Args:
        codes: of a battery.
        feature: its number.
        model: whose tokens these are.
        n: how many texts at most; texts at which the feature is silent are no examples.
        role: of the items to choose from, for example ``decoy``; all of them by default.

    Raises:
        CaptureError: the feature is not there or never active, no item has the role, or the tokens are another model's.
    """
    if not 0 <= feature < codes.n_features:
        raise CaptureError(f"There is no feature {feature}: {codes.sae} has {codes.n_features}, counted from 0.")
    peaks = _peaks(codes, feature)
    if not peaks.any():
        raise CaptureError(f"Feature {feature} of {codes.sae} is never active on {codes.battery}: it has no examples.")
    rows = np.arange(len(peaks))
    if role is not None:
        roles = codes.items["role"].to_numpy() if "role" in codes.items else np.array([""] * len(peaks))
        rows = rows[roles == role]
        if not len(rows):
            raise CaptureError(f"No item of {codes.battery} has the role {role!r}.")
    return _shown(codes, feature, model, _best(codes, peaks, rows, n), peaks)


def examples_by_role(codes: "Codes", feature: int, *, model: "LensModel", n: int = 2) -> dict[str, list[Example]]:
    """For each role of the battery the texts at which a feature peaks highest; an empty list where it is silent.

    Args:
        codes: of a battery whose items have roles.
        feature: its number.
        model: whose tokens these are.
        n: how many texts a role at most.

    Raises:
        CaptureError: the feature is not there or never active, or the tokens are another model's.
    """
    roles = list(codes.items["role"].dropna().unique()) if "role" in codes.items else list[str]()
    return {str(role): examples(codes, feature, model=model, n=n, role=str(role)) for role in roles}


def _peaks(codes: "Codes", feature: int) -> np.ndarray:
    column = codes.matrix[:, [feature]].toarray()[:, 0]
    return np.maximum.reduceat(column, codes.offsets[:-1])


def _best(codes: "Codes", peaks: np.ndarray, rows: Int[np.ndarray, " some"], n: int) -> list[int]:
    """The items with the highest peaks, the first of each group; ties in the table's order."""
    groups = codes.items["group"] if "group" in codes.items else codes.items["id"]
    best: dict[object, int] = {}
    for row in rows[np.argsort(-peaks[rows], kind="stable")]:
        if peaks[row] <= 0 or len(best) == n:
            break
        best.setdefault(groups.iloc[row], int(row))
    return list(best.values())


def _shown(codes: "Codes", feature: int, model: "LensModel", rows: list[int], peaks: np.ndarray) -> list[Example]:
    if not rows:
        return []
    part = codes.items.iloc[rows]
    out = []
    for row, layout in zip(rows, lay_out(model, part), strict=True):
        if list(layout.ids) != codes.ids[codes.offsets[row] : codes.offsets[row + 1]].tolist():
            raise CaptureError(f"{model.name} cuts {layout.name} into other tokens than {codes.model} did.")
        values = codes.row(row, feature)
        pieces = cut(layout.text, layout.spans)
        item = codes.items.iloc[row]
        role, emotion = (item.get(name) for name in ("role", "emotion"))
        out.append(
            Example(
                layout.name,
                role if isinstance(role, str) else "",
                emotion if isinstance(emotion, str) else "",
                float(peaks[row]),
                tuple(layout.text[p.start : p.end] for p in pieces),
                tuple(max((float(values[t]) for t in p.tokens), default=0.0) for p in pieces),
            )
        )
    return out
