"""One hooked, full-length, unbatched forward a cell: what the engine is compared with, and what stands in for it.

It is used where a model's blocks can't be called by themselves, where somebody else's hooks are on the model, and where
text is generated from a patched run.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from affectlens.cursors import Cursor
from affectlens.errors import PatchError
from affectlens.hooks import Edit, edit, record
from affectlens.model import LensModel
from affectlens.patching.cells import Cell, Change, Cut, order, put
from affectlens.patching.reading import Needs, Out
from affectlens.patching.recorded import Recorded, Tokens
from affectlens.patching.walking import Memory
from affectlens.quiet import quiet_transformers
from affectlens.readout import score_batch
from affectlens.sites import Site
from affectlens.verbalisers import Prompt


class Reference:
    """A runner that computes every run anew."""

    def __init__(self, model: LensModel) -> None:
        self.model = model

    @torch.no_grad()
    def record(self, prompt: Prompt, sites: Sequence[Site] = ()) -> Recorded:
        """A text's own run: the values of the sites alone."""
        found = Recorded(Tokens.of(prompt), torch.empty(0, 0, 0), Memory(), [])
        if sites:
            with record(self.model, list(sites)) as seen:
                self._forward(prompt)
            found.sites.update({site: seen[site][0] for site in sites})
        return found

    def unpatched(self, base: Recorded, prompt: Prompt, needs: Needs) -> Out:
        """What is read of the text's own run: one row."""
        return next(self.run(base, prompt, [()], needs))[1]

    @torch.no_grad()
    def run(
        self, base: Recorded, prompt: Prompt, cells: Sequence[Cell], needs: Needs
    ) -> Iterator[tuple[list[int], Out]]:
        """Run each cell; yields its number and what was read. Nothing is taken from ``base``."""
        del base
        for row, cell in enumerate(cells):
            with edit(self.model, self._edits(cell), idle="ignore"):
                yield [row], self._read(prompt, needs)

    def _edits(self, cell: Cell) -> Mapping[Site, Edit]:
        by_site: dict[Site, list[Change | Cut]] = {}
        for change in sorted((one for one in cell if isinstance(one, Change)), key=order):
            by_site.setdefault(replace(change.site, index=None), []).append(change)
        for cut in (one for one in cell if isinstance(one, Cut)):
            by_site.setdefault(Site("pattern", cut.layer), []).append(cut)
        return {site: partial(_changed, changes) for site, changes in by_site.items()}

    def _read(self, prompt: Prompt, needs: Needs) -> Out:
        logprobs = score_batch(self.model, [prompt]) if needs.logprobs else None
        logits, streams, whole = None, {}, needs.logits or needs.top
        if whole or needs.layers:
            with record(self.model, [Site("resid_post", at) for at in sorted(needs.layers) or [0]]) as seen:
                logits = self._forward(prompt)[:, -1].float()
            streams = {at: seen[Site("resid_post", at)] for at in needs.layers}
        texts = (self._written(prompt, needs.generate),) if needs.generate else ()
        top = logits.argmax(-1) if needs.top and logits is not None else None
        return Out(logprobs, logits if needs.logits else None, streams, texts, top)

    def _forward(self, prompt: Prompt) -> Tensor:
        ids = torch.tensor(prompt.ids, device=self.model.device)[None]
        logits: Tensor = self.model.hf(input_ids=ids, use_cache=False).logits
        return logits

    def _written(self, prompt: Prompt, n: int) -> str:
        ids = torch.tensor(prompt.ids, device=self.model.device)[None]
        with quiet_transformers():
            out = self.model.hf.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, do_sample=False,
                pad_token_id=self.model.tokenizer.pad_token_id or self.model.tokenizer.eos_token_id or 0,
            )  # fmt: skip
        return str(self.model.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


def _changed(changes: Sequence[Change | Cut], value: Tensor, cursor: Cursor) -> Tensor:
    """The site's value with the changes, cuts first.

    Changes are made in the pass over the prompt, whose cache carries them on; what the last token may not see its
    continuations may not either.
    """
    out = value.clone()
    for one in (cut for cut in changes if isinstance(cut, Cut)):
        part = out[0] if one.head is None else out[0, one.head : one.head + 1]
        queries = (
            list(one.queries) if not cursor.past else range(part.shape[1]) if cursor.past - 1 in one.queries else []
        )
        lost = cursor.past + part.shape[1] - part.shape[2]  # keys that a sliding window's cache has dropped
        keys = [key - lost for key in one.keys if key >= lost]
        part[:, torch.tensor(list(queries), dtype=torch.long)[:, None], torch.tensor(keys, dtype=torch.long)[None]] = (
            0.0
        )
        if (part.sum(-1) == 0).any():
            raise PatchError("A token would be left with nothing to attend to: leave some of its keys in.")
        part /= part.sum(-1, keepdim=True)
    for change in (one for one in changes if isinstance(one, Change) and not cursor.past):
        put(change, out[0])
    return out
