"""The load check: what loads means what it says.

1. ``resid_post`` as our hooks see it equals the hidden states that the model itself reports, at every layer.
2. The head on the last reported state gives the logits of the whole model.
3. What capture relies on: the body alone, without a mask, gives a text the same residual stream at every layer whether
   or not tokens follow it. A model that looks ahead fails here.
4. Padding under a mask, on the right and on the left, changes no logit of the text.

The tolerance is relative to the largest magnitude compared: 1e-4 in float32, 5e-2 in half precisions.
"""

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from affectlens.errors import ModelError
from affectlens.hooks import record
from affectlens.model import LensModel

TEXTS = (
    "The bus was late again.",
    "Rain fell on the roof of the mill all night, and by morning the lane was under water.",
)


def tolerance(dtype: torch.dtype) -> float:
    """The relative difference that counts as equal."""
    return 1e-4 if dtype == torch.float32 else 5e-2


def difference(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference over the larger of one and the largest magnitude in ``b``."""
    ours, theirs = a.float(), b.float().to(a.device)
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1.0))


@torch.inference_mode()
def check_model(model: LensModel) -> dict[str, float]:
    """Run the check; the relative differences found, by name.

    Raises:
        ModelError: if one is above the tolerance, with its name and size.
    """
    short, long = (model.tokenizer(t, return_tensors="pt").input_ids.to(model.device) for t in TEXTS)
    sites = "resid_post"
    with record(model, sites) as recorded:
        whole = model.hf(input_ids=long, use_cache=False, output_hidden_states=True)
    states, seen = whole.hidden_states, [recorded[f"L{layer}.resid_post"] for layer in range(model.n_layers)]
    last = _last_state(model, long, states[-1], seen[-1])  # most models report it after their final norm
    found = {
        "resid_post": max(difference(ours, its) for ours, its in zip([*seen[:-1], last], states[1:], strict=True)),
        "logits": difference(model.hf.get_output_embeddings()(states[-1]), whole.logits) if _plain_head(model) else 0.0,
        "shape": 0.0 if all(s.shape == (1, long.shape[1], model.d_model) for s in seen) else float("inf"),
    }
    found["tokens that follow"] = _follow(model, short, long)
    alone = model.hf(input_ids=short, use_cache=False).logits
    for side in ("right", "left"):
        padded = _padded(model, short, long, side)
        text = slice(None, short.shape[1]) if side == "right" else slice(-short.shape[1], None)
        found[f"{side} padding"] = difference(padded[:, text], alone)
    bad = {name: value for name, value in found.items() if not value <= tolerance(model.dtype)}
    if bad:
        said = ", ".join(f"{name} differs by {value:.1e}" for name, value in bad.items())
        raise ModelError(
            f"{model.name} did not pass its load check: {said} (allowed {tolerance(model.dtype):.0e}). Its activations "
            "would not mean what they say; load with check=False only to look into it."
        )
    return found


def _last_state(model: LensModel, ids: Tensor, reported: Tensor, ours: Tensor) -> Tensor:
    """Our last state as the model reports it: put through the module that gives what was reported, if there is one."""
    inside = {part for block in model.blocks for part in block.modules()}
    finals: list[nn.Module] = []

    def see(module: nn.Module, _args: object, output: object) -> None:
        if isinstance(output, Tensor) and output.shape == reported.shape and torch.equal(output, reported):
            finals.append(module)

    with ExitStack() as handles:
        for module in set(model.body.modules()) - inside:
            handles.callback(module.register_forward_hook(see).remove)
        model.body(input_ids=ids, use_cache=False)
    return finals[0](ours) if finals else ours


def _follow(model: LensModel, short: Tensor, long: Tensor) -> float:
    """How much the residual stream of ``short`` changes, at any layer, when other tokens fill up its row."""
    sites = "resid_post"
    with record(model, sites) as alone:
        model.body(input_ids=short, use_cache=False)
    filled = torch.cat((short, long[:, short.shape[1] :]), dim=1)
    with record(model, sites) as batch:
        model.body(input_ids=torch.cat((filled, long)), use_cache=False)
    return max(difference(batch[site][:1, : short.shape[1]], alone[site]) for site in alone)


def _plain_head(model: LensModel) -> bool:
    """Whether the logits are the head's output as it is, neither capped nor scaled."""
    config = model.hf.config.get_text_config()
    scales = (getattr(config, name, None) for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"))
    return all(scale in (None, 1) for scale in scales)


def _padded(model: LensModel, short: Tensor, long: Tensor, side: str) -> Tensor:
    """The logits of ``short`` in a batch padded to the length of ``long``, with explicit positions."""
    gap = long.shape[1] - short.shape[1]
    pad = torch.full((1, gap), int(model.tokenizer.pad_token_id or 0), device=short.device)
    one, none = torch.ones_like(short), torch.zeros_like(pad)
    ids = torch.cat((short, pad) if side == "right" else (pad, short), dim=1)
    mask = torch.cat((one, none) if side == "right" else (none, one), dim=1)
    batch, masks = torch.cat((ids, long)), torch.cat((mask, torch.ones_like(long)))
    positions = (masks.cumsum(1) - 1).clamp(min=0)
    logits: Tensor = model.hf(input_ids=batch, attention_mask=masks, position_ids=positions, use_cache=False).logits
    return logits[:1]
