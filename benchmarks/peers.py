"""What ``capture.py`` compares: the texts, and each way to all resid_post mean-pooled, ``[item, layer, d_model]``."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

import affectlens as al

OURS = "affectlens"
EQUAL_TEXTS, EQUAL_TOKENS, PLAIN_BATCH = 24, 124, 16
LAST_IS_NORMED = ("hidden-states",)  # Hugging Face gives the last layer behind the final norm: not compared
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Batch:
    """Texts of a plain user's batch."""

    rows: list[int]
    ids: Tensor  # [batch, pos], padded on the right
    weights: Tensor  # [batch, 1, pos]: the mean of the tokens but the first, as AffectLens has it

    def pool(self, resids: Iterable[Tensor]) -> Tensor:
        """``[batch, layer, d_model]`` of each layer's ``[batch, pos, d_model]``."""
        return torch.cat([torch.bmm(self.weights, resid) for resid in resids], dim=1)


@dataclass(frozen=True)
class Work:
    """Texts, and the batches of those who are given theirs."""

    model: Any
    texts: list[str]
    n_tokens: int
    batches: list[Batch]
    budget: dict[str, int]

    def ours(self) -> Tensor:
        acts = al.capture(
            self.model, self.texts, sites="resid_post", positions="mean", cache=False, progress=False, **self.budget
        )
        return torch.from_numpy(np.asarray(acts.at("mean")))

    @cached_property
    def calls(self) -> list[tuple[Any, Any]]:
        """What AffectLens gives the model's body, batch by batch."""
        seen: list[tuple[Any, Any]] = []
        hook = self.model.body.register_forward_pre_hook(lambda _m, a, k: seen.append((a, dict(k))), with_kwargs=True)
        self.ours()
        hook.remove()
        if self.budget and (len(seen) != 1 or not torch.equal(seen[0][1]["input_ids"], self.batches[0].ids)):
            raise SystemExit("AffectLens did not make the very batch that its peers get.")
        return seen


def lay_out(model: Any, name: str, items: int = 0) -> Work:
    """The texts named: ``equal``, ``mixed`` or ``many``, cut to ``items`` if that is not 0."""
    scenes = [str(text) for text in al.load_battery("starter").frame()["text"]]
    if name == "equal":
        joined = " ".join(scenes)
        spans = model.tokenizer(joined, return_offsets_mapping=True)["offset_mapping"]
        cuts = [spans[i][0] for i in range(0, ((items or EQUAL_TEXTS) + 1) * EQUAL_TOKENS, EQUAL_TOKENS)]
        texts = [joined[start:end] for start, end in pairwise(cuts)]
    else:
        number, n = items or (1600 if name == "many" else len(scenes)), len(scenes)
        texts = [scenes[i * n // number if number < n else i % n] for i in range(number)]
    tokens = model.tokenizer(texts)["input_ids"]
    size = EQUAL_TEXTS if name == "equal" else PLAIN_BATCH
    batches = [
        _batch(rows, tokens) for rows in (list(range(len(texts)))[i : i + size] for i in range(0, len(texts), size))
    ]
    budget = {"token_budget": batches[0].ids.numel()} if name == "equal" else {}
    return Work(model, texts, sum(map(len, tokens)), batches, budget)


def _batch(rows: list[int], tokens: list[list[int]]) -> Batch:
    ids = torch.zeros(len(rows), max(len(tokens[row]) for row in rows), dtype=torch.long)
    weights = torch.zeros(len(rows), 1, ids.shape[1])
    for line, row in enumerate(rows):
        ids[line, : len(tokens[row])] = torch.tensor(tokens[row])
        weights[line, 0, 1 : len(tokens[row])] = 1 / (len(tokens[row]) - 1)
    return Batch(rows, ids, weights)


Run = Callable[[Work], Tensor | None]


def batched(one: Callable[[Batch], Tensor]) -> Run:
    """A peer that goes batch by batch."""

    @torch.inference_mode()
    def run(work: Work) -> Tensor:
        out = torch.empty(len(work.texts), work.model.n_layers, work.model.d_model)
        for batch in work.batches:
            out[batch.rows] = one(batch)
        return out

    return run


def body(model: Any) -> Run:
    """The limit: the decoder's body on the batches that AffectLens makes, nothing watched, nothing pooled."""

    @torch.inference_mode()
    def run(work: Work) -> None:
        for args, kwargs in work.calls:
            model.body(*args, **kwargs)

    return run


def hidden_states(model: Any) -> Run:
    def one(batch: Batch) -> Tensor:
        out = model.body(input_ids=batch.ids, use_cache=False, output_hidden_states=True)
        return batch.pool(out.hidden_states[1:])

    return batched(one)


def transformer_lens(model: Any, *, filtered: bool = True, **options: Any) -> Run:
    """The bridge's ``run_with_cache``. ``return_type=None`` runs the head all the same; ``logits_to_keep=1``
    all but skips it: Hugging Face's option, which the bridge passes on.
    """
    bridge, names = model.bridge, [f"blocks.{layer}.hook_resid_post" for layer in range(model.n_layers)]
    if filtered:
        options["names_filter"] = names

    def one(batch: Batch) -> Tensor:
        _, cache = bridge.run_with_cache(batch.ids, return_type=None, **options)
        return batch.pool(cache[name] for name in names)

    return batched(one)


def nnsight(model: Any) -> Run:
    """A trace of the body, without the head; of a structural copy, as wrapping replaces every module's ``forward``."""
    import nnsight

    path = next(name for name, module in model.body.named_modules() if module is model.blocks)
    shared = {id(tensor): tensor for tensor in (*model.body.parameters(), *model.body.buffers())}
    tree = nnsight.NNsight(copy.deepcopy(model.body, shared))
    blocks = list(attrgetter(path)(tree))

    def one(batch: Batch) -> Tensor:
        with tree.trace(input_ids=batch.ids, use_cache=False):
            resids = nnsight.save([])
            for block in blocks:
                resids.append(block.output)
        return batch.pool(resids)

    return batched(one)


PEERS: dict[str, Callable[[Any], Run]] = {
    OURS: lambda _model: Work.ours,
    "body": body,
    "hidden-states": hidden_states,
    "tl-filtered": transformer_lens,
    "tl-filtered-no-head": lambda model: transformer_lens(model, logits_to_keep=1, use_cache=False),  # not documented
    "tl-unfiltered": lambda model: transformer_lens(model, filtered=False),
    "nnsight": nnsight,
}


def check(peer: str, got: Tensor | None, want: Tensor) -> None:
    """Exit unless a peer's array is ours: the greatest relative error of any item's vector at any layer."""
    if got is None:
        return
    layers = slice(None, -1 if peer in LAST_IS_NORMED else None)
    error = float(((got - want).norm(dim=-1) / want.norm(dim=-1))[:, layers].max())
    if not error <= TOLERANCE:
        raise SystemExit(f"{peer} computes something else: its vectors are off by {error:.1e}.")
