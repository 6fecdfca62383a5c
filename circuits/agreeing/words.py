"""What an agreement report says, in sentences: what controls undo, the whole, the flags, then question by question."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from affectlens.circuits.agreeing.marks import LEVEL, NO, NOT_MEASURED, QUESTIONS, UNDECIDED, UNITS, YES
from affectlens.probing.by_layer import spans

if TYPE_CHECKING:
    from affectlens.circuits.agreeing.report import AgreementReport

NAMES = {"read": "read", "causal": "causal", "feature": "a feature", "steerable": "steerable",
         "circuit": "on the circuit"}  # fmt: skip
FAMILIES = {
    "read": "max-T over layers, emotions and both controls",
    "causal": "max-T over the layers and controls of an emotion, Benjamini-Bogomolov over emotions",
    "feature": "counts of survivors beside random labels, the largest over emotions; Bonferroni over dictionaries",
    "steerable": "the rank among placebos, over emotions",
    "circuit": "max-T over the layers of an emotion, Benjamini-Bogomolov over emotions",
}
UNUSED, UNREAD = "read but not used", "used but not read"
FLAGS = (UNUSED, UNREAD)
_MEANS = {
    UNUSED: "it is read there beyond words and topic, and patching it moves the metric by less than is worth having",
    UNREAD: "patching it moves the metric beyond every control, and a linear probe reads no more there than a control",
}
_FEWEST = 6  # groups, of which all signs must agree for an exact p of 0.05
_MOST = 4  # emotions whose layers are listed in a sentence


def summary(report: "AgreementReport") -> list[str]:
    """The sentences; Markdown.

    Args:
        report: what was joined.
    """
    asked = [question for question in QUESTIONS if (_of(report, question)["verdict"] != NOT_MEASURED).any()]
    return [*_undone(report), headline(report), *_flags(report), *(_question(report, name) for name in asked),
            *_missing(report, asked), _rule(report)]  # fmt: skip


def headline(report: "AgreementReport") -> str:
    """The whole in one sentence.

    Args:
        report: what was joined.
    """
    counts, every = report.counts(), len(report.layers) * len(report.emotions)
    parts = []
    for question, row in counts.iterrows():
        measured = every - int(row[NOT_MEASURED])
        parts.append(
            f"{NAMES[str(question)]} {int(row[YES])} of {measured}" if measured else f"{NAMES[str(question)]} -"
        )
    flags = report.flags()["flag"].value_counts()
    differ = "; ".join(f"{flag} in {int(flags.get(flag, 0))}" for flag in FLAGS)
    return (
        f"**{report.meta['model']}, {len(report.layers)} layers by {len(report.emotions)} emotions, yes of the cells "
        f"measured: {', '.join(parts)}; {differ}.**"
    )


def _undone(report: "AgreementReport") -> Iterator[str]:
    """Where something is there and a control is not surely beaten."""
    lost = report.table[report.table["undone"] & (report.table["verdict"] != YES)]
    for question in QUESTIONS:
        mine = lost[lost["question"] == question]
        if len(mine):
            controls = " or ".join(dict.fromkeys(str(name) for name in mine["control"]))
            yield (
                f"**Not told from a control: {NAMES[question]} in {cells(len(mine))}** ({where(mine)}). Something is "
                f"surely there, and {controls} may do as much."
            )


def _flags(report: "AgreementReport") -> Iterator[str]:
    found = report.flags()
    for flag in FLAGS:
        mine = found[found["flag"] == flag]
        if len(mine):
            yield f"**{flag.capitalize()}: {where(mine)}**; {_MEANS[flag]}."


def _question(report: "AgreementReport", question: str) -> str:
    rows = _of(report, question)
    counts = rows["verdict"].value_counts()
    yes = rows[rows["verdict"] == YES]
    found = f"yes in {cells(len(yes))}" + (f" ({where(yes)})" if len(yes) else "")
    rest = ", ".join(f"{name} in {int(counts.get(name, 0))}" for name in (NO, UNDECIDED, NOT_MEASURED))
    largest = ""
    if len(yes) and yes["value"].notna().any():
        top = yes.sort_values("value").iloc[-1]
        largest = (
            f"; the largest is {top['emotion']} at layer {top['layer']}, {top['value']:.2f} "
            f"[{top['low']:.2f}, {top['high']:.2f}] {UNITS[question]} ({top['control']})"
        )
    few = ""
    if question in ("causal", "circuit") and (n := rows.loc[rows["n"] > 0, "n"]).max() < _FEWEST:
        few = f" **No yes was within reach**: {int(n.max())} groups of pairs an emotion give no p of {LEVEL}."
    return f"{NAMES[question].capitalize()}{_how(report, question)}: {found}, {rest}{largest}.{few}"


def cells(n: int) -> str:
    """A number of cells.

    Args:
        n: how many.
    """
    return "1 cell" if n == 1 else f"{n} cells"


def _how(report: "AgreementReport", question: str) -> str:
    """Where and how it was measured, where that is a choice."""
    if question == "causal" and (at := report.meta.get("causal")):
        return f" (`{at['kind']}` at `{at['segment']}`, metric `{at['metric']}`)"
    if question == "read" and (at := report.meta.get("read")):
        return f" (`{at['site']}` over `{at['position']}`, one emotion against the rest)"
    return ""


def _missing(report: "AgreementReport", asked: list[str]) -> Iterator[str]:
    if left := [question for question in QUESTIONS if question not in asked]:
        why = "; ".join(f"{NAMES[name]}: {_of(report, name)['why'].iloc[0]}" for name in left)
        yield f"Not measured at all, which is no answer: {why}."


def _rule(report: "AgreementReport") -> str:
    worth = ", ".join(f"{NAMES[name]} {report.meta['worth'][name]:g}" for name in QUESTIONS)
    return (
        f"A yes is above every control by its 95% interval and p of at most {LEVEL} over layers and emotions; a no "
        f"has an interval that ends below the smallest difference worth having ({worth}), or of features shows that "
        "one of that size would have been found; all else is undecided."
    )


def methods(report: "AgreementReport") -> str:
    """A paragraph for a paper.

    Args:
        report: what was joined.
    """
    asked = [question for question in QUESTIONS if (_of(report, question)["verdict"] != NOT_MEASURED).any()]
    families = "; ".join(f"{NAMES[name]}: {FAMILIES[name]}, in {UNITS[name]}" for name in asked)
    return (
        "For every layer and emotion we asked whether the emotion is read, causal, a feature, steerable and on the "
        f"circuit. p was corrected within each question ({families}). {_rule(report)} Row k is "
        "the residual stream that leaves block k; for the circuit it is what block k writes."
    )


def where(rows: pd.DataFrame) -> str:
    """Emotions with their layers, those with the most first.

    Args:
        rows: with columns ``layer`` and ``emotion``.
    """
    by = rows.groupby("emotion", sort=False)["layer"].apply(lambda one: sorted(int(layer) for layer in one))
    ordered = sorted(by.items(), key=lambda one: -len(one[1]))
    said = [f"{emotion} {spans(layers)}" for emotion, layers in ordered[:_MOST]]
    more = [str(emotion) for emotion, _ in ordered[_MOST:]]
    return "; ".join([*said, *([f"and in {', '.join(more)}"] if more else [])])


def _of(report: "AgreementReport", question: str) -> pd.DataFrame:
    return report.table[report.table["question"] == question]
