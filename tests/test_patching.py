"""Laws of patching: the engine equals one forward a cell, patching all restores, planted circuits are found."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import affectlens as al
from affectlens.errors import BatteryError, PatchError
from affectlens.model import LensModel
from affectlens.patching.ablating import ablate, knockout
from affectlens.patching.cells import Cell, Change, Cut
from affectlens.patching.choosing import check_engine, runner_for
from affectlens.patching.engine import Engine
from affectlens.patching.metrics import (
    Metric,
    Reading,
    kl,
    label_difference,
    logit_difference,
    own_emotion,
    words_of,
    written,
)  # fmt: skip
from affectlens.patching.pairs import PatchPair, deal, prepare
from affectlens.patching.reading import Needs, Out, Runner
from affectlens.patching.readouts import readout
from affectlens.patching.reference import Reference
from affectlens.patching.sources import CONTROLS, sources
from affectlens.patching.sweeping import patch
from affectlens.patching.units import Unit, units
from affectlens.sites import Site
from affectlens.testing import FAMILIES, tiny_model

LABELS = {"good": [" good", "!"], "bad": ["?", " sad"]}  # two of several tokens
UNEQUAL = ("She won it. The door was open. Then", "Nobody had lost it. The door was open. Then")
EQUAL = ("She won it all. The door was open. Then", "She had it all. The door was open. Then")
METRIC = label_difference(LABELS, "good", "bad")
NEEDS = Needs(logprobs=True, logits=True, layers=frozenset({0, 1}), top=True)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> LensModel:
    return tiny_model(request.param)


def pair_of(model: LensModel, texts: tuple[str, str] = UNEQUAL) -> PatchPair:
    return prepare(model, [texts], labels=LABELS)[0]


def ran(runner: Runner, pair: PatchPair, cells: list[Cell]) -> list[Out]:
    """What is read of each cell, in order."""
    base = runner.record(pair.corrupt.prompt)
    out: list[Out | None] = [None] * len(cells)
    for rows, found in runner.run(base, pair.corrupt.prompt, cells, NEEDS):
        assert found.logprobs is not None
        assert found.logits is not None
        assert found.top is not None
        for at, row in enumerate(rows):
            streams = {k: v[at : at + 1] for k, v in found.streams.items()}
            part = slice(at, at + 1)
            out[row] = Out(found.logprobs[part], found.logits[part], streams, top=found.top[part])
    assert all(one is not None for one in out)
    return [one for one in out if one is not None]


def off(a: list[Out], b: list[Out]) -> float:
    """The largest absolute difference in anything that was read."""
    worst = 0.0
    for one, other in zip(a, b, strict=True):
        for x, y in [(one.logprobs, other.logprobs), (one.logits, other.logits),
                     *((one.streams[k], other.streams[k]) for k in one.streams)]:  # fmt: skip
            assert isinstance(x, Tensor)
            assert isinstance(y, Tensor)
            worst = max(worst, float((x - y).abs().max()))
    return worst


def every_kind(model: LensModel) -> list[Site]:
    kinds = [kind for kind in model.sites.kinds if kind not in ("pattern", "features")]
    parts = [Site("z", 1, 2), Site("neurons", 0, 5)]
    return [site for kind in kinds for site in model.sites.expand(kind)] + parts


def test_the_engine_equals_one_forward_a_cell(model: LensModel) -> None:
    pair, sites = pair_of(model), every_kind(model)
    values = Engine(model).record(pair.clean.prompt, sites).sites
    cells: list[Cell] = [
        (Change(site, (base,), values[site][[source]]),) for site in sites for source, base in pair.segments["all"][::9]
    ]
    at, back = (tuple(m[i] for m in pair.segments["all"]) for i in (1, 0))
    cells += [(Change(site, at, values[site][list(back)]),) for site in sites]  # all tokens at once
    if "mlp_out" in model.sites.kinds:  # two sites in one run, one of them changed by what it is
        several = Change(Site("attn_out", 0), at[:3], values[Site("attn_out", 0)][:3])
        cells.append((several, Change(Site("mlp_out", 1), at[5:7], lambda value: 2 * value)))
    plain = ran(Reference(model), pair, cells)
    assert off(ran(Engine(model), pair, cells), plain) < 1e-4
    small = Engine(model, memory=2e-4)  # a batch holds a few rows only
    assert len(small.batches(cells, len(pair.corrupt), NEEDS)) > 10
    assert off(ran(small, pair, cells), plain) < 1e-4
    unpatched = ran(Reference(model), pair, [()])[0]
    assert off(plain[:1], [unpatched]) > 1e-3  # the patches do something


def test_attention_that_is_cut_equals_weights_set_to_zero(model: LensModel) -> None:
    pair = pair_of(model)
    n = len(pair.corrupt)
    cells: list[Cell] = [(Cut(0, (n - 1,), tuple(range(5, 20))),), (Cut(1, (n - 2, n - 1), (3, 4), head=1),),
                         (Cut(0, (n - 1,), (1, 2)), Cut(1, (n - 1,), (1, 2)))]  # fmt: skip
    plain = ran(Reference(model), pair, cells)
    assert off(ran(Engine(model), pair, cells), plain) < 1e-4
    assert off(plain, ran(Reference(model), pair, [()] * 3)) > 1e-6


def test_patterns_are_patched_alike(model: LensModel) -> None:
    pair = pair_of(model, EQUAL)
    sites = [Site("pattern", 0), Site("pattern", 1, 2)]
    values = Engine(model).record(pair.clean.prompt, sites).sites
    n = len(pair.corrupt)
    cells: list[Cell] = [(Change(site, (n - 3, n - 1), values[site][..., [n - 3, n - 1], :]),) for site in sites]
    assert off(ran(Engine(model), pair, cells), ran(Reference(model), pair, cells)) < 1e-4


def test_a_texts_own_run_is_the_models(model: LensModel) -> None:
    pair, engine = pair_of(model), Engine(model)
    own = engine.unpatched(engine.record(pair.corrupt.prompt), pair.corrupt.prompt, NEEDS)
    assert (
        off([own], [Reference(model).unpatched(engine.record(pair.corrupt.prompt), pair.corrupt.prompt, NEEDS)]) < 1e-5
    )
    assert check_engine(model) == ""


def test_patching_everything_restores_the_clean_run(model: LensModel) -> None:
    pair = pair_of(model, EQUAL)
    assert pair.equal_length
    sites = model.sites.expand("resid_pre")
    n = len(pair.corrupt)
    plain = Reference(model)
    values = plain.record(pair.clean.prompt, sites).sites
    cells: list[Cell] = [tuple(Change(site, tuple(range(n)), values[site]) for site in sites)]
    want = plain.unpatched(plain.record(pair.clean.prompt), pair.clean.prompt, NEEDS)
    found = ran(plain, pair, cells)[0]
    assert found.logits is not None
    assert want.logits is not None
    assert torch.equal(found.logits, want.logits)  # bitwise
    assert off(ran(Engine(model), pair, cells), [Out(want.logprobs, want.logits, want.streams)]) < 1e-4


def test_patching_a_run_with_itself_changes_nothing(model: LensModel) -> None:
    pair, sites = pair_of(model), every_kind(model)
    at = tuple(range(len(pair.corrupt)))
    for runner, tolerance in ((Reference(model), 0.0), (Engine(model), 1e-4)):
        values = runner.record(pair.corrupt.prompt, sites).sites
        cells: list[Cell] = [(Change(site, at, values[site]),) for site in sites if site.kind != "resid_mid"]
        own = ran(runner, pair, [()] * len(cells)) if tolerance == 0 else ran(Reference(model), pair, [()] * len(cells))
        assert off(ran(runner, pair, cells), own) <= tolerance


def test_before_the_first_difference_nothing_changes() -> None:
    model = tiny_model("llama")
    pair = pair_of(model, EQUAL)
    sites = model.sites.expand("resid_pre")
    first = pair.alignment.b.changed[0]
    assert first > 3
    runner = Reference(model)
    values = runner.record(pair.clean.prompt, sites).sites
    cells: list[Cell] = [(Change(site, (at,), values[site][[at]]),) for site in sites for at in range(first)]
    assert off(ran(runner, pair, cells), ran(runner, pair, [()] * len(cells))) == 0.0


def only_heads(model: LensModel, kept: set[tuple[int, int]]) -> None:
    """Silence every head but these, and the MLPs, so that nothing else moves anything between tokens."""
    for layer in range(model.n_layers):
        block: Any = model.blocks[layer]
        matrix = block.self_attn.o_proj.weight
        width = matrix.shape[1] // model.n_heads
        with torch.no_grad():
            matrix *= 20  # loud enough to be seen
            for head in range(model.n_heads):
                if (layer, head) not in kept:
                    matrix[:, head * width : (head + 1) * width] = 0
            block.mlp.down_proj.weight.zero_()


def test_a_planted_circuit_is_found_and_nothing_else() -> None:
    model, planted = tiny_model("llama", seed=3), {(0, 1), (1, 2)}
    only_heads(model, planted)
    words = ("won", "had", "got", "saw", "hid", "met", "sat", "fed", "cut", "led", "ran", "dug")
    pairs = [(f"She {a} it. The door was open. Then", f"She {b} it. The door was open. Then")
             for a, b in zip(words, words[1:] + words[:1], strict=True)]  # fmt: skip
    sweep = patch(model, pairs, "heads", "all", metric=kl(), controls=())
    moved = sweep.table.assign(change=(sweep.table["value"] - sweep.table["corrupt"]).abs())
    by_head = moved.groupby(["layer", "index"])["change"].max()
    assert {key for key, change in by_head.items() if change > 1e-6} == planted
    found = sweep.effects()
    assert set(zip(found.loc[found["p_adjusted"] < 0.05, "layer"], found.loc[found["p_adjusted"] < 0.05, "index"],
                   strict=True)) <= planted  # fmt: skip


def projection(model: LensModel, *, seed: int = 0) -> Metric:
    """Linear in the stream that leaves the last layer."""
    along = torch.randn(model.d_model, generator=torch.Generator().manual_seed(seed)).double()
    last = model.n_layers - 1
    return Metric("projection", lambda reading: reading.streams[last][:, -1].double() @ along, layers=frozenset({last}))


def test_denoise_and_noise_agree_where_the_metric_is_linear() -> None:
    model = tiny_model("gpt2")
    tables = [
        patch(model, [EQUAL, UNEQUAL], ["L1.resid_post", "L1.mlp_out"], "last", metric=projection(model), controls=(),
              direction=direction).table
        for direction in ("denoise", "noise")
    ]  # fmt: skip
    denoise, noise = tables
    restored = denoise["value"] - denoise["corrupt"]
    broken = noise["clean"] - noise["value"]
    np.testing.assert_allclose(restored, broken, atol=1e-4)
    whole = denoise["kind"] == "resid_post"
    np.testing.assert_allclose(restored[whole], (denoise["clean"] - denoise["corrupt"])[whole], atol=1e-4)


def test_hooks_are_gone_and_the_users_stay() -> None:
    model, seen = tiny_model("llama"), []
    before = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.hf.modules()]
    plain = patch(model, [UNEQUAL], "resid_mid", "last", metric=METRIC, controls=())
    assert before == [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.hf.modules()]
    assert not any("forward" in block.__dict__ for block in model.blocks)
    handle = model.blocks[0].register_forward_hook(lambda *_: seen.append(1))
    with pytest.warns(UserWarning, match="Hooks that are not"):
        watched = patch(model, [UNEQUAL], "resid_mid", "last", metric=METRIC, controls=())
    assert seen
    assert handle.id in model.blocks[0]._forward_hooks
    np.testing.assert_allclose(watched.table["value"], plain.table["value"], atol=1e-4)
    handle.remove()


def test_a_model_that_cannot_be_walked_is_run_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")

    def broken(*_: object, **__: object) -> Tensor:
        raise TypeError("no such argument")

    monkeypatch.setattr("affectlens.patching.walking.Blocks.step", broken)
    with pytest.warns(UserWarning, match="can't be walked through"):
        assert isinstance(runner_for(model), Reference)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_tokenizers_padding_does_not_matter(side: str) -> None:
    model = tiny_model("gemma3")
    want = patch(model, [UNEQUAL, EQUAL], "resid_pre", "last", metric=METRIC, controls=()).table["value"]
    model.tokenizer.padding_side = side
    found = patch(model, [UNEQUAL, EQUAL], "resid_pre", "last", metric=METRIC, controls=()).table["value"]
    np.testing.assert_array_equal(found, want)


def battery(n: int = 6) -> al.Battery:
    emotions = ("joy", "fear")
    words = ("won the race", "ate the bread", "saw the tram", "met a friend", "lit the lamp", "hid a coin")
    items = []
    for i in range(n):
        emotion = emotions[i % 2]
        for role in ("emotional", "neutral"):
            evokes = role == "emotional"
            text = f"{'We' if evokes else 'You'} {words[i % len(words)]}. It was {i} then."
            valence = (1 if emotion == "joy" else -1) * evokes
            items.append(al.Stimulus(f"{i}.{role}", text, "vignettes", role, evokes, emotion, valence, domain="d",
                                     group=f"g{i}"))  # fmt: skip
    return al.Battery("little", tuple(items))


def test_controls_come_from_where_they_say() -> None:
    model = tiny_model("llama")
    pairs = prepare(model, battery())
    for pair in pairs:
        chosen = [unit for unit in units(pair, ["changed", "ending", "last", "each"]) if isinstance(unit, Unit)]
        found = {one.kind: one for one in sources(pair, chosen, pairs, CONTROLS, 0)}
        assert set(found) == {"matched", *CONTROLS}
        assert found["matched"].side is pair.clean
        assert found["wrong_position"].side is pair.clean
        own = {pair.clean.name, pair.corrupt.name}
        assert found["same_emotion"].side.affect is True
        assert found["same_emotion"].side.emotion == pair.emotion
        assert found["neutral"].side.affect is False
        for kind in ("random", "same_emotion", "neutral"):
            assert found[kind].side.name not in own
        for one in found.values():
            for unit in chosen:
                assert len(one.of(unit)) == len(unit.matches)
                if one.kind == "wrong_position":
                    assert not set(one.of(unit)) & {place for place, _ in unit.matches}
                assert all(0 <= at < len(one.side) for at in one.of(unit))
        matched, wrong = (found[kind].of(chosen[-1]) for kind in ("matched", "wrong_position"))
        assert matched != wrong
        whole = next(unit for unit in units(pair, ["all"]) if isinstance(unit, Unit))
        assert found["wrong_position"].of(whole) == []  # nothing lies outside
        again = {one.kind: one.side.name for one in sources(pair, chosen, pairs[::-1], ("neutral",), 0)}
        assert again["neutral"] != pair.corrupt.name


def test_a_stopped_sweep_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, texts = tiny_model("llama"), [UNEQUAL, EQUAL, ("A b c. It ended.", "A d c. It ended.")]

    def go(folder: Path | None) -> pd.DataFrame:
        return patch(model, texts, "mlp_out", "last", metric=METRIC, controls=("random",), folder=folder).table

    want = go(None)
    from affectlens.patching.job import Job

    whole = Job.rows
    done: list[str] = []

    def stops(self: Job, pair: PatchPair, *rest: object) -> pd.DataFrame:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(pair.name)
        return whole(self, pair, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Job, "rows", stops)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "kept")

    def goes(self: Job, pair: PatchPair, *rest: object) -> pd.DataFrame:
        done.append(pair.name)
        return whole(self, pair, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Job, "rows", goes)
    pd.testing.assert_frame_equal(go(tmp_path / "kept"), want)
    assert len(done) == 3  # two before, one after
    (tmp_path / "kept" / "00001.parquet").write_bytes(b"PAR1 no table")
    pd.testing.assert_frame_equal(go(tmp_path / "kept"), want)
    assert len(done) == 4  # what is damaged is computed again
    with pytest.raises(PatchError, match="other settings"):
        patch(model, texts, "attn_out", "last", metric=METRIC, folder=tmp_path / "kept")


def test_kl_is_zero_for_the_clean_run_and_normalises() -> None:
    model = tiny_model("llama")
    table = patch(model, [EQUAL], "L0.resid_pre", "all", metric=kl(), controls=()).table
    row = table.iloc[0]
    assert row["clean"] == pytest.approx(0, abs=1e-9)
    assert row["corrupt"] < -1e-8
    assert row["value"] == pytest.approx(0, abs=1e-9)  # all tokens of the first stream: the clean run
    pair = pair_of(model, EQUAL)
    logits = [Reference(model).unpatched(Engine(model).record(side.prompt), side.prompt, NEEDS).logits
              for side in (pair.clean, pair.corrupt)]  # fmt: skip
    p, q = (one.double().log_softmax(-1) for one in logits if one is not None)
    assert row["corrupt"] == pytest.approx(
        float(torch.nn.functional.kl_div(q, p, log_target=True, reduction="sum")) * -1, rel=1e-4
    )


def test_metrics_add_subtract_and_scale() -> None:
    model = tiny_model("llama")
    tokens = logit_difference(model, "a", "b")
    both = (METRIC - 2 * tokens).named("both")
    table = patch(model, [UNEQUAL], "L0.resid_post", "last", metric=[METRIC, tokens, both], controls=()).table
    value = table.set_index("metric")["value"]
    assert value["both"] == pytest.approx(value[METRIC.name] - 2 * value[tokens.name], abs=1e-5)
    assert both.logits
    assert set(both.labels) == {"good", "bad"}
    other = label_difference({"good": "!", "bad": "."}, "good", "bad")  # shares a word, and means others by its labels
    both = METRIC + other.named("other")
    assert words_of([both, METRIC]) == (" good", "!", "?", " sad", ".")
    found = patch(model, [UNEQUAL], "L0.resid_post", "last", metric=[METRIC, both, other.named("other")], controls=())
    value = found.table.set_index("metric")["value"]
    assert value[both.name] == pytest.approx(value[METRIC.name] + value["other"], abs=1e-6)
    with pytest.raises(PatchError, match="2 tokens"):
        logit_difference(model, "ab", "c")


def test_label_metrics_equal_label_logprobs() -> None:
    model = tiny_model("llama")
    scores = al.label_logprobs(model, list(UNEQUAL), LABELS)
    row = patch(model, [UNEQUAL], "L0.mlp_out", "last", metric=METRIC, controls=()).table.iloc[0]
    np.testing.assert_allclose([row["clean"], row["corrupt"]], scores.difference("good", "bad"), atol=1e-4)
    own = own_emotion({"joy": "a", "fear": "b", "anger": "c"})
    logits = al.label_logprobs(model, [s.text for s in battery(2)], own.labels).logprobs.astype(float)
    table = patch(model, battery(2), "L0.mlp_out", "last", metric=own, controls=()).table
    joy = table[table["emotion"] == "joy"].iloc[0]
    assert joy["clean"] == pytest.approx(logits[0, 0] - np.logaddexp(logits[0, 1], logits[0, 2]), abs=1e-4)


def test_prepared_pairs_carry_their_words_and_cue() -> None:
    model = tiny_model("llama")
    pairs = prepare(model, [UNEQUAL], labels={"other": "x", **LABELS}, cue=" So")
    table = patch(model, pairs, "L0.mlp_out", "cue", metric=METRIC, controls=())
    assert table.meta["cue"] == " So"
    plain = patch(model, [UNEQUAL], "L0.mlp_out", "cue", metric=METRIC, controls=(), cue=" So").table
    np.testing.assert_allclose(table.table["value"], plain["value"], atol=1e-5)
    with pytest.raises(PatchError, match="without the metrics' words"):
        patch(model, prepare(model, [UNEQUAL]), "mlp_out", "last", metric=METRIC)
    with pytest.raises(PatchError, match="leave cue and chat out"):
        patch(model, pairs, "mlp_out", "last", metric=METRIC, cue=" Then")


def test_a_metric_brings_its_cue() -> None:
    model = tiny_model("llama")
    metric = readout(model, battery(4), "affect", layer=0, folds=2, cue=" So")
    assert patch(model, battery(4), "mlp_out", "last", metric=metric, controls=()).meta["cue"] == " So"
    assert ablate(model, battery(4), "mlp_out", metric=metric).meta["cue"] == " So"
    with pytest.raises(PatchError, match="make it anew"):
        patch(model, battery(4), "mlp_out", "last", metric=metric, cue=" Then")
    with pytest.raises(PatchError, match="make it anew"):
        patch(model, prepare(model, battery(4)), "mlp_out", "last", metric=metric)
    other = readout(model, battery(4), "affect", layer=0, folds=2, cue=" Then").named("other")
    with pytest.raises(PatchError, match="two sweeps"):
        patch(model, battery(4), "mlp_out", "last", metric=[metric, other])


def test_groups_are_dealt_evenly_and_stay_whole() -> None:
    groups = [f"g{i % 7}" for i in range(20)]
    fold_of = deal(groups, 3, least=2, seed=1)
    assert set(fold_of) == set(groups)
    assert sorted(list(fold_of.values()).count(fold) for fold in range(3)) == [2, 2, 3]
    assert fold_of != deal(groups, 3, least=2, seed=2)
    assert len(set(deal(groups, 7).values())) == 7
    with pytest.raises(PatchError, match="8 folds of 7 groups: give at least 2, and no more than there are groups"):
        deal(groups, 8)
    with pytest.raises(PatchError, match="4 folds of 7 groups: give at least 2, and two groups to each"):
        deal(groups, 4, least=2)


def test_what_is_written_can_be_scored() -> None:
    model = tiny_model("llama")
    metric = written("letters", lambda text: len(text), tokens=5)
    with torch.no_grad():
        ids = torch.tensor(pair_of(model).clean.prompt.ids)[None]
        out = model.hf.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False)
    text = model.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    row = patch(model, [UNEQUAL], "L1.resid_post", "all", metric=metric, controls=()).table.iloc[0]
    assert row["clean"] == len(text)


def test_a_readout_is_fitted_without_the_pairs_group() -> None:
    model = tiny_model("llama")
    given = battery(8)
    metric = readout(model, given, "affect", layer=0, folds=8)
    pairs = prepare(model, given)
    engine = Engine(model)

    def read(metric: Metric, pair: PatchPair) -> float:
        out = engine.unpatched(engine.record(pair.clean.prompt), pair.clean.prompt, Needs.of([metric]))
        return float(metric(Reading(pair.clean, pair, streams=out.streams))[0])

    # leave one group out: the same as fitting on a battery that does not have it
    for pair in pairs[:3]:
        rest = al.Battery("rest", tuple(item for item in given if item.group != pair.group))
        other = readout(model, rest, "affect", layer=0, folds=2)
        assert read(metric, pair) == pytest.approx(read(other, pair), abs=1e-6)
    whole = readout(model, al.Battery("all", tuple(given)), "affect", layer=0, folds=2)
    assert read(metric, pairs[0]) != pytest.approx(read(whole, pairs[0]), abs=1e-9)


def test_a_metric_of_a_low_layer_is_untouched_from_above() -> None:
    model = tiny_model("llama")
    metric = Metric("low", lambda reading: reading.streams[0][:, -1, 0].double(), layers=frozenset({0}))
    table = patch(
        model, [EQUAL], ["L0.resid_post", "L1.resid_pre", "L1.resid_post"], "last", metric=metric, controls=()
    ).table
    value = table.set_index(["layer", "kind"])["value"]
    assert value[0, "resid_post"] == pytest.approx(table["clean"].iloc[0], abs=1e-5)
    assert value[1, "resid_pre"] == pytest.approx(table["corrupt"].iloc[0], abs=1e-7)


def test_ablations_replace_what_they_say() -> None:
    model = tiny_model("llama")
    given = battery(4)
    metric = projection(model)
    for kind in ("zero", "mean", "resample"):
        found = ablate(model, given, "L1.resid_post", "last", metric=metric, kind=kind, control=False).table
        if kind == "zero":
            assert found["clean_left"].abs().max() == 0
        if (
            kind == "mean"
        ):  # of the last tokens of the other groups' texts: what the metric, which is linear, gives them
            other = found[["clean", "corrupt"]]
            for row in range(len(found)):
                want = other.drop(index=row).to_numpy().mean()
                assert found["clean_left"][row] == pytest.approx(want, abs=1e-4)
        if kind == "resample":
            values = found[["clean", "corrupt"]].to_numpy()
            for row, left in enumerate(found["clean_left"]):
                assert np.isclose(np.delete(values, row, 0), left, atol=1e-4).any()


def test_a_direction_is_projected_out() -> None:
    model = tiny_model("llama")
    along = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0)).double()
    found = ablate(model, battery(4), "L1.resid_post", "text", metric=projection(model), kind="direction",
                   directions={1: 3 * along.numpy()})  # fmt: skip
    exact = found.table[found.table["source"] == "matched"]
    assert exact[["clean_left", "corrupt_left"]].abs().to_numpy().max() < 1e-4
    random = found.table[found.table["source"] == "random_change"]
    assert (random["clean_left"] - random["clean"]).abs().max() > 1e-3
    elsewhere = np.zeros(model.d_model)
    elsewhere[0] = 1.0
    orthogonal = torch.from_numpy(elsewhere) - along * along[0] / along.square().sum()
    other = ablate(model, battery(4), "L1.resid_post", "text", metric=projection(model), kind="direction",
                   directions={1: orthogonal.numpy()}, control=False).table  # fmt: skip
    np.testing.assert_allclose(other["clean_left"], other["clean"], atol=1e-4)
    with pytest.raises(PatchError, match="needs a direction of"):
        ablate(model, battery(4), "resid_post", metric=METRIC, kind="direction", directions={0: np.ones(3)})
    with pytest.raises(PatchError, match="not independent"):
        ablate(model, battery(4), "L0.resid_post", metric=METRIC, kind="direction", directions={0: np.zeros(32)})


def test_cumulative_ablation_ends_with_all() -> None:
    model = tiny_model("llama")
    sites = ["L1.mlp_out", "L0.attn_out", "L0.mlp_out"]
    steps = ablate(model, battery(4), sites, metric=kl(), kind="zero", cumulative=True, control=False).table
    assert steps["together"].unique().tolist() == [1, 2, 3]
    alone = ablate(model, battery(4), "L1.mlp_out", metric=kl(), kind="zero", control=False).table
    first = steps[steps["together"] == 1]
    np.testing.assert_allclose(first["clean_left"], alone["clean_left"], atol=1e-6)
    assert (steps[steps["together"] == 3]["clean_left"].to_numpy() != first["clean_left"].to_numpy()).all()


def test_rates_and_gap_are_the_true_changes() -> None:
    model = tiny_model("llama")
    found = ablate(model, battery(6), "L0.attn_out", metric=projection(model), kind="zero")
    rows = found.table[found.table["source"] == "matched"]
    before, after = rows["clean"] > rows["corrupt"], rows["clean_left"] > rows["corrupt_left"]
    assert found.rate("accuracy_drop").value == pytest.approx(before.mean() - after.mean())
    changed = (rows["clean_top_changed"].mean() + rows["corrupt_top_changed"].mean()) / 2
    assert found.rate("change_rate").value == pytest.approx(changed)
    lost = 1 - (rows["clean_left"] - rows["corrupt_left"]).sum() / (rows["clean"] - rows["corrupt"]).sum()
    gap = found.sweep.table
    matched = gap[gap["source"] == "matched"]
    assert (
        (matched["clean"] - matched["value"]).sum() / (matched["clean"] - matched["corrupt"]).sum()
    ) == pytest.approx(lost)


def test_knockout_keeps_the_changed_words_from_the_last_token() -> None:
    model = tiny_model("llama")
    only_heads(model, {(0, 1)})
    metric = projection(model)
    cut = knockout(model, [EQUAL], [("changed", "last")], metric=metric).table.set_index("layer")
    # one head of the first layer alone moves anything, so without it both texts end alike
    assert cut.loc[0, "clean_left"] == pytest.approx(cut.loc[0, "corrupt_left"], abs=1e-4)
    assert cut.loc[1, "clean_left"] == pytest.approx(cut.loc[1, "clean"], abs=1e-4)
    by_head = knockout(model, [EQUAL], [("changed", "last")], metric=metric, heads=True).table
    moved = by_head[(by_head["clean"] - by_head["clean_left"]).abs() > 1e-5]
    assert set(zip(moved["layer"], moved["index"], strict=True)) == {(0, 1)}


def test_a_kept_sweep_is_of_its_texts_and_its_metric(tmp_path: Path) -> None:
    model, given = tiny_model("llama"), battery(4)
    patch(model, [UNEQUAL], "mlp_out", "last", metric=METRIC, controls=(), folder=tmp_path / "a")
    with pytest.raises(PatchError, match="other settings"):
        patch(model, [EQUAL], "mlp_out", "last", metric=METRIC, controls=(), folder=tmp_path / "a")
    for layer, kind in ((0, "first"), (1, "second")):
        metric = readout(model, given, "affect", layer=layer, folds=2).named("affect")
        if kind == "first":
            patch(model, given, "mlp_out", "last", metric=metric, controls=(), folder=tmp_path / "b")
        else:
            with pytest.raises(PatchError, match="other settings"):
                patch(model, given, "mlp_out", "last", metric=metric, controls=(), folder=tmp_path / "b")


def test_pairs_that_share_a_text_are_one_group() -> None:
    model = tiny_model("llama")
    texts = [("A b c.", "A d c."), ("E f g.", "E h g."), ("E h g.", "A d c."), ("I j k.", "I l k.")]
    assert [pair.group for pair in prepare(model, texts)] == ["pair0", "pair0", "pair0", "pair3"]
    pairs = prepare(model, texts)
    for pair in pairs[:3]:
        (control,) = [one for one in sources(pair, [], pairs, ("random",), 0) if one.kind == "random"]
        assert control.side.layout.text in ("I j k.", "I l k.")


def test_a_readout_leaves_both_texts_scenes_out() -> None:
    model, given = tiny_model("llama"), battery(8)
    metric = readout(model, given, "affect", layer=0, folds=8)
    (pair,) = prepare(model, [(given["0.emotional"], given["3.neutral"])])
    rest = al.Battery("rest", tuple(item for item in given if item.group not in ("g0", "g3")))
    other = readout(model, rest, "affect", layer=0, folds=2)
    out = Engine(model).unpatched(Engine(model).record(pair.clean.prompt), pair.clean.prompt, Needs.of([metric]))
    reading = Reading(pair.clean, pair, streams=out.streams)
    assert float(metric(reading)[0]) == pytest.approx(float(other(reading)[0]), abs=1e-6)


def test_the_first_token_stands_for_no_other() -> None:
    pair = pair_of(tiny_model("llama"), ("I won the whole race today.", "He lost today."))
    assert all((a == 0) == (b == 0) for matches in pair.segments.values() for a, b in matches)


def test_a_pattern_beside_other_sites_leaves_them_their_controls() -> None:
    model = tiny_model("llama")
    table = patch(model, [EQUAL, UNEQUAL], ["resid_pre", "L0.pattern"], "last", metric=METRIC).table
    by_kind = table.groupby("kind")["source"].unique().map(set)
    assert by_kind["pattern"] == {"matched"}
    assert by_kind["resid_pre"] >= {"matched", "random", "wrong_position"}
    assert table[table["kind"] == "pattern"]["pair"].nunique() == 1  # of unequal texts there is none


@pytest.mark.parametrize("runner", [Engine, Reference])
def test_a_token_that_could_attend_to_nothing_is_refused(runner: Any) -> None:
    model = tiny_model("llama")
    pair, n = pair_of(model), len(pair_of(model).corrupt)
    with pytest.raises(PatchError, match="nothing to attend to"):
        ran(runner(model), pair, [(Cut(0, (n - 1,), tuple(range(n))),)])
    for cell in ((), (Change(Site("mlp_out", 0), (n + 99,), torch.zeros(1, 32)),)):
        with pytest.raises(PatchError, match="changes nothing|outside of"):
            ran(Engine(model), pair, [cell])


def test_opposed_texts_differ_and_serve_once() -> None:
    for by in ("emotion", "valence"):
        couples = al.patching.opposed(al.load_battery("starter"), by, seed=1)
        assert len(couples) > 4
        ids = [item.id for couple in couples for item in couple]
        assert len(set(ids)) == len(ids)
        for clean, corrupt in couples:
            assert getattr(clean, by) != getattr(corrupt, by)
            assert clean.domain == corrupt.domain
            assert clean.affect
            assert corrupt.affect
    assert len(al.patching.opposed(al.load_battery("starter"), pairs=5)) == 5
    with pytest.raises(BatteryError, match="not opposed by"):
        al.patching.opposed(al.load_battery("starter"), "colour")


def test_flip_turns_a_d_that_is_planted(tmp_path: Path) -> None:
    """A metric that reads facts and ending together, at a stream that patching restores: all of d is turned."""
    model, core = tiny_model("llama"), al.load_battery("starter").where(split="crossed")

    def bound(reading: Reading) -> Tensor:
        text = {"ax": 1.0, "by": 1.0}.get(reading.side.name.rsplit(".", 1)[-1], -1.0)
        stream = reading.streams[0][:, -1].double() @ torch.ones(model.d_model).double()
        own = reading.clean if reading.side is reading.pair.clean else reading.corrupt
        mine = own.streams[0][:, -1].double() @ torch.ones(model.d_model).double() if own else stream
        return torch.where((stream - mine).abs() < 1e-6, text, -text)

    metric = Metric("bound", bound, layers=frozenset({0}))
    found = al.patching.flip(model, core, "L0.resid_post", "last", metric=metric, quadruples=4, controls=(),
                             folder=tmp_path / "kept")  # fmt: skip
    row = found.sweeps["crossed"].effects(source="matched").iloc[0]
    assert row["value"] == pytest.approx(1.0)
    assert "d of bound is +4 " in found.summary()[0]
    halves = al.Battery("halves", tuple(item for item in core if item.cell in ("ax", "bx")))
    with pytest.raises(PatchError, match="all four cells"):
        al.patching.flip(model, halves, "L0.resid_post", "last", metric=metric)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"direction": "sideways"}, "choose denoise or noise"),
        ({"controls": ("placebo",)}, "no control 'placebo'"),
        ({"positions": 3}, "count from the end"),
        ({"positions": "middle"}, "no position 'middle'"),
        ({"positions": "span:absent"}, "picks no token"),
        ({"memory": 0.0}, "needs more than none"),
        ({"metric": []}, "at least one metric"),
        ({"sites": []}, "No site is named"),
    ],
)
def test_bad_input_gets_a_sentence(arguments: dict[str, object], said: str) -> None:
    model = tiny_model("llama")
    given: dict[str, object] = {"metric": METRIC, "sites": "resid_pre", "positions": "last"} | arguments
    with pytest.raises(al.errors.AffectLensError, match=said):
        patch(model, [UNEQUAL], **given)  # type: ignore[arg-type]


def test_pairs_that_are_none_are_refused() -> None:
    model = tiny_model("llama")
    with pytest.raises(BatteryError, match="one and the same text"):
        prepare(model, [("Same.", "Same.")])
    with pytest.raises(BatteryError, match="No pairs"):
        prepare(model, [])
    uneven = ("They sat in the old red mill. It was late.", "They sat in the mill. It was late.")
    with pytest.raises(PatchError, match="unequal length"):
        patch(model, [uneven], "pattern", "last", metric=METRIC)


def test_a_single_neuron_and_a_span(model: LensModel) -> None:
    table = patch(
        model, [EQUAL], ["L0.N3", "heads"], ["span:door", -1, "each"], metric=METRIC, controls=("wrong_position",)
    ).table
    assert set(table["kind"]) == {"neurons", "z"}
    assert set(table["segment"]) >= {"span:door", "-1", "changed", "ending"}
    each = table[table["position"] >= 0]
    assert each.groupby(["source", "kind", "layer", "index"]).size().nunique() == 1
    last = table[(table["segment"] == "-1") & (table["source"] == "matched")].set_index(["kind", "layer", "index"])[
        "value"
    ]
    same = each[(each["position"] == each["position"].max()) & (each["source"] == "matched")]
    np.testing.assert_allclose(same.set_index(["kind", "layer", "index"])["value"], last, atol=1e-6)


@pytest.mark.real
def test_the_engine_equals_one_forward_a_cell_on_real_weights(smol: LensModel) -> None:
    texts = ("He opened the letter and read that she had died. He put it down. It felt",
             "He opened the letter and read that she had called. He put it down. It felt")  # fmt: skip
    pair = prepare(smol, [texts], labels={"good": [" good", " wonderful"], "bad": " heartbreaking"})[0]
    sites = [Site("resid_pre", 3), Site("z", 14, 5), Site("mlp_out", 20), Site("resid_post", 29), Site("v", 9)]
    values = Engine(smol).record(pair.clean.prompt, sites).sites
    cells: list[Cell] = [(Change(site, (base,), values[site][[source]]),) for site in sites
                         for source, base in (pair.segments["all"][0], pair.segments["all"][-1])]  # fmt: skip
    engine, plain = Engine(smol), Reference(smol)
    base, needs = engine.record(pair.corrupt.prompt), Needs(logprobs=True)
    want = torch.cat([out.logprobs for _, out in plain.run(base, pair.corrupt.prompt, cells, needs)])  # type: ignore[misc]
    found = torch.empty_like(want)
    for rows, out in engine.run(base, pair.corrupt.prompt, cells, needs):
        assert out.logprobs is not None
        found[rows] = out.logprobs
    assert float((found - want).abs().max()) < 1e-4
