"""The picture: the graph's own numbers, texts that stay texts, a page that loads nothing, a drawing that is XML."""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch

import affectlens as al
from affectlens import report
from affectlens.circuits import picture
from affectlens.circuits.graph import NODES, CircuitGraph
from affectlens.circuits.picture.data import NUMBERS, Detail, payload
from affectlens.circuits.picture.details import details_of, load_details, save_details, top_items
from affectlens.circuits.picture.layout import Room, curve, plan, port_of, room_of, rooms
from affectlens.circuits.picture.page import Frame, fragment, rendered, show, write_picture
from affectlens.circuits.picture.static import svg
from affectlens.circuits.scoring import EdgeScores
from affectlens.circuits.space import EdgeSpace
from affectlens.errors import CircuitError
from affectlens.model import LensModel
from affectlens.patching.pairs import PatchPair, prepare
from affectlens.testing import tiny_model
from affectlens.types import Json

HOSTILE = "\"</script><script>alert(1)</script> <b>'bold'</b> & <!-- ]]> \u2028 café \U0001f525\x00"
SHARED = EdgeSpace(4, 4, 2, (False, False, True, False))
OWN = EdgeSpace(3, 2, 2, (False,) * 3, "L2.resid_post")
META: Json = {"model": "toy", "emotion": "grief", "metric": "valence", "unit": "nats", "n_pairs": 32}


def graph_of(space: EdgeSpace = SHARED, n: int = 40, seed: int = 0, **meta: Any) -> CircuitGraph:
    """A random circuit whose ten largest edges were patched exactly."""
    rng = np.random.default_rng(seed)
    found = np.argwhere(space.allowed)
    found = found[rng.permutation(len(found))[:n]]
    score = rng.standard_normal(len(found))
    table = pd.DataFrame({"sender": [space.senders[i] for i, _ in found],
                          "receiver": [space.receivers[j] for _, j in found], "score": score})  # fmt: skip
    table = table.sort_values("score", key=abs, ascending=False, ignore_index=True)
    exact = table["score"].where(table.index < 10)
    table = table.assign(score_low=table["score"] - 0.1, score_high=table["score"] + 0.1, effect=1.1 * exact,
                         effect_low=exact - 0.2, effect_high=exact + 0.3, p=0.01 + 0 * exact,
                         p_adjusted=0.04 + 0 * exact, effect_n=8 + 0 * exact, n=32)  # fmt: skip
    nodes = pd.DataFrame({"node": ["L1.H1", "L0.mlp_out", "L1.N17", "L2.H0"], "kind": ["head", "mlp", "neuron", "head"],
                          "layer": [1, 0, 1, 2], "effect": [0.5, -0.25, 0.125, np.nan], "low": [0.4, -0.3, 0.1, np.nan],
                          "high": [0.6, -0.2, 0.2, np.nan], "p_adjusted": [0.01, 0.02, 0.03, np.nan]})  # fmt: skip
    return CircuitGraph(space, table, nodes, META | meta)


class Page(HTMLParser):
    """Tags with their attributes, and what each script holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts[-1] += data

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])


def numbers_of(data: Any, name: str) -> pd.DataFrame:
    """The edges of a circuit as the page has them, rooms by name."""
    table = pd.DataFrame(data["circuits"][name]["edges"])
    named = [room["name"] for room in data["rooms"]]
    return table.assign(**{side: [named[i] for i in table[side]] for side in ("from", "to")})


@pytest.mark.parametrize("space", [SHARED, OWN], ids=["shared", "own"])
def test_the_page_has_the_graphs_numbers(space: EdgeSpace, tmp_path: Path) -> None:
    graph = graph_of(space)
    page = Page(write_picture(tmp_path / "c.html", {"grief": graph}).read_text(encoding="utf-8"))
    found = numbers_of(page.data, "grief")
    assert len(found) == len(graph.edges)
    np.testing.assert_allclose(
        found[list(NUMBERS)].to_numpy(float), graph.edges[list(NUMBERS)].to_numpy(float), rtol=5e-5
    )
    assert [*found["from"]] == [room_of(space, name) for name in graph.edges["sender"]]
    assert [*found["to"]] == [room_of(space, name) for name in graph.edges["receiver"]]
    assert [*found["port"]] == [port_of(name) for name in graph.edges["receiver"]]
    one = page.data["circuits"]["grief"]
    assert one["totals"]["score"] == pytest.approx(graph.edges["score"].abs().sum(), rel=1e-4)
    assert one["totals"]["effect"] == pytest.approx(graph.edges["effect"].abs().sum(), rel=1e-4)
    named = {page.data["rooms"][int(i)]["name"]: numbers for i, numbers in one["nodes"].items()}
    assert named == {
        "L1.H1": [0.5, 0.4, 0.6, 0.01], "L0.mlp": [-0.25, -0.3, -0.2, 0.02], "L1.N17": [0.125, 0.1, 0.2, 0.03],
    }  # fmt: skip
    assert page.data["end"] == space.end


def test_the_largest_are_held_and_the_rest_counted() -> None:
    graph = graph_of(n=60)
    shuffled = replace(graph, edges=graph.edges.sample(frac=1, random_state=0))
    data = payload({"g": shuffled}, {}, most=25)
    found = numbers_of(data, "g")
    np.testing.assert_allclose(found["score"].astype(float), graph.edges["score"].head(25), rtol=5e-5)
    assert data["circuits"]["g"]["n_edges"] == 60
    assert data["circuits"]["g"]["totals"]["score"] == pytest.approx(graph.edges["score"].abs().sum(), rel=1e-4)


def test_nothing_is_loaded_and_the_code_is_small(tmp_path: Path) -> None:
    text = write_picture(tmp_path / "c.html", {"grief": graph_of()}).read_text(encoding="utf-8")
    page = Page(text)
    assert not [tag for tag, attrs in page.tags if tag in ("link", "img", "iframe", "object", "embed")]
    assert not [attrs for _, attrs in page.tags if {"src", "href"} & {*attrs}]
    assert not re.search(r"@import|fetch\(|XMLHttpRequest|importScripts|WebSocket|innerHTML|insertAdjacentHTML|eval\(",
                         text)  # fmt: skip
    assert set(re.findall(r"https?://[^\s\"'`)]+", text)) <= {"http://www.w3.org/2000/svg"}
    (policy,) = [attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none'; ")
    assert len(text.encode()) - len(page.scripts[0].encode()) < 60_000


def test_texts_stay_texts(tmp_path: Path) -> None:
    space = replace(SHARED, end=HOSTILE)
    graph = graph_of(space, emotion=HOSTILE, metric=HOSTILE, model=HOSTILE)
    tokens = (HOSTILE, "b")
    detail = Detail(tokens, {"L1.H2": np.array([[1.0, 0.0], [0.25, 0.75]])}, {"L1.H2": [(HOSTILE, 0.5)]}, unit=HOSTILE)
    text = write_picture(tmp_path / "c.html", {HOSTILE: graph}, details={HOSTILE: detail}).read_text(encoding="utf-8")
    page, plain = Page(text), Page(rendered({"g": graph_of()}))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    (name,) = page.data["circuits"]
    assert name == HOSTILE
    shown = page.data["circuits"][name]["detail"]
    assert shown["tokens"] == list(tokens)
    assert shown["items"] == {"L1.H2": [[HOSTILE, 0.5]]}
    assert shown["patterns"] == {"L1.H2": [[1000], [250, 750]]}
    drawing = ElementTree.fromstring(svg(graph))
    assert {one.tag.rsplit("}")[-1] for one in drawing.iter()} == {"svg", "title", "rect", "text", "path"}
    assert "<b>'bold'</b> & <!-- ]]>" in str(drawing[0].text)


def test_patterns_are_thousandths_and_trimmed_of_zeros_only() -> None:
    pattern = np.random.default_rng(0).dirichlet(np.ones(5), 5)
    pattern[1, 3:] = 0
    detail = Detail(tuple("abcde"), {"L0.H1": pattern})
    rows = payload({"g": graph_of()}, {"g": detail})["circuits"]["g"]["detail"]["patterns"]["L0.H1"]
    whole = np.array([row + [0] * (5 - len(row)) for row in rows])
    np.testing.assert_allclose(whole / 1000, pattern, atol=5.1e-4)
    assert len(rows[1]) == 3


def test_several_circuits_share_their_rooms() -> None:
    a, b = graph_of(n=6, seed=1), graph_of(n=6, seed=2)
    data = payload({"joy": a, "grief": b}, {})
    placed = {room["name"] for room, box in zip(data["rooms"], data["plans"]["close"]["boxes"], strict=True) if box}
    for name in ("joy", "grief"):
        assert {*numbers_of(data, name)["from"], *numbers_of(data, name)["to"]} <= placed
    assert len(placed) < len(data["rooms"])
    assert all(data["plans"]["full"]["boxes"])


@pytest.mark.parametrize("space", [SHARED, OWN, replace(SHARED, parallel=(True,) * 4)], ids=["shared", "own", "flat"])
@pytest.mark.parametrize("full", [True, False])
def test_rooms_stand_apart_and_every_edge_goes_up(space: EdgeSpace, full: bool) -> None:
    every = rooms(space, [Room("L1.N17", "neuron", 1)])
    names = [room.name for room in every]
    shown = names if full else names[2::5]
    at = plan(space, every, shown)
    assert {"embedding", "end", *shown} <= {*at.boxes}
    boxes = list(at.boxes.values())
    for i, a in enumerate(boxes):
        assert 0 <= a.x <= a.x + a.w <= at.width
        assert 0 <= a.y <= a.y + a.h <= at.height
        for b in boxes[:i]:
            assert a.x + a.w <= b.x or b.x + b.w <= a.x or a.y + a.h <= b.y or b.y + b.h <= a.y
    for row, column in np.argwhere(space.allowed):
        ends = [room_of(space, name) for name in (space.senders[row], space.receivers[column])]
        if {*ends} <= {*at.boxes}:
            a, b = (at.boxes[end] for end in ends)
            assert b.y + b.h < a.y, ends
    served = {room.name: room.heads for room in every if room.kind == "kv" and room.name in at.boxes}
    for name, heads in served.items():
        inside = [at.boxes[head] for head in heads if head in at.boxes]
        assert (at.boxes[name].x, at.boxes[name].x + at.boxes[name].w) == (inside[0].x, inside[-1].x + inside[-1].w)


def test_shared_keys_and_values_have_rooms_of_their_own() -> None:
    assert [room_of(SHARED, name) for name in ("L3.H1.k", "L3.H1.v", "L3.H3.q", "L3.H3", "L3.mlp_in", "L3.mlp_out")] \
        == ["L3.kv1", "L3.kv1", "L3.H3", "L3.H3", "L3.mlp", "L3.mlp"]  # fmt: skip
    assert room_of(OWN, "L2.H1.k") == "L2.H1"
    (room,) = [room for room in rooms(SHARED) if room.name == "L3.kv1"]
    assert room.heads == ("L3.H2", "L3.H3")
    feeds = SHARED.feeds[SHARED.receiver["L3.H1.k"]]
    assert [SHARED.senders[i] for i in np.flatnonzero(feeds)] == list(room.heads)


def paths(drawing: str) -> list[ElementTree.Element]:
    return [one for one in ElementTree.fromstring(drawing).iter() if one.get("stroke-opacity")]


def test_the_drawing_shows_width_sign_and_port() -> None:
    graph = graph_of(n=40)
    drawn = paths(svg(graph, most=12))[::-1]
    first = graph.edges.head(12)
    assert len(drawn) == 12
    for path, (_, row) in zip(drawn, first.iterrows(), strict=True):
        assert path.get("stroke") == ("#3b7dd8" if row["score"] > 0 else "#d9791c")
        width = 0.7 + 6.3 * abs(row["score"]) / abs(graph.edges["score"][0])
        assert float(str(path.get("stroke-width"))) == pytest.approx(width, abs=0.006)
        assert path.get("stroke-dasharray") == {"k": "7 4", "v": "2 3.5"}.get(port_of(row["receiver"]))
        said = str(path[0].text)
        assert said.startswith(f"{row['sender']} -> {row['receiver']}: {row['score']:.3g} [{row['score_low']:.3g}, ")
    assert "12 of 40 edges" in svg(graph, most=12)
    assert len(paths(svg(graph, weight="effect"))) == 10
    assert svg(graph, full=True).count("<rect") == len(rooms(SHARED)) + 2  # the ground and the neuron


def test_png_is_drawn_where_a_renderer_is_and_refused_where_none_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = graph_of()
    given: list[tuple[str, int]] = []

    def render(*, svg_string: str, zoom: int) -> bytes:
        given.append((svg_string, zoom))
        return b"\x89PNG"

    monkeypatch.setitem(sys.modules, "resvg_py", SimpleNamespace(svg_to_bytes=render))
    assert picture.png(graph, tmp_path / "c.png", scale=3, most=5).read_bytes() == b"\x89PNG"
    assert given == [(svg(graph, most=5), 3)]
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(CircuitError, match="pip install resvg-py"):
        picture.png(graph, tmp_path / "d.png")
    assert not (tmp_path / "d.png").exists()


def test_a_notebook_and_a_report_get_the_page_in_a_frame(tmp_path: Path) -> None:
    graph = graph_of(emotion=HOSTILE)
    frame = show(graph)
    assert isinstance(frame, Frame)
    ((tag, attrs),) = Page(frame._repr_html_()).tags
    assert tag == "iframe"
    assert attrs["srcdoc"] == frame.page
    assert attrs["sandbox"] == "allow-scripts allow-downloads"
    assert list(Page(frame.page).data["circuits"]) == [HOSTILE]
    html = fragment({"grief": graph}, height=400)
    section = report.Section("Picture", ["One."], html=html)
    written = report.write(tmp_path / "report.html", "Report", [], [section], {}, "").read_text(encoding="utf-8")
    (inner,) = [attrs["srcdoc"] for tag, attrs in Page(written).tags if tag == "iframe"]
    assert list(Page(str(inner)).data["circuits"]) == ["grief"]
    assert "height:400px" in html


def test_what_can_not_be_drawn_is_said() -> None:
    graph = graph_of()
    with pytest.raises(CircuitError, match="no circuit to draw"):
        payload({}, {})
    with pytest.raises(CircuitError, match="'a' and 'b' are circuits of different models or ends"):
        payload({"a": graph, "b": graph_of(OWN)}, {})
    with pytest.raises(CircuitError, match="details of 'joy', which is no circuit here: g"):
        payload({"g": graph}, {"joy": Detail()})
    with pytest.raises(CircuitError, match=r"pattern of L0.H1 is \(2, 2\) for 3 tokens"):
        payload({"g": graph}, {"g": Detail(("a", "b", "c"), {"L0.H1": np.eye(2)})})
    with pytest.raises(CircuitError, match="weight='size' is not known"):
        svg(graph, weight="size")
    unpatched = replace(graph, edges=graph.edges.assign(effect=np.nan))
    with pytest.raises(CircuitError, match="No edge has 'effect'"):
        svg(unpatched, weight="effect")


def test_a_graph_without_nodes_or_exact_effects_is_drawn() -> None:
    graph = graph_of()
    blank = dict.fromkeys(["score_low", "score_high", "effect", "effect_low", "effect_high", "p", "p_adjusted"], np.nan)
    bare = replace(graph, nodes=pd.DataFrame(columns=NODES), edges=graph.edges.assign(**blank))
    data = payload({"g": bare}, {})
    assert data["circuits"]["g"]["edges"]["effect"] == [None] * len(bare.edges)
    assert data["circuits"]["g"]["nodes"] == {}
    assert len(paths(svg(bare))) == len(bare.edges)


def test_a_circuit_of_nodes_alone_is_drawn() -> None:
    graph = graph_of()
    alone = replace(graph, edges=graph.edges.head(0))
    data = payload({"g": alone}, {})
    placed = {room["name"] for room, box in zip(data["rooms"], data["plans"]["close"]["boxes"], strict=True) if box}
    assert placed == {"embedding", "L0.mlp", "L1.H1", "L1.N17", "L2.H0", "end"}
    assert paths(svg(alone)) == []
    assert svg(alone).count("<rect") == 1 + len(placed)


def test_curves_are_straight_near_by_and_bow_outward_far_up() -> None:
    every = rooms(OWN)
    at = plan(OWN, every, [room.name for room in every])
    far = curve(at.boxes["L0.mlp"], at.boxes["L2.mlp"], 0.5, at.width / 2)
    x, *rest = [float(number) for number in re.findall(r"-?[\d.]+", far)]
    assert rest[1] > x + 16
    assert rest[-2] == x
    left = curve(at.boxes["L0.H0"], at.boxes["L2.H0"], 0.5, at.width / 2)
    x, *rest = [float(number) for number in re.findall(r"-?[\d.]+", left)]
    assert rest[1] < x - 16


@pytest.fixture(scope="module")
def pairs(llama: LensModel) -> Sequence[PatchPair]:
    places = ("kitchen", "yard", "office", "train", "garden")
    return prepare(llama, [(f"The bell of the {place} rang. She wept.", f"The lamp of the {place} lit. She slept.")
                           for place in places])  # fmt: skip


def test_patterns_are_the_models_on_the_clean_text(llama: LensModel, pairs: Sequence[PatchPair]) -> None:
    space = EdgeSpace.of(llama)
    graph = graph_of(space, n=60)
    detail = details_of(llama, graph, pairs, top=3, example=2)
    sums = graph.edges[graph.edges["sender"].str.contains("H")].groupby("sender")["score"].agg(lambda s: s.abs().sum())
    assert list(detail.patterns) == list(sums.nlargest(3).index)
    ids = pairs[2].clean.prompt.ids
    assert "".join(detail.tokens) == llama.tokenizer.decode(list(ids))
    for name, pattern in detail.patterns.items():
        with al.record(llama, f"{name.split('.')[0]}.pattern") as seen:
            llama.body(input_ids=torch.tensor([list(ids)]), use_cache=False)
        expected = seen[f"{name.split('.')[0]}.pattern"][0, int(name.split("H")[1])]
        np.testing.assert_allclose(pattern, expected.detach().numpy(), atol=1e-6)
        np.testing.assert_allclose(pattern.sum(1), 1, atol=1e-5)
    data = payload({"g": graph}, {"g": detail})
    assert list(data["circuits"]["g"]["detail"]["patterns"]) == list(detail.patterns)
    assert detail.items == {}


def test_details_are_drawn_again_from_the_folder(llama: LensModel, pairs: Sequence[PatchPair], tmp_path: Path) -> None:
    space, path = EdgeSpace.of(llama), tmp_path / "joy" / "details.json"
    graph, rng = graph_of(space, n=60), np.random.default_rng(0)
    values = rng.standard_normal((5, *space.allowed.shape)).astype(np.float32) * space.allowed
    scores = EdgeScores(space, values, pd.DataFrame({"pair": [pair.name for pair in pairs]}), {})
    detail = details_of(llama, graph, pairs, scores=scores)
    save_details(detail, path)
    assert rendered({"g": graph}, details={"g": load_details(path)}) == rendered({"g": graph}, details={"g": detail})
    path.write_text(path.read_text()[:-20])
    with pytest.raises(CircuitError, match=r"details.json is damaged .* drawn without it"):
        load_details(path)


def test_the_page_s_script_knows_every_number() -> None:
    script = (Path(picture.__file__).parent / "templates" / "picture.js").read_text(encoding="utf-8")
    assert json.loads(re.findall(r"const NUMBERS = (.*);", script)[0]) == list(NUMBERS)


def test_top_texts_are_those_whose_circuit_edges_carry_most(llama: LensModel, pairs: Sequence[PatchPair]) -> None:
    space = EdgeSpace.of(llama)
    graph = graph_of(space, n=60)
    rng = np.random.default_rng(0)
    values = rng.standard_normal((5, *space.allowed.shape)).astype(np.float32) * space.allowed
    order = [3, 1, 4, 0, 2]
    scores = EdgeScores(space, values, pd.DataFrame({"pair": [pairs[i].name for i in order]}), {})
    found = top_items(graph, pairs, scores, n=2)
    assert {*found} == {*graph.edges["sender"]}
    mask = np.zeros_like(space.allowed)
    for sender, receiver in zip(graph.edges["sender"], graph.edges["receiver"], strict=True):
        mask[space.sender[sender], space.receiver[receiver]] = True
    sums = (values * mask).sum(2)
    for sender, items in found.items():
        mine = sums[:, space.sender[sender]]
        best = np.argsort(-np.abs(mine))[:2]
        assert [text for text, _ in items] == [pairs[order[i]].clean.layout.text for i in best]
        assert [value for _, value in items] == pytest.approx(mine[best].tolist(), abs=1e-5)
    shown = payload({"g": graph}, {"g": details_of(llama, graph, pairs, scores=scores)})["circuits"]["g"]["detail"]
    assert {*shown["items"]} == {room_of(space, sender) for sender in found}
    with pytest.raises(CircuitError, match="of another model or another end"):
        top_items(graph_of(SHARED), pairs, scores)
    with pytest.raises(CircuitError, match="was scored but is none of the pairs given"):
        top_items(graph, pairs[:3], scores)
    with pytest.raises(CircuitError, match="example=9 is none of 5 pairs"):
        details_of(llama, graph, pairs, example=9)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_other_families_are_drawn(family: str) -> None:
    space = EdgeSpace.of(tiny_model(family))
    graph = graph_of(space)
    assert len(paths(svg(graph))) == len(graph.edges)
    assert not [room for room in rooms(space) if room.kind == "kv"]
