"""Gradient screens: slopes of exact patches, sums that must come out, and figures of agreement that an oracle knows."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import rankdata
from torch import Tensor

from affectlens.errors import PatchError
from affectlens.model import LensModel, load_model
from affectlens.patching import agreeing
from affectlens.patching.cells import Change
from affectlens.patching.columns import Place
from affectlens.patching.confirming import Confirmation, confirm
from affectlens.patching.engine import Engine
from affectlens.patching.gradients import ENTRY, Ends, gradients
from affectlens.patching.job import Job
from affectlens.patching.metrics import Metric, label_difference
from affectlens.patching.pairs import prepare
from affectlens.patching.reference import Reference
from affectlens.patching.screening import Screen, change, screen
from affectlens.sites import Site
from affectlens.testing import FAMILIES, tiny_hf, tiny_model, tiny_tokenizer

EQUAL = ("She won the race. Then he", "She lost it race. Then he")
LONGER = ("She won the race. Then", "She lost a longer race. Then")
LABELS = {"good": [" good", "fine"], "bad": " bad"}
LABEL = label_difference(LABELS, "good", "bad")


@cache
def double(family: str) -> LensModel:
    """In float64, so that differences of nearby runs are worth something (norms compute in float32 all the same)."""
    hf = tiny_hf(family).double()
    return load_model(model=hf, tokenizer=tiny_tokenizer(bos=family == "gemma3"), check=False)


def along(layer: int, d_model: int = 32, *, last: bool = True) -> Metric:
    """The stream that leaves a layer, along some direction, at the last token or summed over tokens."""
    way = torch.randn(d_model, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def value(reading: Any) -> Tensor:
        stream = reading.streams[layer].double()
        return (stream[:, -1] if last else stream.sum(1)) @ way

    return Metric(f"stream {layer}", value, unit="units", layers=frozenset({layer}))


def run(model: LensModel, texts: tuple[str, str], metric: Metric, kinds: list[str]) -> Ends:
    (pair,) = prepare(model, [texts], labels=metric.labels or None)
    return Ends.of(Job(Engine(model), [metric], model.sites.expand(kinds)), pair)


def patched(ends: Ends, metric: Metric, site: Site, at: tuple[int, ...], *news: Any) -> list[float]:
    """The metric with each patch in place, exactly."""
    cells = [(Change(site, at, new),) for new in news]
    return ends.job.read(ends.pair, ends.pair.corrupt, ends.base, cells, ends.read)[0][metric.name]


def slope(ends: Ends, metric: Metric, site: Site, at: tuple[int, ...], way: Tensor, step: float = 0.01) -> float:
    """The derivative of the exact patch on its way from the base, from four patches around it."""
    moves = [partial(torch.add, s * step * way) for s in (1, -1, 2, -2)]
    up, down, far_up, far_down = patched(ends, metric, site, at, *moves)
    return (8 * (up - down) - (far_up - far_down)) / (12 * step)


def kinds_of(model: LensModel) -> list[str]:
    return [kind for kind in model.sites.kinds if kind not in ("pattern", "features")]


@pytest.mark.parametrize("texts", [EQUAL, LONGER], ids=["equal", "longer"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_estimate_is_the_slope_of_the_exact_patch(family: str, texts: tuple[str, str]) -> None:
    """Every kind of site, in every layer, at one token and at all; values between base and source by the engine."""
    model = double(family)
    kinds = kinds_of(model)
    assert {"q", "k", "v", "z", "neurons", "attn_out", "mlp_out", "resid_pre", "resid_post"} <= set(kinds)
    metric = along(1, last=False)
    ends = run(model, texts, metric, kinds)
    found = gradients(Engine(model), ends, metric)
    every = ends.pair.segments["all"]
    seen = 0
    for site in ends.job.sites:
        for matches in (every, every[len(every) // 2 :][:1]):
            at, way = tuple(b for _, b in matches), ends.difference(site, matches)
            estimate = float(found.estimates(site, matches).sum())
            assert estimate == pytest.approx(slope(ends, metric, site, at, way), rel=1e-3, abs=2e-5), site
            seen += abs(estimate) > 1e-3
    assert seen >= len(ends.job.sites) // 2  # and they are not zero


@pytest.mark.parametrize("family", FAMILIES)
def test_slopes_of_labels_with_verbalisers_of_several_tokens(family: str) -> None:
    """Their tokens run as branches behind the prompt; log P is taken in float32, hence the wider step."""
    model = double(family)
    ends = run(model, LONGER, LABEL, ["resid_pre", "z", "v"])
    found = gradients(Engine(model), ends, LABEL)
    matches = ends.pair.segments["all"]
    at = tuple(b for _, b in matches)
    for site in ends.job.sites:
        estimate, way = float(found.estimates(site, matches).sum()), ends.difference(site, matches)
        assert estimate == pytest.approx(slope(ends, LABEL, site, at, way, 0.03), abs=1e-4, rel=0.01), site


def test_one_head_and_one_neuron_have_their_own_slope() -> None:
    model = double("llama")
    metric = along(1, last=False)
    ends = run(model, LONGER, metric, ["z", "k", "neurons"])
    found = gradients(Engine(model), ends, metric)
    matches = ends.pair.segments["changed"]
    at = tuple(b for _, b in matches)
    for site in (Site("z", 0, 2), Site("k", 1, 1), Site("neurons", 0, 17)):
        whole = replace(site, index=None)
        assert site.index is not None
        way = ends.difference(whole, matches)[:, site.index]
        estimate = float(found.estimates(whole, matches).sum(0)[site.index])
        assert estimate == pytest.approx(slope(ends, metric, site, at, way, 0.1), rel=1e-2, abs=1e-6)
        assert abs(estimate) > 1e-5


def test_where_the_metric_is_linear_the_estimate_is_the_exact_patch() -> None:
    """The last stream, read along a direction at every token."""
    model = double("llama")
    found = screen(model, [EQUAL, LONGER], ["L1.resid_post", "L1.mlp_out"], ["each", "all", -2],
                   metric=along(1, last=False))  # fmt: skip
    exact = confirm(model, found, [EQUAL, LONGER], top=3, others=1000)
    rows = exact.table[exact.table["kind"] == "resid_post"]
    assert len(rows) > 40
    np.testing.assert_allclose(rows["estimate"], rows["value"], rtol=1e-9)
    assert change(rows, "denoise").abs().min() > 1e-4
    np.testing.assert_allclose(exact.table["estimate"], exact.table["value"], rtol=1e-9)  # the MLP's part adds up too
    assert exact.slope().value == pytest.approx(1)
    assert exact.spearman().value == pytest.approx(1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("texts", [EQUAL, LONGER], ids=["equal", "longer"])
def test_integrated_gradients_are_complete(family: str, texts: tuple[str, str]) -> None:
    """The path's estimates at its own site sum to the exact patch; of equal lengths, to the whole gap."""
    model = double(family)
    metric = along(1)
    ends = run(model, texts, metric, ["resid_pre"])
    clean, corrupt = ends.metric(metric)
    matches = ends.pair.segments["all"]
    at, there = tuple(b for _, b in matches), [a for a, _ in matches]
    exact = patched(ends, metric, ENTRY, at, ends.source.sites[ENTRY][there])[0] - corrupt
    errors = [
        abs(float(gradients(Engine(model), ends, metric, steps=steps).estimates(ENTRY, matches).sum()) - exact)
        for steps in (1, 8, 64)
    ]
    assert errors[2] < 1e-3 * abs(exact) < errors[0]
    assert errors[2] < errors[1] < errors[0]
    assert (abs(exact - (clean - corrupt)) < 1e-9) == (texts is EQUAL)


def total(found: Screen, **where: object) -> float:
    """The sum of the estimated changes of the rows that have these values; ``single`` are heads or neurons apart."""
    table = found.table.assign(single=found.table["index"] >= 0)
    for column, value in where.items():
        table = table[table[column] == value]
    return float(change(table, found.meta["direction"]).sum())


@pytest.mark.parametrize("family", ["llama", "qwen", "gpt2", "gpt_neox"])
def test_parts_sum_to_their_whole(family: str) -> None:
    """Heads to z, z to what attention adds, neurons to the MLP, tokens to their segment; Gemma norms what is added."""
    model, metric = double(family), along(1, last=False)
    sites = ["heads", "z", "attn_out", "neurons.each", "neurons", "mlp_out"]
    found = screen(model, [EQUAL], sites, ["all", "changed"], metric=metric, neurons=10_000)
    for segment, layer, kinds in product(("all", "changed"), (0, 1), (("z", "attn_out"), ("neurons", "mlp_out"))):
        here = partial(total, found, segment=segment, layer=layer)
        sums = [here(kind=kinds[0], single=True), here(kind=kinds[0], single=False), here(kind=kinds[1])]
        assert sums == pytest.approx([sums[0]] * 3, rel=1e-9)
        assert abs(sums[0]) > 1e-6
    tokens = screen(model, [EQUAL], "heads", ["each"], metric=metric)
    assert total(tokens) == pytest.approx(total(found, segment="all", kind="z", single=True), rel=1e-9)
    assert set(tokens.table["segment"]) <= {"changed", "shared", "ending", "cue"}


def test_directions() -> None:
    """Noise runs what denoise of the exchanged pair runs, and both count as positive what carries the difference."""
    model = double("qwen")
    metric = along(1)
    (pair,) = prepare(model, [EQUAL])
    ask = partial(screen, model, sites=["heads", "resid_pre"], positions="each", metric=metric, method="integrated",
                  steps=32)  # fmt: skip
    denoise, noise = ask(pairs=[pair]), ask(pairs=[pair], direction="noise")
    turned = ask(pairs=[pair.swapped()])
    np.testing.assert_allclose(noise.table["value"], turned.table["value"], rtol=1e-9)
    np.testing.assert_allclose(noise.table["clean"], denoise.table["clean"])
    gap = float(denoise.table["clean"].iloc[0]) - float(denoise.table["corrupt"].iloc[0])
    for found in (denoise, noise):
        assert total(found, kind="resid_pre", layer=0) == pytest.approx(gap, rel=1e-2)
    assert list(noise.pairs["clean_id"]) == list(denoise.pairs["clean_id"]) == ["clean0"]


def test_lengths_positions_and_what_is_refused() -> None:
    model = tiny_model("gpt2")
    pairs = [LONGER, EQUAL, ("The race", "The race off")]
    found = screen(model, pairs, "mlp_out", ["changed", "cue", -1, "span:race", "each"], metric=along(1), cue=" so")
    assert set(found.table["segment"]) == {"changed", "cue", "-1", "span:race", "shared", "ending"}
    assert any("clean2" in why and "has no changed" in why for why in found.meta["refused"])
    of = found.table[found.table["pair"] == "clean0|corrupt0"]
    singles = of[of["position"] >= 0]
    base = prepare(model, pairs, cue=" so")[0]
    assert sorted(singles["position"].unique()) == [b for _, b in base.segments["all"]]
    assert len(found.pairs) == 3


def test_what_is_read_below_a_site_does_not_depend_on_it() -> None:
    model = tiny_model("llama")
    found = screen(model, [EQUAL], ["heads", "resid_post"], metric=along(0)).cells()
    assert (found[found["layer"] == 1]["estimate"] == 0).all()
    assert (found[found["layer"] == 0]["estimate"] != 0).all()
    only_above = screen(model, [EQUAL], ["L1.z"], metric=along(0))
    assert (only_above.cells()["estimate"] == 0).all()


def test_hooks_are_gone_and_modes_do_not_matter() -> None:
    model = tiny_model("gemma3")
    ids = torch.tensor([list(range(3, 20))])
    before = model.hf(ids).logits

    def hooks() -> Iterator[int]:
        for module in model.hf.modules():
            yield len(module._forward_hooks) + len(module._forward_pre_hooks) + ("forward" in vars(module))

    def breaks(reading: Any) -> Tensor:
        if reading.clean is not None and reading.logprobs.requires_grad:
            raise ZeroDivisionError
        return reading.label(LABELS["good"])

    there = list(hooks())
    tables = []
    for mode in (nullcontext, torch.no_grad, torch.inference_mode):
        with mode():
            found = screen(model, [LONGER], ["heads", "resid_mid", "neurons.each"], metric=LABEL, neurons=3)
            tables.append(found.table["value"].to_numpy())
    np.testing.assert_allclose(tables[1], tables[0])
    np.testing.assert_allclose(tables[2], tables[0])
    with pytest.raises(ZeroDivisionError):
        screen(model, [LONGER], metric=replace(LABEL, value=breaks))
    assert list(hooks()) == there
    assert all(p.grad is None and not p.requires_grad for p in model.hf.parameters())
    assert torch.equal(model.hf(ids).logits, before)


def test_few_neurons_are_kept_and_they_are_the_largest() -> None:
    model = tiny_model("llama")
    ask = partial(screen, model, [EQUAL, LONGER], ["neurons.each", "mlp_out"], ["changed", "all"], metric=LABEL)
    few, every = ask(neurons=5), ask(neurons=1000)
    kept = few.table[few.table["index"] >= 0]
    assert len(kept) == 2 * 2 * 2 * 5  # pairs, segments, layers
    assert len(few.table) - len(kept) == 2 * 2 * 2
    cells = every.cells()
    largest = cells[(cells["kind"] == "neurons") & (cells["layer"] == 0) & (cells["segment"] == "changed")].head(5)
    ours = kept[(kept["layer"] == 0) & (kept["segment"] == "changed")]
    assert set(largest["index"]) == set(ours["index"])


def test_confirm_patches_exactly_what_it_says() -> None:
    """Against the plain forward with hooks, token by token and head by head; pairs of two lengths."""
    model = tiny_model("llama")
    found = screen(model, [EQUAL, LONGER], ["heads", "k.each", "neurons.each", "resid_mid"], ["changed"],
                   metric=LABEL, neurons=2, direction="noise")  # fmt: skip
    exact = confirm(model, found, [EQUAL, LONGER], top=8, others=8)
    assert (exact.meta["top"], exact.meta["others"], exact.meta["screened"]) == (8, 8, len(found.cells()))
    cells = exact.cells()
    assert cells["weight"].sum() == pytest.approx(len(found.cells()))
    assert (
        cells["estimate"].abs()[cells["chosen"] == "top"].min()
        >= cells["estimate"].abs()[cells["chosen"] == "others"].max()
    )
    pairs = {pair.name: pair.swapped() for pair in prepare(model, [EQUAL, LONGER], labels=LABELS)}
    whole = model.sites.expand(["z", "k", "neurons", "resid_mid"])
    plain: Any = Reference(model)
    job = Job(plain, [LABEL], whole, denoise=False)
    for row in exact.table.to_dict("records"):
        pair = pairs[row["pair"]]
        source = job.runner.record(pair.clean.prompt, whole)
        base = job.runner.record(pair.corrupt.prompt)
        there, here = zip(*pair.segments["changed"], strict=True)
        place = Place(row["kind"], row["layer"], row["index"], "changed")
        value = source.sites[replace(place.site, index=None)][list(there)]
        new = value if place.index < 0 else value[:, place.index]
        reading = job.reading(pair, pair.corrupt, job.runner.unpatched(base, pair.corrupt.prompt, job.needs))
        cell = (Change(place.site, here, new),)
        values, _ = job.read(pair, pair.corrupt, base, [cell], {"clean": reading, "corrupt": reading})
        (exactly,) = values[LABEL.name]
        assert exactly == pytest.approx(row["value"], abs=2e-6)


def test_a_cell_of_one_token_belongs_to_its_pair() -> None:
    model = tiny_model("llama")
    texts = [EQUAL, LONGER, ("I like tea. So", "I hate tea. So")]
    found = screen(model, texts, "heads", "each", metric=LABEL)
    assert all(place.pair and place.position >= 0 for place in found.top(5))
    exact = confirm(model, found, texts, top=4, others=6)
    assert len(exact.table) == 10
    assert exact.spearman().n == exact.table["group"].nunique()
    one = confirm(model, found, [texts[0]], top=40, others=40)
    assert set(one.table["pair"]) == {"clean0|corrupt0"}
    assert np.isfinite(one.slope().value)
    assert (one.spearman().low, one.spearman().high) == (-1, 1)  # one group tells nothing of others


def test_top_is_by_size_and_a_screen_shows_it() -> None:
    found = screen(tiny_model("gpt2"), [EQUAL, LONGER], ["heads", "mlp_out"], ["changed", "last"], metric=LABEL)
    cells = found.cells()
    by_hand = found.table.assign(c=change(found.table, "denoise")).groupby(["kind", "layer", "index", "segment"])["c"]
    largest = by_hand.mean().abs().sort_values(ascending=False)
    first = found.top(3)
    assert [(p.kind, p.layer, p.index, p.segment) for p in first] == list(largest.index[:3])
    assert first[0].text in repr(found)
    assert (cells["n"] == 2).all()
    assert "<table" in found._repr_html_()


METRICS: dict[str, Metric] = {
    "written": replace(LABEL, generate=3),
    "detached": replace(LABEL, value=lambda reading: reading.label(LABELS["good"]).detach()),
}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"direction": "up"}, "choose denoise or noise"),
        ({"method": "guess"}, "choose attribution or integrated"),
        ({"steps": 0}, "one or more"),
        ({"neurons": 0}, "one or more"),
        ({"sites": "pattern"}, "no estimate here"),
        ({"sites": "neurons.each", "positions": "each"}, "too many to keep"),
        ({"positions": "middle"}, "no position 'middle'"),
        ({"positions": "cue"}, "No pair can be patched"),
        ({"metric": METRICS["written"]}, "generated text"),
        ({"metric": METRICS["detached"]}, "no gradient by what it reads"),
        ({"pairs": [("He ran", "He ran off")]}, "No pair can be patched"),
    ],
)
def test_bad_input_gets_a_sentence(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(PatchError, match=said):
        ask: Any = screen
        ask(tiny_model("llama"), **({"pairs": [EQUAL], "metric": LABEL} | asked))


def test_confirm_refuses_what_it_did_not_screen() -> None:
    model = tiny_model("llama")
    found = screen(model, [EQUAL, LONGER], metric=LABEL)
    with pytest.raises(PatchError, match="one cell or more"):
        confirm(model, found, [EQUAL], top=0)
    with pytest.raises(PatchError, match="other weights"):
        confirm(tiny_model("llama", seed=1), found, [EQUAL])
    with pytest.raises(PatchError, match="was not screened"):
        confirm(model, found, [EQUAL, LONGER, EQUAL])
    with pytest.raises(PatchError, match="one cell or more"):
        found.top(0)
    exact = confirm(model, found, [EQUAL], top=2, others=0)
    with pytest.raises(PatchError, match="No cell of others"):
        exact.spearman("others")
    with pytest.raises(PatchError, match="it is top, others"):
        exact.sign("best")
    with pytest.raises(PatchError, match="recall of one cell"):
        exact.recall(0)


def numbers(seed: int, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = np.round(rng.normal(size=n), 1)  # with ties
    return a, np.round(a + rng.normal(size=n), 1)


def spearman(a: Any, b: Any) -> float:
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def test_figures_against_oracles() -> None:
    a, b = numbers(0)
    ones, top = np.ones(len(a)), np.zeros(len(a), dtype=bool)
    assert agreeing.rank_correlation(a, b, ones, top) == pytest.approx(spearman(a, b))
    assert agreeing.regression_slope(a, b, ones, top) == pytest.approx(np.polyfit(a, b, 1)[0])
    times = np.random.default_rng(1).integers(0, 4, len(a))
    aa, bb = np.repeat(a, times), np.repeat(b, times)
    assert agreeing.rank_correlation(a, b, times.astype(float), top) == pytest.approx(spearman(aa, bb))
    assert agreeing.regression_slope(a, b, times.astype(float), top) == pytest.approx(np.polyfit(aa, bb, 1)[0])
    exact, weight = np.array([5.0, -4.0, 3.0, 2.0, 0.0]), np.array([1.0, 1.0, 2.0, 2.0, 2.0])
    estimates = np.array([1.0, -1.0, -1.0, 1.0, 0.0])
    first = np.array([True, False, True, False, False])
    assert agreeing.recall_of(estimates, exact, weight, first, k=1) == 1
    assert agreeing.recall_of(estimates, exact, weight, first, k=2) == 0.5
    assert agreeing.recall_of(estimates, exact, weight, first, k=3) == pytest.approx(2 / 3)
    assert agreeing.sign_agreement(estimates, exact, weight, first) == pytest.approx(4 / 6)


def planted(seed: int, others: int | None) -> Confirmation:
    """A screen of 400 made-up cells of 6 groups, of which some are drawn as confirm draws them."""
    rng = np.random.default_rng(7)
    cells, top = 400, 20
    estimates = rng.standard_t(2, size=cells)
    exact = 0.7 * estimates + rng.normal(size=cells) * 0.8
    order = np.argsort(-np.abs(estimates))
    rest = order[top:]
    n = len(rest) if others is None else others
    drawn = np.random.default_rng(seed).choice(rest, n, replace=False)
    rows = [
        {"pair": f"p{group}", "group": f"g{group}", "kind": "z", "layer": 0, "index": int(cell), "segment": "all",
         "position": -1, "clean": 3.0, "corrupt": 1.0, "estimate": 1 + estimates[cell], "value": 1 + exact[cell],
         "chosen": chosen, "weight": weight}
        for group in range(2)
        for some, chosen, weight in ((order[:top], "top", 1.0), (drawn, "others", len(rest) / n))
        for cell in some
    ]  # fmt: skip
    return Confirmation(pd.DataFrame(rows), {"direction": "denoise"})


def test_what_is_drawn_stands_for_what_was_screened() -> None:
    """Over many draws the weighted figures are those of all cells; of the drawn cells as they are they would not be."""
    every, draws = planted(0, None), [planted(seed, 40) for seed in range(60)]

    def value(found: Confirmation, figure: agreeing.Figure) -> float:
        sums = agreeing.Sums.of(found._changes())
        return figure(*sums.drawn(np.ones(len(sums.n))))

    for figure in (agreeing.rank_correlation, agreeing.regression_slope, agreeing.sign_agreement,
                   partial(agreeing.recall_of, k=10)):  # fmt: skip
        mean = np.mean([value(draw, figure) for draw in draws])
        assert mean == pytest.approx(value(every, figure), abs=0.04)
    plain = np.mean([spearman(d.cells()["estimate"], d.cells()["exact"]) for d in draws])
    truth = value(every, agreeing.rank_correlation)
    assert plain > truth + 0.06
    assert truth == pytest.approx(spearman(every.cells()["estimate"], every.cells()["exact"]))


def rows_of(seed: int) -> pd.DataFrame:
    """Changes of 30 cells in 5 groups of two pairs, a third of them single tokens of one pair."""
    rng = np.random.default_rng(seed)
    rows = []
    for pair, cell in product(range(10), range(30)):
        if cell < 20 or cell % 10 == pair:
            a, b = rng.normal(size=2)
            rows.append({"pair": f"p{pair}", "group": f"g{pair // 2}", "kind": "z", "layer": 0, "index": cell,
                         "segment": "all", "position": cell if cell >= 20 else -1,
                         "own": f"p{pair}" if cell >= 20 else "", "estimate": a, "exact": a + b,
                         "chosen": "top" if cell < 4 else "others", "weight": 1.0 if cell < 4 else 3.0})  # fmt: skip
    return pd.DataFrame(rows)


def test_a_group_drawn_twice_counts_as_two_and_one_left_out_as_none() -> None:
    """What is resampled is what a table with other groups would give, for shared cells and for those of one token."""
    rows = rows_of(0)
    again = rows[rows["group"] == "g1"].assign(pair=lambda t: t["pair"] + "'", group="g9")
    again["own"] = again["pair"].where(again["position"] >= 0, "")
    other = pd.concat([rows[rows["group"] != "g3"], again])
    ours = agreeing.Sums.of(rows).drawn(np.array([1.0, 2.0, 1.0, 0.0, 1.0]))
    theirs = agreeing.Sums.of(other).drawn(np.ones(5))
    assert len(ours[0]) < len(theirs[0])  # single tokens are listed twice there
    for figure in (agreeing.rank_correlation, agreeing.regression_slope, agreeing.sign_agreement,
                   partial(agreeing.recall_of, k=9)):  # fmt: skip
        assert figure(*ours) == pytest.approx(figure(*theirs))


def test_intervals_hold_their_value_and_stay_in_their_bounds() -> None:
    rows = rows_of(1)
    rows["exact"] += np.where(rows["chosen"] == "top", 0.6, 0.0)
    sums, shared = agreeing.Sums.of(rows), agreeing.Sums.of(rows[rows["position"] < 0])
    share = agreeing.with_interval(shared, partial(agreeing.recall_of, k=8), (0.0, 1.0))
    assert 0 <= share.low < share.value < share.high <= 1
    for figure, bounds in ((agreeing.rank_correlation, (-1.0, 1.0)), (agreeing.regression_slope, (-np.inf, np.inf))):
        found = agreeing.with_interval(sums, figure, bounds)
        assert bounds[0] <= found.low < found.value < found.high <= bounds[1]
        assert found.n == 5
        assert found.unit == "group"
    nothing = agreeing.Sums.of(rows_of(1).assign(exact=0.0, estimate=0.0))
    for figure in (agreeing.rank_correlation, agreeing.regression_slope, agreeing.sign_agreement):
        assert np.isnan(agreeing.with_interval(nothing, figure, (0.0, 1.0)).value)


def test_the_figure_has_a_point_a_cell_and_a_diagonal() -> None:
    found = planted(3, 40)
    line, others, top = found.plot().to_dict()["data"]
    assert [len(trace["x"]) for trace in (line, others, top)] == [2, 40, 20]
    assert list(line["x"]) == list(line["y"])


@pytest.mark.real
def test_on_real_weights_the_screen_finds_what_the_patch_finds(smol: LensModel) -> None:
    texts = [("She won the race and cried.", "She lost the race and cried."),
             ("They praised his work again.", "They mocked his work again.")]  # fmt: skip
    metric = label_difference({"good": [" joy", " happiness"], "bad": [" fear", " anger"]}, "good", "bad")
    found = screen(smol, texts, ["heads", "mlp_out"], ["changed", "last"], metric=metric, cue=" The feeling here is")
    exact = confirm(smol, found, texts, top=15)
    assert exact.spearman().value > 0.6
    assert exact.spearman("top").value > 0.6
    assert exact.sign("top").value > 0.8
