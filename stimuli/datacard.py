"""The data card's tables, from the data: ``python -m affectlens.stimuli.datacard`` writes them into DATACARD.md anew.

What people wrote stays; between ``<!-- NAME -->`` and ``<!-- /NAME -->`` stands what is computed here.
"""

import hashlib
import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score

from affectlens.errors import BatteryError
from affectlens.paths import write_text
from affectlens.stimuli.auditing import Audit, audit
from affectlens.stimuli.battery import Battery, load_battery
from affectlens.stimuli.taxonomy import EMOTIONS

LABELS = (*EMOTIONS, "none")


def fill(card: str, tables: dict[str, str]) -> str:
    """``card`` with each named part replaced."""
    for name, table in tables.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if start not in card or end not in card.partition(start)[2]:
            raise BatteryError(f"The card has no part between {start.strip()} and {end}.")
        before, _, rest = card.partition(start)
        card = before + start + table + end + rest.partition(end)[2]
    return card


def tables(full: Battery, core: Audit, starter: Audit) -> dict[str, str]:
    """Every computed part of the card."""
    said = readings(full)
    return {
        "counts": _markdown(_counts(full)),
        "audit": _markdown(_audited(core, starter)),
        "readings": _markdown(agreement(said)),
        "kappas": _markdown(kappas(said)),
        "calibration": _markdown(calibration()),
        "otherwise": _otherwise(said),
    }


def digest(text: str) -> str:
    """The first twelve digits of a text's SHA-256, which tie a reading to what was read."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def readings(battery: Battery) -> pd.DataFrame:
    """All blind readings, with what the item was meant to evoke and whether its text still stands as it was read."""
    frame = _lines("readings.jsonl")
    items = {s.id: s for s in battery}
    frame = frame[frame["id"].isin(items)].copy()
    chosen = [items[name] for name in frame["id"]]
    frame["intended"] = [(s.emotion or "none") if s.affect else "none" for s in chosen]
    frame["kind"] = [_kind(s.split, s.role, s.affect) for s in chosen]
    frame["stands"] = [digest(s.text) == read for s, read in zip(chosen, frame["text"], strict=True)]
    return frame


def agreement(said: pd.DataFrame) -> pd.DataFrame:
    """By kind of item: first readings and readings of the text as it ships."""
    rows = []
    for name, part in (("first reading", _first(said)), ("as it ships", _standing(said))):
        for kind, some in [("all", part), *part.groupby("kind", sort=False)]:
            rows.append((name, kind, len(some), round(float((some["label"] == some["intended"]).mean()), 3),
                         int(some["odd"].sum())))  # fmt: skip
    return pd.DataFrame(rows, columns=["reading", "items", "n", "agreement", "called odd"])


def kappas(said: pd.DataFrame) -> pd.DataFrame:
    """Cohen's kappa between reading and intention, over all nine labels and one label against the rest."""
    first, last = _first(said), _standing(said)
    rows = [("all nine", *(round(float(cohen_kappa_score(p["intended"], p["label"])), 3) for p in (first, last)))]
    for label in LABELS:
        rows.append((label, *(round(float(cohen_kappa_score(p["intended"] == label, p["label"] == label)), 3)
                              for p in (first, last))))  # fmt: skip
    return pd.DataFrame(rows, columns=["label", "kappa, first reading", "kappa, as it ships"])


def _first(said: pd.DataFrame) -> pd.DataFrame:
    """One row an item: its first reading, whatever became of the text."""
    return said.sort_values("round").drop_duplicates("id")


def _standing(said: pd.DataFrame) -> pd.DataFrame:
    """One row an item: readings of the text as it ships; misread or odd if any of them says so."""
    part = said[said["stands"]].copy()
    part["odd"] = part.groupby("id")["odd"].transform("any")
    part["right"] = part["label"] == part["intended"]
    return part.sort_values(["right", "round"]).drop_duplicates("id")


def calibration() -> pd.DataFrame:
    """How the readers did on texts that people labelled, and on planted wrong labels, by round."""
    frame = _lines("calibration.jsonl")
    rows = []
    for (number, source), part in frame.groupby(["round", "source"], sort=False):
        rows.append((number, source, part["reader"].nunique(), len(part),
                     round(float((part["expected"] == part["said"]).mean()), 3)))  # fmt: skip
    return pd.DataFrame(rows, columns=["round", "texts", "readers", "n", "agreement"])


def _otherwise(said: pd.DataFrame) -> str:
    last = _standing(said)
    off = last[last["label"] != last["intended"]]
    listed = ", ".join(f"`{r['id']}` ({r['label']})" for _, r in off.iterrows()) or "none"
    return f"{listed}.\n"


def _counts(full: Battery) -> pd.DataFrame:
    frame = full.frame()
    rows = [(split, ", ".join(dict.fromkeys(part["role"])), len(part), part["group"].nunique(),
             int(np.mean([len(t.split()) for t in part["text"]])))
            for split, part in frame.groupby("split", sort=False)]  # fmt: skip
    return pd.DataFrame(rows, columns=["split", "roles", "items", "groups", "words, mean"])


def _audited(core: Audit, starter: Audit) -> pd.DataFrame:
    rows = [(f.name, f.said(), starter[f.name].said(), f.bound, f.verdict) for f in core.findings]
    return pd.DataFrame(rows, columns=["property", "core", "starter", "bound", "core is"])


def _kind(split: str, role: str, affect: bool) -> str:
    if split.startswith("crossed"):
        return f"{split}, {'emotional' if affect else 'flat'} cells"
    return f"{split}, {role}"


def _markdown(frame: pd.DataFrame) -> str:
    lines = [list(frame.columns), ["---"] * frame.shape[1], *frame.astype(str).to_numpy().tolist()]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _lines(name: str) -> pd.DataFrame:
    text = (resources.files("affectlens.stimuli") / "data" / name).read_text(encoding="utf-8")
    return pd.DataFrame([json.loads(line) for line in text.splitlines() if line])


def main(arguments: Iterable[str] = ()) -> None:
    """Write the tables into the card of this tree."""
    path = Path(*arguments) if arguments else Path(__file__).parent / "data" / "DATACARD.md"
    full = load_battery("full")
    found = tables(full, audit(load_battery("core")), audit(load_battery("starter")))
    write_text(path, fill(path.read_text(encoding="utf-8"), found))


if __name__ == "__main__":
    main()
