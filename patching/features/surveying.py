"""What the features do on the texts that are edited: how often and how strongly they are active, and at which tokens.

Placebos are matched by what is measured here, so it is measured on the very tokens that an edit may change.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import sparse
from torch import Tensor

from affectlens.errors import PatchError
from affectlens.patching.pairs import PatchPair, Side
from affectlens.patching.reading import Runner
from affectlens.patching.recorded import Recorded
from affectlens.patching.spans import tokens
from affectlens.probing.sae import Sae
from affectlens.progress import tracked


@dataclass(frozen=True, eq=False)
class Survey:
    """The features over the tokens that an edit may change."""

    codes: sparse.csc_array  # [token, feature]
    emotional: Bool[np.ndarray, " token"]  # of a text that evokes an emotion
    norm: float  # the median norm of what the dictionary reads, over these tokens

    @property
    def density(self) -> Float[np.ndarray, " feature"]:
        """The share of tokens at which each feature is active."""
        return np.diff(self.codes.indptr) / len(self.emotional)

    @property
    def mean(self) -> Float[np.ndarray, " feature"]:
        """Each feature's mean activation where it is active; NaN where it never is."""
        n = np.diff(self.codes.indptr)
        total = np.asarray(self.codes.sum(axis=0), dtype=np.float64).ravel()
        return np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)

    def level(self, feature: int, percentile: float) -> float:
        """That percentile of a feature's activation, where active in emotional texts.

        Raises:
            PatchError: a feature that is active in none.
        """
        part = slice(self.codes.indptr[feature], self.codes.indptr[feature + 1])
        there = self.codes.data[part][self.emotional[self.codes.indices[part]]]
        if not len(there):
            raise PatchError(
                f"Feature {feature} is active in no emotional text of these pairs, so it has no percentile to be "
                "clamped to: give to= as a number."
            )
        return float(np.percentile(there, percentile))

    def somewhere_emotional(self) -> Bool[np.ndarray, " feature"]:
        """Which features are active in some emotional text."""
        rows = self.codes.tocsr()[np.flatnonzero(self.emotional)]
        return np.asarray(rows.astype(bool).sum(axis=0)).ravel() > 0


def survey(
    runner: Runner, sae: Sae, pairs: Sequence[PatchPair], span: str, *, progress: bool | None = None
) -> Survey:  # fmt: skip
    """Read every text of the pairs once.

    Args:
        runner: of the model.
        sae: the dictionary.
        pairs: whose texts are read, each once.
        span: which of their tokens count; never the first.
        progress: show a bar.

    Raises:
        PatchError: no text has a token there.
    """
    rows, emotional, norms, seen = [], [], [], set[str]()
    for pair, side in tracked(list(_sides(pairs)), "reading features", show=progress):
        at = places(pair, side, span)
        if side.name in seen or not at:
            continue
        seen.add(side.name)
        x, codes = encoded(runner.record(side.prompt, [sae.site]), sae)
        rows.append(sparse.csr_array(codes[at].cpu().numpy()))
        emotional += [side is pair.clean if side.affect is None else side.affect] * len(at)
        norms.append(x[at].norm(dim=-1).cpu().numpy())
    if not rows:
        raise PatchError(f"No text of these pairs has tokens at {span}: name another position, such as text.")
    found = sparse.csc_array(sparse.vstack(rows, format="csc"))
    return Survey(found, np.array(emotional), float(np.median(np.concatenate(norms))))


def places(pair: PatchPair, side: Side, span: str) -> list[int]:
    """The tokens of a span that are edited: the first of a text, an attention sink, is never among them."""
    return [at for at in tokens(pair, side, span) if at > 0]


def encoded(run: Recorded, sae: Sae) -> tuple[Float[Tensor, "pos d_in"], Float[Tensor, "pos feature"]]:
    """What the dictionary reads in a text, heads side by side, and its codes; both in float32."""
    x = run.sites[sae.site].flatten(1).to(torch.float32)
    return x, sae.encode(x)


def _sides(pairs: Iterable[PatchPair]) -> Iterable[tuple[PatchPair, Side]]:
    return ((pair, side) for pair in pairs for side in (pair.clean, pair.corrupt))
