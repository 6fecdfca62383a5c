"""How long a client waits for its reply, from the moment that its request has come."""

import time

from affectlens.steering.serving.refusals import Refusal


class Patience:
    """One client's; threads that work for it look here whether anybody still waits.

    Args:
        seconds: that the reply may take.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._over: Refusal | None = None

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return max(self._end - time.monotonic(), 0.0)

    def end(self, refusal: Refusal) -> None:
        """Nobody waits any more.

        Args:
            refusal: why.
        """
        self._over = self._over or refusal

    def check(self) -> None:
        """Go on only while somebody waits.

        Raises:
            Refusal: the time is over, the client has left, or the server stops.
        """
        if self._over is not None:
            raise self._over
        if not self.left:
            raise too_late(self.seconds)


def too_late(seconds: float) -> Refusal:
    """The refusal of what took too long.

    Args:
        seconds: that it had.
    """
    return Refusal(504, f"The reply took longer than {seconds:g} s: ask for fewer tokens, or send a shorter prompt.")
