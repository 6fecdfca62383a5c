"""How good a dictionary is: what it explains, what its reconstruction costs the model, and how many features live.

- *Explained variance*: 1 less the squared error over the squared distance from the mean, over tokens.
- *Loss recovered* (Bricken et al. 2023): how much of the next-token loss that is lost when the site is replaced comes
  back with the reconstruction in its place. Against the mean of the site, and, as the literature has it, against zero,
  which breaks the model far more and so flatters.
- *L0*: features active a token. *Dead*: features that were active at no token of the text.

The first token of each text, an attention sink, is left as it is and not counted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from affectlens.cursors import Cursor
from affectlens.hooks import edit
from affectlens.layouts import lay_out
from affectlens.model import LensModel
from affectlens.probing.features.harvesting import values
from affectlens.probing.sae import Sae
from affectlens.progress import tracked
from affectlens.stats import Estimate, Statistic, Weights, estimate
from affectlens.store import Activations
from affectlens.texts import Texts, as_table

Pieces = Sequence[Sequence[int]]
Change = Callable[[Tensor], Tensor]
MEASURES = ("explained_variance", "loss_recovered", "loss_recovered_zero", "loss_added", "l0", "dead")
BUDGET = 512  # tokens a forward pass with logits


@dataclass(frozen=True)
class _Sums:
    """Of each text, sums over its tokens."""

    count: np.ndarray
    error: np.ndarray
    spread: np.ndarray
    active: np.ndarray
    fired: np.ndarray  # [feature], over all texts


def evaluate_saes(
    model: LensModel, saes: Mapping[str, Sae], pieces: Pieces, *, losses: int = 200, progress: bool | None = None
) -> pd.DataFrame:
    """Measure dictionaries of one site on the same texts.

    Args:
        model: from :func:`affectlens.load_model`.
        saes: by the name that the table gives them.
        pieces: token ids of each text; see :func:`pieces_of`.
        losses: on how many of the texts, from the first, the loss is measured; 0 leaves the loss out.
        progress: show bars.

    Returns:
        A row a dictionary and measure: ``sae, measure, value, low, high, n, unit, tokens``, the intervals by
        resampling texts. ``loss_added`` is in nats a token.

    Raises:
        SiteError: a dictionary that does not fit the model.
    """
    rows = []
    for site in dict.fromkeys(sae.site for sae in saes.values()):
        group = {name: sae for name, sae in saes.items() if sae.site == site}
        for sae in group.values():
            sae.check_fits(model)
            sae.inner.to(model.device)
        x = values(model, site, pieces)
        lengths = [len(piece) - 1 for piece in pieces]
        mean = x.mean(0)
        loss = _losses(model, str(site), pieces[:losses], mean, group, progress) if losses else {}
        for name, sae in group.items():
            rows += _measured(name, _sums(sae, x, mean, lengths), loss, lengths)
    return pd.DataFrame(rows)


def evaluate_captured(saes: Mapping[str, Sae], acts: Activations) -> pd.DataFrame:
    """The same without losses, from activations that were captured at every token (``positions="all"``)."""
    firsts = np.zeros(len(acts.ids), dtype=bool)
    firsts[acts.offsets[:-1]] = True
    lengths = (np.diff(acts.offsets) - 1).tolist()
    rows: list[dict[str, object]] = []
    for name, sae in saes.items():
        x = torch.from_numpy(np.asarray(acts[sae.site, "all"]).reshape(len(firsts), -1)[~firsts])
        rows += _measured(name, _sums(sae, x, x.mean(0), lengths), {}, lengths)
    return pd.DataFrame(rows)


def pieces_of(model: LensModel, texts: Texts) -> list[list[int]]:
    """The token ids of every text of a battery or a list."""
    return [layout.ids for layout in lay_out(model, as_table(texts).frame())]


def _losses(
    model: LensModel, site: str, pieces: Pieces, mean: Tensor, saes: Mapping[str, Sae], progress: bool | None
) -> dict[str, np.ndarray]:
    """Each text's loss as it is, with the site's mean, with zeros, and with each dictionary's reconstruction."""
    changes: dict[str, Change | None] = {
        "clean": None, "mean": lambda v: mean.to(v).view(v.shape[2:]).expand_as(v), "zero": torch.zeros_like,
        **{name: _rebuilt(sae) for name, sae in saes.items()},
    }  # fmt: skip
    return {name: _loss(model, site, pieces, change, f"loss with {name}", progress) for name, change in changes.items()}


def _rebuilt(sae: Sae) -> Change:
    return lambda v: sae.encode_and_rebuild(v.flatten(2))[1].view(v.shape).to(v.dtype)


def _sums(sae: Sae, x: Tensor, mean: Tensor, lengths: Sequence[int]) -> _Sums:
    error, active, fired = [], [], torch.zeros(sae.n_features, dtype=torch.bool)
    for at in range(0, len(x), 4096):
        part = x[at : at + 4096]
        codes, rebuilt = sae.encode_and_rebuild(part)
        error.append((part - rebuilt).square().sum(-1))
        active.append((codes > 0).sum(-1))
        fired |= (codes > 0).any(0).cpu()
    text = np.repeat(np.arange(len(lengths)), lengths)

    def by_text(parts: Tensor) -> np.ndarray:
        return np.bincount(text, parts.double().cpu().numpy(), len(lengths))

    spread = by_text((x - mean).square().sum(-1))
    return _Sums(np.array(lengths, float), by_text(torch.cat(error)), spread, by_text(torch.cat(active)), fired.numpy())


@torch.inference_mode()
def _loss(
    model: LensModel, site: str, pieces: Pieces, change: Change | None, what: str, progress: bool | None
) -> np.ndarray:  # fmt: skip
    """Each text's summed next-token loss, with the site's value replaced at every token but the first."""

    def act(value: Tensor, _cursor: Cursor) -> Tensor:
        assert change is not None
        return torch.cat((value[:, :1], change(value)[:, 1:]), dim=1)

    out = np.zeros(len(pieces))
    order = sorted(range(len(pieces)), key=lambda row: -len(pieces[row]))
    for rows in tracked(_grouped(order, pieces), what, show=progress):
        ids = torch.zeros(len(rows), len(pieces[rows[0]]), dtype=torch.long)
        for at, row in enumerate(rows):
            ids[at, : len(pieces[row])] = torch.tensor(pieces[row])
        with model.lock:
            if change is None:
                logits = model.hf(ids.to(model.device), use_cache=False).logits
            else:
                with edit(model, {site: act}, idle="ignore"):
                    logits = model.hf(ids.to(model.device), use_cache=False).logits
        for at, row in enumerate(rows):
            told, length = ids[at, 1 : len(pieces[row])].to(logits.device), len(pieces[row]) - 1
            out[row] = float(torch.nn.functional.cross_entropy(logits[at, :length].float(), told, reduction="sum"))
    return out


def _grouped(order: Sequence[int], pieces: Pieces) -> list[list[int]]:
    out: list[list[int]] = []
    for row in order:
        if out and (len(out[-1]) + 1) * len(pieces[out[-1][0]]) <= BUDGET:
            out[-1].append(row)
        else:
            out.append([row])
    return out


def _ratio(top: np.ndarray, bottom: np.ndarray, weights: Weights) -> np.ndarray:
    return (weights @ top) / (weights @ bottom)


def _measured(
    name: str, sums: _Sums, loss: Mapping[str, np.ndarray], lengths: Sequence[int]
) -> list[dict[str, object]]:
    n = len(lengths)
    found: dict[str, Estimate] = {}

    def put(measure: str, statistic: Statistic, at: int = n) -> None:
        found[measure] = estimate(statistic, at, "text", bounds=None)

    put("explained_variance", lambda w: 1 - _ratio(sums.error, sums.spread, w))
    put("l0", partial(_ratio, sums.active, sums.count))
    dead = float(1 - sums.fired.mean())
    if loss:
        k = len(loss["clean"])
        tokens = sums.count[:k]
        for measure, worst in (("loss_recovered", "mean"), ("loss_recovered_zero", "zero")):
            put(measure, partial(_ratio, loss[worst] - loss[name], loss[worst] - loss["clean"]), k)
        put("loss_added", partial(_ratio, loss[name] - loss["clean"], tokens), k)
        put("loss_clean", partial(_ratio, loss["clean"], tokens), k)
    rows = [
        {"sae": name, "measure": measure, "value": e.value, "low": e.low, "high": e.high, "n": e.n, "unit": e.unit,
         "tokens": int(sums.count[: e.n].sum())}
        for measure, e in found.items()
    ]  # fmt: skip
    count = {"sae": name, "measure": "dead", "value": dead, "low": dead, "high": dead, "n": len(sums.fired),
             "unit": "feature (a count, of this text)", "tokens": int(sums.count.sum())}  # fmt: skip
    return [*rows, count]


NAMES = {
    "explained_variance": "explained variance", "loss_recovered": "loss recovered, against the mean",
    "loss_recovered_zero": "loss recovered, against zero", "loss_added": "loss added, nats a token",
    "loss_clean": "loss of the model itself, nats a token", "l0": "active features a token",
    "dead": "share of features never active",
}  # fmt: skip


def spoken(rows: Sequence[Mapping[str, object]]) -> list[list[object]]:
    """The rows of an evaluation for a table: text, dictionary, measure, value with its interval."""
    out: list[list[object]] = []
    for row in rows:
        value, low, high = (float(str(row[key])) for key in ("value", "low", "high"))
        digits = 1 if row["measure"] == "l0" else 3
        interval = (
            f" [{low:.{digits}f}, {high:.{digits}f}]" if low < high else f" (on {int(str(row['tokens'])):,} tokens)"
        )
        out.append([row.get("text", ""), row["sae"], NAMES[str(row["measure"])], f"{value:.{digits}f}{interval}"])
    return out
