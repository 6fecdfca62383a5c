"""What our batteries promise, item by item. The bounds are the specification's; they don't move."""

import re
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from affectlens.stimuli import EMOTIONS, Stimulus, load_battery
from affectlens.stimuli.crossing import differences, quadruples
from affectlens.stimuli.lexical import words

STARTER = load_battery("starter")
BATTERY = load_battery("full")
GROUPS = BATTERY.groups()
TRIPLETS = {
    g: {s.role: s for s in items} for g, items in GROUPS.items() if items[0].split in ("vignettes", "intensity")
}
QUADS = {g: {s.cell: s for s in items} for g, items in GROUPS.items() if items[0].split.startswith("crossed")}
NEGATIONS = {"not", "no", "never", "nothing", "none", "nobody", "neither", "nor", "without", "cannot"}
QUANTIFIERS = {
    "all",
    "every",
    "each",
    "any",
    "some",
    "only",
    "still",
    "left",
    "last",
    "ever",
    "always",
    "already",
    "just",
}
STEMS = tuple(
    "joy happ delight glad cheer bliss ecsta elat thrill excit merr jubil rejoic euphor enjoy satisf proud "
    "trust admir faith loyal devot respect esteem afraid scare terror terrif fright panic dread horr anxi worr "
    "nervous surpris amaz astonish astound shock startl stun bewild sudden grief griev sorrow mourn miser "
    "unhapp despair depress melanchol lonel heartbr weep wept crying sobb tearful gloom anguish disgust loath "
    "revolt revuls repuls repugn nause sicken gross contempt distaste abhor detest hate hatr anger angr fury "
    "furi irat annoy irritat outrag resent wrath hostil livid enrag exasper bitter anticipat vigil expect "
    "eager hope suspens impatien emotion feeling upset regret ashamed guilt embarrass envy jealous trembl "
    "shiver shudder scream sadly luckily unluckily fortunate tragic wonderful terribl awful dreadful ghastly "
    "marvel miracul hopeless".split()
)


def sentences(text: str) -> list[str]:
    return [s for s in re.split(r"(?<=[.?])\s+", text) if s]


def count(text: str, among: set[str]) -> int:
    return sum(w in among or (among is NEGATIONS and w.endswith("n't")) for w in words(text))


def test_counts_are_exact() -> None:
    assert Counter(s.split for s in STARTER) == {
        "vignettes": 96, "crossed": 32, "crossed_fact": 16, "vivid_neutral": 8, "decoys": 8,
    }  # fmt: skip
    assert Counter(s.split for s in BATTERY) == {
        "vignettes": 768, "intensity": 128, "crossed": 384, "crossed_fact": 192, "vivid_neutral": 64, "decoys": 64,
    }  # fmt: skip
    assert len(load_battery("core")) == 1600 - 128
    for battery, each in ((STARTER, 4), (BATTERY, 32)):
        peaks = [s for s in battery if s.split == "vignettes" and s.role == "emotional"]
        assert Counter(s.emotion for s in peaks) == dict.fromkeys(EMOTIONS, each)
        assert Counter(s.domain for s in peaks) == dict.fromkeys({s.domain for s in peaks}, each)
        for split in ("crossed", "decoys"):
            assert {s.emotion for s in battery if s.split == split} == set(EMOTIONS)
    assert set(
        Counter((s.emotion, s.domain) for s in BATTERY if s.role == "emotional" and s.split == "vignettes").values()
    ) == {4}
    assert Counter((s.emotion, s.domain) for s in BATTERY if s.role == "mild") == {
        (emotion, domain): 1 for emotion in EMOTIONS for domain in {s.domain for s in BATTERY}
    }
    assert Counter(s.emotion for s in BATTERY if s.split == "crossed") == dict.fromkeys(EMOTIONS, 48)


def test_texts_are_clean() -> None:
    for s in BATTERY:
        assert s.text == " ".join(s.text.split()), s.id
        assert s.text.isascii(), s.id
        assert s.text[-1] in ".?", s.id
        assert not re.search(r"[!;]|---", s.text), s.id


@pytest.mark.parametrize("group", TRIPLETS)
def test_pairs_are_matched(group: str) -> None:
    peak, neutral, keyword = (TRIPLETS[group][r].text for r in ("emotional", "neutral", "keyword"))
    a, b, k = words(peak), words(neutral), words(keyword)
    assert 45 <= len(a) <= 90
    assert abs(len(a) - len(b)) <= 0.05 * len(a)
    assert abs(len(a) - len(k)) <= 0.15 * len(a)
    assert len(set(a) & set(b)) / len(set(a) | set(b)) >= 0.6
    assert len(sentences(peak)) == len(sentences(neutral))
    for among in (NEGATIONS, QUANTIFIERS):
        assert abs(count(peak, among) - count(neutral, among)) <= 1
    assert abs(peak.count('"') - neutral.count('"')) <= 1


def test_keyword_free_items_have_no_emotion_word_and_keyword_items_do() -> None:
    def hits(s: Stimulus) -> list[str]:
        return [w for w in words(s.text) if w.startswith(STEMS) and not w.startswith("scarecrow")]

    for s in BATTERY:
        if s.role in ("keyword", "decoy"):
            assert hits(s), s.id
        else:
            assert not hits(s), (s.id, hits(s))


def test_no_two_scenes_share_six_words() -> None:
    seen: dict[tuple[str, ...], str] = {}
    for s in BATTERY:
        found = words(s.text)
        for i in range(len(found) - 5):
            other = seen.setdefault(tuple(found[i : i + 6]), s.group)
            assert other == s.group, (s.id, other, found[i : i + 6])


@pytest.mark.parametrize("group", QUADS)
def test_quadruples_are_complete(group: str) -> None:
    cells = QUADS[group]
    assert set(cells) == {"ax", "ay", "bx", "by"}
    context = {c: cells[c].text[: cells[c].ending] for c in cells}
    ending = {c: cells[c].text[cells[c].ending :] for c in cells}
    assert context["ax"] == context["ay"] != context["bx"] == context["by"]
    assert ending["ax"] == ending["bx"] != ending["ay"] == ending["by"]
    assert words(context["ax"])[-4:] == words(context["bx"])[-4:]
    answers = {c: cells[c].meta["check"]["answer"] for c in cells}
    assert answers["ax"] == answers["by"] != answers["ay"] == answers["bx"]
    assert {cells[c].affect for c in ("ay", "bx")} == {False}
    assert all(35 <= len(words(s.text)) <= 70 for s in cells.values())
    if cells["ax"].meta["form"] == "swap":
        assert Counter(words(context["ax"])) == Counter(words(context["bx"]))


def test_half_of_the_checks_are_answered_yes_and_both_forms_have_a_third() -> None:
    first = [cells["ax"] for cells in QUADS.values() if cells["ax"].split == "crossed"]
    assert Counter(s.meta["check"]["answer"] for s in first) == {"yes": 48, "no": 48}
    assert min(Counter(s.meta["form"] for s in first).values()) * 3 >= len(first)


def test_additive_readers_are_at_exactly_one_half_on_crossed() -> None:
    """Any weights on word counts: d is zero in every quadruple."""
    frame = BATTERY.frame()
    vocabulary = sorted({w for text in frame["text"] for w in words(text)})
    index = {w: i for i, w in enumerate(vocabulary)}
    counts = np.zeros((len(frame), len(vocabulary)))
    for row, text in enumerate(frame["text"]):
        for w in words(text):
            counts[row, index[w]] += 1
    weights = np.random.default_rng(0).integers(-1000, 1000, size=(len(vocabulary), 20))
    for split in ("crossed", "crossed_fact"):
        assert (differences(counts @ weights, quadruples(frame, split)) == 0).all()


def test_names_play_in_one_quadruple_only() -> None:
    common = {
        "On",
        "At",
        "In",
        "It",
        "The",
        "A",
        "By",
        "For",
        "And",
        "Both",
        "Once",
        "Then",
        "Was",
        "He",
        "She",
        "Her",
        "His",
        "They",
        "As",
        "There",
        "Since",
        "From",
        "Behind",
        "After",
        "With",
        "When",
        "But",
        "Two",
        "Three",
        "Street",
        "Hotel",
        "Sister",
        "Madame",
        "Mr",
        "Mrs",
        "Dr",
    }
    days = {
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
        "Easter",
    }
    names = {
        group: {w for s in cells.values() for w in re.findall(r"(?<=[a-z,] )[A-Z][a-z]+", s.text)} - common - days
        for group, cells in QUADS.items()
    }
    for one, other in combinations(names, 2):
        assert not names[one] & names[other], (one, other, names[one] & names[other])
