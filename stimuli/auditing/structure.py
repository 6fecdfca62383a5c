"""Whether the battery is what it says: balance, closed groups, complete quadruples, clean texts."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

from affectlens.stimuli.auditing.designs import Design
from affectlens.stimuli.auditing.finding import Finding, Worst
from affectlens.stimuli.battery import Battery
from affectlens.stimuli.stimulus import CELLS, Stimulus

FAULTS = (
    (re.compile(r"^\s|\s$"), "begins or ends with white space"),
    (re.compile(r"[^\S\n]{2,}"), "has doubled spaces"),
    (re.compile(r"[\n\r\t\u2028\u2029]"), "has line breaks or tabs"),
    (re.compile(r"[-*_#=~|]{2,}\s*$"), "ends in a stray mark"),
    (
        re.compile(r"[^.?!\"'\u201d\u2019\u00bb\u2026\u3002\uff01\uff1f\u0964)\s*_#=~|-]\s*$"),
        "does not end in a full stop",
    ),
    (re.compile(r"\ufffd|\u00e2\u20ac|\u00c3[\u0080-\u00bf]"), "was decoded wrongly"),
    (re.compile(r"<[a-z/][^>]*>|&[a-z]+;"), "holds markup"),
)


def integrity(battery: Battery) -> Finding:
    """Texts without stray marks, white space or control characters, and closed groups."""
    worst = [Worst(s.id, 1.0, said) for s in battery for said in faults(s.text)] + _open_groups(battery)
    by_text: dict[str, str] = {}
    for s in battery:
        other = by_text.setdefault(" ".join(s.text.split()).lower(), s.id)
        if other != s.id:
            worst.append(Worst(s.id, 1.0, f"has the text of {other}"))
    kinds = Counter(re.sub(r" of \S+$", "", w.say) for w in worst).most_common(4)
    note = "ids unique, groups closed, texts clean" if not worst else ", ".join(f"{n} x {k}" for k, n in kinds)
    return Finding("integrity", len(worst), "0 faults", not worst, note, tuple(worst[:200]))


def faults(text: str) -> list[str]:
    """What is wrong with a text as a string.

    >>> faults("She left. ---")
    ['ends in a stray mark']
    """
    out = [said for pattern, said in FAULTS if pattern.search(text)]
    if any(unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs") for c in text if c not in "\n\r\t"):
        out.append("holds control characters")
    return out


def balance(battery: Battery) -> Finding:
    """As many items of each emotion in each split and role, and of each emotion in each domain, as of the others."""
    worst = []
    for (split, role), items in _by(battery, lambda s: (s.split, s.role)).items():
        named = [s for s in items if s.emotion is not None]
        worst += _uneven(Counter(str(s.emotion) for s in named), f"{split}, {role}, emotion")
        if all(s.cell is None and s.domain is not None for s in named) and role in ("emotional", "neutral", "keyword"):
            cells = Counter((str(s.emotion), str(s.domain)) for s in named)
            for cell in product({s.emotion for s in named}, {s.domain for s in named}):
                cells[str(cell[0]), str(cell[1])] += 0  # an empty cell is uneven too
            worst += _uneven(cells, f"{split}, {role}, cell")
    return Finding("balance", len(worst), "0 uneven", not worst, "emotions by split and role; emotion by domain",
                   tuple(worst))  # fmt: skip


def completeness(design: Design) -> Finding:
    """Four cells a quadruple; two contexts, two endings, each once emotional and once neutral."""
    cells = _by(design.battery, lambda s: s.group if s.cell else "")
    cells.pop("", None)
    if not cells:
        return Finding("crossed completeness", None, "every quadruple", None, "no quadruples")
    worst = [Worst(group, 1.0, said) for group, items in cells.items() if (said := broken(items))]
    note = f"{len(cells) - len(worst)} of {len(cells)} quadruples complete"
    return Finding("crossed completeness", len(worst), "0 broken", not worst, note, tuple(worst))


def broken(items: list[Stimulus]) -> str:
    """What is wrong with a quadruple, or nothing."""
    found = {str(s.cell): s for s in items}
    if len(items) != 4 or set(found) != set(CELLS):
        return f"has the cells {', '.join(sorted(str(s.cell) for s in items))}"
    parts = {cell: (s.text[: s.ending].strip(), s.text[s.ending :].strip()) for cell, s in found.items()}
    for cells, part, name in ((("ax", "ay"), 0, "context A"), (("bx", "by"), 0, "context B"),
                              (("ax", "bx"), 1, "ending X"), (("ay", "by"), 1, "ending Y")):  # fmt: skip
        if parts[cells[0]][part] != parts[cells[1]][part]:
            return f"{name} differs between {cells[0]} and {cells[1]}"
    if parts["ax"][0] == parts["bx"][0] or parts["ax"][1] == parts["ay"][1]:
        return "the two contexts, or the two endings, are one"
    evokes = "".join(cell for cell in CELLS if found[cell].affect)
    if evokes not in ("axby", ""):
        return f"the emotional cells are {evokes}, not ax and by"
    checks = {cell: s.meta.get("check") for cell, s in found.items()}
    answers = {cell: check.get("answer") if isinstance(check, dict) else None for cell, check in checks.items()}
    if any(answers.values()) and not (answers["ax"] == answers["by"] != answers["ay"] == answers["bx"]):
        return "the comprehension check is not answered alike in ax and by, and otherwise in ay and bx"
    return ""


def _open_groups(battery: Battery) -> list[Worst]:
    out = []
    paired = any(s.role == "neutral" and s.cell is None for s in battery)
    twinned = any({"keyword", "emotional"} <= {s.role for s in items} for items in battery.groups().values())
    for group, items in battery.groups().items():
        roles = Counter(s.role for s in items if s.cell is None)
        if (
            paired
            and len(items) > 1
            and not (roles["emotional"] and roles["neutral"])
            and roles["emotional"] + roles["neutral"]
        ):
            out.append(Worst(group, 1.0, f"has {roles['emotional']} emotional and {roles['neutral']} neutral items"))
        if roles["keyword"] and twinned and not roles["emotional"]:
            out.append(Worst(group, 1.0, "has a keyword twin and no emotional item"))
        emotions = {s.emotion for s in items if s.emotion is not None}
        if len(emotions) > 1:
            out.append(Worst(group, 1.0, f"holds {' and '.join(sorted(map(str, emotions)))}"))
    return out


def _uneven(counts: Counter[Any], where: str) -> list[Worst]:
    if not counts or min(counts.values()) == max(counts.values()):
        return []
    usual = Counter(counts.values()).most_common(1)[0][0]
    return [
        Worst(f"{where} {'/'.join(k) if isinstance(k, tuple) else k}", float(abs(n - usual)), f"{n}, most have {usual}")
        for k, n in counts.items()
        if n != usual
    ]


def _by(battery: Battery, key: Callable[[Stimulus], Any]) -> dict[Any, list[Stimulus]]:
    out: dict[Any, list[Stimulus]] = {}
    for s in battery:
        out.setdefault(key(s), []).append(s)
    return out
