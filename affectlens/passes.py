"""One batch of texts through the model's body, each site pooled in its hook; split in two where memory runs out."""

import numpy as np
import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.errors import CaptureError
from affectlens.hooks import watch
from affectlens.layouts import Layout
from affectlens.manifests import Values, is_ragged
from affectlens.model import LensModel
from affectlens.positions import Position
from affectlens.sites import Site


@torch.inference_mode()
def run_batch(
    model: LensModel,
    batch: list[Layout],
    sites: tuple[Site, ...],
    rules: tuple[Position, ...],
    layers: dict[str, list[int]],
) -> Values:
    """One forward pass.

    Returns:
        ``[what][position]``: rows of the batch, ``[item, layer, ...]``, or of its tokens where nothing is pooled.

    Raises:
        CaptureError: a value that is not finite.
    """
    width = max(len(item) for item in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    real = torch.zeros(len(batch), width, dtype=torch.bool)
    for row, item in enumerate(batch):
        ids[row, : len(item)] = torch.tensor(item.ids)
        real[row, : len(item)] = True
    pool = pooling(batch, [rule for rule in rules if not rule.ragged], width).to(model.device)
    sink = _Sink(rules, layers, pool, real.to(model.device))
    with model.lock, watch(model, sites, sink.see, stop=True):
        model.body(input_ids=ids.to(model.device), use_cache=False)
    for what, group in sink.values.items():
        if not all(np.isfinite(value).all() for value in group.values()):
            raise CaptureError(
                f"{what} is not finite for an item between {batch[0].name!r} and {batch[-1].name!r} in "
                f"{str(model.dtype).removeprefix('torch.')}: load the model in float32 or bfloat16."
            )
    return sink.values


def pooling(batch: list[Layout], rules: list[Position], width: int) -> Float[Tensor, "item position pos"]:
    """The pooling weights of a batch padded on the right to ``width``."""
    pool = np.zeros((len(batch), len(rules), width), dtype=np.float32)
    for row, item in enumerate(batch):
        for at, rule in enumerate(rules):
            pool[row, at, : len(item)] = rule.weights(item)
    return torch.from_numpy(pool)


class _Sink:
    """What the hooks report, pooled and put into place."""

    def __init__(
        self, rules: tuple[Position, ...], layers: dict[str, list[int]], pool: Tensor, real: Bool[Tensor, "item pos"]
    ) -> None:
        self.rules, self.layers, self.pool, self.real = rules, layers, pool, real
        self.values: Values = {}

    def see(self, site: Site, value: Tensor) -> None:
        """One site of the batch, as :func:`affectlens.hooks.watch` reports it."""
        pool, real = self.pool.to(value.device), self.real.to(value.device)
        pooled = iter(_over_keys(site, value, pool, real) if site.kind == "pattern" else _over_tokens(value, pool))
        for rule in self.rules:
            self._put(site, str(rule), value[real].float() if rule.ragged else next(pooled))

    def _put(self, site: Site, position: str, rows: Tensor) -> None:
        layers = self.layers[site.what]
        group = self.values.setdefault(site.what, {})
        if position not in group:
            group[position] = np.empty((rows.shape[0], len(layers), *rows.shape[1:]), dtype=np.float32)
        group[position][:, layers.index(site.layer)] = rows.cpu().numpy()


def _over_tokens(value: Tensor, pool: Tensor) -> list[Tensor]:
    """Of each position ``[item, ...]`` from ``[item, pos, ...]``."""
    if not pool.shape[1]:
        return []
    rows = torch.bmm(pool, value.reshape(*value.shape[:2], -1).float())
    return [row.reshape(value.shape[0], *value.shape[2:]) for row in rows.unbind(1)]


def _over_keys(site: Site, value: Tensor, pool: Tensor, real: Tensor) -> list[Tensor]:
    """Of each position ``[key token, head]``, or ``[key token]`` of one head, from ``[item, head, query, key]``."""
    heads = value.float() if site.index is None else value.float()[:, None]
    keys = einsum(pool, heads, "item position q, item head q k -> position item k head")
    return [one[real] if site.index is None else one[real][:, 0] for one in keys]


def run_splitting(
    model: LensModel,
    batch: list[Layout],
    sites: tuple[Site, ...],
    rules: tuple[Position, ...],
    layers: dict[str, list[int]],
    parts: int,
) -> tuple[Values, int]:
    """The batch in ``parts`` passes, in twice as many where memory runs out; the values, and how many it took.

    Raises:
        CaptureError: if one text alone is too large.
    """
    parts = min(parts, len(batch))
    while True:
        try:
            pieces = [[batch[i] for i in rows] for rows in np.array_split(np.arange(len(batch)), parts)]
            done = [run_batch(model, piece, sites, rules, layers) for piece in pieces]
            return _joined(done), parts
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if parts == len(batch):
                longest = max(batch, key=len)
                raise CaptureError(
                    f"Item {longest.name!r} with {len(longest)} tokens does not fit into memory, even alone: "
                    "shorten it, or use a smaller dtype or a larger device."
                ) from error
        parts = min(2 * parts, len(batch))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the host."""
    said = str(error).lower()
    phrases = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(phrase in said for phrase in phrases)


def _joined(done: list[Values]) -> Values:
    if len(done) == 1:
        return done[0]
    return {what: {p: np.concatenate([v[what][p] for v in done]) for p in done[0][what]} for what in done[0]}


def shapes(
    model: LensModel, sites: tuple[Site, ...], rules: tuple[Position, ...], n_items: int, n_tokens: int
) -> tuple[dict[str, list[int]], dict[str, dict[str, list[int]]]]:
    """Of each site name the layers, and of each of its positions the shape, ``[item or token, layer, ...]``.

    Raises:
        CaptureError: a pattern token by token, which would be a square for each text.
    """
    layers: dict[str, list[int]] = {}
    for site in sites:
        layers[site.what] = sorted({*layers.get(site.what, []), site.layer})
    out: dict[str, dict[str, list[int]]] = {}
    for what, at in layers.items():
        site = next(s for s in sites if s.what == what)
        if site.kind == "pattern" and any(rule.ragged for rule in rules):
            raise CaptureError(f"{site} is pooled over queries: name a position other than all, or use record().")
        part = list(model.sites.shape(site))
        rows = {str(rule): n_tokens if is_ragged(what, str(rule)) else n_items for rule in rules}
        out[what] = {position: [n, len(at), *part] for position, n in rows.items()}
    return layers, out
