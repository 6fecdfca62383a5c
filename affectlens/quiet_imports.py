"""The notices that torch logs when transformers imports torchao, which it does wherever that is installed."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from affectlens.quiet import quiet_transformers


@contextmanager
def quiet_imports() -> Iterator[None]:
    """:func:`quiet_transformers`, and no advice to torchao's authors; import transformers' model classes inside."""
    loggers = [logging.getLogger(name) for name in ("torch.utils._pytree", "torchao")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with quiet_transformers():
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
