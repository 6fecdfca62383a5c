"""Attention that shows what it computes: its weights, and, with them edited, what follows from them.

transformers hands queries, keys and values to a function that it looks up by name. Ours calls the family's own eager
function, so scalings, softcaps, sinks and windows are the family's; and where an edit of the weights is in place, what
the heads give is the edited weights times the values.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affectlens.errors import SiteError
from affectlens.heads import Heard

if TYPE_CHECKING:
    from affectlens.model import LensModel

EXPLICIT = "affectlens"  # the name under which transformers knows our function
Act = Callable[[Tensor], Tensor]

_acts: WeakKeyDictionary[nn.Module, list[Act]] = WeakKeyDictionary()
_hearing: ContextVar[list[Heard] | None] = ContextVar("hearing", default=None)


@contextmanager
def explicit(model: "LensModel") -> Iterator[None]:
    """Attention that computes its weights and lets them be edited, and afterwards the one that was there.

    Inside, a tap of ``pattern`` can be written to (:func:`affectlens.hooks.attach`), also where blocks are called one
    by one. Masks may be additive; boolean, as SDPA takes them; or None, which is causal.

    Args:
        model: from :func:`affectlens.load_model`.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(EXPLICIT, attend)
    AttentionMaskInterface.register(EXPLICIT, eager_mask)
    with _running(model, EXPLICIT):
        yield


@contextmanager
def eager(model: "LensModel") -> Iterator[None]:
    """Attention that reports its weights, and afterwards the one that was there; inside :func:`explicit` that stays."""
    with _running(model, EXPLICIT if _name(model) == EXPLICIT else "eager"):
        yield


@contextmanager
def hearing() -> Iterator[list[Heard]]:
    """What attentions are called with, inside the ``with`` and inside :func:`explicit`.

    Weights are meanwhile multiplied with the values by ours, also where no edit is in place.
    """
    heard: list[Heard] = []
    token = _hearing.set(heard)
    try:
        yield heard
    finally:
        _hearing.reset(token)


def rewriting(module: nn.Module, act: Act) -> Callable[[], None]:
    """Let ``act`` replace the weights, ``[batch, head, query, key]``, of an attention; what is returned ends that.

    Args:
        module: that hands queries, keys and values to attention.
        act: gets the weights, after other such acts, and returns those to use.

    Raises:
        SiteError: outside :func:`explicit`.
    """
    if not is_explicit(module):
        raise SiteError("Attention patterns are edited inside affectlens.attention.explicit(model) only.")
    acts = _acts.setdefault(module, [])
    acts.append(act)

    def end() -> None:
        acts.remove(act)

    return end


def is_explicit(module: nn.Module) -> bool:
    """Whether this attention computes through ours."""
    return getattr(getattr(module, "config", None), "_attn_implementation", None) == EXPLICIT


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None, **options: Any
) -> tuple[Float[Tensor, "batch query head d_head"], Float[Tensor, "batch head query key"]]:
    """What transformers calls for ``[batch, head, pos, d_head]``; keys and values may have fewer heads.

    Raises:
        SiteError: if the family's attention does not report its weights, or has no eager form.
    """
    heard, acts = _hearing.get(), _acts.get(module, ())
    if heard is not None:
        heard.append(Heard(module, query.clone(), key.clone(), value.clone()))
    out, weights = _eager_form(module)(
        module, query, key, value, _additive(module, attention_mask, query, key, options), **options
    )
    if not isinstance(weights, Tensor):
        raise SiteError(f"{type(module).__name__} does not report its weights, even in its eager form.")
    if heard is None and not acts:
        return out, weights
    for act in acts:
        weights = act(weights)
    values = value.repeat_interleave(weights.shape[1] // value.shape[1], dim=1)
    return (weights.to(values.dtype) @ values).transpose(1, 2).contiguous(), weights


def _eager_form(module: nn.Module) -> Callable[..., tuple[Tensor, Any]]:
    """The eager function of the file that the module's class, or a class above it, comes from."""
    for cls in type(module).__mro__:
        form = getattr(sys.modules.get(cls.__module__), "eager_attention_forward", None)
        if form is not None:
            found: Callable[..., tuple[Tensor, Any]] = form
            return found
    raise SiteError(f"{type(module).__name__} has no eager form of its attention.")


def _additive(
    module: nn.Module, mask: Tensor | None, query: Tensor, key: Tensor, options: dict[str, Any]
) -> Float[Tensor, "#batch #head #query key"] | None:
    """The mask as eager attention adds it to the scores; where there is none, SDPA is causal from the first key on."""
    if mask is None:
        told = options.get("is_causal")
        if query.shape[2] == 1 or not (getattr(module, "is_causal", True) if told is None else told):
            return None
        allowed = torch.ones(1, 1, query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    elif mask.dtype == torch.bool:
        allowed = mask
    else:
        return mask
    return torch.zeros_like(allowed, dtype=query.dtype).masked_fill(~allowed, torch.finfo(query.dtype).min)


def _name(model: "LensModel") -> str:
    name: str = model.hf.config.get_text_config()._attn_implementation
    return name


@contextmanager
def _running(model: "LensModel", name: str) -> Iterator[None]:
    before = _name(model)
    try:
        model.hf.set_attn_implementation(name)
        yield
    finally:
        model.hf.set_attn_implementation(before)
