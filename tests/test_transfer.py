"""Transfer on planted data: what carries over does, what does not does not, and no domain is on both sides."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest

from affectlens.errors import BatteryError
from affectlens.probing import floors
from affectlens.probing.transferring import ALARMS, transfer
from affectlens.stimuli.crossing import quadruples
from tests.conftest import activations, battery_frame

D = 24


@pytest.fixture(autouse=True)
def _few_words(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Surface marks instead of TF-IDF where the floor is not what is asked: cheap."""
    if "words" not in request.node.name:
        monkeypatch.setattr(
            "affectlens.probing.transferring.floor", lambda _, *a, **k: floors.floor("surface", *a, **k)
        )


def battery(n_scenes: int = 48, n_quads: int = 0, n_alarms: int = 0) -> pd.DataFrame:
    """Triplets in eight domains; quadruples, decoys and vivid scenes of the same domains."""
    items = battery_frame(n_scenes, n_quads=n_quads)
    twins = items[items["role"] == "emotional"].drop_duplicates("group")
    twins = twins[twins["split"] == "vignettes"].assign(role="keyword", id=lambda t: t["group"] + ".keyword")
    alarms = [
        {"id": f"{role}{i}", "text": f"text {i}", "split": split, "role": role, "valence": 0, "domain": f"d{i % 8}",
         "group": f"{role}{i}"}
        for role, split in (("decoy", "decoys"), ("vivid", "vivid_neutral")) for i in range(n_alarms)
    ]  # fmt: skip
    items = pd.concat([items, twins, pd.DataFrame(alarms, columns=items.columns)], ignore_index=True)
    crossed = items["split"].str.startswith("crossed")
    turn = items["group"].str.extract(r"(\d+)$")[0].astype(int) % 8
    return items.assign(domain=items["domain"].where(~crossed, "d" + turn.astype(str)))


def is_(items: pd.DataFrame, role: str) -> np.ndarray:
    return ((items["role"] == role) & ~items["split"].str.startswith("crossed")).to_numpy()


def noise(items: pd.DataFrame, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(len(items), 1, D))


def cell(table: pd.DataFrame, trained: str, tested: str, reader: str = "logistic") -> Any:
    rows = table[(table["trained"] == trained) & (table["tested"] == tested) & (table["reader"] == reader)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_what_is_shared_carries_over_both_ways() -> None:
    items = battery()
    x = noise(items)
    x[is_(items, "emotional") | is_(items, "keyword"), :, 0] += 4.0
    table = transfer(activations(items, x))
    for trained in ("keyword-free", "keyword-rich"):
        for tested in ("keyword-free", "keyword-rich"):
            assert cell(table, trained, tested)["value"] > 0.97
    assert set(table["metric"]) == {"AUROC"}
    assert set(table["unit"]) == {"domain"}
    assert (table["n"] == 8).all()


def test_two_directions_do_not_carry_over() -> None:
    items = battery()
    x = noise(items, 1)
    x[is_(items, "keyword"), :, 0] += 4.0
    x[is_(items, "emotional"), :, 1] += 4.0
    table = transfer(activations(items, x))
    for here, there in (("keyword-free", "keyword-rich"), ("keyword-rich", "keyword-free")):
        assert cell(table, here, here)["value"] > 0.97
        assert cell(table, here, there)["low"] < 0.5
        assert cell(table, here, there)["value"] < 0.7


def test_keyword_rich_carries_over_to_keyword_free_but_not_back() -> None:
    """Along what is plainest in keyword-free texts the keyword-rich ones vary widely: a weaker trace is shared."""
    items = battery(96)
    x = noise(items, 2)
    x[is_(items, "keyword"), :, 0] += 5.0
    x[is_(items, "keyword"), :, 1] += 12.0 * noise(items, 3)[is_(items, "keyword"), :, 1]
    x[is_(items, "emotional"), :, 0] += 2.0
    x[is_(items, "emotional"), :, 1] += 9.0
    table = transfer(activations(items, x))
    there, back = cell(table, "keyword-rich", "keyword-free"), cell(table, "keyword-free", "keyword-rich")
    assert there["low"] > 0.75
    assert back["value"] < there["value"] - 0.1
    assert back["value"] < 0.75


@pytest.mark.parametrize("elsewhere", [False, True])
def test_no_domain_is_on_both_sides(elsewhere: bool) -> None:
    """A direction for each domain, shared by both kinds (and both batteries), is of no use for another domain."""
    items = battery(64)
    domain = items["domain"].str[1:].astype(int).to_numpy()
    sign = np.where(is_(items, "neutral"), -1.0, 1.0)

    def planted(seed: int) -> Any:
        x = noise(items, seed)
        x[np.arange(len(items)), 0, domain] += 8.0
        x[np.arange(len(items)), 0, 8 + domain] += 4.0 * sign
        return activations(items, x)

    other = dataclasses.replace(planted(6), battery="other")
    table = transfer(planted(5), [other] if elsewhere else [])
    read = table[table["reader"] == "logistic"]
    assert len(read) == (16 if elsewhere else 4)
    assert (read["low"] <= 0.5).all()
    assert read["value"].max() < 0.75


def crossed(items: pd.DataFrame, x: np.ndarray, bound: float) -> np.ndarray:
    """Cells as sums of whole numbers for context and ending, and what binds them."""
    rng = np.random.default_rng(9)
    for quad in quadruples(items, "crossed"):
        a, b, e, f = rng.integers(-9, 9, size=(4, D))
        x[quad, 0] = [a + e, a + f, b + e, b + f]
        x[quad[[0, 3]], 0, 0] += bound
    return x


def test_quadruples_are_scored_by_how_many_are_won() -> None:
    items = battery(48, n_quads=16)
    x = noise(items, 4)
    x[is_(items, "emotional") | is_(items, "keyword"), :, 0] += 4.0
    table = transfer(activations(items, crossed(items, x, 6.0)))
    for trained in ("keyword-free", "keyword-rich"):
        won = cell(table, trained, "crossed")
        assert (won["metric"], won["value"], won["n"]) == ("quadruples won", 1.0, 8)


def test_a_reader_that_adds_up_sentences_wins_half_exactly() -> None:
    items = battery(48, n_quads=16)
    x = noise(items, 4)
    x[is_(items, "emotional") | is_(items, "keyword"), :, 0] += 4.0
    table = transfer(activations(items, crossed(items, x, 0.0)))
    for trained in ("keyword-free", "keyword-rich"):
        assert cell(table, trained, "crossed")["value"] == 0.5


def test_false_alarms_go_to_the_probe_that_learnt_keywords() -> None:
    items = battery(48, n_alarms=16)
    x = noise(items, 7)
    x[is_(items, "keyword") | is_(items, "decoy"), :, 0] += 5.0
    x[is_(items, "emotional"), :, 1] += 5.0
    table = transfer(activations(items, x))
    rich, free = (cell(table, trained, ALARMS[0]) for trained in ("keyword-rich", "keyword-free"))
    assert (rich["metric"], free["metric"]) == ("called emotional",) * 2
    assert rich["value"] > 0.9
    assert free["value"] < 0.4
    assert cell(table, "keyword-rich", ALARMS[1])["value"] < 0.3
    assert not set(ALARMS) & set(table["trained"])


def test_each_cell_stands_beside_a_reader_of_words() -> None:
    """Words that only keyword-rich texts have are read among them and tell nothing of keyword-free ones."""
    items = battery(40)
    rng = np.random.default_rng(8)
    filler = [
        " ".join(rng.choice(["table", "window", "street", "paper", "garden", "river"], 4)) for _ in range(len(items))
    ]
    grief = np.where(is_(items, "keyword"), " grief", "")
    items["text"] = [text + str(word) for text, word in zip(filler, grief, strict=True)]
    table = transfer(activations(items, noise(items)))
    assert cell(table, "keyword-rich", "keyword-rich", "tfidf")["value"] == 1.0
    assert cell(table, "keyword-rich", "keyword-free", "tfidf")["low"] <= 0.5


def test_milder_versions_are_a_kind() -> None:
    items = battery(32)
    mild = items[is_(items, "emotional")].assign(role="mild", split="intensity", id=lambda t: t["group"] + ".mild")
    items = pd.concat([items, mild], ignore_index=True)
    x = noise(items, 10)
    x[is_(items, "emotional"), :, 0] += 6.0
    x[is_(items, "mild"), :, 0] += 1.0
    table = transfer(activations(items, x))
    assert cell(table, "keyword-free", "mild")["value"] < cell(table, "keyword-free", "keyword-free")["value"] - 0.1
    assert cell(table, "mild", "keyword-free")["value"] > 0.9


def test_batteries_of_different_models_are_refused() -> None:
    items = battery(16)
    first = activations(items, noise(items))
    other = dataclasses.replace(first, fingerprint="0" * 32, model="another")
    with pytest.raises(BatteryError, match=r"transfer needs captures of one model, not of planted, another\."):
        transfer(first, [other])


def test_one_kind_is_not_enough() -> None:
    items = battery_frame(16)
    with pytest.raises(BatteryError, match="needs two kinds of item with target affect; there is keyword-free"):
        transfer(activations(items, noise(items)))


def test_two_batteries_may_name_their_quadruples_alike() -> None:
    items = battery(24, n_quads=8)
    first = activations(items, noise(items))
    table = transfer(first, [dataclasses.replace(first, battery="other")])
    assert cell(table, "keyword-free", "other: crossed")["n"] == 8


def test_a_category_carries_over() -> None:
    items = battery(64)
    x = noise(items, 11)
    shared = (is_(items, "emotional") | is_(items, "keyword")).astype(float)
    x[np.arange(len(items)), 0, pd.factorize(items["emotion"])[0]] += 6.0 * shared
    table = transfer(activations(items, x), target="category")
    assert set(table["metric"]) == {"balanced accuracy"}
    assert cell(table, "keyword-rich", "keyword-free")["low"] > 0.8
    assert set(table["tested"]) == {"keyword-free", "keyword-rich"}
