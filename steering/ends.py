"""A reply without the token that ended it."""

from collections.abc import Sequence

from affectlens.generating import end_tokens
from affectlens.model import LensModel


def without_end(model: LensModel, ids: Sequence[int]) -> list[int]:
    """The tokens of a reply, less its end token where it has one.

    Args:
        model: whose end tokens are meant.
        ids: as they were written.
    """
    own = list(ids)
    return own[:-1] if own and own[-1] in end_tokens(model) else own
