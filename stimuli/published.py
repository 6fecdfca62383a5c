"""Other people's batteries, each as its authors lay it out. Nothing of theirs is here: a user's own copy is read.

A source turns rows into items of ours. An emotion that is not one of Plutchik's eight stays in ``meta["label"]``, under
the authors' word, and ``emotion`` is None: nothing is forced into a scheme that it does not fit.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from affectlens.errors import BatteryError
from affectlens.stimuli.schemes import GOEMOTIONS, plutchik
from affectlens.stimuli.tables import Row
from affectlens.types import Json

Rows = Iterable[tuple[str, Row]]  # the stem of the file, and a row
OWN_COPY = "for research; not for redistribution: read from your own copy"
REPE = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
ISEAR = ("joy", "fear", "anger", "sadness", "disgust", "shame", "guilt")
APPRAISALS = (
    "suddenness familiarity predict_event pleasantness unpleasantness goal_relvnc chance_responsblt self_responsblt "
    "other_responsblt predict_conseq goal_support urgency self_control other_control chance_control accept_conseq "
    "standards social_norms attention not_consider effort"
).split()


@dataclass(frozen=True)
class Source:
    """A published battery: how its rows read, who wrote it, and on what terms."""

    title: str
    citation: str
    licence: str
    files: str  # what to give
    read: Callable[[Rows], Iterator[Json]]
    header: bool = True
    hub: str | None = None  # id on the Hugging Face hub
    stems: tuple[str, ...] = ()  # names of the files that are read, without their endings; all by default
    remark: Callable[[Sequence[tuple[str, Row]]], str | None] = lambda _: None  # how the rows were taken


def _matched(rows: Rows) -> Iterator[Json]:
    """AIPsy-Affect and affect-reception: clinical vignettes, matched neutrals, keyword-rich texts."""
    found = list(rows)
    emotional = {str(row["id"]): row for _, row in found if row.get("emotion") not in (None, "neutral", "")}
    for stem, row in found:
        name, kind = str(row["id"]), str(row.get("stimulus_set") or row.get("set") or stem)
        partner = row.get("matched_control_id")
        own = row.get("emotion") not in (None, "neutral", "")
        matched = emotional.get(str(partner)) if not own else row
        emotion = plutchik(str(matched["emotion"])) if matched else None
        if own:
            role = "keyword" if row.get("has_emotion_keyword") else "moderate" if "moderate" in kind else "emotional"
        else:
            role = "neutral"
        domain = (matched or row).get("domain")
        yield {
            "id": name, "text": row["text"], "split": kind, "role": role, "affect": own, "emotion": emotion,
            "intensity": ({"moderate": 2}.get(str(row.get("intensity")), 3) if own else 0),
            "domain": None if domain is None or domain != domain else str(domain).removesuffix(".0"),
            "group": str(partner) if matched and not own else name,
            "meta": {"label": row.get("emotion"), "domain_label": row.get("domain_label") or ""},
        }  # fmt: skip


def _sev(rows: Rows) -> Iterator[Json]:
    """A scenario with a positive, a neutral and a negative event."""
    for _, row in rows:
        scenario, group = str(row["scenario"]).strip(), str(row["skeleton_id"])
        for said, valence in (("positive", 1), ("neutral", 0), ("negative", -1)):
            yield {"id": f"{group}.{said}", "text": f"{scenario} {str(row['event'][said]).strip()}", "split": "sev",
                   "role": "emotional" if valence else "neutral", "affect": bool(valence), "valence": valence,
                   "group": group, "meta": {"ending": len(scenario) + 1}}  # fmt: skip


def _goemotions(rows: Rows) -> Iterator[Json]:
    """Text, label ids with commas, comment id; or a row a rater with one column a label, as in the raw release."""
    seen: set[str] = set()
    rated: dict[str, list[Row]] = {}
    for n, (stem, row) in enumerate(rows):
        if "1" not in row:
            rated.setdefault(f"goemotions.{row['id']}" if row.get("id") else f"{stem}.{n}", []).append(row)
            continue
        labels = [_goemotion(code) for code in str(row["1"]).split(",")]
        name = f"{stem}.{row.get('2') or n}"
        if name not in seen:
            seen.add(name)
            yield _commented(name, row["0"], labels, {})
    for name, ratings in rated.items():
        votes = Counter(label for row in ratings for label in _chosen(row))
        top = [label for label in GOEMOTIONS if votes and votes[label] == max(votes.values())]
        if top:
            yield _commented(name, ratings[0]["text"], top, {"votes": dict(votes), "raters": len(ratings)})


def _goemotion(code: str) -> str:
    if not code.strip().isdecimal() or int(code) >= len(GOEMOTIONS):
        raise BatteryError(f"the label's id is {code!r}, expected 0 to {len(GOEMOTIONS) - 1}, with commas between ids")
    return GOEMOTIONS[int(code)]


def _chosen(row: Row) -> list[str]:
    """The labels that one rater gave."""
    return [label for label in GOEMOTIONS if str(row.get(label, "0")) in ("1", "1.0", "True")]


def _commented(name: str, text: Any, labels: list[str], meta: Json) -> Json:
    label = labels[0] if len(labels) == 1 else None
    item = _labelled(name, text, "goemotions", label, {"labels": labels} | meta, affect=labels != ["neutral"])
    return item | {"emotion": None} if label == "admiration" else item  # their admiration is not the peak of trust


def _gathered(rows: Sequence[tuple[str, Row]]) -> str | None:
    """What was made of the raters' rows of GoEmotions' raw release."""
    raw = [row for _, row in rows if "1" not in row]
    if not raw:
        return None
    comments = len({row["id"] for row in raw if row.get("id")}) + sum(not row.get("id") for row in raw)
    unlabelled = comments - len({row.get("id") or n for n, row in enumerate(raw) if _chosen(row)})
    return (f"{len(raw)} ratings of {comments} comments were gathered by comment: the label that most raters gave, no "
            f"single label where several have as many (meta.votes); {unlabelled} without a label left out")  # fmt: skip


def _envent(rows: Rows) -> Iterator[Json]:
    """Events told by the person who lived them, with emotion and 21 appraisals from 1 to 5."""
    for stem, row in rows:
        label = str(row["emotion"]).replace("no-emotion", "neutral").replace("no emotion", "neutral")
        meta = {"appraisals": {a: float(row[a]) for a in APPRAISALS if str(row.get(a) or "").strip()},
                "masked": row.get("hidden_emo_text") or ""}  # fmt: skip
        yield _labelled(f"{stem}.{row['text_id']}", row["generated_text"], "crowd-envent", label, meta)


def _emobank(rows: Rows) -> Iterator[Json]:
    """Sentences with valence, arousal and dominance from 1 to 5; half a point from the middle counts as affect."""
    for _, row in rows:
        v, a, d = (float(row[axis]) for axis in "VAD")
        valence = (v > 3) - (v < 3) if abs(v - 3) >= 0.5 else 0
        yield {"id": str(row["id"]), "text": row["text"], "split": str(row.get("split") or "emobank"),
               "role": "emotional" if valence else "neutral", "affect": bool(valence), "valence": valence,
               "meta": {"V": v, "A": a, "D": d}}  # fmt: skip


def _repe(rows: Rows) -> Iterator[Json]:
    """One file an emotion, each a list of scenarios."""
    for n, (stem, row) in enumerate(rows):
        yield _labelled(f"{stem}.{n}", row["text"], "repe", stem, {})


def _isear(rows: Rows) -> Iterator[Json]:
    """Situations that people remember: a label and a text, under the several names that copies give them."""
    for n, (_, row) in enumerate(rows):
        label = next((row[k] for k in ("emotion", "Field1", "EMOT", "label", "0") if k in row), None)
        text = next((row[k] for k in ("SIT", "text", "content", "sentence", "1") if k in row), None)
        if label is None or text is None:
            raise BatteryError(f"the columns {', '.join(row)} hold no emotion (emotion, Field1) or no text (SIT, text)")
        label = _decoded(str(label).strip(), n + 1)
        yield _labelled(f"isear.{row.get('ID') or n}.{n}", text, "isear", label, {})


def _decoded(label: str, n: int) -> str:
    """An emotion of ISEAR from its code, 1 to 7, or by its name."""
    if not re.fullmatch(r"[-+]?\d+([.]\d*)?", label):
        return label
    if float(label) not in range(1, len(ISEAR) + 1):
        raise BatteryError(
            f"row {n} has the emotion code {label}, expected 1 to 7 ({', '.join(ISEAR)}): correct it, or leave it out"
        )
    return ISEAR[int(float(label)) - 1]


def _labelled(name: str, text: Any, split: str, label: str | None, meta: Json, *, affect: bool | None = None) -> Json:
    evokes = label != "neutral" if affect is None else affect
    return {"id": name, "text": text, "split": split, "role": "emotional" if evokes else "neutral", "affect": evokes,
            "emotion": plutchik(label) if label and evokes else None, "meta": {"label": label} | meta}  # fmt: skip


SOURCES: dict[str, Source] = {
    "affect-reception": Source(
        "affect-reception", "Keeman 2026, Whether, Not Which, arXiv 2603.22295", "MIT",
        "stimuli.jsonl, or a folder with it and set_c_complex_neutral.jsonl", _matched,
    ),
    "aipsy-affect": Source(
        "AIPsy-Affect", "Keeman 2026, arXiv 2604.23719", "MIT",
        "a parquet or JSONL file, a folder of them, or keidolabs/aipsy-affect", _matched, hub="keidolabs/aipsy-affect",
    ),
    "sev": Source("SEV", "Wang et al. 2025, Do LLMs Feel?, arXiv 2510.11328", "see its repository: none is stated here",
                  "sev.jsonl", _sev),
    "goemotions": Source("GoEmotions", "Demszky et al. 2020, ACL", "CC BY 4.0 (code Apache-2.0)",
                         "train.tsv, dev.tsv, test.tsv (no heading), or goemotions_1.csv", _goemotions, header=False,
                         remark=_gathered),
    "crowd-envent": Source("crowd-enVENT", "Troiano, Oberländer and Klinger 2023, Computational Linguistics 49(1)",
                           OWN_COPY, "crowd-enVent_generation.tsv", _envent),
    "emobank": Source("EmoBank", "Buechel and Hahn 2017, EACL", "CC BY-SA 4.0", "emobank.csv", _emobank),
    "repe": Source("RepE emotions", "Zou et al. 2023, Representation Engineering, arXiv 2310.01405", "MIT",
                   f"the folder of {', '.join(REPE)} (.json), or one of them", _repe, stems=REPE),
    "isear": Source("ISEAR", "Scherer and Wallbott 1994, JPSP 66(2)",
                    OWN_COPY, "isear.csv", _isear),
}  # fmt: skip
