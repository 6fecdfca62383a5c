"""Dictionaries that have learnt nothing, to compare a trained one with."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.probing.sae import Sae, sae_lens
from affectlens.probing.sae_files import wrap


def untrained_like(sae: Sae, x: Float[Tensor, "activation d_in"], *, seed: int = 0) -> Sae:
    """A random top-k dictionary of the same size: unit rows drawn at random, the encoder its transpose.

    Its bias is the mean of ``x``, and its activations are scaled so that the reconstruction of ``x`` has the length
    that fits best, as random rows overlap.

    Args:
        sae: whose size, site and ``k`` (its mean active features, if it has none) are taken.
        x: some activations of the site, without each text's first, an attention sink that would be all they show.
        seed: of the rows.
    """
    k = int(getattr(sae.inner.cfg, "k", 0)) or int((sae.encode(x[: 1 << 12]) > 0).sum(-1).float().mean().round())
    k = min(max(k, 1), sae.n_features - 1)
    with sae_lens() as library:
        inner = library.SAE.from_dict({"architecture": "topk", "d_in": sae.d_in, "d_sae": sae.n_features, "k": k})
    rng = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(sae.n_features, sae.d_in, generator=rng), dim=-1)
    mean = x.float().cpu().mean(0)
    inner.W_dec.data, inner.W_enc.data, inner.b_dec.data = rows, rows.T.contiguous(), mean
    with torch.no_grad():
        some = x[: 1 << 12].float().cpu()
        rebuilt = inner.decode(inner.encode(some)) - mean
        inner.W_enc.data *= float(((some - mean) * rebuilt).sum() / rebuilt.square().sum())
    return replace(wrap(inner, f"{sae.name}-untrained", site=sae.site), model=sae.model)
