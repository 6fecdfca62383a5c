"""The data card says what the data say, and every item as it ships has been read by somebody who had not written it."""

from importlib import resources

import pytest

from affectlens.errors import BatteryError
from affectlens.stimuli import load_battery
from affectlens.stimuli.auditing import audit
from affectlens.stimuli.datacard import LABELS, agreement, calibration, digest, fill, kappas, readings, tables

FULL = load_battery("full")
CARD = (resources.files("affectlens.stimuli") / "data" / "DATACARD.md").read_text(encoding="utf-8")


def test_every_item_as_it_ships_was_read_blind() -> None:
    said = readings(FULL)
    standing = said[said["stands"]]
    assert set(standing["id"]) == {s.id for s in FULL}
    assert set(said["label"]) <= set(LABELS)
    assert said["intensity"].between(0, 3).all()


def test_no_reader_saw_two_items_of_a_group() -> None:
    said = readings(FULL)
    groups = {s.id: s.group for s in FULL}
    seen = said.assign(group=said["id"].map(groups)).groupby(["reader", "group"]).size()
    assert seen.max() == 1


def test_a_changed_text_does_not_stand_as_read() -> None:
    said = readings(FULL)
    row = said[said["stands"]].iloc[0]
    assert digest(FULL[row["id"]].text) == row["text"]
    assert digest(FULL[row["id"]].text + ".") != row["text"]


def test_kappas_and_agreement_are_what_they_should_be() -> None:
    said = readings(FULL)
    found = dict(zip(*(kappas(said)[column].tolist() for column in ("label", "kappa, as it ships")), strict=True))
    assert found["all nine"] >= 0.9
    table = agreement(said)
    shipped = table[(table["reading"] == "as it ships") & (table["items"] == "all")].iloc[0]
    assert shipped["n"] == 1600
    assert 0.9 <= shipped["agreement"] <= 1
    right = {(r["round"], r["texts"]): float(r["agreement"]) for r in calibration().to_dict("records")}
    assert right[1, "claimed label, wrong"] > 0.8  # planted mislabels are caught


def test_an_item_that_any_reader_called_odd_is_odd() -> None:
    said = readings(FULL)
    odd = said[said["stands"] & said["odd"]]["id"].nunique()
    table = agreement(said)
    assert table[(table["reading"] == "as it ships") & (table["items"] == "all")].iloc[0]["called odd"] == odd


def test_filling_replaces_what_stands_between_the_marks_alone() -> None:
    card = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n"
    assert fill(card, {"x": "new\n"}) == "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n"
    assert fill(fill(card, {"x": "new\n"}), {"x": "new\n"}) == fill(card, {"x": "new\n"})
    with pytest.raises(BatteryError, match="no part between <!-- y -->"):
        fill(card, {"y": "new\n"})


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_card_is_what_the_data_say() -> None:
    wanted = fill(CARD, tables(FULL, audit(load_battery("core")), audit(load_battery("starter"))))
    assert wanted == CARD, "run: python -m affectlens.stimuli.datacard"
