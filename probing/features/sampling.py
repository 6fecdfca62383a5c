"""Text that a model writes by itself, to train a dictionary where no other text is at hand."""

from collections.abc import Iterator

import numpy as np

from affectlens.errors import CaptureError
from affectlens.generating import Decoding, end_tokens, generate
from affectlens.layouts import Layout
from affectlens.model import LensModel

ROWS = 32  # texts written at a time


def self_text(model: LensModel, *, length: int = 256, seed: int = 0) -> Iterator[str]:
    """Texts without end, sampled at temperature 1 from the model's own beginning-of-text token.

    Args:
        model: writes them, of what it was trained on last: an instruction model begins conversations.
        length: tokens at most.
        seed: of the sampling; the same seed gives the same texts.

    Raises:
        CaptureError: a model whose tokenizer has neither a beginning nor an end token.
    """
    begin = model.tokenizer.bos_token_id
    firsts = [int(begin)] if begin is not None else end_tokens(model)
    if not firsts:
        raise CaptureError(f"The tokenizer of {model.name} has no token that begins a text: give --text.")
    start = Layout("self", "", firsts[:1], [], np.ones(1, bool), 0)
    number = 0
    while True:
        how = Decoding(length, temperature=1.0, seed=seed)
        for ids in generate(model, [start] * ROWS, how, keys=list(range(number, number + ROWS))):
            yield str(model.tokenizer.decode(ids, skip_special_tokens=True))
        number += ROWS
