"""The exact engine: many patched runs of one text at once, each computed only where it can differ from the text's own.

A run that changes something at layer l and position p is, before either, the text's own run, which is computed once
(:mod:`affectlens.patching.recorded`). So it joins the batch at layer l with the stored stream, on the positions from p
on; the positions before are there as stored keys and values. Rows of one batch begin at one position and join layer by
layer, and logits are made of the tokens alone that a metric reads. All rows are of one text, so nothing is padded.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.attention import explicit
from affectlens.errors import PatchError
from affectlens.hooks import attach
from affectlens.model import LensModel
from affectlens.patching.cells import Cell, Change, Cut, entry, order, put, start
from affectlens.patching.reading import Needs, Out
from affectlens.patching.recorded import Recorded, run_once
from affectlens.patching.walking import Blocks
from affectlens.readout import token_logprobs
from affectlens.sites import Site
from affectlens.verbalisers import Prompt

CPU_TOKENS, GPU_TOKENS = 2048, 32768  # a batch gains nothing from more
HEAD_ROWS = 128


class Engine:
    """Runs cells on texts of one model."""

    def __init__(self, model: LensModel, *, memory: float = 1.0) -> None:
        self.model, self.bytes = model, memory * 1e9
        self.blocks = Blocks(model)
        self._vocabulary = int(model.hf.get_output_embeddings().weight.shape[0])

    def record(self, prompt: Prompt, sites: Sequence[Site] = (), *, tails: bool = False) -> Recorded:
        """A text's own run; with ``tails`` sites are kept at the verbalisers' tokens too."""
        return run_once(self.model, self.blocks, prompt, tuple(sites), tails=tails)

    def unpatched(self, base: Recorded, prompt: Prompt, needs: Needs) -> Out:
        """What is read of the text's own run: one row."""
        whole, n = base.streams[:, None], base.tokens.n_prompt
        return self.read(base, prompt, needs, whole[-1], 0, {at: whole[at + 1, :, :n] for at in needs.layers})

    def run(
        self, base: Recorded, prompt: Prompt, cells: Sequence[Cell], needs: Needs
    ) -> Iterator[tuple[list[int], Out]]:
        """Run all cells; yields the numbers of some of them and what was read of them, until all are done."""
        last = needs.last(self.model.n_layers)
        _check(cells, len(base.tokens), self.model.n_layers)
        for rows in self.batches(cells, len(base.tokens), needs):
            yield rows, self._batch(base, prompt, [cells[row] for row in rows], needs, last)

    def batches(self, cells: Sequence[Cell], n_tokens: int, needs: Needs) -> list[list[int]]:
        """Cells that begin near one another, as many as fit; in each batch, ordered by the layer they begin at."""
        tokens, rows_read = self._fit(n_tokens, needs)
        plan: list[list[int]] = []
        begin = 0
        for row in sorted(range(len(cells)), key=lambda r: (start(cells[r]), entry(cells[r]))):
            if not plan or len(plan[-1]) >= rows_read or (len(plan[-1]) + 1) * (n_tokens - begin) > tokens:
                plan.append([])
                begin = start(cells[row])
            plan[-1].append(row)
        return [sorted(rows, key=lambda r: entry(cells[r])) for rows in plan]

    def _fit(self, n_tokens: int, needs: Needs) -> tuple[int, int]:
        """How many tokens a batch may have, and how many rows of which streams or logits are kept."""
        tap = (
            self.model.sites.shape(Site("neurons", 0)) if "neurons" in self.model.sites.kinds else (self.model.d_model,)
        )
        size = torch.finfo(self.model.dtype).bits // 8
        token = size * (16 * self.model.d_model + 4 * tap[0] + 3 * self.model.n_heads * n_tokens)
        row = size * n_tokens * self.model.d_model * (1 + len(needs.layers)) + 4 * needs.logits * self._vocabulary
        most = CPU_TOKENS if self.model.device.type == "cpu" else GPU_TOKENS
        return max(1, min(most, int(self.bytes / 2 / token))), max(1, int(self.bytes / 4 / row))

    def _batch(self, base: Recorded, prompt: Prompt, cells: list[Cell], needs: Needs, last: int) -> Out:
        begin = min(min(start(cell) for cell in cells), base.tokens.n_prompt - 1)
        entries = [entry(cell) for cell in cells]
        passage = base.passage(self.blocks, begin)
        base.memory.before = begin
        x = base.streams[0][None, begin:].expand(0, -1, -1)
        streams: dict[int, Tensor] = {}
        by_tap = _by_tap(cells)
        with ExitStack() as handles:
            if any(site.kind == "pattern" for site in by_tap):
                handles.enter_context(explicit(self.model))
            for site, changes in by_tap.items():
                act = partial(self._change, site, changes, begin)
                attach(handles, self.model.sites.find(site), act, writing=True)
            for layer in range(last + 1):
                joined = sum(first <= layer for first in entries)
                if joined > len(x):
                    x = torch.cat((x, base.streams[layer][None, begin:].expand(joined - len(x), -1, -1)))
                if joined:
                    mask = self._mask(base, cells, layer, begin, joined, x.dtype)
                    x = self.blocks.step(layer, x, passage, mask, base.memory)
                if layer in needs.layers:
                    streams[layer] = self.whole(base, layer, x, begin, len(cells))
        return self.read(base, prompt, needs, x, begin, streams)

    def _change(self, site: Site, changes: list[tuple[int, Change]], begin: int, old: Tensor) -> Tensor:
        """The tap's value with the changes of all rows that have joined."""
        whole = self.model.sites.part(site, old).clone()
        for row, change in changes:
            put(change, whole[row], begin)
        return self.model.sites.with_part(site, old, whole)

    def _mask(
        self, base: Recorded, cells: list[Cell], layer: int, begin: int, joined: int, dtype: torch.dtype
    ) -> Float[Tensor, "row head query key"]:
        mask = base.mask(layer, begin, dtype)
        cuts = [(row, one) for row, cell in enumerate(cells[:joined]) for one in cell
                if isinstance(one, Cut) and one.layer == layer]  # fmt: skip
        if not cuts:
            return mask
        heads = self.model.n_heads if any(one.head is not None for _, one in cuts) else 1
        mask = mask.expand(joined, heads, -1, -1).clone()
        for row, one in cuts:
            # what the last token may not see its continuations may not either: they are read in its place
            later = range(base.tokens.n_prompt, len(base.tokens)) if base.tokens.n_prompt - 1 in one.queries else ()
            queries, keys = torch.tensor([*one.queries, *later]) - begin, torch.tensor(one.keys)
            head = slice(None) if one.head is None else slice(one.head, one.head + 1)
            part = mask[row, head]
            part[:, queries[:, None], keys[None]] = torch.finfo(dtype).min
            if (part[:, queries] <= torch.finfo(dtype).min).all(-1).any():
                raise PatchError("A token would be left with nothing to attend to: leave some of its keys in.")
        return mask

    def whole(self, base: Recorded, layer: int, x: Tensor, begin: int, rows: int) -> Tensor:
        """The stream leaving a layer over the whole prompt; rows that have not joined are the text's own."""
        n = base.tokens.n_prompt
        out = base.streams[layer + 1][None, :n].repeat(rows, 1, 1)
        out[: len(x), begin:] = x[:, : n - begin]
        return out

    def read(
        self, base: Recorded, prompt: Prompt, needs: Needs, x: Tensor, begin: int, streams: dict[int, Tensor]
    ) -> Out:
        if not (needs.logprobs or needs.logits or needs.top):
            return Out(streams=streams)
        n, tokens = base.tokens.n_prompt, base.tokens
        tail = list(range(n, len(tokens))) if needs.logprobs else []
        chosen = torch.tensor([n - 1, *tail]) - begin
        width = 4 * self._vocabulary * len(chosen)
        fit = max(1, min(HEAD_ROWS, int(self.bytes / 8 / width)))
        parts = [self._scores(part[:, chosen], prompt, needs) for part in torch.split(x, fit)]
        logprobs, logits, top = (None if one[0] is None else torch.cat(one) for one in zip(*parts, strict=True))
        return Out(logprobs, logits, streams, top=top)

    def _scores(self, x: Tensor, prompt: Prompt, needs: Needs) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """What is asked of the stream at the tokens that are read: log P of verbalisers, logits, top token."""
        logits = self.blocks.head(x)
        last = logits[:, 0].float() if needs.logits else None
        top = logits[:, 0].argmax(-1) if needs.top else None
        if not needs.logprobs:
            return None, last, top
        firsts = torch.tensor([tail[0] for tail in prompt.tails], device=logits.device)
        total = token_logprobs(logits[:, 0], firsts.expand(len(x), -1)).double()
        column = 1
        for number, tail in enumerate(prompt.tails):
            for token in tail[1:]:
                ids = torch.full((len(x), 1), token, device=logits.device)
                total[:, number] += token_logprobs(logits[:, column], ids)[:, 0].double()
                column += 1
        return total, last, top


def _check(cells: Sequence[Cell], n: int, n_layers: int) -> None:
    """Refuse what lies outside of the text or the model."""
    for one in (one for cell in cells for one in cell):
        layer, at = (one.site.layer, one.at) if isinstance(one, Change) else (one.layer, (*one.queries, *one.keys))
        if not at or min(at) < 0 or max(at) >= n or not 0 <= layer < n_layers:
            raise PatchError(f"{one!r:.80} is outside of a text of {n} tokens, or of a model of {n_layers} layers.")
    if not all(cells):
        raise PatchError("A cell changes nothing: leave it out, and read the unpatched run.")


def _by_tap(cells: list[Cell]) -> dict[Site, list[tuple[int, Change]]]:
    """Whole sites to the rows and changes that they need, in the order in which the model computes them."""
    flat = [(row, one) for row, cell in enumerate(cells) for one in cell if isinstance(one, Change)]
    out: dict[Site, list[tuple[int, Change]]] = {}
    for row, change in sorted(flat, key=lambda pair: order(pair[1])):
        out.setdefault(replace(change.site, index=None), []).append((row, change))
    return out
