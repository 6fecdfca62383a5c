"""Which runner a model gets: the engine, once it has shown on this model that it equals the plain one."""

import warnings
from weakref import WeakKeyDictionary

import torch

from affectlens.check import TEXTS, difference, tolerance
from affectlens.errors import PatchError
from affectlens.model import LensModel
from affectlens.patching.cells import Change
from affectlens.patching.engine import Engine
from affectlens.patching.reading import Needs, Runner
from affectlens.patching.reference import Reference
from affectlens.sites import Site
from affectlens.taps import foreign_hooks
from affectlens.verbalisers import Prompt

_CHECKED: "WeakKeyDictionary[LensModel, str]" = WeakKeyDictionary()  # why the engine can't be used; empty: it can


def runner_for(model: LensModel, *, memory: float = 1.0, generating: bool = False) -> Runner:
    """The fastest runner that is exact on this model.

    Args:
        model: the model.
        memory: what a batch may take, in GB.
        generating: whether text is to be generated, which only whole runs can.

    Raises:
        PatchError: a memory that holds nothing.
    """
    if memory <= 0:
        raise PatchError(f"memory is {memory} GB: a batch needs more than none.")
    if generating:
        return Reference(model)
    if foreign_hooks(model):
        warnings.warn(
            "Hooks that are not AffectLens's are on the model: each cell takes a whole forward.", stacklevel=3
        )
        return Reference(model)
    if model not in _CHECKED:
        _CHECKED[model] = check_engine(model)
    if why := _CHECKED[model]:
        warnings.warn(f"{why} Each cell takes a whole forward.", stacklevel=3)
        return Reference(model)
    return Engine(model, memory=memory)


def check_engine(model: LensModel) -> str:
    """Why the engine is not exact on this model, as a sentence; empty if it is.

    A text with a verbaliser of several tokens is run by itself, and with one token's stream from another text, through
    the engine and through a plain forward.
    """
    texts = [model.tokenizer(text).input_ids for text in TEXTS]
    prompt = Prompt(tuple(texts[1]), (tuple(texts[0][-2:]), tuple(texts[0][-3:-2])))
    reference, needs = Reference(model), Needs(logprobs=True, logits=True, layers=frozenset({model.n_layers - 1}))
    site, at = Site("resid_pre", model.n_layers // 2), len(texts[1]) // 2
    new = reference.record(Prompt(tuple(texts[0]), ((),)), [site]).sites[site][-1:]
    cells = [(), (Change(site, (at,), new),)]
    try:
        engine = Engine(model)
        base = engine.record(prompt)
        ours = [engine.unpatched(base, prompt, needs), next(engine.run(base, prompt, cells[1:], needs))[1]]
    except (PatchError, TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError) as error:
        return f"{model.name} can't be walked through block by block ({error!s:.120})."
    plain = [out for _, out in reference.run(base, prompt, cells, needs)]
    off = 0.0
    for mine, theirs in zip(ours, plain, strict=True):
        assert mine.logits is not None
        assert theirs.logits is not None
        off = max(off, difference(mine.logits, theirs.logits))
        off = max(off, *(difference(mine.streams[k], theirs.streams[k]) for k in mine.streams))
        if mine.logprobs is not None and theirs.logprobs is not None:
            off = max(off, difference(mine.logprobs, theirs.logprobs))
    if torch.isnan(torch.tensor(off)) or off > tolerance(model.dtype):
        return f"{model.name} walked through block by block differs from itself by {off:.1e}."
    return ""
