"""Which tokens a feature promotes: its decoder row through the final norm's gain and the unembedding.

The effect on a token's logit is ``W_U (gain * row)``: what the row adds by itself, from its site to the logits.
Left out are the final norm's scale, which is one positive number at each position and so changes no order; what later
blocks make of the row; biases; and, where a family has one, the cap on logits, which keeps their order too. A softmax
does not see what all logits share, so the mean over the vocabulary is taken off (nostalgebraist 2020, the logit lens).

The norm is found by running the model: it is the module after the last block whose output is the last hidden state.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from affectlens.errors import SiteError
from affectlens.taps import first, given

if TYPE_CHECKING:
    from affectlens.model import LensModel
    from affectlens.probing.sae import Sae

WRITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
LARGE = 1e3  # the root mean square at which a row passes the norm, so that its epsilon is nothing


@torch.inference_mode()
def logit_effects(model: "LensModel", sae: "Sae", features: int | Sequence[int], *, n: int = 10) -> pd.DataFrame:
    """The tokens whose logits a feature raises and lowers most.

    Args:
        model: from :func:`affectlens.load_model`.
        sae: a dictionary of one of its residual sites, or of what attention or the MLP adds to the residual stream.
        features: one number or several.
        n: how many tokens to each side.

    Returns:
        Columns ``feature``, ``side`` (``promoted`` or ``suppressed``), ``rank`` from 1, ``token``, ``token_id`` and
        ``effect``: logits for one unit of activation where the final norm divides by 1, less the vocabulary's mean.

    Raises:
        SiteError: a feature that is not there, or a dictionary of a site that does not write to the residual stream.
    """
    chosen = [features] if isinstance(features, int) else [int(one) for one in features]
    rows = sae.decoder
    if sae.site.kind not in WRITES or rows.shape[1] != model.d_model:
        raise SiteError(
            f"Features of {sae.site} do not write to the residual stream of {model.name}, so no effect on logits can "
            f"be read off their rows: take a dictionary of one of {', '.join(WRITES)}."
        )
    if wrong := [one for one in chosen if not 0 <= one < len(rows)]:
        raise SiteError(f"There is no feature {wrong[0]}: {sae.name} has {len(rows)}, counted from 0.")
    out: list[tuple[object, ...]] = []
    norm = final_norm(model)
    for one in chosen:
        effect = direct(model, torch.from_numpy(rows[[one]]), norm=norm)[0]
        for side, sign in (("promoted", 1), ("suppressed", -1)):
            top = (sign * effect).topk(min(n, len(effect))).indices.tolist()
            out += [(one, side, rank, model.tokenizer.decode([token]), token, float(effect[token]))
                    for rank, token in enumerate(top, 1)]  # fmt: skip
    return pd.DataFrame(out, columns=["feature", "side", "rank", "token", "token_id", "effect"])


@torch.inference_mode()
def direct(
    model: "LensModel", rows: Float[Tensor, "row d_model"], *, norm: nn.Module | None
) -> Float[Tensor, "row d_vocab"]:
    """The direct effect of directions of the residual stream on the logits, less the vocabulary's mean.

    Args:
        model: from :func:`affectlens.load_model`.
        rows: directions, in the residual stream's own units.
        norm: from :func:`final_norm`.

    Raises:
        SiteError: a model without an unembedding.
    """
    head = model.hf.get_output_embeddings()
    if head is None:
        raise SiteError(f"{model.name} has no unembedding, so nothing can be said of logits.")
    rows = rows.to(model.device, torch.float32)
    gained = rows if norm is None else _gained(norm, rows, model.dtype)
    logits = head(gained.to(model.dtype)) - head(torch.zeros_like(gained, dtype=model.dtype))
    return (logits.float() - logits.float().mean(1, keepdim=True)).cpu()


@torch.inference_mode()
def final_norm(model: "LensModel") -> nn.Module | None:
    """The norm between the last block and the unembedding; None if the last block's output goes there as it is.

    Args:
        model: from :func:`affectlens.load_model`.

    Raises:
        SiteError: if something else lies between them.
    """
    inside = {id(module) for block in model.blocks for module in block.modules()}
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []
    last: list[Tensor] = []

    def keep(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        x, y = given(args, kwargs), first(output)
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            seen.append((module, x, y))

    body = model.body
    handles = [
        module.register_forward_hook(keep, with_kwargs=True)
        for module in body.modules() if module is not body and id(module) not in inside
    ]  # fmt: skip
    handles.append(model.blocks[-1].register_forward_hook(lambda _m, _a, output: last.append(first(output))))
    try:
        ids = model.tokenizer("Rain fell all night.", return_tensors="pt").input_ids.to(model.device)
        hidden = body(input_ids=ids, use_cache=False).last_hidden_state
    finally:
        for handle in handles:
            handle.remove()
    for module, x, y in reversed(seen):
        if y.shape == hidden.shape and torch.equal(y, hidden) and torch.equal(x, last[-1]):
            return module
    if torch.equal(hidden, last[-1]):
        return None
    raise SiteError(f"What {model.name} does between its last block and its unembedding is no norm that can be found.")


def _gained(norm: nn.Module, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """``gain * row`` without the norm's scale and bias; a norm that takes off the mean does so."""
    mean = rows.mean(1, keepdim=True)
    constant = torch.full_like(rows[:1], LARGE)
    centring = _odd(norm, constant, dtype).abs().max() < 1e-3 * _odd(norm, rows[:1] * LARGE, dtype).abs().max()
    scale = (rows - mean if centring else rows).pow(2).mean(1, keepdim=True).sqrt().clamp(min=1e-12)
    return _odd(norm, rows / scale * LARGE, dtype) * scale


def _odd(norm: nn.Module, x: Tensor, dtype: torch.dtype) -> Tensor:
    """The odd part of a norm, which has no bias."""
    return (norm(x[None].to(dtype))[0].float() - norm(-x[None].to(dtype))[0].float()) / 2
