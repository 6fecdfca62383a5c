"""What the user says in the protocol: scripts of 25 turns, written by hand, without words of emotion.

Each domain has lines of everyday matters and four lines at each of four levels of adverse events, from a nuisance to a
death. Two scripts are made of them:

``push``  5 calm turns, 8 at the levels 3 and 4, 12 calm turns: what recovery is measured on.
``ramp``  3 calm turns, the levels 1 to 4 and back from 4 to 1, two turns each, 6 calm turns: for hysteresis. Which
          lines are on the way up and which on the way down alternates over scripts.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from affectlens.errors import SteerError
from affectlens.types import Json

PROTOCOLS = ("push", "ramp")
TURNS, FEWEST = 25, 11
_CALM, _PUSHED = 5 / TURNS, 8 / TURNS


@dataclass(frozen=True)
class Script:
    """What a user says, turn by turn.

    Attributes:
        name: of its domain.
        protocol: push or ramp.
        texts: one a turn.
        levels: how far each turn pushes; 0 is calm.
        sign: -1 if it pushes to the unpleasant, 1 to the pleasant.
    """

    name: str
    protocol: str
    texts: tuple[str, ...]
    levels: tuple[int, ...]
    sign: int = -1

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS or self.sign not in (-1, 1):
            raise SteerError(f"The script {self.name} is a {self.protocol} of sign {self.sign}: push or ramp, -1 or 1.")
        if len(self.texts) != len(self.levels) or not any(self.levels) or self.levels[0] or self.levels[-1]:
            raise SteerError(
                f"The script {self.name} needs a level for each text, and calm turns (level 0) first and last."
            )

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, eq=False)
class Phases:
    """Which turns are which.

    Attributes:
        calm: before the first push.
        pushed: from the first to the last turn above level 0.
        after: behind it.
        rising: turns up to the middle of the highest level.
        levels: of each turn.
        sign: of the push.
    """

    calm: Bool[np.ndarray, " turn"]
    pushed: Bool[np.ndarray, " turn"]
    after: Bool[np.ndarray, " turn"]
    rising: Bool[np.ndarray, " turn"]
    levels: Int[np.ndarray, " turn"]
    sign: int

    @classmethod
    def of(cls, levels: Sequence[int], sign: int = -1) -> "Phases":
        """From a script's levels.

        Args:
            levels: one a turn.
            sign: of the push.
        """
        found = np.array(levels, dtype=int)
        turn, above = np.arange(len(found)), np.flatnonzero(found)
        top = np.flatnonzero(found == found.max())
        calm, after = turn < above[0], turn > above[-1]
        return cls(calm, ~calm & ~after, after, turn <= (top[0] + top[-1]) / 2, found, sign)


def load_scripts(
    path: str | Path | None = None, *, protocol: str = "push", n: int | None = None, turns: int = TURNS
) -> list[Script]:
    """The scripts of one protocol, one a domain.

    Args:
        path: a file like the one that ships; None for that.
        protocol: push or ramp.
        n: only the first so many.
        turns: of each, from 11 to 25.

    Raises:
        SteerError: another protocol, more scripts or turns than there are, or a file that can't be read.
    """
    if protocol not in PROTOCOLS:
        raise SteerError(f"The protocol {protocol!r} is not known: choose push or ramp.")
    if not FEWEST <= turns <= TURNS:
        raise SteerError(f"{turns} turns are asked for: the scripts have from {FEWEST} to {TURNS}.")
    domains = _domains(path)
    if n is not None and not 1 <= n <= len(domains):
        raise SteerError(f"{n} scripts are asked for: there are {len(domains)}, and one is needed at least.")
    make = _push if protocol == "push" else _ramp
    return [make(domain, i, turns) for i, domain in enumerate(domains[:n])]


def _push(domain: Json, _i: int, turns: int) -> Script:
    before, pushed = max(2, round(_CALM * turns)), round(_PUSHED * turns)
    third, fourth = domain["levels"][2], domain["levels"][3]
    hard = [(text, level) for pair in zip(third, fourth, strict=True) for text, level in zip(pair, (3, 4), strict=True)]
    calm = [(text, 0) for text in domain["calm"][: turns - pushed]]
    return _made(domain, "push", [*calm[:before], *hard[:pushed], *calm[before:]])


def _ramp(domain: Json, i: int, turns: int) -> Script:
    each = 2 if turns >= TURNS - 4 else 1
    before = max(1, round(0.12 * turns))
    first, second = (slice(0, each), slice(2, 2 + each))[:: 1 if i % 2 == 0 else -1]
    up = [(text, k) for k in range(1, 5) for text in domain["levels"][k - 1][first]]
    down = [(text, k) for k in range(4, 0, -1) for text in domain["levels"][k - 1][second]]
    calm = [(text, 0) for text in domain["calm"][: turns - 8 * each]]
    return _made(domain, "ramp", [*calm[:before], *up, *down, *calm[before:]])


def _made(domain: Json, protocol: str, lines: list[tuple[str, int]]) -> Script:
    return Script(str(domain["name"]), protocol, tuple(t for t, _ in lines), tuple(level for _, level in lines))


def _domains(path: str | Path | None) -> list[Json]:
    home = resources.files("affectlens.steering.dynamics") / "data" / "scripts.json" if path is None else Path(path)
    try:
        found = json.loads(home.read_text(encoding="utf-8"))["domains"]
        whole = all(
            len(d["calm"]) >= 17 and [len(level) for level in d["levels"]] == [4] * 4 and d["name"] for d in found
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SteerError(f"The scripts in {path} can't be read ({error!r}).") from None
    if not whole or not found:
        raise SteerError(
            f"The scripts in {path} are not whole: a domain has a name, 17 calm lines, and 4 at each of 4 levels."
        )
    return list(found)
