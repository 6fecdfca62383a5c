"""A battery: an ordered table of stimuli with a hash, and the reader of JSONL files."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

import pandas as pd

from affectlens.catalog import CATALOG
from affectlens.errors import BatteryError
from affectlens.stimuli.stimulus import Stimulus, from_json
from affectlens.stimuli.taxonomy import canonical

OURS = ("vignettes", "intensity", "crossed", "crossed_fact", "vivid_neutral", "decoys")
NAMED = ("starter", "core", "full")


@dataclass(frozen=True)
class Battery:
    """Stimuli in order, with a name, a licence and a source.

    Raises:
        BatteryError: if it is empty, or two items share an id.
    """

    name: str
    items: tuple[Stimulus, ...]
    licence: str = "unknown"
    source: str = "unknown"

    def __post_init__(self) -> None:
        if not self.items:
            raise BatteryError(f"Battery {self.name} has no items.")
        twice = [name for name, count in Counter(s.id for s in self.items).items() if count > 1]
        if twice:
            raise BatteryError(f"Battery {self.name} has items with one id: {', '.join(twice[:3])}.")

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Stimulus]:
        return iter(self.items)

    def __getitem__(self, name: str) -> Stimulus:
        for item in self.items:
            if item.id == name:
                return item
        raise BatteryError(f"Battery {self.name} has no item {name!r}.")

    @property
    def sha256(self) -> str:
        """The hash of all fields of all items, in order; the name and the licence are not part of it."""
        rows = json.dumps([asdict(item) for item in self.items], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(rows.encode()).hexdigest()

    def frame(self) -> pd.DataFrame:
        """One row an item, with ``ending`` (characters) beside the fields of a stimulus."""
        return pd.DataFrame([asdict(item) | {"ending": item.ending} for item in self.items])

    def groups(self) -> dict[str, tuple[Stimulus, ...]]:
        """The pairs, triplets and quadruples, by group."""
        out: dict[str, list[Stimulus]] = {}
        for item in self.items:
            out.setdefault(item.group, []).append(item)
        return {name: tuple(items) for name, items in out.items()}

    def where(self, **fields: object) -> "Battery":
        """The items whose fields have these values, for example ``battery.where(split="crossed", emotion="fear")``.

        Raises:
            BatteryError: a field that stimuli lack, an unknown emotion, or no such item.
        """
        if unknown := [name for name in fields if name not in Stimulus.__dataclass_fields__]:
            raise BatteryError(f"Stimuli have no {unknown[0]!r}; they have {', '.join(Stimulus.__dataclass_fields__)}.")
        if isinstance(fields.get("emotion"), str):
            fields["emotion"] = canonical(str(fields["emotion"]))  # grief and sadness are one
        kept = tuple(s for s in self.items if all(getattr(s, k) == v for k, v in fields.items()))
        said = ", ".join(f"{k}={v}" for k, v in fields.items())
        return Battery(f"{self.name}[{said}]", kept, self.licence, self.source)

    def counts(self) -> pd.DataFrame:
        """Items by split and role."""
        frame = self.frame()
        return frame.groupby(["split", "role"], sort=False).size().rename("items").reset_index()

    def __repr__(self) -> str:
        splits = ", ".join(f"{n} {name}" for name, n in Counter(s.split for s in self.items).items())
        return f"Battery({self.name}: {len(self)} items: {splits}; {self.licence}; sha256 {self.sha256[:12]})"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p>{escape(repr(self))}</p>{self.counts().to_html(index=False, border=0)}"


def load_battery(name: str | Path) -> Battery:
    """A battery of ours by name, or a JSONL file with one stimulus a line.

    Raises:
        BatteryError: an unknown name, a missing file, a malformed line (with its number), an empty file.
    """
    if name in NAMED:
        return _ours(str(name))
    path = Path(name).expanduser()
    if not path.is_file():
        raise BatteryError(
            f"There is no battery {str(name)!r}: give {' or '.join(NAMED)}, or a JSONL file with one stimulus a line."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BatteryError(f"{path.name} is not UTF-8 (byte {error.start}): save it in that encoding.") from None
    return Battery(path.stem, tuple(read_jsonl(text.split("\n"), path.name)), source=path.name)


def lasting(name: str) -> str:
    """A battery's or a model's name as it is; a path as it can be found from any folder."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() and name not in (*CATALOG, *NAMED) else name


def read_jsonl(lines: Iterable[str], name: str) -> Iterator[Stimulus]:
    """The stimuli of a JSONL text; blank lines are passed over.

    Raises:
        BatteryError: naming the file, the line and what is wrong with it.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield from_json(json.loads(line))
        except json.JSONDecodeError as error:
            raise BatteryError(f"{name}, line {number}: not JSON ({error.msg}, column {error.colno}).") from None
        except RecursionError:
            raise BatteryError(f"{name}, line {number}: nested too deeply.") from None
        except BatteryError as error:
            raise BatteryError(f"{name}, line {number}: {error}") from None


def _ours(name: str) -> Battery:
    data = resources.files("affectlens.stimuli") / "data"
    known: dict[str, Stimulus] = {}
    for split in OURS:
        text = (data / f"{split}.jsonl").read_text(encoding="utf-8")
        known |= {item.id: item for item in read_jsonl(text.split("\n"), f"{split}.jsonl")}
    if name != "starter":
        items = tuple(item for item in known.values() if name == "full" or item.split != "intensity")
        return Battery(name, items, "CC BY 4.0", "AffectLens")
    ids = (data / f"{name}.txt").read_text(encoding="utf-8").split()
    return Battery(name, tuple(known[i] for i in ids), "CC BY 4.0", "AffectLens")
