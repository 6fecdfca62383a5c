"""A checkpoint with the vector in its weights: steered at no cost, in every engine that loads the folder.

1. Each site's vector becomes a bias (:mod:`affectlens.steering.exporting.places`).
2. The model is copied into an architecture that has room for it (:mod:`affectlens.steering.exporting.hosting`).
3. The folder is written under a temporary name, with tokenizer, chat template, generation configuration and a README.
4. It is loaded anew and compared with the original steered by hooks: logits at the prompt and at each cached decode
   step. Only what is the same gets its name.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens import loading
from affectlens.cursors import Cursor
from affectlens.errors import SiteError, SteerError
from affectlens.hooks import edit
from affectlens.model import LensModel
from affectlens.paths import write_text, written_whole
from affectlens.quiet import quiet_transformers
from affectlens.sites import Site
from affectlens.steering.exporting.hosting import with_room
from affectlens.steering.exporting.noting import in_words, sizes_of
from affectlens.steering.exporting.places import biases
from affectlens.steering.plan import SteeringPlan
from affectlens.taps import PROBE

Sums = Mapping[Site, Float[np.ndarray, " d"]]
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}  # of the largest logit; 0.05 in half precisions
STEPS = 4  # cached decode steps that are compared


def bake(model: LensModel, plan: SteeringPlan, sums: Sums, folder: Path) -> Path:
    """Write the folder ``folder``, whole or not at all.

    Args:
        model: the original, which stays as it is.
        plan: what is baked, for the README.
        sums: the vector that it adds at each site.
        folder: where to; it must not exist.

    Raises:
        SteerError: a family or a site that can't be baked, or logits that differ.
    """
    added = biases(model, sums)
    new, said = with_room(model, {part: list(mine) for part, mine in added.items()})
    with torch.no_grad():
        for mine in added.values():
            for name, value in mine.items():
                matrix = new.get_submodule(name)
                summed = matrix.bias.float() + value.to(matrix.bias.device)
                matrix.bias = torch.nn.Parameter(summed.to(matrix.bias.dtype), requires_grad=False)
    with written_whole(folder) as work, quiet_transformers():
        new.save_pretrained(work)
        model.tokenizer.save_pretrained(work)
        write_text(work / "README.md", in_words(plan, sizes_of(dict(sums)), said))
        _compare(model, sums, work)
    return folder


def _compare(model: LensModel, sums: Sums, folder: Path) -> None:
    """Raise a :class:`SteerError` unless the folder's model is the steered one."""
    where = loading.Where(model.dtype, model.device, None)
    baked, _ = loading.read("the baked copy", loading.Found(folder, ""), where, show=False)
    ids = model.tokenizer(PROBE, return_tensors="pt").input_ids[:, :24].to(model.device)
    found = stepwise_logits(baked.eval(), ids, STEPS)
    try:
        with model.lock, edit(model, {site: partial(_plus, vector) for site, vector in sums.items()}, idle="raise"):
            steered = stepwise_logits(model.hf, ids, STEPS)
    except SiteError as error:
        raise SteerError(f"This can't be checked by steering {model.name}, so it is not written: {error}") from None
    off = float((found - steered).abs().max() / steered.abs().max())
    if not off <= TOLERANCE.get(model.dtype, 0.05):
        raise SteerError(
            f"The baked copy of {model.name} is not the steered model (its logits are off by {off:.1e} of the largest "
            "one), so it is not written: this architecture changes what a bias adds. Export a control vector instead."
        )


def _plus(vector: Float[np.ndarray, " d"], value: Tensor, _cursor: Cursor) -> Tensor:
    """A site's value and the vector, which is flat where the site has heads."""
    return value + torch.from_numpy(np.asarray(vector)).to(value).reshape(value.shape[2:])


@torch.inference_mode()
def stepwise_logits(hf: Any, ids: Int[Tensor, "batch pos"], steps: int) -> Float[Tensor, "batch pos d_vocab"]:
    """Logits at every position, float32 on the CPU: the last ``steps`` tokens one at a time, from the cache.

    Args:
        hf: a Hugging Face causal language model.
        ids: tokens, more than ``steps``, without padding.
        steps: how many are decode steps.
    """
    out = hf(input_ids=ids[:, :-steps], use_cache=True)
    logits, cache = [out.logits], out.past_key_values
    for at in range(ids.shape[1] - steps, ids.shape[1]):
        out = hf(input_ids=ids[:, at : at + 1], past_key_values=cache, use_cache=True)
        logits.append(out.logits)
        cache = out.past_key_values
    return torch.cat(logits, dim=1).float().cpu()
