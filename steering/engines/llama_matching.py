"""Whether a GGUF file holds the model whose directions are to steer it: vocabulary, sizes, and what it computes.

A file's weights are quantised in its own way, so fingerprints can't be compared. Instead both run a short text, plain
and with a vector added at one layer: what the vector changes must agree, or the file is of other weights, or llama.cpp
adds the vector somewhere else in this architecture.
"""

import numpy as np
import torch
from jaxtyping import Float

from affectlens.errors import SteerError
from affectlens.hooks import edit, watch
from affectlens.model import LensModel
from affectlens.steering.engines.llama_course import NOTHING
from affectlens.steering.engines.llama_native import Native, Token

TEXTS = (
    "Tell me about your day.",
    "Grüße aus 東京: 12,345 € & more\n\n\tdef f(x): return x**2",
    "I can't, she said — no!",
)
LEAST = 0.8  # correlation of what the vector changes
_SHARE = 0.3  # of the stream's norm, the vector's length


def match(native: Native, model: LensModel, file: str) -> None:
    """Refuse a file that is not the model's own.

    Args:
        native: the file, loaded.
        model: whose directions are to be used.
        file: its name, for the message.

    Raises:
        SteerError: another vocabulary, other sizes, or other weights.
    """
    _compare_sizes(native, model, file)
    for text in TEXTS:
        ids = model.tokenizer(text, add_special_tokens=False).input_ids
        ours, theirs = model.tokenizer.decode(ids).strip(), native.spelled(ids).strip()
        if ours != theirs:
            raise SteerError(
                f"{file} has another vocabulary than {model.name}: the tokens of {ours!r} spell {theirs!r} there. Give "
                "the GGUF file of this very model."
            )
    if (found := _agreement(native, model)) < LEAST:
        raise SteerError(
            f"{file} does not compute what {model.name} does: what a vector in the middle changes correlates by "
            f"{found:.2f} with its change here, and {LEAST} at least was expected. Give the file of these weights. "
            "If it is, llama.cpp does not steer this architecture as it is steered here."
        )


def _compare_sizes(native: Native, model: LensModel, file: str) -> None:
    theirs = {"layers": native.n_layers, "d_model": native.d_model, "tokens": native.n_vocab}
    ours = {"layers": model.n_layers, "d_model": model.d_model,
            "tokens": int(model.hf.get_input_embeddings().weight.shape[0])}  # fmt: skip
    for what, size in ours.items():
        if theirs[what] != size:
            raise SteerError(
                f"{file} is another model than {model.name}: it has {theirs[what]} {what}, and {size} were expected. "
                "Give the GGUF file of this very model."
            )


def _agreement(native: Native, model: LensModel) -> float:
    """The correlation of what one vector changes in the logits, here and there."""
    layer = max(model.n_layers // 2, 1)
    ids = model.tokenizer(TEXTS[0]).input_ids
    site = f"L{layer}.resid_post"
    norms: list[float] = []
    with watch(model, site, lambda _site, value: norms.append(float(value[0, -1].float().norm()))):
        plain = _ours(model, ids)
    vector = np.random.default_rng(0).normal(size=model.d_model)
    vector = (_SHARE * norms[-1] * vector / np.linalg.norm(vector)).astype(np.float32)
    added = torch.from_numpy(vector).to(model.device, model.dtype)
    with edit(model, {site: lambda value, _where: value + added}):
        ours = _ours(model, ids) - plain
    before = _theirs(native, ids)
    native.push(((layer, vector.tobytes()),))
    theirs = _theirs(native, ids) - before
    native.push(NOTHING)
    return float(np.corrcoef(ours, theirs)[0, 1])


@torch.inference_mode()
def _ours(model: LensModel, ids: list[int]) -> Float[np.ndarray, " d_vocab"]:
    out = model.hf(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
    return out.logits[0, -1].double().cpu().numpy()


def _theirs(native: Native, ids: list[int]) -> Float[np.ndarray, " d_vocab"]:
    last = len(ids) - 1
    logits = native.run([Token(0, token, at, at == last) for at, token in enumerate(ids)])
    native.forget(0)
    return logits[0].double().numpy()
