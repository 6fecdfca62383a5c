"""Which token of the counterfactual text stands for which of the text that is run: each has one.

A circuit's other edges carry the counterfactual at every token, so none may be left over. Where both texts have equally
many tokens in the clause in which they differ, tokens are taken in order. Where they have not, places are: a token at a
third of one clause gets the token at a third of the other, so some stand twice, or not at all. What follows the clause
is the same in both texts. The first token of a text, an attention sink in most models, stands for itself alone.
"""

import numpy as np

from affectlens.errors import CircuitError
from affectlens.patching.pairs import PatchPair
from affectlens.patching.recorded import Tokens


def stands(pair: PatchPair) -> tuple[list[int], list[int]]:
    """Positions of the clean text from the first that differs on, verbalisers' tokens included, and the corrupt's.

    Args:
        pair: from :func:`affectlens.patching.prepare`.

    Raises:
        CircuitError: a pair of which one text ends where they begin to differ.
    """
    ours, theirs = pair.alignment.a, pair.alignment.b
    if not ours.suffix and not (ours.changed and theirs.changed):
        raise CircuitError(f"{pair.name}: one text ends where the other goes on, so nothing stands for its tokens.")
    here = [*_places(ours.changed, theirs.changed), *zip(ours.suffix, theirs.suffix, strict=True)]
    n, other = len(pair.clean.prompt.ids), len(pair.corrupt.prompt.ids)
    tails = len(Tokens.of(pair.clean.prompt)) - n
    here += [(n + i, other + i) for i in range(tails)]
    return [a for a, _ in here], [b for _, b in here]


def _places(ours: range, theirs: range) -> list[tuple[int, int]]:
    """Each of our positions, and theirs at the same share of the way; of an empty clause, the one where it would be."""
    if not ours:
        return []
    theirs = theirs or range(theirs.start, theirs.start + 1)
    sink = ours[0] == 0 and theirs[0] == 0
    first = [(0, 0)] if sink else []
    ours, theirs = ours[sink:], theirs[sink:] or range(theirs.stop, theirs.stop + 1)
    if not ours:
        return first
    share = np.linspace(0, len(theirs) - 1, len(ours)) if len(ours) > 1 else np.array([(len(theirs) - 1) / 2])
    return [*first, *((a, theirs[int(at + 0.5)]) for a, at in zip(ours, share, strict=True))]
