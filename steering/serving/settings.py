"""What a server is told when it starts, and what it refuses to be told."""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from affectlens.errors import SteerError

TOKEN_ENV = "AFFECTLENS_TOKEN"
_UNITS = {"": 1, "B": 1, "KB": 1000, "KIB": 1024, "MB": 1000**2, "MIB": 1024**2}


@dataclass(frozen=True)
class Settings:
    """Limits and names of one server."""

    name: str  # of the model, as clients ask for it
    timeout: float = 120.0  # seconds that a reply may take, the wait included; and that a client may not read
    max_tokens: int = 1024  # the most that one request may ask for
    max_body: int = 1000**2  # bytes
    token: str | None = field(default=None, repr=False)  # that clients must send; None: none
    hosts: tuple[str, ...] = ()  # the names that requests may call the server by; empty: any
    origin: str | None = None  # of a web page whose scripts may ask
    doses: Mapping[str, float] = field(default_factory=dict)  # where a request names no emotion
    drain: float = 30.0  # seconds that running replies get once it is stopping
    body_patience: float = 30.0  # seconds in which a request's body must have come
    head_patience: float = 10.0  # seconds in which a connection must have sent a request's head

    def __post_init__(self) -> None:
        if min(self.timeout, self.body_patience, self.head_patience) <= 0 or self.drain < 0:
            raise SteerError("Time-outs are in seconds and above 0: raise --timeout.")
        if self.max_tokens < 1 or self.max_body < 1:
            raise SteerError("A request needs one token and one byte at least: raise --max-tokens or --max-body.")


def loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    Args:
        host: a name or an address.
    """
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def names_of(host: str) -> tuple[str, ...]:
    """What requests to a loopback address may call it: a web page that points a name of its own here is refused.

    Args:
        host: a name or an address.
    """
    return ("localhost", "127.0.0.1", "[::1]", f"[{host.lower()}]" if ":" in host else host.lower())


def find_token(host: str, env: str | None, without: bool) -> str | None:
    """The token that clients must send, from the environment.

    Args:
        host: where it will be served.
        env: the variable that was named; None for ``AFFECTLENS_TOKEN``, where it is set.
        without: serve without one.

    Raises:
        SteerError: a variable that holds no token, or an address that others reach and no token.
    """
    if without:
        if env:
            raise SteerError("--no-token and --token-env say the opposite: leave out one or the other.")
        return None
    token = os.environ.get(env or TOKEN_ENV, "").strip()
    if env and not token:
        raise SteerError(f"The environment variable {env} is empty: put the token there, or leave out --token-env.")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise SteerError(f"The token in {env or TOKEN_ENV} can't be sent: use letters, digits and signs, no spaces.")
    if not token and not loopback(host):
        raise SteerError(
            f"Others can reach {host}, and there is no token: put one into the environment variable {TOKEN_ENV}, serve "
            "on 127.0.0.1, or say --no-token if everybody may ask."
        )
    return token or None


def parse_size(text: str) -> int:
    """Bytes from ``1MB``, ``512 KB`` or ``4096``.

    Args:
        text: as typed.

    Raises:
        SteerError: another form.
    """
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([a-zA-Z]*)", text.strip())
    if not match or match[2].upper() not in _UNITS:
        raise SteerError(f"--max-body {text} is not known: write 1MB, 512KB, or a number of bytes.")
    return int(float(match[1]) * _UNITS[match[2].upper()])
