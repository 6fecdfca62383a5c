"""A conversation with a steered model: in a terminal, through a pipe, and in a notebook as :class:`Chat`."""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.steering.talking.chat import Chat
    from affectlens.steering.talking.exchanges import Exchange

__all__ = ["Chat", "Exchange"]
__getattr__, __dir__ = lazily(__name__, {"Chat": "chat", "Exchange": "exchanges"})
