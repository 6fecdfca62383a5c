"""Where in a model's weights an added vector belongs: the biases that do what a hook would do.

================== ================================================= ==================
added at           is a bias of                                      by
================== ================================================= ==================
resid_post mlp_out the MLP's last matrix W                           v
neurons, N17       the same                                          W v
attn_out resid_mid the attention's last matrix O                     v
z, H3              the same                                          O v (of the head)
================== ================================================= ==================

A bias at the MLP's end reaches the stream when the block is done, so nothing in the block sees it: it is resid_post
exactly, unless a norm follows the MLP (Gemma 2 and 3, OLMo 2). The modules are those that the model's sites were found
at, by running it; that the sum is exact is shown by running it again, in :mod:`affectlens.steering.exporting.baking`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from affectlens.errors import SiteError, SteerError
from affectlens.model import LensModel
from affectlens.sites import Site

PARTS = {"mlp": "neurons", "attention": "z"}  # the site at which each part's last matrix begins
_OF = {
    "resid_post": "mlp", "mlp_out": "mlp", "neurons": "mlp",
    "attn_out": "attention", "resid_mid": "attention", "z": "attention",
}  # fmt: skip


def biases(
    model: LensModel, sums: Mapping[Site, Float[np.ndarray, " d"]]
) -> dict[str, dict[str, Float[Tensor, " d_model"]]]:
    """What to add to which biases: by part (``mlp``, ``attention``), by the name of the module, float32 on the CPU.

    Raises:
        SteerError: a site without such a bias, such as ``pattern``, or a model whose parts could not be told apart.
    """
    names = {module: name for name, module in model.hf.named_modules()}
    found: dict[str, dict[str, Tensor]] = {}
    for site, vector in sums.items():
        if site.kind not in _OF:
            raise SteerError(f"{site} can't be baked: only {', '.join(_OF)} are a bias of a matrix.")
        part = _OF[site.kind]
        matrix = _last_matrix(model, site.layer, part)
        value = torch.from_numpy(np.asarray(vector, dtype=np.float64))
        if site.kind == PARTS[part]:
            value = _through(model, matrix, site, value)
        mine = found.setdefault(part, {})
        name = names[matrix]
        mine[name] = mine.get(name, torch.zeros(model.d_model)) + value.float()
    return found


def _last_matrix(model: LensModel, layer: int, part: str) -> nn.Module:
    try:
        matrix = model.sites.find(Site(PARTS[part], layer)).module
    except SiteError:
        raise SteerError(
            f"The {part} of layer {layer} of {model.name} has no last matrix that a bias could be put on (a mixture of "
            "experts has none)."
        ) from None
    if not isinstance(matrix, nn.Linear | Conv1D) or type(matrix).__module__.startswith("peft"):
        raise SteerError(
            f"The {part} of layer {layer} of {model.name} ends in a {type(matrix).__name__}: baking needs plain "
            "weights, without quantisation, and with adapters merged (merge_and_unload)."
        )
    return matrix


def _through(model: LensModel, matrix: nn.Module, site: Site, value: Float[Tensor, " d"]) -> Float[Tensor, " d_model"]:
    """What the matrix makes of a vector at its own input, of which the site may be one head or one neuron."""
    kept: Any = matrix.weight
    weight = kept.detach().double().cpu()
    if isinstance(matrix, Conv1D):  # kept the other way round
        weight = weight.T
    width = weight.shape[1] // (model.n_heads if site.kind == "z" else weight.shape[1])
    columns = slice(None) if site.index is None else slice(site.index * width, (site.index + 1) * width)
    return weight[:, columns] @ value
