"""How large a site's values are: the median over tokens of their Euclidean norm, in which doses are counted.

The first token of a sequence is left out, as are tokens that the tokenizer or the template adds: many models give the
first a norm hundreds of times the others' ("massive activations", Sun et al., 2024, arXiv 2402.17762). The median, not
the mean, as single tokens further on can be as large.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from affectlens.capturing import budget, plan_batches
from affectlens.errors import SteerError
from affectlens.hooks import watch
from affectlens.layouts import Layout, lay_out
from affectlens.model import LensModel
from affectlens.progress import tracked
from affectlens.sites import Site
from affectlens.texts import Texts, as_table


@torch.inference_mode()
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
    wanted = model.sites.expand(sites)
    if patterns := [site for site in wanted if site.kind == "pattern"]:
        raise SteerError(f"{patterns[0]} are attention weights, which have no norm to count doses in: name another.")
    table = as_table(texts)
    layouts = lay_out(model, table.frame(), chat=chat)
    if not sum(int(layout.content[1:].sum()) for layout in layouts):
        raise SteerError(f"{table.name} has no token beyond the first of a sequence: give longer texts.")
    seen: dict[Site, list[np.ndarray]] = {site: [] for site in wanted}
    batches = plan_batches([len(layout) for layout in layouts], budget(model, None))
    for rows in tracked(batches, "measuring norms", show=progress):
        _measure(model, [layouts[row] for row in rows], seen)
    found = {site: float(np.median(np.concatenate(parts))) for site, parts in seen.items()}
    for site, norm in found.items():
        if not np.isfinite(norm) or norm <= 0:
            raise SteerError(f"The median norm at {site} is {norm}: a dose can't be a fraction of it.")
    return found


def _measure(model: LensModel, batch: list[Layout], seen: dict[Site, list[np.ndarray]]) -> None:
    """One pass over texts padded on the right, where causal attention makes the padding invisible."""
    ids = torch.zeros(len(batch), max(len(item) for item in batch), dtype=torch.long)
    counts = torch.zeros(ids.shape, dtype=torch.bool)
    for row, item in enumerate(batch):
        ids[row, : len(item)] = torch.tensor(item.ids)
        counts[row, : len(item)] = torch.from_numpy(item.content)
    counts[:, 0] = False

    def see(site: Site, value: Tensor) -> None:
        tokens = value[counts.to(value.device)].float()
        seen[site].append(tokens.reshape(len(tokens), -1).norm(dim=1).cpu().numpy())

    with model.lock, watch(model, list(seen), see, stop=True):
        model.body(input_ids=ids.to(model.device), use_cache=False)
