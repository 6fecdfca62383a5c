"""How large a site's values are over tokens: their median norm, in which doses are counted, and how far they point.

The first token of a sequence is left out, as are tokens that the tokenizer or the template adds: many models give the
first a norm hundreds of times the others' ("massive activations", Sun et al., 2024, arXiv 2402.17762). The median, not
the mean, as single tokens further on can be as large.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.capturing import budget, plan_batches
from affectlens.errors import SteerError
from affectlens.hooks import watch
from affectlens.layouts import Layout, lay_out
from affectlens.model import LensModel
from affectlens.progress import tracked
from affectlens.sites import Site
from affectlens.texts import Texts, as_table

PERCENTILES = np.arange(101)


@dataclass(frozen=True, eq=False)
class _Seen:
    """What one site showed, token by token."""

    aims: Float[np.ndarray, "direction d"] | None
    lengths: list[np.ndarray] = field(default_factory=list)
    projections: list[np.ndarray] = field(default_factory=list)  # [token, direction] each

    def take(self, tokens: Float[Tensor, "token d"]) -> None:
        self.lengths.append(tokens.norm(dim=1).cpu().numpy())
        if self.aims is not None:
            aims = torch.as_tensor(self.aims, dtype=torch.float32, device=tokens.device)
            self.projections.append((tokens @ aims.T).cpu().numpy())


def median_norms(
    model: LensModel,
    sites: str | Site | Iterable[str | Site],
    texts: Texts,
    *,
    chat: bool = False,
    progress: bool | None = None,
) -> dict[Site, float]:
    """The median norm of each site's values over the texts' own tokens, without the first of each sequence.

    A site's heads are laid end to end, so ``L12.z`` has one norm; ``L12.H3`` is one head's, ``L12.N17`` one neuron's
    size. Only the norms leave the forward pass, one number a token and site.

    Args:
        model: from :func:`affectlens.load_model`.
        sites: ``resid_post`` (every layer), ``L12.resid_post``, ``L12.H3``, a :class:`~affectlens.Site`, or several.
        texts: a battery, a table with a column ``text``, plain texts, or conversations as lists of messages.
        chat: make each text the user's message of a conversation, in the model's own template.
        progress: show a bar; by default where a person is looking.

    Returns:
        By site, in the units of the model's activations.

    Raises:
        SteerError: texts without a token that counts, a site of attention weights, or one that is always zero.
    """
    seen = _pass(model, dict.fromkeys(model.sites.expand(sites)), texts, chat, progress)
    return {site: _median(site, one) for site, one in seen.items()}


def norms_and_levels(
    model: LensModel,
    aims: Mapping[Site, Float[np.ndarray, "direction d"]],
    texts: Texts,
    *,
    progress: bool | None = None,
) -> dict[Site, tuple[float, Float[np.ndarray, "direction percentile"]]]:
    """Each site's median norm, and the percentiles of its tokens' projections on directions, in one pass.

    The tokens are those of :func:`median_norms`: the texts' own, without the first of each sequence.

    Args:
        model: from :func:`affectlens.load_model`.
        aims: unit vectors by site, heads laid end to end.
        texts: as for :func:`median_norms`.
        progress: show a bar; by default where a person is looking.

    Returns:
        By site the norm, and a row a direction with percentiles 0, 1, ... 100, in the units of the model's activations.

    Raises:
        SteerError: as for :func:`median_norms`.
    """
    seen = _pass(model, dict(aims), texts, False, progress)
    return {
        site: (_median(site, one), np.percentile(np.concatenate(one.projections), PERCENTILES, axis=0).T)
        for site, one in seen.items()
    }


def _median(site: Site, seen: _Seen) -> float:
    norm = float(np.median(np.concatenate(seen.lengths)))
    if not np.isfinite(norm) or norm <= 0:
        raise SteerError(f"The median norm at {site} is {norm}: a dose can't be a fraction of it.")
    return norm


@torch.inference_mode()
def _pass(
    model: LensModel, aims: Mapping[Site, np.ndarray | None], texts: Texts, chat: bool, progress: bool | None
) -> dict[Site, _Seen]:
    """What every site shows over the texts."""
    if patterns := [site for site in aims if site.kind == "pattern"]:
        raise SteerError(f"{patterns[0]} are attention weights, which have no norm to count doses in: name another.")
    table = as_table(texts)
    layouts = lay_out(model, table.frame(), chat=chat)
    if not sum(int(layout.content[1:].sum()) for layout in layouts):
        raise SteerError(f"{table.name} has no token beyond the first of a sequence: give longer texts.")
    seen = {site: _Seen(vectors) for site, vectors in aims.items()}
    batches = plan_batches([len(layout) for layout in layouts], budget(model, None))
    for rows in tracked(batches, "measuring norms", show=progress):
        _measure(model, [layouts[row] for row in rows], seen)
    return seen


def _measure(model: LensModel, batch: list[Layout], seen: dict[Site, _Seen]) -> None:
    """One pass over texts padded on the right, where causal attention makes the padding invisible."""
    ids = torch.zeros(len(batch), max(len(item) for item in batch), dtype=torch.long)
    counts = torch.zeros(ids.shape, dtype=torch.bool)
    for row, item in enumerate(batch):
        ids[row, : len(item)] = torch.tensor(item.ids)
        counts[row, : len(item)] = torch.from_numpy(item.content)
    counts[:, 0] = False

    def see(site: Site, value: Tensor) -> None:
        tokens = value[counts.to(value.device)].float()
        seen[site].take(tokens.reshape(len(tokens), -1))

    with model.lock, watch(model, list(seen), see, stop=True):
        model.body(input_ids=ids.to(model.device), use_cache=False)
