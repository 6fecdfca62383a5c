"""Token scores: the law that ties them to pooled captures, characters, colours, what is left out, and the command."""

import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from rich.console import Console
from typer.testing import CliRunner

import affectlens.cli
from affectlens.capturing import capture
from affectlens.errors import AffectLensError, BatteryError, CaptureError, RunError, StoreError
from affectlens.hooks import edit
from affectlens.model import LensModel
from affectlens.plots import BLUE, GREY, ORANGE
from affectlens.probing.ladder import fit_all
from affectlens.probing.probes import Probes
from affectlens.probing.targets import select
from affectlens.probing.tokens import heat
from affectlens.probing.tokens.cli import gather, score
from affectlens.probing.tokens.pieces import Shown, cut, limit, shown, visible
from affectlens.probing.tokens.reading import read_tokens
from affectlens.probing.tokens.scores import TokenScores
from affectlens.run import Run
from affectlens.stimuli import load_battery
from affectlens.testing import FAMILIES, tiny_hf, tiny_model, tiny_tokenizer

TEXTS = [
    "The line went dead in her hand.",
    "He put the cup back.\r\nThen, nothing.\n\n\tA door. ",
    "שלום, \U0001f469\u200d\U0001f680 and cafe\u0301 \U0001f44b\U0001f3fd: naïve 喜び",
    "No.",
]
EIGHT = ("anger", "anticipation", "disgust", "fear", "joy", "sadness", "surprise", "trust")
HOSTILE = "<script>alert('x')</script> & \"quoted\" \x1b[31m red"


def planted(model: LensModel, classes: tuple[str, ...] = ("neutral", "emotional"), position: str = "mean") -> Probes:
    """Random probes of every layer."""
    k = 1 if len(classes) == 2 else len(classes)
    rng = np.random.default_rng(0)
    weights = {m: rng.standard_normal((model.n_layers, k, model.d_model)) for m in ("logistic", "mean_difference")}
    bias = {m: rng.standard_normal((model.n_layers, k)) for m in weights}
    target = "affect" if k == 1 else "category"
    return Probes(target, classes, 1, "resid_post", position, model.name, model.fingerprint, "planted", "b" * 64,
                  weights, bias)  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> LensModel:
    return tiny_model(request.param)


# the law


@pytest.mark.parametrize("classes", [("neutral", "emotional"), EIGHT])
def test_the_mean_over_pooled_tokens_is_the_probes_logit(family: LensModel, classes: tuple[str, ...]) -> None:
    """Of each position and layer, on texts of other lengths in the same batch."""
    acts = capture(family, TEXTS, positions=["mean", "ending", "last", "mean_from(2)"], cache=False)
    for position in acts.positions:
        probes = planted(family, classes, position)
        read = read_tokens(probes, family, TEXTS, by_layer=True)
        for layer in range(family.n_layers):
            ours = np.stack([one.logit[layer] for one in read])
            np.testing.assert_allclose(ours, probes.score(acts, layer=layer), atol=1e-4)


def test_scored_tokens_are_what_mean_pools(family: LensModel) -> None:
    read = read_tokens(planted(family), family, TEXTS)
    for one in read:
        specials = sum(a == b for a, b in one.spans)
        assert not one.scored[0]
        assert one.scored[1:].all()
        assert specials == (family.tokenizer("a").input_ids[0] == family.tokenizer.bos_token_id)
        np.testing.assert_array_equal(one.scored, one.pooled)
    single = read_tokens(planted(family, position="last"), family, TEXTS)
    assert [int(one.pooled.sum()) for one in single] == [1] * len(TEXTS)
    assert all(one.scored.sum() > 1 for one in single)


def test_neither_batching_nor_padding_nor_other_layers_matter(family: LensModel) -> None:
    probes = planted(family)
    together = read_tokens(probes, family, TEXTS, by_layer=True)
    for text, one in zip(TEXTS, together, strict=True):
        (alone,) = read_tokens(probes, family, text)
        np.testing.assert_allclose(alone.logits[:, 0], one.logits[:, probes.layer], atol=1e-4)
        assert (alone.text, alone.spans) == (one.text, one.spans)


def test_a_tokens_score_moves_with_its_own_activation_alone(llama: LensModel) -> None:
    """The intervention: push one token's residual along the weights, and its score alone moves, by their square."""
    probes = planted(llama)
    weights = probes.at().weights[0]

    def push(value: "torch.Tensor", cursor: object) -> "torch.Tensor":
        new = value.clone()
        new[:, 7] += torch.from_numpy(weights).float()
        return new

    (before,) = read_tokens(probes, llama, TEXTS[0])
    with edit(llama, {"L1.resid_post": push}):
        (after,) = read_tokens(probes, llama, TEXTS[0])
    moved = (after.logits - before.logits)[:, 0, 0]
    np.testing.assert_allclose(moved, np.where(np.arange(len(moved)) == 7, weights @ weights, 0), atol=1e-3)


def test_conversations_colour_the_messages(llama: LensModel) -> None:
    """The template's own tokens are shown, grey, and are not in the mean."""
    model = tiny_model("llama")
    model.tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }} /{% endfor %}"
    probes = planted(model)
    read = read_tokens(probes, model, TEXTS[:1], chat=True)
    (one,) = read
    assert one.text == f"[user] {TEXTS[0]} /"
    coloured = "".join(s.text for s in shown(read, one) if not s.why_grey)
    assert coloured == TEXTS[0]
    acts = capture(model, TEXTS[:1], positions="mean", chat=True, cache=False)
    np.testing.assert_allclose(one.logit[0], probes.score(acts)[0], atol=1e-4)
    against = read_tokens(probes, model, TEXTS[:1], chat=True, reference=TEXTS[:1])
    assert against.table()["score"].tolist() == pytest.approx([0.0], abs=1e-6)


# what is shown


def test_two_classes_are_read_for_either(llama: LensModel) -> None:
    probes = planted(llama)
    plain = read_tokens(probes, llama, TEXTS)
    other = read_tokens(probes, llama, TEXTS, emotion="Neutral")
    assert (plain.shown, other.shown) == ("emotional", "neutral")
    np.testing.assert_allclose(other.table()["score"], -plain.table()["score"])
    np.testing.assert_allclose(plain.table()["score"], [one.logit[0, 0] for one in plain])


def test_of_eight_classes_one_or_the_winner(llama: LensModel) -> None:
    probes = planted(llama, EIGHT)
    grief = read_tokens(probes, llama, TEXTS, emotion="grief")
    assert grief.shown == "sadness"
    rows = grief.frame()
    np.testing.assert_allclose(rows[rows["item"] == "t0"]["score"], grief.texts[0].logits[:, 0, 5])
    winning = read_tokens(probes, llama, TEXTS).frame()
    logits = np.concatenate([one.logits[:, 0] for one in grief])
    assert winning["class"].tolist() == [EIGHT[i] for i in logits.argmax(1)]
    ranked = np.sort(logits, axis=1)
    np.testing.assert_allclose(winning["score"], ranked[:, -1] - ranked[:, -2])
    read = read_tokens(probes, llama, "No.")
    wins = [EIGHT[i] for i in read.texts[0].logits[1:, 0].argmax(1)]
    most = max(set(wins), key=wins.count)
    assert f"; wins {most} {wins.count(most)}" in repr(read)
    assert f"of {len(wins)}; highest" in repr(read)
    with pytest.raises(BatteryError, match="'boredom' is none of these"):
        read_tokens(probes, llama, TEXTS, emotion="boredom")


@pytest.mark.parametrize("position", ["mean", "all"])
def test_standard_deviations_from_the_neutral_items(llama: LensModel, position: str) -> None:
    """Over activations as over texts: against NumPy on the same captures, of the neutral items alone."""
    probes = planted(llama)
    acts = capture(llama, TEXTS, positions=position, cache=False)
    roles = replace(acts, items=acts.items.assign(role=["neutral", "emotional", "neutral", "neutral"]))
    read = read_tokens(probes, llama, TEXTS, reference=roles, by_layer=True)
    for layer in range(llama.n_layers):
        if position == "mean":
            logits = probes.score(acts, layer=layer)[[0, 2, 3], 0]
        else:
            kept = [acts.item(i)[1:, layer].astype(float) for i in (0, 2, 3)]
            logits = probes.at(layer)(np.concatenate(kept))[:, 0]
        z = (read.texts[1].logits[:, layer, 0] - logits.mean()) / logits.std()
        rows = read.frame().query(f"item == 't1' and layer == {layer}")
        np.testing.assert_allclose(rows["score"], z, atol=1e-4)
    assert "3 neutral items" in heat.caption(read)
    if position == "all":
        texts = read_tokens(probes, llama, TEXTS, reference=[TEXTS[i] for i in (0, 2, 3)], by_layer=True)
        np.testing.assert_allclose(texts.frame()["score"], read.frame()["score"], atol=1e-4)


def test_references_that_cannot_be_one(llama: LensModel) -> None:
    probes = planted(llama)
    acts = capture(llama, TEXTS, sites="L0.resid_post", positions="mean", cache=False)
    with pytest.raises(StoreError, match="lacks resid_post of layer 1"):
        read_tokens(probes, llama, TEXTS, reference=acts)
    with pytest.raises(StoreError, match="cannot read nobody's"):
        read_tokens(probes, llama, TEXTS, reference=replace(acts, fingerprint="0" * 32, model="nobody's"))
    with pytest.raises(CaptureError, match="one score alone"):
        read_tokens(probes, llama, TEXTS, reference=["a"])


def test_sinks_are_grey_and_do_not_stretch_the_scale(llama: LensModel) -> None:
    """A token blown up to a hundred times its norm stays in the mean, as pooling has it, and leaves the scale."""
    probes = planted(llama)
    grown = edit(llama, {"L1.resid_post": lambda value, cursor: value * (1 + 99 * (torch.arange(value.shape[1]) == 9))[:, None]})  # fmt: skip  # noqa: E501
    before = read_tokens(probes, llama, TEXTS[:1])
    with grown:
        read = read_tokens(probes, llama, TEXTS[:1])
        acts = capture(llama, TEXTS[:1], positions="mean", cache=False)
    (one,), rows = read, shown(read, read.texts[0])
    assert np.flatnonzero(one.sinks[:, 0]).tolist() == [0, 9]
    assert [(i, s.why_grey) for i, s in enumerate(rows) if s.why_grey] == [(0, "first token"), (9, "outlying norm")]
    np.testing.assert_allclose(one.logit[0], probes.score(acts)[0], rtol=1e-4)
    assert limit([rows]) <= limit([shown(before, before.texts[0])])
    assert abs(rows[9].score) > 10 * limit([rows])


def test_a_text_of_one_token_has_a_score_and_no_colour(family: LensModel) -> None:
    probes = planted(family)
    read = read_tokens(probes, family, "a")
    acts = capture(family, ["a"], positions="mean", cache=False)
    np.testing.assert_allclose(read.texts[0].logit[0], probes.score(acts)[0], atol=1e-4)
    first = family.tokenizer("a").input_ids[0] != family.tokenizer.bos_token_id
    assert [bool(s.why_grey) for s in shown(read, read.texts[0])] == [first]
    assert "a" in as_words(read.html())
    assert coloured_terminal(read)


# characters


class Words(HTMLParser):
    """The text of a fragment without what is hidden from readers; titles; the names of the elements."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.words, self.titles, self.names = "", list[str](), set[str]()
        self.styles: list[str] = []
        self.hidden = self.inside = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.names.add(tag)
        self.inside += given.get("dir") == "auto"
        self.hidden += given.get("aria-hidden") == "true"
        if "title" in given:
            self.titles.append(given["title"] or "")
            self.styles.append(given["style"] or "")

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag == "i"
        self.inside -= tag == "div" and self.inside > 0

    def handle_data(self, data: str) -> None:
        self.words += data if self.inside and not self.hidden else ""


def parsed(html: str) -> Words:
    found = Words()
    found.feed(html)
    return found


def as_words(html: str) -> str:
    return parsed(html).words


def coloured_terminal(read: TokenScores) -> str:
    out = io.StringIO()
    Console(file=out, force_terminal=True, color_system="truecolor", width=400, no_color=False).print(read)
    return out.getvalue()


@pytest.mark.parametrize(
    "text", [*TEXTS, HOSTILE, "\n\n\nx\n", "\U0001f600", "a\u0301\u0301b", "\r\n\r\n.", "\u202eabc"]
)
def test_every_character_appears_once(family: LensModel, text: str) -> None:
    read = read_tokens(planted(family), family, text)
    (one,) = read
    assert [p.start for p in one.pieces] == [0, *(p.end for p in one.pieces[:-1])]
    assert one.pieces[-1].end == len(text)
    assert sorted(t for p in one.pieces for t in p.tokens) == list(range(len(one.spans)))
    assert "".join(s.text for s in shown(read, one)) == text
    pictured = text.replace("\r\n", "\n").replace("\x1b", "␛")
    assert as_words(read.html()) == pictured
    said = coloured_terminal(read).replace("\x1b[", "\x00")
    assert "\x1b" not in said


def test_signs_are_not_torn() -> None:
    """Byte-level tokens cut all of these; a reader sees each as one."""
    tokenizer = tiny_tokenizer()
    text = "e\u0301 \U0001f469\u200d\U0001f680 \U0001f44b\U0001f3fd ☎\ufe0f 喜\r\n"
    spans = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    found = [text[p.start : p.end] for p in cut(text, spans)]
    assert found == ["e\u0301", " ", "\U0001f469\u200d\U0001f680", " ", "\U0001f44b\U0001f3fd", " ", "☎\ufe0f", " ", "喜", "\r\n"]  # fmt: skip  # noqa: E501


def test_cut_holds_for_any_spans() -> None:
    """Gaps, overlaps, empty spans, tokens out of order: characters are partitioned, each token is in one piece."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        text = "".join(rng.choice(list("ab \n\r\u0301\U0001f600\u200d"), size=rng.integers(1, 12)))
        starts = np.sort(rng.integers(0, len(text) + 1, size=rng.integers(1, 9)))
        spans = [(int(a), int(min(len(text), a + rng.integers(0, 4)))) for a in starts]
        found = cut(text, spans)
        assert "".join(text[p.start : p.end] for p in found) == text
        assert sorted(t for p in found for t in p.tokens) == list(range(len(spans)))
        for piece in found:
            assert piece.start < piece.end
            for token in piece.tokens:
                a, b = spans[token]
                assert a == b or piece.start <= a < b <= piece.end


def test_a_joined_piece_has_the_mean_of_its_tokens(llama: LensModel) -> None:
    read = read_tokens(planted(llama), llama, "a \U0001f600")
    (one,) = read
    last = shown(read, one)[-1]
    assert (last.text, last.tokens) == ("\U0001f600", 4)
    assert last.score == pytest.approx(one.logits[2:, 0, 0].mean())


# drawing


def luminance(colour: tuple[int, int, int]) -> float:
    """WCAG 2.2, relative luminance."""
    r, g, b = ((c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) for c in (v / 255 for v in colour))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_are_symmetric_monotone_and_legible() -> None:
    steps = np.linspace(0, 1, 21).tolist()
    up, down = [heat.shade(s) for s in steps], [heat.shade(-s) for s in steps]
    assert [o for _, o in up] == [o for _, o in down]
    assert (np.diff([o for _, o in up]) > 0).all()
    assert {c for c, _ in up[1:]} == {heat._rgb(ORANGE)}
    assert {c for c, _ in down} == {heat._rgb(BLUE)}
    assert heat.shade(3.0) == heat.shade(1.0)
    grey = [(heat._rgb(GREY), o) for o in (0.3, 0.45)]
    for ink, paper in (("#1d2127", "#ffffff"), ("#e6e8eb", "#14171b"), (heat.INK, heat.GROUND)):
        for colour, opacity in [*up, *down, *grey]:
            behind = heat.over(colour, opacity, heat._rgb(paper))
            assert contrast(heat._rgb(ink), behind) >= 4.5, (ink, paper, colour, opacity)


def test_the_scale_ends_where_one_outlier_cannot_pale_the_rest() -> None:
    row = [Shown("x", s, "", "", 1) for s in [*np.linspace(-2, 2, 39).tolist(), 50.0]]
    assert limit([row]) == pytest.approx(2.0)
    assert limit([row[-2:]]) == 50.0
    assert limit([[Shown("x", 9.0, "", "first token", 1)]]) == 1.0
    assert limit([[Shown("x", 0.0, "", "", 1)]]) == 1.0


def test_html_is_escaped_and_titled(llama: LensModel) -> None:
    read = read_tokens(planted(llama), llama, [HOSTILE])
    found = parsed(read.html())
    assert found.names == {"div", "span", "br"}
    assert found.words == HOSTILE.replace("\x1b", "␛")
    rows = shown(read, read.texts[0])
    marked = found.titles[-len(rows) :]
    assert marked[0].startswith("'<' ")
    assert marked[0].endswith("left out: first token")
    assert marked[1] == f"'s' {rows[1].score:+.2f}"
    assert "<script" not in heat.page(read)
    bare = parsed(read.html(legend=False))
    assert (bare.words, bare.titles) == (found.words, found.titles)
    assert heat.caption(read) not in read.html(legend=False)


def test_no_token_can_be_markup(llama: LensModel) -> None:
    """One token that is a whole element, in an item whose name is one: in spans, titles, headlines and figures."""
    read = read_tokens(planted(llama), llama, "ab", by_layer=True)
    (one,) = read
    text = f"a{HOSTILE}"
    hostile = replace(one, name="<b>name</b>", text=text, spans=((0, 1), (1, len(text))))
    read = replace(read, texts=(hostile,))
    assert [s.text for s in shown(read, hostile)] == ["a", HOSTILE]
    for html in (read.html(), heat.page(read)):
        assert "<script>alert" not in html
        assert "<b>" not in html
    assert as_words(read.html()) == text.replace("\x1b", "␛")
    figure: Any = read.plot()
    assert "<" not in "".join(figure.data[0].customdata[0])
    assert not any("<" in tick for tick in figure.layout.xaxis.ticktext)
    assert "<" not in figure.layout.title.text


def test_stronger_scores_are_drawn_stronger(llama: LensModel) -> None:
    probes = planted(llama)
    middle = np.median(read_tokens(probes, llama, [TEXTS[0]]).frame()["score"])
    read = read_tokens(replace(probes, bias={"logistic": probes.bias["logistic"] - middle}), llama, [TEXTS[0]])
    rows, styles = shown(read, read.texts[0]), parsed(read.html()).styles
    assert min(s.score for s in rows) < 0 < max(s.score for s in rows)
    for s, style in zip(rows, styles, strict=True):
        r, g, b, opacity = style.removeprefix("background:rgba(").removesuffix(")").split(",")
        expected = GREY if s.why_grey else ORANGE if s.score > 0 else BLUE
        assert (int(r), int(g), int(b)) == heat._rgb(expected)
        if not s.why_grey:
            share = min(1.0, abs(s.score) / limit([rows]))
            assert float(opacity) == pytest.approx(heat.STRONGEST * share, abs=1e-3)


def test_terminals_get_colour_and_pipes_do_not(llama: LensModel) -> None:
    read = read_tokens(planted(llama), llama, TEXTS[:2])
    coloured = coloured_terminal(read)
    ink = ";".join(map(str, heat._rgb(heat.INK)))
    assert f"38;2;{ink};48;2;" in coloured
    assert "⏎" in coloured
    plain = io.StringIO()
    Console(file=plain, width=400).print(read)
    assert plain.getvalue() == repr(read) + "\n"
    assert "\x1b" not in plain.getvalue()
    lines = repr(read).splitlines()
    one, rows = read.texts[0], shown(read, read.texts[0])
    assert lines[2].startswith(f"t0: {one.logit[0, 0]:+.2f} mean over {len(one.spans) - 1} tokens; highest ")
    assert lines[3] == f"{'first token':>24}  'T'"
    assert lines[4 : 3 + len(rows)] == [f"{f'{s.score:+.2f}':>24}  {s.text!r}" for s in rows[1:]]


def test_no_color_is_respected(llama: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    read = read_tokens(planted(llama), llama, TEXTS[0])
    out = io.StringIO()
    Console(file=out, force_terminal=True, color_system="truecolor", width=200).print(read)
    assert "48;2;" not in out.getvalue()
    assert repr(read).splitlines()[-1] in out.getvalue()


def test_layers_as_a_figure(llama: LensModel) -> None:
    read = read_tokens(planted(llama), llama, [TEXTS[0], HOSTILE], by_layer=True)
    drawn: Any = read.plot(1).data[0]
    assert np.array(drawn.z).shape == (llama.n_layers, len(read.texts[1].pieces))
    assert drawn.zmin == -drawn.zmax
    assert all(row[0] is None for row in drawn.z)
    np.testing.assert_allclose(np.array(drawn.z[0][1:], dtype=float), read.texts[1].logits[1:, 0, 0])
    assert heat.page(read).count("plotly-graph-div") == 2
    winning: Any = read_tokens(planted(llama, EIGHT), llama, TEXTS[0], by_layer=True).plot().data[0]
    assert winning.zmin == 0 < winning.zmax
    with pytest.raises(CaptureError, match="by_layer=True"):
        read_tokens(planted(llama), llama, TEXTS[0]).plot()


def test_visible() -> None:
    assert visible("a\r\nb\n\tc\x00\x7f\x85\r") == "a⏎\nb⏎\n\tc␀␡<85>␍"


# refusals and the command


def test_what_cannot_be_read_is_refused(llama: LensModel) -> None:
    probes = planted(llama)
    with pytest.raises(StoreError, match="cannot read"):
        read_tokens(replace(probes, fingerprint="0" * 32), llama, TEXTS)
    with pytest.raises(StoreError, match="no logistic probe of layer 2"):
        read_tokens(probes, llama, TEXTS, layer=2)
    with pytest.raises(CaptureError, match="no tokens"):
        read_tokens(probes, llama, "")
    with pytest.raises(CaptureError, match="There are no texts"):
        read_tokens(probes, llama, [])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("models") / "tiny"
    tiny_hf("llama").save_pretrained(home)
    tiny_tokenizer().save_pretrained(home)
    return home


@pytest.fixture(scope="module")
def a_run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with probes of two targets, as the main job leaves it."""
    from affectlens.model import load_model

    model = load_model(str(folder))
    config = {"model": str(folder), "dtype": "float32", "revision": None}
    run = Run.create(tmp_path_factory.mktemp("runs") / "run", command="probe", config=config)
    for probes in (planted(model), planted(model, EIGHT)):
        replace(probes, model="a name that is not looked up").save(
            run.folder / "probes" / f"{probes.target}.safetensors"
        )
    return run.folder


app = typer.Typer(pretty_exceptions_enable=False)
app.command()(score)


def test_the_command_in_json(a_run: Path, tmp_path: Path) -> None:
    page, lines = tmp_path / "page.html", tmp_path / "texts.txt"
    lines.write_bytes("\ufeffNo, he said.\r\n\r\n<b>Then</b>\n".encode())
    args = [str(a_run), "A door.", "-", "--file", str(lines), "--emotion", "grief", "--json", "--html", str(page)]
    done = CliRunner().invoke(app, [*args, "--by-layer", "--method", "mean_difference"], input="From a pipe.\n\n")
    assert done.exception is None
    found = json.loads(done.stdout)
    assert [t["text"] for t in found["texts"]] == ["A door.", "From a pipe.", "No, he said.", "<b>Then</b>"]
    assert (found["target"], found["class"], found["method"]) == ("category", "sadness", "mean_difference")
    (tokens, means) = (found["texts"][0][k] for k in ("tokens", "layers"))
    assert [m["layer"] for m in means] == [0, 1]
    for mean in means:
        own = [t["score"] for t in tokens if t["layer"] == mean["layer"] and t["pooled"]]
        assert np.mean(own) == pytest.approx(mean["score"])
    assert "<b>Then</b>" in as_words(page.read_text())
    assert "<b>Then" not in page.read_text()


def test_the_command_for_people(a_run: Path) -> None:
    path = a_run / "probes" / "affect.safetensors"
    done = CliRunner().invoke(app, [str(path), "A door.", "--reference", "starter", "--layer", "0"])
    assert done.exception is None
    assert "tokens of 64 neutral items of starter" in done.stdout
    assert "layer 0 of resid_post" in done.stdout
    assert "mean over 6 tokens; highest" in done.stdout
    assert done.stdout.count("'o'") >= 2


def test_the_commands_refusals(a_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip  # noqa: E501
    empty = Run.create(tmp_path / "empty", command="probe", config={}).folder
    bad = tmp_path / "latin.txt"
    bad.write_bytes(b"caf\xe9")
    path = str(a_run / "probes" / "affect.safetensors")
    other = tmp_path / "other"
    tiny_hf("llama", seed=1).save_pretrained(other)
    tiny_tokenizer().save_pretrained(other)
    for args, kind, said in (
        ([str(a_run)], AffectLensError, "There are no texts"),
        ([str(a_run), "--file", str(bad)], AffectLensError, "not UTF-8"),
        ([str(a_run), "x", "--target", "valence"], RunError, "choose --target from affect, category"),
        ([str(empty), "x"], RunError, "no probes yet"),
        ([str(tmp_path), "x"], RunError, "not a run folder"),
        ([path, "x", "--target", "affect"], RunError, "is not a run folder"),
        ([str(tmp_path / "none"), "x"], StoreError, "not a readable file"),
        ([path, "x", "--emotion", "joy"], BatteryError, "tell neutral, emotional apart"),
        ([path, "x", "--layer", "9", "--model", "no/such"], StoreError, "no logistic probe of layer 9"),
        ([path, "xy", "--model", str(other)], StoreError, "Fit them anew"),
    ):
        done = CliRunner().invoke(app, args)
        assert isinstance(done.exception, kind), (args, done.exception)
        assert said in str(done.exception)
        assert "\n" not in str(done.exception)
    capsys.readouterr()
    monkeypatch.setattr(affectlens.cli, "app", app)
    monkeypatch.setattr("sys.argv", ["affectlens", str(a_run)])
    with pytest.raises(SystemExit) as exit_:
        affectlens.cli.main()
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("affectlens: There are no texts")


def test_lines_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes("a\u2028b\r\n \n\x0cc".encode())
    assert gather(["x\ny"], path) == ["x\ny", "a\u2028b", "\x0cc"]


@pytest.mark.real
def test_on_real_weights(smol: LensModel) -> None:
    """A probe of eighteen scenes: the law, the sink, and the sign of what it was fitted on."""
    items = load_battery("starter").where(split="vignettes").frame()
    kept = items[items["group"].isin(items["group"].unique()[:18]) & items["role"].isin(["emotional", "neutral"])]
    acts = capture(smol, kept, sites=[f"L{layer}.resid_post" for layer in range(9)], positions="mean", cache=False)
    probes = fit_all(acts, select(acts.items, "affect"), "mean", 0)
    read = read_tokens(probes, smol, kept.iloc[:4])
    np.testing.assert_allclose([one.logit[0] for one in read], probes.score(acts)[:4], atol=1e-4)
    assert all(one.sinks[0].all() and not one.scored[0] for one in read)
    called = read.table()["score"] > 0
    assert called.tolist() == (kept.iloc[:4]["role"] == "emotional").tolist()
    last = read_tokens(probes, smol, kept.iloc[:1], by_layer=True, layer=8)
    assert last.texts[0].sinks[:, 8].sum() == 1
    drawn: Any = last.plot().data[0]
    assert drawn.z[8][0] is None
