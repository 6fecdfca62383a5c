"""Whether a model can write several replies in one batch whose rows come and go, and in how much context."""

import weakref
from typing import TYPE_CHECKING, Any

import torch

from affectlens.errors import SteerError
from affectlens.generating import Decoding
from affectlens.model import LensModel
from affectlens.steering.engines.request import Request

if TYPE_CHECKING:
    from affectlens.steering.engines.together import Together

_SHORT, _LONG = 5, 11  # tokens
_BOUND = {torch.float32: 1e-3, torch.float64: 1e-3}  # of the logits' standard deviation; coarser dtypes have more
_COARSE = 0.25
_SEEN: "weakref.WeakSet[LensModel]" = weakref.WeakSet()


def context(model: LensModel) -> int:
    """How many tokens a request may have: of a model that turns longer texts by other angles, those before that.

    Such a model (longrope) takes the angles of the longest row for all rows of a batch.

    Args:
        model: that writes.
    """
    config: Any = model.hf.config.get_text_config()
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [scaling, *(one for one in scaling.values() if isinstance(one, dict))]
    for one in kinds:
        if "longrope" in (one.get("rope_type"), one.get("type")):
            name = "original_max_position_embeddings"
            first: Any = one.get(name) or getattr(config, name, None) or model.n_ctx
            return min(model.n_ctx, int(first))
    return model.n_ctx


def expect_rows(runner: "Together") -> None:
    """Read two texts in one batch, go on with both, end one, and compare with each alone; once a model.

    Args:
        runner: that has no requests yet.

    Raises:
        SteerError: a family that keeps its past otherwise than in keys and values, or mixes its rows.
    """
    model = runner.model
    if model in _SEEN:
        return
    size = model.hf.get_input_embeddings().weight.shape[0]
    texts = [[(7 * i + 3 * n) % size for i in range(n)] for n in (_SHORT, _LONG)]
    how = Decoding(4)
    try:
        for _ in runner.read({at: Request(tuple(ids), how) for at, ids in enumerate(texts)}):
            pass
        both = runner.step({0: 5 % size, 1: 6 % size})
        runner.free(1)
        last = runner.step({0: 7 % size})
        pairs = [(both[1], [*texts[1], 6 % size]), (last[0], [*texts[0], 5 % size, 7 % size])]
        wrong = max(_difference(model, logits, ids) for logits, ids in pairs)
    except Exception as error:
        raise _refusal(model, f"{type(error).__name__}: {error}") from None
    finally:
        runner.close()
    if wrong > _BOUND.get(model.dtype, _COARSE):
        raise _refusal(model, f"logits differ by {wrong:.2g} of their spread")
    _SEEN.add(model)


@torch.inference_mode()
def _difference(model: LensModel, logits: torch.Tensor, ids: list[int]) -> float:
    with model.lock:
        alone = model.hf(torch.tensor([ids], device=model.device), use_cache=False).logits[0, -1].float()
    return float((logits.float() - alone).abs().max() / alone.std())


def _refusal(model: LensModel, why: str) -> SteerError:
    return SteerError(
        f"{model.name} ({model.hf.config.model_type}) can't write several replies in one batch ({why}): write with "
        "affectlens.steering.write, one prompt at a time."
    )
