"""One stimulus: a text and what is known of it."""

from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from affectlens.errors import BatteryError
from affectlens.layouts import ending_start
from affectlens.stimuli.taxonomy import canonical
from affectlens.types import Json

Role = Literal["emotional", "neutral", "keyword", "mild", "moderate", "vivid", "decoy"]
Cell = Literal["ax", "ay", "bx", "by"]
ROLES: tuple[str, ...] = get_args(Role)
CELLS: tuple[str, ...] = get_args(Cell)


@dataclass(frozen=True)
class Stimulus:
    """A text with its design.

    ``emotion`` of a neutral item is its partner's. ``group`` ties the items of a pair, triplet or quadruple: no
    split ever separates them. ``meta`` may hold ``ending`` (where the ending begins, in characters) and ``check``
    (a comprehension question with its answer for this item).
    """

    id: str
    text: str
    split: str
    role: str
    affect: bool  # whether the text evokes an emotion
    emotion: str | None = None  # one of Plutchik's eight
    valence: int = 0  # -1, 0 or 1
    intensity: int = 0  # 0 to 3
    domain: str | None = None
    group: str = ""  # its own id by default
    cell: str | None = None  # of a crossed quadruple
    author: str | None = None
    meta: Json = field(default_factory=dict)

    def __post_init__(self) -> None:
        _expect(bool(self.id), "id is empty")
        _expect(bool(self.text.strip()), "text is empty")
        _expect(self.role in ROLES, f"role is {self.role!r}, expected one of {', '.join(ROLES)}")
        _expect(
            self.cell is None or self.cell in CELLS,
            f"cell is {self.cell!r}, expected one of {', '.join(CELLS)}",
        )
        _expect(self.valence in (-1, 0, 1), f"valence is {self.valence!r}, expected -1, 0 or 1")
        _expect(self.intensity in (0, 1, 2, 3), f"intensity is {self.intensity!r}, expected 0 to 3")
        _expect(self.text.isascii() or _encodes(self.text), "text holds a lone surrogate, which no file can store")
        ending = self.meta.get("ending", 0)
        _expect(
            type(ending) is int and 0 <= ending < len(self.text),
            f"meta.ending is {ending!r}, expected an offset in characters inside the text",
        )
        evokes = {"neutral": False, "decoy": False, "vivid": False}.get(self.role, True)
        _expect(self.affect is evokes, f"affect is {self.affect}, but role {self.role} says {evokes}")
        if self.emotion is not None:
            object.__setattr__(self, "emotion", canonical(self.emotion))
        if not self.group:
            object.__setattr__(self, "group", self.id)

    @property
    def ending(self) -> int:
        """Where the ending begins, in characters: given in ``meta``, else the last sentence."""
        return int(self.meta.get("ending", ending_start(self.text)))


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,), "text": (str,), "split": (str,), "role": (str,), "affect": (bool,), "emotion": (str, type(None)),
    "valence": (int,), "intensity": (int,), "domain": (str, type(None)), "group": (str,), "cell": (str, type(None)),
    "author": (str, type(None)), "meta": (dict,),
}  # fmt: skip
REQUIRED = ("id", "text", "split", "role", "affect")
assert set(TYPES) == {f.name for f in fields(Stimulus)}


def from_json(row: object) -> Stimulus:
    """A stimulus from a decoded JSON object.

    Raises:
        BatteryError: a missing or unknown field, or a value of the wrong type.
    """
    _expect(isinstance(row, dict), f"expected a JSON object, found {type(row).__name__}")
    assert isinstance(row, dict)
    missing = [name for name in REQUIRED if name not in row]
    unknown = sorted(set(row) - set(TYPES))
    _expect(not missing, f"missing {', '.join(missing)}")
    _expect(not unknown, f"unknown field {', '.join(unknown)} (own fields go into meta)")
    for name, value in row.items():
        right = isinstance(value, TYPES[name]) and not (isinstance(value, bool) and bool not in TYPES[name])
        _expect(right, f"{name} is {value!r}, expected {' or '.join(t.__name__ for t in TYPES[name])}")
    return Stimulus(**row)


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise BatteryError(otherwise)
