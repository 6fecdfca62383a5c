"""What a session tells whoever shows it: a sentence, a reply that begins, its pieces, its end."""

from dataclasses import dataclass

from affectlens.steering.talking.exchanges import Exchange


@dataclass(frozen=True)
class Says:
    """A sentence, or several lines."""

    text: str
    wrong: bool = False  # something could not be done


@dataclass(frozen=True)
class Begins:
    """Replies begin."""

    sides: tuple[str, ...]  # plain, steered, in the order in which they are shown


@dataclass(frozen=True)
class Grows:
    """A reply has grown."""

    side: str
    text: str  # what is new


@dataclass(frozen=True, eq=False)
class Ends:
    """The replies are written and read."""

    exchange: Exchange


@dataclass(frozen=True)
class Breaks:
    """The replies came to nothing: there is no exchange."""


Event = Says | Begins | Grows | Ends | Breaks
