"""What our batteries promise beyond the audit: counts, lengths, forms, checks, names, settings."""

import re
from collections import Counter
from itertools import combinations

import pytest

from affectlens.stimuli import EMOTIONS, load_battery
from affectlens.stimuli.lexical import words

STARTER = load_battery("starter")
BATTERY = load_battery("full")
GROUPS = BATTERY.groups()
QUADS = {g: {s.cell: s for s in items} for g, items in GROUPS.items() if items[0].split.startswith("crossed")}
COMMON = set(
    "On At In It The A By For And Both Once Then Was He She Her His They As There Since From Behind After With "
    "When But Two Three Street Hotel Sister Madame Mr Mrs Dr Monday Tuesday Wednesday Thursday Friday Saturday "
    "Sunday January February March April May June July August September October November December Easter".split()
)


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
    domains = {s.domain for s in BATTERY if s.split == "vignettes"}
    mild = Counter((s.emotion, s.domain) for s in BATTERY if s.role == "mild")
    assert mild == {(emotion, domain): 1 for emotion in EMOTIONS for domain in domains}
    assert Counter(s.emotion for s in BATTERY if s.split == "crossed") == dict.fromkeys(EMOTIONS, 48)


def test_every_setting_hosts_all_eight_emotions_and_no_author_follows_an_emotion() -> None:
    peaks = [s for s in BATTERY if s.split == "vignettes" and s.role == "emotional"]
    settings = Counter((s.meta["setting"], s.emotion) for s in peaks)
    assert len(settings) == 32 * 8
    assert set(settings.values()) == {1}
    authors = Counter((s.author, s.emotion) for s in peaks)
    assert set(authors.values()) == {4}
    assert len(authors) == 8 * 8
    assert max(Counter((s.author, s.domain) for s in peaks).values()) == 8


def test_texts_are_plain_and_within_their_lengths() -> None:
    for s in BATTERY:
        assert s.text.isascii(), s.id
        assert not re.search(r"[!;]|--", s.text), s.id
        low, high = (35, 70) if s.split.startswith("crossed") else (45, 95)
        assert low <= len(words(s.text)) <= high, (s.id, len(words(s.text)))


def test_intensity_versions_stay_near_their_peak() -> None:
    for s in BATTERY:
        if s.split == "intensity":
            peak = next(p for p in GROUPS[s.group] if p.role == "emotional")
            assert abs(len(words(s.text)) - len(words(peak.text))) <= 0.15 * len(words(peak.text)), s.id
            assert (s.emotion, s.domain, s.valence) == (peak.emotion, peak.domain, peak.valence)
            assert s.intensity < peak.intensity


@pytest.mark.parametrize("group", QUADS)
def test_contexts_end_alike_and_swaps_are_swaps(group: str) -> None:
    cells = QUADS[group]
    a, b = (cells[c].text[: cells[c].ending] for c in ("ax", "bx"))
    assert words(a)[-4:] == words(b)[-4:]
    if cells["ax"].meta["form"] == "swap":
        assert Counter(words(a)) == Counter(words(b))
    assert all(s.meta["check"]["question"].endswith("?") for s in cells.values())


def test_half_of_the_checks_are_answered_yes_and_both_forms_have_a_third() -> None:
    first = [cells["ax"] for cells in QUADS.values() if cells["ax"].split == "crossed"]
    assert Counter(s.meta["check"]["answer"] for s in first) == {"yes": 48, "no": 48}
    assert min(Counter(s.meta["form"] for s in first).values()) * 3 >= len(first)


def test_names_play_in_one_quadruple_only() -> None:
    names = {
        group: {w for s in cells.values() for w in re.findall(r"(?<=[a-z,] )[A-Z][a-z]+", s.text)} - COMMON
        for group, cells in QUADS.items()
    }
    for one, other in combinations(names, 2):
        assert not names[one] & names[other], (one, other, names[one] & names[other])
