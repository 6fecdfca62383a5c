"""Other libraries' bars and notices, off while we load, and put back as they were."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars, its advice and its notices below an error.

    Import transformers' model classes inside: where torchao is installed they bring it in, and torch then logs advice
    to torchao's authors.
    """
    from transformers.utils import logging as notices

    level, bars = notices.get_verbosity(), notices.is_progress_bar_enabled()
    loggers = [logging.getLogger(name) for name in ("torch.utils._pytree", "torchao")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    notices.set_verbosity(logging.ERROR)
    notices.disable_progress_bar()
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # some bars are bare tqdm
            warnings.simplefilter("ignore")
            yield
    finally:
        notices.set_verbosity(level)
        for logger, kept in zip(loggers, levels, strict=True):
            logger.setLevel(kept)
        if bars:
            notices.enable_progress_bar()
