"""Replies: sampled as the model's probabilities say, whatever is in the batch; scored as one pass would."""

import numpy as np
import pytest
import torch
from scipy import stats

from affectlens.errors import CaptureError
from affectlens.generating import Decoding, Luck, generate
from affectlens.layouts import Layout, lay_out
from affectlens.model import LensModel
from affectlens.sites import Site
from affectlens.steering import Direction, Directions, write
from affectlens.steering.evaluating.rows import Row, added, reply_nll, text_nll, write_rows
from affectlens.testing import FAMILIES, tiny_model
from affectlens.texts import as_table

TEXTS = ["One.", "Another text, longer than that.", "A third."]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> LensModel:
    return tiny_model(request.param)


def layouts(model: LensModel, texts: list[str] = TEXTS) -> list[Layout]:
    return lay_out(model, as_table(texts).frame())


def additions(model: LensModel, n: int) -> list[dict[Site, np.ndarray]]:
    rng = np.random.default_rng(3)
    size = model.n_heads * int(model.sites.shape(Site.parse("L1.H0"))[0])
    return [{Site.parse("L0.resid_post"): rng.normal(size=model.d_model) * 30,
             Site.parse("L1.z"): rng.normal(size=size)} for _ in range(n)]  # fmt: skip


def test_luck_samples_what_the_logits_say() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    for temperature, top_p in ((1.0, 1.0), (0.5, 1.0), (1.0, 0.7)):
        luck = Luck(Decoding(1, temperature, top_p, seed=1), list(range(4000)), 0)
        drawn = luck(torch.zeros(4000, 0, dtype=torch.long), logits.expand(4000, 4)).argmax(-1)
        p = (logits / temperature).softmax(-1)
        if top_p < 1:
            p = torch.tensor([p[0], p[1], 0.0, 0.0]) / (p[0] + p[1])  # 0.64 is not yet 0.7, 0.88 is
        seen = np.bincount(drawn.numpy(), minlength=4)
        assert (seen[p.numpy() == 0] == 0).all()
        there = p.numpy() > 0
        expected = p.double().numpy()[there]
        assert stats.chisquare(seen[there], 4000 * expected / expected.sum()).pvalue > 0.001


def test_luck_is_the_texts_own() -> None:
    scores = torch.randn(2, 50)
    how = Decoding(4, 1.0, seed=7)
    pair = Luck(how, [5, 9], 3)(torch.zeros(2, 4, dtype=torch.long), scores)
    alone = Luck(how, [9], 11)(torch.zeros(1, 12, dtype=torch.long), scores[1:])
    assert torch.equal(pair[1:], alone), "the same step of the same text, in another batch, behind another padding"
    assert not torch.equal(Luck(how, [9], 11)(torch.zeros(1, 13, dtype=torch.long), scores[1:]), alone)


def test_a_reply_does_not_depend_on_the_batch(model: LensModel) -> None:
    mine = layouts(model)
    for how in (Decoding(8), Decoding(8, 1.5, 0.9, seed=2)):
        together = generate(model, mine, how)
        alone = [generate(model, [one], how, keys=[k])[0] for k, one in enumerate(mine)]
        assert together == alone


@pytest.mark.parametrize("bad", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}])
def test_impossible_decoding_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(CaptureError, match="A reply needs"):
        Decoding(**{"max_new_tokens": 4, **bad})  # type: ignore[arg-type]


def test_rows_are_steered_each_by_its_own(model: LensModel) -> None:
    more = additions(model, 4)
    more[2] = {}
    rows = [Row(i % 3, one) for i, one in enumerate(more)]
    how = Decoding(8, 0.02)  # at higher ones an untrained model says what luck says
    together = write_rows(model, layouts(model), rows, how, progress=False)
    alone = [write_rows(model, layouts(model), [row], how, progress=False)[0] for row in rows]
    assert together == alone
    assert together[2] == generate(model, layouts(model)[2:], how, keys=[2])[0], "nothing added is nothing changed"
    assert len({tuple(reply) for reply in together}) == 4


def test_a_row_is_what_write_gives(llama: LensModel) -> None:
    vector = np.eye(llama.d_model, dtype=np.float32)[3]
    mine = Directions([Direction("joy", "L0.resid_post", vector, 5.0, "unit", llama.name, llama.fingerprint)])
    how = {"chat": False, "max_new_tokens": 10, "temperature": 0.7, "seed": 4, "progress": False}
    said = write(llama, TEXTS, doses={"joy": 0.8}, directions=mine, raw=True, **how)  # type: ignore[arg-type]
    rows = [Row(i, {Site.parse("L0.resid_post"): 0.8 * 5.0 * vector}) for i in range(3)]
    ids = write_rows(llama, layouts(llama), rows, Decoding(10, 0.7, seed=4), progress=False)
    assert said == [llama.tokenizer.decode(one, skip_special_tokens=True) for one in ids]


def test_reply_nll_is_that_of_one_pass(model: LensModel) -> None:
    mine = layouts(model)
    rng = np.random.default_rng(0)
    of = [0, 1, 0, 2, 0]
    replies = [rng.integers(4, 200, n).tolist() for n in (5, 3, 1, 9, 0)]
    found = reply_nll(model, mine, of, replies, progress=False)
    for value, prompt, reply in zip(found[:4], of, replies, strict=False):
        ids = torch.tensor([list(mine[prompt].ids) + reply])
        logp = model.hf(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
        assert value == pytest.approx(-float(logp[-len(reply) :].mean()), abs=1e-4)
    assert np.isnan(found[4])


def test_text_nll_is_that_of_each_text_alone(model: LensModel) -> None:
    mine, more = layouts(model), additions(model, 3)
    found = text_nll(model, mine, [Row(i, more[i]) for i in range(3)], progress=False)
    plain = text_nll(model, mine, [Row(i, {}) for i in range(3)], progress=False)
    for i, one in enumerate(mine):
        ids = torch.tensor([list(one.ids)])
        with added(model, [more[i]]):
            logp = model.hf(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])
        assert found[i] == pytest.approx(-float(logp.mean()), abs=1e-4)
    assert (np.abs(found - plain) > 1e-3).all()
