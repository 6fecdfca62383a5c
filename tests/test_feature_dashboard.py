"""Examples, effects on logits, and the page: texts stay texts, tokens stay tokens, and the effects are the model's."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import affectlens as al
from affectlens.errors import CaptureError, RunError, SiteError
from affectlens.layouts import lay_out
from affectlens.model import LensModel
from affectlens.probing.features.classing import classed
from affectlens.probing.features.codes import Codes
from affectlens.probing.features.dashboard import Card, embedded, make_cards, payload, write_dashboard
from affectlens.probing.features.examples import Example, examples, examples_by_role
from affectlens.probing.features.plane import responses
from affectlens.probing.features.promoting import direct, final_norm, logit_effects
from affectlens.testing import FAMILIES, tiny_model, tiny_sae

HOSTILE = "\"</script><script>alert(1)</script> <b>'bold'</b> & <!-- \u2028 caf\u00e9 \U0001f525"


def codes_of(model: LensModel, items: pd.DataFrame, n_features: int = 12, seed: int = 0) -> Codes:
    """Random codes at the tokens of a table; feature 0 is never active, the first token an empty row."""
    layouts = lay_out(model, items)
    ids = np.concatenate([layout.ids for layout in layouts])
    offsets = np.concatenate([[0], np.cumsum([len(layout) for layout in layouts])])
    rng = np.random.default_rng(seed)
    values = (rng.random((len(ids), n_features)) * (rng.random((len(ids), n_features)) < 0.1)).astype(np.float32)
    values[:, 0] = 0
    values[offsets[:-1]] = 0
    return Codes(sparse.csr_array(values), ids, offsets, items, np.zeros(len(ids), dtype=bool), "toy", "0" * 64,
                 "L1.resid_post", model.name, model.fingerprint, "toy", "0" * 64)  # fmt: skip


@pytest.fixture(scope="module")
def items() -> pd.DataFrame:
    frame = al.load_battery("starter").frame()
    frame = frame[frame["split"].isin(["vignettes", "decoys"])].reset_index(drop=True)
    frame.loc[0, "text"] = HOSTILE + str(frame["text"][0])
    return frame


@pytest.fixture(scope="module")
def codes(llama: LensModel, items: pd.DataFrame) -> Codes:
    return codes_of(llama, items)


@pytest.fixture(scope="module")
def placed(items: pd.DataFrame) -> pd.DataFrame:
    pooled = np.random.default_rng(0).gamma(1, 1, (len(items), 12)).astype(np.float32)
    features = pd.DataFrame({"emotion": ["fear"] * 6 + ["affect"] * 6, "feature": [*range(6), *range(6)], "auroc": 0.9})
    return classed(responses(pooled, items, features)).table


def test_examples_are_the_highest_peaks_one_a_group(llama: LensModel, codes: Codes) -> None:
    found = examples(codes, 3, model=llama, n=5)
    dense = codes.matrix.toarray()[:, 3]
    peaks = pd.Series([dense[a:b].max() for a, b in zip(codes.offsets[:-1], codes.offsets[1:], strict=True)])
    best = peaks.groupby(codes.items["group"]).max().nlargest(5)
    assert [one.peak for one in found] == pytest.approx(list(best))
    groups = codes.items.set_index("id")["group"]
    assert [groups[one.id] for one in found] == list(best.index)


def test_pieces_are_the_text_and_carry_their_tokens_activations(llama: LensModel, codes: Codes) -> None:
    texts = codes.items.set_index("id")["text"]
    for feature in range(1, 6):
        for one in examples(codes, feature, model=llama, n=40):
            assert "".join(one.pieces) == texts[one.id]
            assert max(one.activations) == pytest.approx(one.peak)
            row = codes.row(int(codes.items.index[codes.items["id"] == one.id][0]), feature)
            if len(one.pieces) == len(row):  # every token is one piece
                assert list(one.activations) == pytest.approx(row.tolist())


def test_a_letter_of_several_tokens_takes_the_highest(llama: LensModel) -> None:
    items = pd.DataFrame({"id": ["a"], "text": ["xé!"]})
    codes = codes_of(llama, items, 2)
    assert len(codes.ids) == 4
    codes.matrix[[1, 2], [1, 1]] = [0.25, 0.75]
    (one,) = examples(codes, 1, model=llama)
    assert one.pieces == ("x", "é", "!")
    assert one.activations[1] == 0.75
    assert one.role == one.emotion == ""


def test_examples_by_role(llama: LensModel, codes: Codes) -> None:
    found = examples_by_role(codes, 3, model=llama, n=2)
    assert set(found) == {"emotional", "neutral", "keyword", "decoy"}
    assert all(one.role == role for role, some in found.items() for one in some)
    assert all(len(some) == 2 for some in found.values())
    assert examples(codes, 3, model=llama, n=2, role="decoy") == found["decoy"]


def test_silent_features_and_strange_tokens_are_said(llama: LensModel, codes: Codes) -> None:
    with pytest.raises(CaptureError, match="never active on toy"):
        examples(codes, 0, model=llama)
    with pytest.raises(CaptureError, match="has 12, counted from 0"):
        examples(codes, 12, model=llama)
    with pytest.raises(CaptureError, match="no item of toy has the role|No item of toy has the role"):
        examples(codes, 3, model=llama, role="mild")
    with pytest.raises(CaptureError, match="other tokens"):
        examples(codes, 3, model=tiny_model("llama", bos=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_effect_on_logits_is_row_times_gain_times_unembedding(family: str) -> None:
    model = tiny_model(family)
    norm: Any = final_norm(model)
    torch.manual_seed(1)
    for parameter in norm.parameters():
        parameter.data = torch.randn_like(parameter)
    sae = tiny_sae(model)
    rows = torch.from_numpy(np.array(sae.decoder))
    gain = norm.weight + 1 if family == "gemma3" else norm.weight
    centred = rows - rows.mean(1, keepdim=True) if family.startswith("gpt") else rows
    expected = (centred * gain) @ model.hf.get_output_embeddings().weight.T
    expected = expected - expected.mean(1, keepdim=True)
    torch.testing.assert_close(direct(model, rows, norm=norm), expected, rtol=1e-4, atol=1e-5)
    table = logit_effects(model, sae, [5, 2], n=3)
    assert list(table["feature"].unique()) == [5, 2]
    for feature, side in ((5, 1), (2, -1)):
        part = table[(table["feature"] == feature) & (table["side"] == ("promoted" if side > 0 else "suppressed"))]
        top = (side * expected[feature]).topk(3)
        assert part["token_id"].tolist() == top.indices.tolist()
        np.testing.assert_allclose(side * part["effect"], top.values, rtol=1e-3)
        assert part["rank"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_adding_the_row_changes_logits_as_said(family: str) -> None:
    """The intervention itself: a small step along a row that leaves the norm's scale as it was."""
    model = tiny_model(family)
    ids = model.tokenizer("A quay", return_tensors="pt").input_ids
    stream: list[torch.Tensor] = []
    step = torch.zeros(model.d_model)

    def change(value: torch.Tensor, _cursor: object) -> torch.Tensor:
        stream.append(value[0, -1].clone())
        return value + step

    def logits() -> torch.Tensor:
        with torch.no_grad(), al.edit(model, {"L1.resid_post": change}, idle="ignore"):
            return model.hf(ids).logits[0, -1]

    before = logits()
    row = torch.from_numpy(np.array(tiny_sae(model).decoder[3]))
    here = stream[-1] - stream[-1].mean() if family == "gpt2" else stream[-1]
    row = row - here * (row @ here) / (here @ here)
    step = 1e-2 * row
    change_seen = logits() - before
    change_seen = change_seen - change_seen.mean()
    said = direct(model, row[None], norm=final_norm(model))[0]
    assert torch.corrcoef(torch.stack([change_seen, said]))[0, 1] > 0.999
    scale = (here.pow(2).mean() + 1e-6).sqrt()
    assert float(change_seen.norm() / said.norm()) == pytest.approx(float(1e-2 / scale), rel=0.02)


def test_what_does_not_write_to_the_stream_is_refused(llama: LensModel) -> None:
    with pytest.raises(SiteError, match="do not write to the residual stream"):
        logit_effects(llama, tiny_sae(llama, "L0.neurons"), 0)
    with pytest.raises(SiteError, match="no feature 64"):
        logit_effects(llama, tiny_sae(llama), 64)


class Page(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.shown: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            self.scripts[-1] += data
        else:
            self.shown.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, placed: pd.DataFrame, codes: Codes, llama: LensModel) -> Page:
    sae = tiny_sae(llama, n_features=12)
    cards = make_cards(codes, placed["feature"].tolist(), model=llama, sae=sae, n=100)
    strange = Example("</script>", HOSTILE, HOSTILE, 1.0, (HOSTILE,), (1.0,))
    cards[2] = Card(2, 0.5, (strange,), {HOSTILE: (strange,)}, ((HOSTILE, 1.0),), (), "javascript:alert(1)", (HOSTILE,))
    table = placed.replace({"emotion": {"fear": HOSTILE}})
    path = tmp_path_factory.mktemp("page") / "features.html"
    assert write_dashboard(path, title=HOSTILE, placed=table, cards=cards, info={"x": HOSTILE}, lead=[HOSTILE]) == path
    return Page(path.read_text(encoding="utf-8"))


def test_no_text_ends_a_script_or_becomes_markup(page: Page, placed: pd.DataFrame) -> None:
    kinds = [attrs.get("type") for tag, attrs in page.tags if tag == "script"]
    assert kinds == ["application/json", None, None]
    assert not [tag for tag, _ in page.tags if tag == "b"]
    assert HOSTILE in "".join(page.shown)
    data = json.loads(page.scripts[0])
    assert not set("<>&") & set(page.scripts[0])
    assert data["texts"]["</script>"] == [HOSTILE]
    assert data["cards"]["2"]["promoted"] == [[HOSTILE, 1]]
    assert data["cards"]["2"]["link"] is None
    assert len(data["rows"]) == len(placed)


def test_the_page_fetches_nothing(page: Page) -> None:
    policies = [
        a["content"] or "" for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'")
    assert not [a for tag, a in page.tags if "src" in a or tag in ("link", "iframe", "img", "object")]


def test_the_script_sets_texts_as_texts(page: Page) -> None:
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert word not in page.scripts[2]


def test_the_page_holds_what_was_computed(page: Page, placed: pd.DataFrame, codes: Codes, llama: LensModel) -> None:
    data = json.loads(page.scripts[0])
    for row, (_, own) in zip(data["rows"], placed.iterrows(), strict=True):
        assert row["class"] == own["class"]
        assert row["affect"] == pytest.approx(own["affect"], rel=1e-4)
        assert row["words_high"] == pytest.approx(own["words_high"], rel=1e-4)
        assert row["vivid"] is None  # there are no vivid scenes in this battery
        assert row["auroc"] == 0.9
    card = data["cards"]["3"]
    (first, *_) = examples(codes, 3, model=llama)
    assert card["texts"][0]["id"] == first.id
    assert data["texts"][first.id] == list(first.pieces)
    sent = dict(map(tuple, card["texts"][0]["active"]))
    assert sent == {i: pytest.approx(v, rel=1e-4) for i, v in enumerate(first.activations) if v > 0}
    assert data["cards"]["0"]["texts"] == []
    assert "never active" in data["cards"]["0"]["notes"][0]
    points = [p for trace in data["figure"]["data"] for p in trace.get("customdata", [])]
    assert sorted(p[0] for p in points) == list(range(len(placed)))


def test_a_neuronpedia_link_is_kept(placed: pd.DataFrame) -> None:
    cards = {1: Card(1, 0.1, (), {}, link="https://www.neuronpedia.org/gpt2-small/6-res-jb/1")}
    assert payload(placed, cards)["cards"]["1"]["link"] == "https://www.neuronpedia.org/gpt2-small/6-res-jb/1"


def test_embedded_json_comes_back() -> None:
    given = {"a": HOSTILE, "b": [1.5, None, True]}
    assert json.loads(embedded(given)) == given


def test_a_page_of_nothing_is_refused(tmp_path: Path, placed: pd.DataFrame) -> None:
    with pytest.raises(RunError, match="No feature is placed"):
        write_dashboard(tmp_path / "x.html", title="x", placed=placed.iloc[:0], cards={}, info={})
    with pytest.raises(RunError, match="lacks 'support'"):
        write_dashboard(tmp_path / "x.html", title="x", placed=placed.drop(columns="support"), cards={}, info={})
