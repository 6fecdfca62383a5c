"""Plain and steered replies beside each other: what is read, by which pass, and how it is drawn."""

import html
import json
import re
from io import StringIO
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from affectlens.errors import BatteryError, CaptureError, SteerError, StoreError
from affectlens.model import LensModel
from affectlens.probing.probes import Probes
from affectlens.replies import capture_replies
from affectlens.steering import Direction, Directions, plan_for, steer
from affectlens.steering.colouring import shown, strings
from affectlens.steering.side_by_side import beside
from affectlens.steering.sides import Beside
from affectlens.steering.writing import write
from affectlens.testing import FAMILIES, tiny_model, tiny_tokenizer

PROMPTS = ["hello there", "<script>alert('x')</script> & a \"longer\" prompt"]


def planted(model: LensModel, *sites: str, seed: int = 0) -> Directions:
    """Random directions of joy and fear at each site."""
    rng = np.random.default_rng(seed)

    def one(emotion: str, site: str) -> Direction:
        v = rng.standard_normal(int(np.prod(model.sites.shape(model.sites.expand(site)[0]))))
        return Direction(emotion, site, (v / np.linalg.norm(v)).astype(np.float32), 5.0, "random", model.name,
                         model.fingerprint, levels=np.linspace(-3, 3, 101).astype(np.float32), safe=0.5)  # fmt: skip

    return Directions([one(emotion, site) for emotion in ("joy", "fear") for site in sites])


def probes(model: LensModel, classes: tuple[str, ...]) -> Probes:
    rng = np.random.default_rng(1)
    k = 1 if len(classes) == 2 else len(classes)
    weights = {"logistic": rng.standard_normal((model.n_layers, k, model.d_model))}
    return Probes("affect" if k == 1 else "category", classes, 1, "resid_post", "mean", model.name, model.fingerprint,
                  "planted", "b" * 64, weights, {"logistic": rng.standard_normal((model.n_layers, k))})  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> LensModel:
    return tiny_model(request.param)


@pytest.fixture(scope="module")
def pair(llama: LensModel) -> Beside:
    ds = planted(llama, "L0.resid_post")
    return beside(llama, PROMPTS, {"joy": 0.6, "terror": -0.3}, directions=ds, chat=False, max_new_tokens=12)


def test_the_replies_are_those_of_write(family: LensModel) -> None:
    ds = planted(family, "L0.resid_post")
    lucks: list[dict[str, Any]] = [{}, {"temperature": 0.8, "seed": 3}]
    for luck in lucks:
        found = beside(family, PROMPTS, {"joy": 3.0}, directions=ds, chat=False, max_new_tokens=10, **luck)
        for version, doses in (("plain", None), ("steered", {"joy": 3.0})):
            how: dict[str, Any] = {"directions": ds} if doses else {}
            said = write(family, PROMPTS, doses=doses, chat=False, max_new_tokens=10, **how, **luck)
            assert [dict(p.sides)[version].text for p in found.pairs] == said
        moved = any(p.plain.text != p.steered.text for p in found.pairs)
        assert moved or family.hf.config.model_type == "gpt_neox"  # its tiny logits hardly depend on the text


def test_seeds_reproduce_and_differ(llama: LensModel) -> None:
    ds = planted(llama, "L0.resid_post")

    def said(seed: int) -> list[str]:
        found = beside(llama, PROMPTS, {"joy": 1.0}, directions=ds, chat=False, temperature=1.0, seed=seed)
        return [reply.text for p in found.pairs for _, reply in p.sides]

    assert said(1) == said(1) != said(2)


def test_dose_zero_gives_two_equal_replies(llama: LensModel) -> None:
    ds = planted(llama, "L0.resid_post")
    found = beside(llama, PROMPTS, {"joy": 0.0}, directions=ds, chat=False, temperature=1.0)
    for p in found.pairs:
        assert p.plain.text == p.steered.text
        assert np.array_equal(p.plain.anew, p.steered.anew)
        assert np.array_equal(p.steered.as_written, p.steered.anew)
    assert len({cell[1] for cell in cells(found.html())}) == len(PROMPTS)


def cells(page: str) -> list[tuple[str, str]]:
    """Head and body of each column."""
    return re.findall(r"<div><div [^>]*><b>(.*?)</b>.*?</div><div dir=[^>]*>(.*?)</div></div>", page, re.DOTALL)


def test_at_the_steered_site_as_written_is_read_anew_plus_the_dose(pair: Beside, llama: LensModel) -> None:
    """Nothing before the site is steered, so the states differ by the vector alone, whatever the words are."""
    joy, fear = (planted(llama, "L0.resid_post")[name][0].vector for name in ("joy", "fear"))
    frame = pair.frame()
    mine = frame[(frame["version"] == "steered") & (frame["site"] == "L0.resid_post") & (frame["emotion"] == "joy")]
    both = mine.pivot_table(index=["prompt", "token"], columns="forward", values="value")
    shift = 0.6 * 0.5 - 0.3 * 0.5 * float(joy @ fear)
    assert np.allclose(both["as written"] - both["read anew"], shift, atol=1e-5)
    plain = frame[frame["version"] == "plain"].pivot_table(
        index=["prompt", "token", "emotion", "site"], columns="forward", values="value"
    )
    assert (plain["as written"] == plain["read anew"]).all()


@pytest.mark.parametrize(
    "how",
    [{}, {"positions": "response", "schedule": "decay(3)"}, {"positions": "prompt"}, {"positions": "first(4)"},
     {"operator": "rotate(40)"}, {"operator": "project_out"}],
    ids=str,
)  # fmt: skip
def test_as_written_is_the_state_during_generation(family: LensModel, how: dict[str, Any]) -> None:
    """The states captured at each step of the cached generation, token by token."""
    ds = planted(family, "L0.resid_post")
    prompt, reader = PROMPTS[1], 0
    found = beside(family, [prompt], {"joy": 1.0}, directions=ds, chat=False, max_new_tokens=10, **how)
    steered, read = found.pairs[0].steered, found.readers[reader]
    with steer(family, {"joy": 1.0}, directions=ds, **how):
        seen = capture_replies(family, [prompt], max_new_tokens=10, sites=read.site, positions="all")
    states = seen["L1.resid_post", "all"].astype(np.float64)
    assert str(read.site) == "L1.resid_post"
    assert list(seen.ids[: len(steered.ids)]) == list(steered.ids)
    # row k + 1 chose token k + 1 from token k
    n = min(len(states) - 1, len(steered.ids))
    assert n >= 4
    assert np.allclose(states[1 : n + 1] @ read.weights + read.bias, steered.as_written[:n, reader], atol=1e-4)
    assert not np.allclose(steered.as_written, steered.anew, atol=1e-4)


def test_read_anew_is_the_plain_model(pair: Beside, llama: LensModel) -> None:
    import torch

    from affectlens.hooks import record

    for prompt, p in zip(PROMPTS, pair.pairs, strict=True):
        start = llama.tokenizer(prompt, add_special_tokens=True).input_ids
        for _, reply in p.sides:
            with record(llama, "resid_post") as seen, torch.inference_mode():
                llama.hf(torch.tensor([[*start, *reply.ids]]))
            for k, reader in enumerate(pair.readers):
                there = seen[reader.site][0, len(start) :].double().numpy() @ reader.weights
                assert np.allclose(there, reply.anew[:, k], atol=1e-5)


def test_the_colours_are_not_the_steered_site(pair: Beside, llama: LensModel) -> None:
    assert [(r.emotion, str(r.site), r.own) for r in pair.readers] == [
        ("joy", "L1.resid_post", False), ("fear", "L1.resid_post", False),
        ("joy", "L0.resid_post", True), ("fear", "L0.resid_post", True),
    ]  # fmt: skip
    assert "Read anew: the plain model reads both" in pair.html()
    assert "no judge of them" not in pair.html()
    assert "the added vector itself takes part" in pair.html(forward="as written")
    given: dict[str, Any] = {"chat": False, "max_new_tokens": 4}
    last = beside(llama, PROMPTS, {"joy": 1.0}, directions=planted(llama, "L1.resid_post"), **given)
    assert [r.own for r in last.readers] == [True]
    assert "no judge of them" in last.html()
    heads = beside(llama, PROMPTS, {"joy": 1.0}, directions=planted(llama, "L0.H2"), **given)
    assert [str(r.site) for r in heads.readers] == ["L0.H2"]


def test_the_strongest_dose_colours_unless_another_is_asked_for(llama: LensModel) -> None:
    ds = planted(llama, "L0.resid_post")
    found = beside(llama, PROMPTS, {"joy": 0.2, "fear": -0.9}, directions=ds, chat=False, max_new_tokens=6)
    assert found.column() == 0
    assert found.readers[0].emotion == "fear"
    assert found.readers[found.column("ecstasy")].emotion == "joy"
    assert found.html(emotion="joy") != found.html()
    with pytest.raises(SteerError, match="'anger' was not read; choose fear, joy"):
        found.html(emotion="anger")
    with pytest.raises(SteerError, match="no pass 'read'"):
        found.html(forward="read")


def test_probes_and_other_directions_colour(llama: LensModel) -> None:
    ds, others = planted(llama, "L0.resid_post"), planted(llama, "L1.resid_mid", seed=7)
    given: dict[str, Any] = {"directions": ds, "chat": False, "max_new_tokens": 6}
    emotions = ("anger", "joy", "sadness")
    read = beside(llama, PROMPTS, {"joy": 1.0}, probes=probes(llama, emotions), **given)
    linear = probes(llama, emotions).at()
    assert (read.readers[0].bias, read.centre[0]) == (float(linear.bias[1]), 0.0)
    assert np.array_equal(read.readers[0].weights, linear.weights[1])
    assert "Logit of joy" in read.html()
    two = beside(llama, PROMPTS, {"joy": 1.0}, probes=probes(llama, ("neutral", "emotional")), **given)
    assert two.readers[0].emotion == "emotional"
    sign = beside(llama, PROMPTS, {"joy": 1.0}, probes=probes(llama, ("joy", "sadness")), **given)
    assert np.array_equal(sign.readers[0].weights, -probes(llama, ("joy", "sadness")).at().weights[0])
    with pytest.raises(BatteryError, match="tell anger, fear, sadness apart"):
        beside(llama, PROMPTS, {"joy": 1.0}, probes=probes(llama, ("anger", "fear", "sadness")), **given)
    with pytest.raises(StoreError, match="were fitted on"):
        beside(llama, PROMPTS, {"joy": 1.0}, probes=probes(tiny_model("gpt2"), emotions), **given)
    read = beside(llama, PROMPTS, {"joy": 1.0}, readers=others, **given)
    assert [(str(r.site), r.own) for r in read.readers] == [("L1.resid_mid", False), ("L0.resid_post", True)]
    with pytest.raises(SteerError, match=r"none of these is steered.*joy"):
        beside(llama, PROMPTS, {"joy": 1.0}, readers=others.only("fear"), **given)


def test_tables_and_json(pair: Beside) -> None:
    frame, table = pair.frame(), pair.table()
    n = sum(len(reply.tokens) for p in pair.pairs for _, reply in p.sides)
    assert len(frame) == n * 4 * 2
    assert len(table) == len(PROMPTS) * 2 * 4
    one = frame[(frame["version"] == "steered") & (frame["prompt"] == 1) & (frame["forward"] == "read anew")]
    one = one[(one["emotion"] == "fear") & (one["site"] == "L1.resid_post")]
    assert "".join(one["text"]) == "".join(pair.pairs[1].steered.tokens)
    row = table[(table["version"] == "steered") & (table["prompt"] == 1) & (table["emotion"] == "fear")]
    row = row[row["site"] == "L1.resid_post"]
    assert row["read_anew"].item() == pytest.approx(one["value"].mean())
    facts = json.loads(json.dumps(pair.as_json()))
    told = facts["pairs"][1]["steered"]
    assert told["readings"][1]["read anew"] == one["value"].tolist()
    assert (facts["steered by"], facts["readers"][0]["steers"]) == ("joy +0.6, fear -0.3", False)


def test_zero_is_the_plain_replies_median(pair: Beside) -> None:
    tokens = np.concatenate([p.plain.anew for p in pair.pairs])
    assert np.array_equal(pair.centre, np.median(tokens, axis=0))
    row = shown(pair, pair.pairs[0].steered, 1, "read anew")
    values = pair.pairs[0].steered.anew[:, 1] - pair.centre[1]
    assert sum(s.score * s.tokens for s in row) == pytest.approx(values.sum())


def test_html_shows_every_character_and_escapes_it(pair: Beside) -> None:
    page = pair.html()
    assert "<script>" not in page
    assert html.escape(PROMPTS[1]) in page
    columns = cells(page)
    assert [head for head, _ in columns] == ["plain", "steered: joy +0.6, fear -0.3"] * 2
    for p, (_, body) in zip([r for q in pair.pairs for _, r in q.sides], columns, strict=True):
        text = html.unescape(re.sub(r"<[^>]*>", "", body))
        assert len(text) >= len("".join(p.tokens))
        assert re.sub(r"[^ -~]", "", text) == re.sub(r"[^ -~]", "", "".join(p.tokens))
    assert "color:" not in page.replace("background:", "")  # the page's own ink, light or dark
    assert pair._repr_html_() == page
    assert "font-size:.85em'>-" not in pair.html(legend=False)


def test_hostile_replies_are_escaped(pair: Beside) -> None:
    from dataclasses import replace

    p = pair.pairs[0]
    tokens = ("<b onload='x'>", "\x1b[31m", "\"'&")
    values = np.ones((3, len(pair.readers)))
    bad = replace(p.plain, text="".join(tokens), tokens=tokens, as_written=values, anew=values)
    found = replace(pair, pairs=(replace(p, plain=bad),))
    page = found.html()
    assert "<b onload" not in page
    assert "\x1b" not in page
    assert "title='&#x27;&lt;b onload=" in page or "title='&quot;&lt;b onload=" in page
    assert "\x1b[31m" not in printed(found, color_system=None)


def printed(found: Beside, **how: Any) -> str:
    out = StringIO()
    Console(file=out, force_terminal=True, width=100, **how).print(found)
    return out.getvalue()


def test_the_terminal_has_two_coloured_columns(pair: Beside) -> None:
    coloured, bare = printed(pair, color_system="truecolor"), printed(pair, color_system=None)
    assert "steered: joy +0.6, fear -0.3" in bare
    assert "48;2;" in coloured
    assert "48;2;" not in bare
    assert "Read anew" in bare
    assert "read anew: plain mean" in repr(pair)


@pytest.mark.parametrize("text", ["plain words", "naïve 喜び \U0001f44b\U0001f3fd end", "\U0001f44b"])
def test_tokens_join_to_what_was_written(text: str) -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert "".join(strings(tokenizer, ids)) == text
    assert len(strings(tokenizer, ids)) == len(ids)
    assert "".join(strings(tokenizer, ids[:-1])).startswith(text[:-1])
    assert "\ufffd" not in "".join(strings(tokenizer, ids))


def test_an_empty_reply_is_no_trouble(llama: LensModel) -> None:
    from dataclasses import replace

    from affectlens.generating import Decoding
    from affectlens.steering.readers import read
    from affectlens.steering.sides import Pair, Reply

    ds = planted(llama, "L0.resid_post")
    found = beside(llama, PROMPTS[:1], {"joy": 1.0}, directions=ds, chat=False, max_new_tokens=3)
    nothing = Reply("", (), (), read(llama, [5], [], found.readers), read(llama, [5], [], found.readers))
    empty = replace(found, pairs=(Pair("", nothing, nothing),), decoding=Decoding(1))
    assert "no token" in empty.html()
    assert "no token" in repr(empty)
    assert empty.table()["read_anew"].isna().all()
    assert empty.frame().empty
    json.dumps(empty.as_json(), allow_nan=False)


def test_what_cannot_be_is_refused(llama: LensModel) -> None:
    ds = planted(llama, "L0.resid_post")
    plan = plan_for(llama, {"joy": 1.0}, directions=ds)
    with pytest.raises(SteerError, match="put a single one into a list"):
        beside(llama, "hello", plan, chat=False)
    with pytest.raises(SteerError, match="no prompt"):
        beside(llama, [], plan, chat=False)
    with pytest.raises(CaptureError, match="t0"):
        beside(llama, [""], plan, chat=False)
    with pytest.raises(SteerError, match="A plan says it all"):
        beside(llama, PROMPTS, plan, operator="project_out")
    with pytest.raises(SteerError, match="no layer 2: its layers are 0 to 1"):
        beside(llama, PROMPTS, plan, layer=2)
    with steer(llama, plan), pytest.raises(SteerError, match="being edited"):
        beside(llama, PROMPTS, plan, chat=False)
    assert beside(llama, PROMPTS, plan, chat=False, layer=1, max_new_tokens=2).readers[0].site.layer == 1
