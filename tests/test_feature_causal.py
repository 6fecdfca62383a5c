"""Laws of editing features: the error is kept, nothing else moves, placebos match, and a planted feature is found."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor

import affectlens as al
from affectlens.cursors import Cursor
from affectlens.errors import PatchError, SteerError
from affectlens.model import LensModel
from affectlens.patching.ablating import ablate
from affectlens.patching.cells import Change
from affectlens.patching.choosing import runner_for
from affectlens.patching.engine import Engine
from affectlens.patching.features import ErrorShare, FeatureEffects, error_share, feature_effects
from affectlens.patching.features.editing import DIRECTION, FEATURE, PLACEBO, TOGETHER, Edits, Step, Text
from affectlens.patching.features.matching import matched
from affectlens.patching.features.surveying import encoded, places, survey
from affectlens.patching.metrics import Metric, Reading, label_difference
from affectlens.patching.pairs import PatchPair, prepare
from affectlens.patching.reading import Needs
from affectlens.patching.reference import Reference
from affectlens.patching.results import PatchSweep
from affectlens.patching.sweeping import patch
from affectlens.probing.sae import Sae, sae_lens
from affectlens.probing.sae_files import wrap
from affectlens.sites import Site
from affectlens.stats import Estimate
from affectlens.steering.extracting.featuring import feature_directions
from affectlens.testing import FAMILIES, tiny_model, tiny_sae

LABELS = {"good": [" good", "!"], "bad": ["?", " sad"]}
LABEL = label_difference(LABELS, "good", "bad")
TEXTS = [
    ("She won it all. The door was open. Then", "Nobody had lost it. The door was open. Then"),
    ("He cried at the gate. It rained.", "He stood at the gate. It rained."),
    ("They shouted with rage! A dog ran by.", "They talked for long. A dog ran by."),
    ("My hands shook. The car stopped. Oh", "My hands rested. The car stopped. Oh"),
    ("A gift! He smiled at me, and left.", "A bill. He nodded at me, and left."),
]


def orthonormal(model: LensModel, site: str = "L1.resid_post", n: int = 32, seed: int = 0) -> Sae:
    """An autoencoder whose rows are orthonormal and whose features are all kept: codes are projections, cut at zero."""
    width = int(np.prod(model.sites.shape(Site.parse(site))))
    with sae_lens() as library:
        inner = library.SAE.from_dict({"architecture": "topk", "d_in": width, "d_sae": n, "k": n})
    rows = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(seed)))[0][:n]
    inner.W_dec.data, inner.W_enc.data = rows.contiguous(), rows.T.contiguous()
    inner.b_dec.data = 0.1 * torch.ones(width)
    return wrap(inner, "planted", site=site)


def projection(row: np.ndarray, layer: int = 1) -> Metric:
    """The mean over tokens of a stream's projection on a row."""

    def value(reading: Reading) -> Tensor:
        return (reading.streams[layer].double() @ torch.from_numpy(row).double()).mean(dim=1)

    return Metric("projection", value, "norm", layers=frozenset({layer}))


def text_of(model: LensModel, sae: Sae, pair: PatchPair) -> Text:
    run = runner_for(model).record(pair.clean.prompt, [sae.site])
    return Text(*encoded(run, sae), places(pair, pair.clean, "text"))


def edits_of(model: LensModel, sae: Sae, levels: dict[int, float]) -> Edits:
    return Edits(sae, levels, model.sites.shape(sae.site), 0)


def active(model: LensModel, sae: Sae, n: int = 2, at_least: float = 0.1) -> list[int]:
    """The features that are active most evenly: neither nowhere nor everywhere."""
    seen = survey(runner_for(model), sae, prepare(model, TEXTS), "text")
    order = np.argsort(np.abs(seen.density - 0.5), kind="stable")
    return [int(one) for one in order[:n]]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> LensModel:
    return tiny_model(request.param)


@pytest.fixture(scope="module")
def planted() -> tuple[LensModel, Sae]:
    model = tiny_model("llama")
    return model, orthonormal(model)


# --- one edit ---


def test_an_ablated_feature_is_gone_along_its_row_and_nothing_else_moves(planted: tuple[LensModel, Sae]) -> None:
    model, sae = planted
    text = text_of(model, sae, prepare(model, TEXTS)[0])
    one = active(model, sae)[0]
    for level in (0.0, 1.7):
        at, moved = edits_of(model, sae, {one: level}).moved(text, Step(FEATURE, one, -1, (one,)))
        by = level - text.codes[at, one]
        assert len(at) > 3
        assert torch.allclose(moved, by[:, None] * torch.from_numpy(sae.decoder[one]), atol=1e-5)
        after = sae.encode(text.x[at] + moved)
        on = text.codes[at, one] > 0  # of a feature that is off, the encoder's cut takes a part of what is added
        assert torch.allclose(after[on, one], torch.full((int(on.sum()),), level), atol=1e-4)
        assert on.sum() > 3
        assert (after[~on, one] < level + 1e-4).all()
        others = [k for k in range(sae.n_features) if k != one]
        assert torch.allclose(after[:, others], text.codes[at][:, others], atol=1e-4)


def test_all_features_ablated_leave_the_error_and_the_bias() -> None:
    model = tiny_model("gpt2")
    sae = tiny_sae(model)
    text = text_of(model, sae, prepare(model, TEXTS)[0])
    every = tuple(range(sae.n_features))
    at, moved = edits_of(model, sae, dict.fromkeys(every, 0.0)).moved(text, Step(FEATURE, TOGETHER, -1, every))
    assert at == text.at
    left = text.x[at] - sae.decode(text.codes[at]) + sae.decode(torch.zeros_like(text.codes[at]))
    assert torch.allclose(text.x[at] + moved, left, atol=1e-5)


def test_clamping_to_its_own_value_is_the_identity() -> None:
    model = tiny_model("qwen")
    sae = tiny_sae(model)
    text = text_of(model, sae, prepare(model, TEXTS)[0])
    one = int(text.codes[text.at].sum(0).argmax())
    token = text.at[int(text.codes[text.at, one].argmax())]
    edits = edits_of(model, sae, {one: float(text.codes[token, one])})
    alone = Text(text.x, text.codes, [token])
    assert edits.change(alone, Step(FEATURE, one, -1, (one,))) == (None, 0.0)
    assert edits.change(text, Step(FEATURE, one, -1, (one,)))[0] is not None
    silent = int((text.codes[text.at] == 0).all(0).nonzero()[0])
    zero = edits_of(model, sae, {silent: 0.0})
    assert zero.change(text, Step(FEATURE, silent, -1, (silent,))) == (None, 0.0)


def test_random_directions_are_as_large_and_elsewhere(planted: tuple[LensModel, Sae]) -> None:
    model, sae = planted
    text = text_of(model, sae, prepare(model, TEXTS)[0])
    pair = tuple(active(model, sae))
    edits = edits_of(model, sae, dict.fromkeys(pair, 0.0))
    at, own = edits.moved(text, Step(FEATURE, TOGETHER, -1, pair))
    draws = [edits.moved(text, Step(DIRECTION, TOGETHER, draw, pair)) for draw in (0, 1, 0)]
    rows = torch.from_numpy(sae.decoder[list(pair)])
    for where, moved in draws:
        assert where == at
        assert torch.allclose(moved.norm(dim=1), own.norm(dim=1), rtol=1e-4)
        assert ((moved @ rows.T).norm(dim=1) < 0.9 * own.norm(dim=1)).all()
    assert torch.equal(draws[0][1], draws[2][1])
    assert not torch.allclose(draws[0][1], draws[1][1], atol=1e-2)
    single = edits.moved(text, Step(DIRECTION, pair[0], 0, pair[:1]))[1]
    ranks = torch.linalg.svdvals(single)
    assert ranks[1] < 1e-4 * ranks[0]  # one direction for all tokens, as a feature has one row


# --- effects ---


def by_hand(model: LensModel, sae: Sae, pair: PatchPair, feature: int, level: float | None) -> float:
    """The label metric of the clean text, from a plain forward with the residual stream edited by a hook."""

    def change(x: Tensor, cursor: Cursor) -> Tensor:
        codes = sae.encode(x)[..., feature]
        by = (0.0 if level is None else level) - codes
        by[:, 0] = 0.0
        return x + by[..., None] * torch.from_numpy(sae.decoder[feature]).to(x)

    ids = torch.tensor(pair.clean.prompt.ids)[None]
    parts = []
    for words in LABELS.values():
        total = []
        for word in words:
            tail = model.tokenizer(word, add_special_tokens=False).input_ids
            whole = torch.cat((ids, torch.tensor([tail])), dim=1)

            def only_prompt(x: Tensor, cursor: Cursor) -> Tensor:
                n = ids.shape[1]
                return torch.cat((change(x[:, :n], cursor), x[:, n:]), dim=1)

            with al.edit(model, {sae.site: only_prompt}, idle="ignore"), torch.no_grad():
                logits = model.hf(input_ids=whole, use_cache=False).logits[0].double().log_softmax(-1)
            total.append(sum(logits[ids.shape[1] - 1 + i, token] for i, token in enumerate(tail)))
        parts.append(torch.logsumexp(torch.stack([torch.as_tensor(one) for one in total]), 0))
    return float(parts[0] - parts[1])


def test_effects_equal_a_plain_hooked_forward(model: LensModel) -> None:
    sae = tiny_sae(model, "L0.resid_post")
    chosen = active(model, sae)
    pairs = prepare(model, TEXTS[:2], labels=LABELS)
    for kind, to in (("ablate", None), ("clamp", 2.5)):
        found = feature_effects(model, sae, chosen, pairs, metric=LABEL, kind=kind, to=to, placebos=1, directions=1)
        own = found.table[found.table["source"] == FEATURE]
        for pair in pairs:
            for one in chosen:
                row = own[(own["pair"] == pair.name) & (own["feature"] == one)]
                assert row["clean_left"].item() == pytest.approx(by_hand(model, sae, pair, one, to), abs=1e-4)
        assert (own["clean_left"] - own["clean"]).abs().max() > 1e-3


def test_an_edit_that_changes_no_token_changes_no_bit(model: LensModel) -> None:
    sae = tiny_sae(model, "L0.resid_post", n_features=128, k=2)
    pairs = prepare(model, TEXTS, labels=LABELS)
    density = survey(runner_for(model), sae, pairs, "text").density
    rare = [int(one) for one in np.argsort(density, kind="stable") if density[one] > 0][:3]
    found = feature_effects(model, sae, rare, pairs, metric=LABEL, placebos=2, directions=2).table
    for side in ("clean", "corrupt"):
        idle = found[found[f"{side}_changed"] == 0]
        assert len(idle) > 5
        assert (idle[f"{side}_left"] == idle[side]).all()
        assert not idle[f"{side}_top_changed"].any()
    busy = found[found["clean_changed"] > 0]
    assert (busy["clean_left"] != busy["clean"]).any()


def test_the_first_token_is_never_touched(planted: tuple[LensModel, Sae]) -> None:
    model, sae = planted
    pairs = prepare(model, TEXTS)
    one = active(model, sae)[0]
    found = feature_effects(model, sae, [one], pairs, metric=projection(sae.decoder[one]), kind="clamp", to=50.0,
                            placebos=1, directions=1).table  # fmt: skip
    lengths = {pair.name: (len(pair.clean), len(pair.corrupt)) for pair in pairs}
    for one_row in found.to_dict("records"):
        for side, n in zip(("clean", "corrupt"), lengths[one_row["pair"]], strict=True):
            assert one_row[f"{side}_changed"] == one_row[f"{side}_tokens"] == n - 1
    own = found[found["source"] == FEATURE].set_index("pair")
    for pair in pairs:  # what is clamped ends at 50 everywhere but at the first token
        seen = runner_for(model).record(pair.clean.prompt, [sae.site]).sites[sae.site]
        row = torch.from_numpy(sae.decoder[one])
        bias = float(sae.decode(torch.zeros(1, sae.n_features))[0] @ row)
        wanted = seen @ row
        wanted = wanted + (50 - (wanted - bias).clamp(min=0)) * (torch.arange(len(wanted)) > 0)
        assert own.loc[pair.name, "clean_left"] == pytest.approx(float(wanted.mean()), rel=1e-5)


def test_a_planted_feature_shows_and_its_placebos_do_not(planted: tuple[LensModel, Sae]) -> None:
    model, sae = planted
    one, idle = active(model, sae)
    found = feature_effects(model, sae, [one, idle], TEXTS, metric=projection(sae.decoder[one]), placebos=9, seed=3)
    rows = {row["feature"]: row for row in found.effects().to_dict("records")}
    texts = [text_of(model, sae, pair) for pair in prepare(model, TEXTS)]
    wanted = -float(np.mean([text.codes[text.at, one].sum() / len(text.x) for text in texts]))
    assert wanted < -1e-3
    assert rows[one]["value"] == pytest.approx(wanted, rel=1e-3)
    assert rows[one]["p"] == pytest.approx(0.1)  # one of ten
    assert abs(rows[idle]["value"]) < 1e-6
    assert np.abs(found.draws(one)).max() < 1e-6
    assert 1e-5 < np.abs(found.draws(one, source=DIRECTION)).max() < abs(wanted)
    assert found.at(one).value == rows[one]["value"]
    assert rows[TOGETHER]["value"] == pytest.approx(rows[one]["value"], abs=1e-6)


def test_batches_padding_and_company_do_not_matter(model: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    sae = tiny_sae(model, "L0.resid_post")
    chosen = active(model, sae)

    def table(pairs: list[tuple[str, str]], **given: Any) -> pd.DataFrame:
        found = feature_effects(model, sae, chosen, pairs, metric=LABEL, placebos=1, directions=1, **given).table
        return found.set_index(["pair", "metric", "source", "feature", "draw"]).sort_index()

    def off(a: pd.DataFrame, b: pd.DataFrame) -> float:
        numbers = ["clean", "corrupt", "clean_left", "corrupt_left", "clean_norm"]
        return float((a[numbers] - b[numbers]).abs().to_numpy().max())

    whole = table(TEXTS[:3])
    assert off(whole, table(TEXTS[:3], memory=1e-3)) < 1e-4
    monkeypatch.setattr(model.tokenizer, "padding_side", "left")
    assert off(whole, table(TEXTS[:3])) < 1e-4
    alone = table(TEXTS[:1]).query("source == 'feature'")
    assert off(whole.loc[alone.index], alone) < 1e-4


def test_clamp_goes_to_a_percentile_of_the_emotional_texts(planted: tuple[LensModel, Sae]) -> None:
    model, sae = planted
    pairs = prepare(model, TEXTS)
    one = active(model, sae)[0]
    codes = []
    for pair in pairs:
        text = text_of(model, sae, pair)
        codes.append(text.codes[text.at, one].numpy())
    there = np.concatenate(codes)
    for to, percentile in ((None, 95), ("p99", 99), ("p50", 50)):
        found = feature_effects(model, sae, [one], pairs, metric=projection(sae.decoder[one]), kind="clamp", to=to,
                                placebos=1, directions=0)  # fmt: skip
        assert found.features["to"].item() == pytest.approx(np.percentile(there[there > 0], percentile), rel=1e-5)


def test_a_stopped_run_goes_on_and_a_saved_one_comes_back(planted: tuple[LensModel, Sae], tmp_path: Path) -> None:
    model, sae = planted
    chosen = active(model, sae)
    given: dict[str, Any] = {"metric": LABEL, "placebos": 2, "folder": tmp_path / "kept"}
    found = feature_effects(model, sae, chosen, TEXTS, **given)
    (tmp_path / "kept" / "00002.parquet").unlink()
    again = feature_effects(model, sae, chosen, TEXTS, **given)
    pd.testing.assert_frame_equal(found.table, again.table)
    with pytest.raises(PatchError, match="other settings"):
        feature_effects(model, sae, chosen, TEXTS, **given, kind="clamp")
    found.save(tmp_path)
    loaded = FeatureEffects.load(tmp_path)
    pd.testing.assert_frame_equal(loaded.effects(), found.effects())
    assert loaded.summary() == found.summary()
    with pytest.raises(PatchError, match="no effects of features"):
        FeatureEffects.load(tmp_path / "none")


# --- statistics ---


def made(values: dict[str, np.ndarray], groups: list[str], **meta: Any) -> FeatureEffects:
    """Effects of one feature a column; ``placebo`` and ``direction`` are [feature, draw]."""
    rows = []
    emotions = ["fear", "joy"]
    for name, part in values.items():
        for feature, column in enumerate(np.atleast_2d(part)):
            for draw, value in enumerate(column):
                for number, group in enumerate(groups):
                    moved = value[number] if np.ndim(value) else value
                    rows.append({
                        "source": name, "feature": feature, "draw": -1 if name == FEATURE else draw, "metric": "m",
                        "pair": f"p{number}", "group": group, "contrast": "", "emotion": emotions[number % 2],
                        "clean": 1.0, "corrupt": 0.25, "clean_left": 1.0 + moved, "corrupt_left": 0.25 + moved / 4,
                        "clean_top_changed": moved > 0, "corrupt_top_changed": False, "clean_tokens": 10,
                        "corrupt_tokens": 10, "clean_changed": 2, "corrupt_changed": 3, "clean_norm": 2.0,
                        "corrupt_norm": 4.0,
                    })  # fmt: skip
    n = len(np.atleast_2d(values[FEATURE]))
    features = pd.DataFrame({"feature": range(n), "density": 0.1, "mean": 1.0, "to": 0.0})
    placebos = pd.DataFrame({"feature": range(n), "density": 0.1, "placebo_density": 0.1})
    about = {"kind": "ablate", "sae": "s", "sites": ["L1.resid_post"], "n_pairs": len(groups), "placebos": 4, "to": "0",
             "metrics": {"m": {"unit": "nats", "key": ""}}, "seed": 0, "median_norm": 8.0}  # fmt: skip
    return FeatureEffects(pd.DataFrame(rows), features, placebos, about | meta)


def test_p_is_the_rank_among_placebos_and_is_corrected() -> None:
    groups = [f"g{number // 2}" for number in range(8)]
    placebo = np.array([[0.1, -0.2, 0.3, 0.05], [0.1, -3.0, 2.0, 1.0], [0.5, -0.5, 0.1, 0.1]])
    found = made({FEATURE: np.array([[-1.0], [1.0], [0.5]]), PLACEBO: placebo, DIRECTION: placebo / 2}, groups)
    rows = found.effects()
    assert rows["p"].tolist() == [1 / 5, 4 / 5, 3 / 5]  # of the same size is as large
    assert rows["p_adjusted"].tolist() == pytest.approx(stats.false_discovery_control(rows["p"]).tolist())
    assert rows["p_direction"].tolist() == [1 / 5, 3 / 5, 1 / 5]
    assert rows["attainable"].tolist() == [1 / 5] * 3
    assert not rows["specific"].any()  # four placebos can't pass
    assert rows[["placebo_low", "placebo_high"]].to_numpy()[1].tolist() == pytest.approx([-3.0, 2.0])
    assert rows["share"].tolist() == [0.25] * 3
    assert rows["norm"].tolist() == pytest.approx([(2 * 2 + 4 * 3) / 5 / 8] * 3)
    assert found.effects(of="corrupt")["value"].tolist() == pytest.approx([-0.25, 0.25, 0.125])
    assert found.effects(of="gap")["value"].tolist() == pytest.approx([-0.75, 0.75, 0.375])
    assert found.effects(of="top")["value"].tolist() == [0.0, 0.5, 0.5]
    assert found.effects(emotion="joy")["pairs"].tolist() == [4] * 3
    assert "can't be below 0.200" in found.summary()[-1]
    assert "that takes 59 placebos" in found.summary()[-1]
    many = made({FEATURE: np.array([[-1.0]]), PLACEBO: np.linspace(-0.5, 0.5, 39)[None]}, groups)
    assert many.effects()["specific"].item() == (many.effects()["high"].item() < 0)
    assert np.isnan(many.effects()["p_direction"].item())


def test_intervals_resample_groups() -> None:
    rng = np.random.default_rng(0)
    groups = [f"g{number // 4}" for number in range(160)]
    moved = np.repeat(rng.normal(size=40), 4)  # pairs of one group are copies of each other
    rows = made({FEATURE: np.array([[moved]]), PLACEBO: np.array([[0.0]])}, groups).effects().iloc[0]
    assert rows["n"] == 40
    assert rows["value"] == pytest.approx(moved.mean())
    width = (rows["high"] - rows["low"]) / 2
    assert width == pytest.approx(1.96 * moved.std() / np.sqrt(40), rel=0.15)  # twice as wide as of 160 single pairs
    found = made({FEATURE: np.array([[moved]]), PLACEBO: np.array([[0.0]])}, groups).at(0)
    assert isinstance(found, Estimate)
    assert (found.low, found.high, found.p) == (rows["low"], rows["high"], rows["p"])


def test_placebos_match_and_are_never_those_that_are_placed() -> None:
    rng = np.random.default_rng(1)
    density, mean = np.exp(rng.normal(-5, 1.5, 800)), np.exp(rng.normal(0, 0.7, 800))
    density[:50] = 0.0
    features, placed = [100, 200, 300, 400], range(500, 600)
    mean[:50] = np.nan
    found = matched(density, mean, features, 20, placed=placed, seed=2)
    assert found.groupby("feature").size().tolist() == [20] * 4
    drawn = found["placebo"].to_list()
    assert len(set(drawn)) == 80
    assert not {*features, *placed} & set(drawn)
    assert (density[drawn] > 0).all()
    assert density[drawn].tolist() == found["placebo_density"].tolist()
    for name, every in (("density", density[50:]), ("mean", mean[50:])):
        asked = found[name].to_numpy()
        off = np.abs(np.log(found[f"placebo_{name}"].to_numpy() / asked))
        chance = np.abs(np.log(rng.choice(every, 80) / asked))
        assert np.median(off) < np.median(chance) / 3
    assert not found.equals(matched(density, mean, features, 20, placed=placed, seed=3))
    assert found.equals(matched(density, mean, features, 20, placed=placed, seed=2))
    half = density > np.median(density)
    assert half[matched(density, mean, features, 5, allowed=half)["placebo"]].all()
    with pytest.raises(PatchError, match="are active nowhere"):
        matched(density, mean, [3], 1)
    with pytest.raises(PatchError, match="ask for fewer"):
        matched(density, mean, features, 300)


def test_what_is_measured_is_matched_by_what_was_measured(planted: tuple[LensModel, Sae]) -> None:
    model, sae = planted
    chosen, placed = active(model, sae), [5, 6, 7]
    found = feature_effects(model, sae, chosen, TEXTS, metric=LABEL, placebos=4, directions=0, placed=placed)
    assert not {*chosen, *placed} & set(found.placebos["placebo"])
    codes = []
    for pair in prepare(model, TEXTS):
        for side in (pair.clean, pair.corrupt):
            x = runner_for(model).record(side.prompt, [sae.site]).sites[sae.site]
            codes.append(sae.encode(x)[1:].numpy())
    every = np.concatenate(codes)
    told = found.features.set_index("feature").loc[chosen]
    assert told["density"].tolist() == pytest.approx((every[:, chosen] > 0).mean(0).tolist())
    assert told["mean"].tolist() == pytest.approx([every[every[:, k] > 0, k].mean() for k in chosen], rel=1e-5)


# --- features as sites ---


def test_ablate_takes_features_as_sites(model: LensModel) -> None:
    sae = tiny_sae(model, "L0.resid_post")
    sae.attach(model)
    chosen = active(model, sae)
    pairs = prepare(model, TEXTS[:3], labels=LABELS)
    sites = [f"L0.F{one}@tiny" for one in chosen]
    swept = ablate(model, pairs, sites, metric=LABEL, kind="zero").table.query("source == 'matched'")
    ours = feature_effects(model, sae, chosen, pairs, metric=LABEL, placebos=1, directions=0).table
    both = ours.query("source == 'feature' and feature >= 0").merge(
        swept, left_on=["pair", "feature"], right_on=["pair", "index"]
    )
    assert len(both) == 6
    for name in ("clean_left", "corrupt_left"):
        assert (both[f"{name}_x"] - both[f"{name}_y"]).abs().max() < 1e-4
    ending = ablate(model, pairs, sites[0], "ending", metric=LABEL, kind="mean", control=False).table
    assert (ending["clean_left"] != ending["clean"]).any()


def test_the_random_change_beside_features_leaves_their_rows(planted: tuple[LensModel, Sae]) -> None:
    model, sae = planted
    sae.attach(model)
    one, other = active(model, sae)
    pairs = prepare(model, TEXTS)
    found: dict[str, list[Tensor]] = {}

    def look(reading: Reading) -> Tensor:
        found.setdefault(reading.side.name, []).append(reading.streams[1].clone())
        return reading.streams[1].double().sum((1, 2))

    metric = Metric("look", look, layers=frozenset({1}))
    ablate(model, pairs, [f"L1.F{one}@planted", f"L1.F{other}@planted"], metric=metric, kind="zero", cumulative=True)
    rows = torch.from_numpy(sae.decoder[[one, other]])
    for name, streams in found.items():
        (before,), after = (next(x for x in streams if len(x) == n) for n in (1, 4))
        moved = after - before
        alone, both, noise, noises = moved[:, 1:]
        assert alone.norm() > 1e-3
        assert torch.allclose(alone, (alone @ rows[0])[:, None] * rows[0], atol=1e-6), name
        assert torch.allclose(noise.norm(dim=1), alone.norm(dim=1), atol=1e-6)
        assert torch.allclose(noises.norm(dim=1), both.norm(dim=1), atol=1e-6)
        assert (noises @ rows.T).norm() < 0.6 * noises.norm()
        assert (both @ rows.T).norm() == pytest.approx(float(both.norm()), rel=1e-4)
        assert (moved[:, 0] == 0).all()


def test_features_and_error_restore_what_the_site_restores(model: LensModel) -> None:
    sae = tiny_sae(model, "L0.resid_post")
    whole = sae.attach(model)
    pairs = prepare(model, TEXTS[:3], labels=LABELS)
    given: dict[str, Any] = {"metric": LABEL, "controls": ()}
    sweeps = {name: patch(model, pairs, site, **given).table for name, site in
              (("whole", "L0.resid_post"), ("codes", whole))}  # fmt: skip
    shared = error_share(model, sae, pairs, metric=LABEL)
    keys = ["pair", "segment"]
    ours = {kind: part.set_index(keys)["value"].sort_index() for kind, part in shared.sweep.table.groupby("kind")}
    for name, table in sweeps.items():
        assert np.abs(table.set_index(keys)["value"].sort_index() - ours[name]).max() < 1e-4
    assert np.abs(ours["codes"] - ours["whole"]).max() > 1e-3
    single = patch(model, pairs, f"L0.F{active(model, sae)[0]}@tiny", **given).table
    assert (single["value"] != single["corrupt"]).any()

    pair = pairs[0]  # in one run: the clean codes, and the clean error added
    engine, needs = Engine(model), Needs(logits=True)
    source, base = (engine.record(side.prompt, [sae.site, whole]) for side in (pair.clean, pair.corrupt))
    places_, at = ([match[end] for match in pair.segments["all"] if match[1]] for end in (0, 1))
    error = [run.sites[sae.site] - sae.decode(run.sites[whole]) for run in (source, base)]
    missed = error[0][places_] - error[1][at]
    rebuilt = sae.decode(source.sites[whole][places_]) - sae.decode(base.sites[whole][at])
    both = (Change(sae.site, tuple(at), base.sites[sae.site][at] + missed + rebuilt),)
    plain = (Change(sae.site, tuple(at), source.sites[sae.site][places_]),)
    codes = (Change(whole, tuple(at), source.sites[whole][places_]),)
    outs = [next(engine.run(base, pair.corrupt.prompt, [cell], needs))[1].logits for cell in (plain, both, codes)]
    outs.append(next(Reference(model).run(base, pair.corrupt.prompt, [codes], needs))[1].logits)
    restored, together, engines, references = (one for one in outs if one is not None)
    assert torch.allclose(restored, together, atol=1e-4)
    assert torch.allclose(engines, references, atol=1e-4)
    assert not torch.allclose(restored, engines, atol=1e-3)


def test_shares_add_up_where_the_metric_is_linear(planted: tuple[LensModel, Sae]) -> None:
    model, _ = planted
    sae = orthonormal(model, n=20)  # a third of the space is the error's
    row = torch.nn.functional.normalize(torch.randn(32, generator=torch.Generator().manual_seed(5)), dim=0).numpy()
    found = error_share(model, sae, TEXTS, "all", metric=projection(row))
    moved = by_kind(found.sweep.table)
    assert np.abs(moved["codes"] + moved["error"] - moved["whole"]).max() < 1e-5
    assert np.abs(moved["error"]).min() > 1e-4
    perfect = orthonormal(model)
    perfect.inner.b_dec.data = -50 * torch.ones(32) @ perfect.inner.W_dec  # no code is cut at zero
    moved = by_kind(error_share(model, perfect, TEXTS, "all", metric=projection(row)).sweep.table)
    assert np.abs(moved["codes"] - moved["whole"]).max() < 1e-3
    assert np.abs(moved["error"]).max() < 1e-3


def by_kind(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """What each part's patch changes, pair by pair."""
    ordered = table.sort_values(["kind", "pair"])
    return {str(kind): (part["value"] - part["corrupt"]).to_numpy() for kind, part in ordered.groupby("kind")}


def test_shares_are_ratios_of_sums_and_none_where_there_is_nothing_to_share() -> None:
    whole = np.array([0.5, 1.0, 1.5, 0.8, 1.2, 0.9])
    for sign, told in ((np.ones(6), True), (np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0]), False)):
        rows = [
            {"pair": f"p{i}", "group": f"g{i}", "contrast": "", "emotion": "joy", "metric": "m", "source": "matched",
             "kind": kind, "layer": 1, "index": -1, "segment": "last", "position": -1, "clean": 2.0, "corrupt": 0.0,
             "value": share * sign[i] * whole[i]}
            for i in range(6) for kind, share in (("whole", 1.0), ("codes", 0.6), ("error", 0.3))
        ]  # fmt: skip
        meta = {"direction": "denoise", "seed": 0, "sae": "s", "n_pairs": 6}
        found = ErrorShare(PatchSweep(pd.DataFrame(rows), pd.DataFrame(), meta))
        values = dict(zip(found.shares()["part"], found.shares()["value"], strict=True))
        if told:
            assert values == pytest.approx({"codes": 0.6, "error": 0.3, "rest": 0.1})
            assert "codes alone restore 0.60 [0.60, 0.60], and what the dictionary misses 0.30" in found.summary()[0]
        else:
            assert np.isnan(list(values.values())).all()
            assert "no shares" in found.summary()[0]


# --- directions ---


def test_features_become_directions_that_steer(planted: tuple[LensModel, Sae]) -> None:
    model, sae = planted
    table = pd.DataFrame({"emotion": ["joy", "joy", "grief", "joy", "anger"], "feature": [3, 8, 4, 9, 2],
                          "d": [0.5, 1.5, 0.7, 1.0, -2.0]})  # fmt: skip
    texts = [text for pair in TEXTS for text in pair]
    one = feature_directions(model, sae, table, texts=texts)
    assert one.emotions == ("joy", "sadness")  # anger has none above zero
    assert np.allclose(one["joy"][0].vector, sae.decoder[8], atol=1e-6)
    assert one["joy"][0].facts["features"] == [8]
    two = feature_directions(model, sae, table, per_emotion=2, texts=texts)["joy"][0]
    wanted = 1.5 * sae.decoder[8] + 1.0 * sae.decoder[9]
    assert np.allclose(two.vector, wanted / np.linalg.norm(wanted), atol=1e-5)
    assert two.site == "L1.resid_post"
    assert len(two.levels) == 101
    with al.steering.steer(model, {"joy": 0.5}, directions=one, raw=True), al.record(model, sae.site) as after:
        model.body(input_ids=torch.tensor([[5, 6, 7, 8]]))
    with al.record(model, sae.site) as before:
        model.body(input_ids=torch.tensor([[5, 6, 7, 8]]))
    moved = after[sae.site] - before[sae.site]
    assert torch.allclose(
        moved, torch.from_numpy(0.5 * one["joy"][0].norm * sae.decoder[8]).expand_as(moved), atol=1e-4
    )
    clamped = al.steering.steer(model, {"joy": 1.0}, directions=one, operator="clamp(90)")
    with clamped, al.record(model, sae.site) as at_level:
        model.body(input_ids=torch.tensor([[5, 6, 7, 8]]))
    reached = at_level[sae.site] @ torch.from_numpy(sae.decoder[8])
    assert torch.allclose(reached, torch.full_like(reached, float(one["joy"][0].levels[90])), atol=1e-3)
    for bad, said in (({"emotion": ["joy"], "feature": [1]}, "no column d"),
                      ({"emotion": ["joy"], "feature": [99], "d": [1.0]}, "no feature 99"),
                      ({"emotion": ["joy"], "feature": [9], "d": [-1.0]}, "nothing to make")):  # fmt: skip
        with pytest.raises(SteerError, match=said):
            feature_directions(model, sae, pd.DataFrame(bad), texts=texts)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kind": "mean"}, "choose from ablate, clamp"),
        ({"features": [1, 1]}, "each once"),
        ({"features": [99]}, "no feature 99"),
        ({"placebos": 0}, "at least one placebo"),
        ({"to": 3}, "is for kind='clamp'"),
        ({"kind": "clamp", "to": "most"}, "neither a number nor a percentile"),
        ({"kind": "clamp", "to": "p101"}, "neither a number nor a percentile"),
        ({"kind": "clamp", "to": float("nan")}, "not finite"),
        ({"positions": "middle"}, "no span 'middle'"),
        ({"placebos": 500}, "ask for fewer"),
    ],
)
def test_bad_input_gets_a_sentence(planted: tuple[LensModel, Sae], arguments: dict[str, Any], said: str) -> None:
    model, sae = planted
    given: dict[str, Any] = {"features": active(model, sae), "metric": LABEL} | arguments
    with pytest.raises(PatchError, match=said):
        feature_effects(model, sae, given.pop("features"), TEXTS, **given)
    with pytest.raises(PatchError, match="no outcome"):
        made({FEATURE: np.array([[1.0]]), PLACEBO: np.array([[0.0]])}, ["a", "b"]).effects(of="both")
