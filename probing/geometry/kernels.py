"""Linear CKA: how alike the geometry of the same items is, at two layers of a model or in two models.

Centred kernel alignment is the cosine between two centred Gram matrices of the items (Kornblith, Norouzi, Lee and
Hinton 2019, ICML). As first given it is biased: with fewer items than dimensions it nears 1 for noise (Nguyen, Raghu
and Kornblith 2021, ICLR; Murphy, Zylberberg and Fyshe 2024). The default here is debiased: the inner products are
Song et al.'s (2012, JMLR 13) unbiased HSIC1, which leaves each item's product with itself out and is 0 on average for
independent rows. It serves the interval too, as it does not rise when groups are left out. Both are reported.

HSIC1 takes rows as independent, and twins of one scene are not. So intervals leave out whole groups, and the null
moves whole groups onto groups of the same make-up: what any two models share because twins look alike is in the
null's mean.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from affectlens.errors import CaptureError
from affectlens.probing.geometry.nulls import JACKKNIFE, compare, jackknife, orders_within
from affectlens.probing.geometry.scenes import means
from affectlens.store import Activations

LEAST = 5  # rows
JACKKNIFE_BLOCKS = 30
PERMUTATIONS = 199
Rows = Literal["items", "scenes"]


def cka(
    a: Activations,
    b: Activations | None = None,
    *,
    rows: Rows = "items",
    position: str | None = None,
    site: str | None = None,
    seed: int = 0,
    draws: int = PERMUTATIONS,
) -> pd.DataFrame:
    """Linear CKA of every layer of ``a`` with every layer of ``b``, or of ``a`` itself.

    Args:
        a: activations of some items.
        b: of the same items, of another model or at another time; ``a`` by default.
        rows: ``items``, where topic is most of what is alike; or ``scenes``, emotional less neutral, where it cancels.
        position: the first captured by default.
        site: a name without its layer; the first captured by default.
        seed: of blocks and shuffles.
        draws: of the permutation null.

    Returns:
        A row a pair of layers: ``a, b, value, low, high, n`` (groups), ``biased, null`` (its mean), ``p, p_adjusted``.

    Raises:
        CaptureError: the items are not the same, or too few.
    """
    left, right = _table(a, rows, position, site), _table(b or a, rows, position, site)
    if left.ids != right.ids:
        raise CaptureError("CKA compares the same items: capture one battery, in one order, with both models.")
    if len(set(left.groups)) < LEAST:
        raise CaptureError(f"CKA needs {LEAST} groups of items, and there are {len(set(left.groups))}.")
    first, second = _grams(left.values), _grams(right.values)
    shape = (len(first), len(second))
    value, biased = debiased(first, second), plain(first, second)
    codes = pd.factorize(np.array(left.groups))[0]
    low, high = jackknife(value, _without_groups(first, second, codes, seed))
    ours, theirs = _hollow(first), _hollow(second)
    moved = _moves(codes, left.roles, seed, draws)
    drawn = np.stack([_aligned(ours, theirs[:, order[:, None], order[None]]).ravel() for order in moved])
    null = compare(value.ravel(), drawn)
    x, y = np.meshgrid(left.layers, right.layers, indexing="ij")
    return pd.DataFrame({
        "rows": rows, "a": x.ravel(), "b": y.ravel(), "value": value.ravel(),
        "low": np.maximum(low, -1).ravel(), "high": np.minimum(high, 1).ravel(), "n": int(codes.max()) + 1,
        "unit": "group", "biased": biased.ravel(), "null": null.mean.reshape(shape).ravel(), "p": null.p,
        "p_adjusted": null.p_adjusted, "attainable": null.attainable, "method": JACKKNIFE,
    })  # fmt: skip


def debiased(
    first: Float[np.ndarray, "layer row row"], second: Float[np.ndarray, "other row row"]
) -> Float[np.ndarray, "layer other"]:
    """CKA of Gram matrices with HSIC1 in place of HSIC; 0 on average for independent rows, so it can be negative."""
    return _aligned(_hollow(first), _hollow(second))


def plain(
    first: Float[np.ndarray, "layer row row"], second: Float[np.ndarray, "other row row"]
) -> Float[np.ndarray, "layer other"]:
    """CKA of Gram matrices as Kornblith et al. gave it."""
    return _aligned(_centred(first), _centred(second))


@dataclass(frozen=True)
class _Table:
    values: np.ndarray  # row layer d
    layers: tuple[int, ...]
    ids: list[str]
    groups: list[str]
    roles: list[str]


def _table(acts: Activations, rows: Rows, position: str | None, site: str | None) -> _Table:
    if rows == "scenes":
        found = means(acts, position=position, site=site)
        names = list(found.table["group"].astype(str))
        return _Table(found.values.swapaxes(0, 1), found.layers, names, names, ["scene"] * len(names))
    values = acts.at(position, site)
    if values.ndim != 3:
        raise CaptureError("CKA needs one vector an item and layer: take a site such as resid_post.")
    items, ids = acts.items, list(acts.items["id"].astype(str))
    groups = list(items["group"].astype(str)) if "group" in items else ids
    made = [items[c].fillna("").astype(str) for c in ("split", "role", "cell") if c in items]
    roles = ["/".join(parts) for parts in zip(*made, strict=True)] if made else ["item"] * len(ids)
    return _Table(values, acts.layers[str(site or acts.site)], ids, groups, roles)


def _grams(values: np.ndarray) -> np.ndarray:
    wide = values.swapaxes(0, 1).astype(np.float64)
    wide = wide - wide.mean(1, keepdims=True)
    return wide @ wide.swapaxes(-1, -2)


def _centred(gram: np.ndarray) -> np.ndarray:
    rows = gram - gram.mean(-1, keepdims=True)
    return rows - rows.mean(-2, keepdims=True)


def _hollow(gram: np.ndarray) -> np.ndarray:
    """U-centred: no diagonal, and rows that sum to 0. Its inner products are n (n - 3) times HSIC1."""
    n = gram.shape[-1]
    apart = ~np.eye(n, dtype=bool)
    bare = gram * apart
    sums = bare.sum(-1)
    out = bare - (sums[..., :, None] + sums[..., None, :]) / (n - 2)
    return (out + sums.sum(-1)[..., None, None] / ((n - 1) * (n - 2))) * apart


def _aligned(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    x, y = (g.reshape(len(g), -1) for g in (first, second))
    size = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(y, axis=1)
    return np.divide(x @ y.T, size, out=np.zeros(size.shape), where=size > 0)


def _without_groups(first: np.ndarray, second: np.ndarray, codes: np.ndarray, seed: int) -> np.ndarray:
    n = int(codes.max()) + 1
    block = np.random.default_rng(seed).permutation(n) % min(JACKKNIFE_BLOCKS, n)
    out = []
    for k in range(int(block.max()) + 1):
        kept = np.flatnonzero(block[codes] != k)
        out.append(debiased(first[:, kept[:, None], kept[None]], second[:, kept[:, None], kept[None]]))
    return np.stack(out)


def _moves(codes: Int[np.ndarray, " row"], roles: list[str], seed: int, draws: int) -> Int[np.ndarray, "draw row"]:
    """Orders of the items that put whole groups in the place of groups of the same make-up, role on role."""
    members = [sorted(np.flatnonzero(codes == k), key=lambda i: roles[i]) for k in range(int(codes.max()) + 1)]
    kinds = pd.factorize(np.array(["|".join(roles[i] for i in group) for group in members]))[0]
    out = np.tile(np.arange(len(codes)), (draws, 1))
    for row, order in zip(out, orders_within(kinds, seed=seed, draws=draws), strict=True):
        for group, taken in zip(members, order, strict=True):
            row[group] = members[taken]
    return out
