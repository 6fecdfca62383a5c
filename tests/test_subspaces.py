"""Erased concepts, interchanged subspaces: guarantees, oracles, planted truth, and the interventions done by hand."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import pinvh, sqrtm
from sklearn.linear_model import LogisticRegression
from torch import Tensor

import affectlens as al
from affectlens.errors import BatteryError, PatchError
from affectlens.model import LensModel
from affectlens.patching.engine import Engine
from affectlens.patching.job import Job
from affectlens.patching.metrics import Metric, label_difference
from affectlens.patching.pairs import PatchPair, encode, prepare
from affectlens.patching.subspaces import Erasure, Leace, SubspaceSearch, das, erase, searching
from affectlens.patching.subspaces.erasure import read_scores, use_scores
from affectlens.patching.subspaces.interchange import Exchange, whole, within
from affectlens.patching.subspaces.leace import Placebo, project_out, random_basis
from affectlens.patching.subspaces.naturalness import Natural
from affectlens.patching.subspaces.ratios import Clusters
from affectlens.patching.subspaces.rereading import FRESH, LEACE, NETWORK, NONE, OLD, RANDOM, reread
from affectlens.patching.subspaces.scrubbing import begin, fit_through
from affectlens.patching.subspaces.using import TOGETHER, use
from affectlens.positions import Position
from affectlens.probing.parts import Stage, stage
from affectlens.probing.targets import select
from affectlens.sites import Site
from affectlens.testing import FAMILIES, tiny_model
from affectlens.texts import as_table
from affectlens.types import TextTable
from tests.conftest import battery_frame

LABELS = {"good": " good", "bad": "?"}
METRIC = label_difference(LABELS, "good", "bad")
SHORT = {"good": "!", "bad": "?"}  # of one token: nothing is read at tokens that no interchange reaches
SHORT_METRIC = label_difference(SHORT, "good", "bad")
D = 32  # of tiny models


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def planted(n: int = 300, d: int = 12, k: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated activations whose classes have different means."""
    draw = rng(seed)
    y = np.arange(n) % k
    x = draw.normal(size=(n, d)) @ draw.normal(size=(d, d)) + 3.0 * draw.normal(size=(k, d))[y] + 5.0
    return x, y


def means(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack([x[y == k].mean(0) for k in np.unique(y)])


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("n", "d", "k"), [(300, 12, 2), (300, 12, 5), (20, 60, 2), (20, 60, 4)])
def test_no_linear_reader_beats_the_constant_where_the_eraser_was_fitted(
    n: int, d: int, k: int, shrinkage: float
) -> None:
    x, y = planted(n, d, k)
    eraser = Leace.fit(x, y, shrinkage=shrinkage)
    left = eraser.erase(x)
    assert eraser.rank == k - 1
    assert np.abs(means(x, y) - x.mean(0)).max() > 0.5
    assert np.abs(means(left, y) - x.mean(0)).max() < 1e-8
    assert np.abs((left - left.mean(0)).T @ np.eye(k)[y]).max() / n < 1e-8
    before, after = (LogisticRegression(C=1e3, max_iter=5000).fit(one, y) for one in (x, left))
    assert before.score(x, y) > 0.9
    assert np.abs(after.coef_).max() < 1e-5
    assert after.score(left, y) == pytest.approx(1 / k)


def test_numbers_and_several_of_them_are_erased_as_well() -> None:
    draw = rng()
    z = draw.normal(size=(200, 2))
    x = draw.normal(size=(200, 9)) + z @ draw.normal(size=(2, 9))
    assert Leace.fit(x, z[:, 0]).rank == 1
    for concept in (z[:, 0], z):
        left = Leace.fit(x, concept).erase(x)
        assert np.abs((left - left.mean(0)).T @ concept).max() < 1e-9
        assert np.abs((x - x.mean(0)).T @ concept).max() > 1


def test_it_is_the_published_formula() -> None:
    for n, d in ((200, 8), (15, 30)):
        x, y = planted(n, d, 3)
        z, centred = np.eye(3)[y], x - x.mean(0)
        sigma = centred.T @ centred / n
        white = pinvh(np.real(sqrtm(sigma + 1e-15 * np.eye(d))), atol=1e-5)
        a = white @ (centred.T @ (z - z.mean(0)) / n)
        theirs = x - (pinvh(white, atol=1e-7) @ (a @ np.linalg.pinv(a, rcond=1e-8)) @ white @ centred.T).T
        assert np.allclose(Leace.fit(x, y).erase(x), theirs, atol=1e-5)


def test_no_other_linear_eraser_with_the_guarantee_changes_less() -> None:
    x, y = planted(200, 8, 3)
    centred = x - x.mean(0)
    inverse = np.linalg.inv(centred.T @ centred / len(x))
    eraser = Leace.fit(x, y)

    def changes(left: np.ndarray) -> tuple[float, float]:
        moved = x - left
        return float(((moved @ inverse) * moved).sum(1).mean()), float((moved**2).sum(1).mean())

    least = changes(eraser.erase(x))
    assert least[1] == pytest.approx(eraser.moved)
    z = np.eye(3)[y]
    shared = centred.T @ (z - z.mean(0)) / len(x)
    for seed in range(
        20
    ):  # oblique projections along any plane, orthogonal in a random metric, kill the covariance too
        root = rng(seed).normal(size=(8, 8))
        white = root @ root.T + 0.1 * np.eye(8)
        basis = np.linalg.svd(white @ shared)[0][:, :2]
        other = x - (np.linalg.inv(white) @ basis @ basis.T @ white @ centred.T).T
        assert np.abs((other - other.mean(0)).T @ z).max() < 1e-8
        assert all(mine < theirs - 1e-6 for mine, theirs in zip(least, changes(other), strict=True))
    basis = np.linalg.svd(shared)[0][:, :2]
    orthogonal = project_out(x, x.mean(0), basis)
    assert changes(orthogonal)[0] > least[0] + 1e-6
    assert np.allclose(orthogonal, Leace.fit(x, y, shrinkage=1.0).erase(x))


def test_erasing_twice_is_erasing_once_and_the_map_is_affine() -> None:
    x, y = planted(60, 90)
    eraser = Leace.fit(x, y)
    a, b = rng(1).normal(size=(2, 4, 90))
    once = eraser.erase(a)
    assert np.allclose(eraser.erase(once), once)
    assert not np.allclose(once, a)
    assert np.allclose(eraser.erase(0.3 * a + 0.7 * b), 0.3 * once + 0.7 * eraser.erase(b))
    assert np.allclose(eraser(torch.from_numpy(a)).numpy(), once)
    assert eraser(torch.from_numpy(a).float()).dtype == torch.float32


def test_a_placebo_moves_each_value_as_far_but_elsewhere() -> None:
    x, y = planted(100, 20)
    eraser = Leace.fit(x, y)
    basis = random_basis(20, 1, rng())
    rows = torch.from_numpy(x)
    mine, other = rows - eraser(rows), rows - Placebo(eraser, basis)(rows)
    assert torch.allclose(mine.norm(dim=1), other.norm(dim=1))
    assert torch.allclose(other, (other @ torch.from_numpy(basis)) @ torch.from_numpy(basis).T)


def test_bad_input_is_refused_in_a_sentence() -> None:
    x, y = planted(20, 5)
    with pytest.raises(PatchError, match="shrinkage is 2"):
        Leace.fit(x, y, shrinkage=2.0)
    with pytest.raises(PatchError, match="two values at least"):
        Leace.fit(x, np.zeros(20, dtype=int))
    with pytest.raises(PatchError, match="all finite"):
        Leace.fit(np.where(x == x[0, 0], np.nan, x), y)
    with pytest.raises(PatchError, match="All rows are the same"):
        Leace.fit(np.ones((4, 3)), np.array([0, 1, 0, 1]))
    with pytest.raises(PatchError, match="width 4; this eraser was fitted on 5"):
        Leace.fit(x, y).erase(x[:, :4])


# Reading again


def affect_stage(n: int = 160) -> Stage:
    items = battery_frame(n)
    found = stage(items, select(items, "affect"), "domain")
    assert isinstance(found, Stage)
    return found


def test_what_is_read_again_is_chance_where_the_concept_is_one_direction_and_random_subspaces_leave_it() -> None:
    question = affect_stage()
    y, draw = question.part.y, rng()
    x = draw.normal(size=(len(y), 1, 20)) + 2.0 * (y[:, None, None] - 0.5) * draw.normal(size=20)
    scores = read_scores(reread(x, question, draws=2), question, [7])
    found = Erasure(scores, pd.DataFrame(), {"layers": [7]})
    for reader in (FRESH, OLD, NETWORK):
        assert found.estimate(reader, NONE, 7).value > 0.95
        assert found.estimate(reader, RANDOM, 7).value > 0.9
        assert found.estimate(reader, "leace - random", 7).value < -0.25
    assert found.estimate(FRESH, LEACE, 7).value < 0.65
    assert found.estimate(OLD, LEACE, 7).value < 0.65
    with pytest.raises(PatchError, match="There is no fresh of 'ridge' at layer 7"):
        found.estimate(FRESH, "ridge", 7)


def test_what_an_eraser_of_few_items_missed_is_read_again_by_a_probe_of_others() -> None:
    question = affect_stage()
    y, draw = question.part.y, rng()
    x = draw.normal(size=(len(y), 1, 200)) + (y[:, None, None] - 0.5) * draw.integers(2, size=200)
    scores = read_scores(reread(x, question, draws=1, network=False), question, [0])
    found = Erasure(scores, pd.DataFrame(), {"layers": [0]})
    assert found.estimate(FRESH, LEACE, 0).low > 0.6
    assert found.estimate(OLD, LEACE, 0).value < 0.6


def test_a_concept_that_is_not_linear_survives_for_the_network() -> None:
    question = affect_stage(240)
    y, draw = question.part.y, rng()
    x = draw.normal(size=(len(y), 1, 4))
    x[:, 0, 1] = np.abs(x[:, 0, 1]) * np.sign(x[:, 0, 0]) * (2 * y - 1)  # the sign of a product
    scores = read_scores(reread(x, question, draws=1), question, [0])
    found = Erasure(scores, pd.DataFrame(), {"layers": [0]})
    assert found.estimate(FRESH, LEACE, 0).value < 0.6
    assert found.estimate(NETWORK, LEACE, 0).low > 0.55
    assert found.estimate(NETWORK, LEACE, 0).value > 0.7


@pytest.mark.parametrize(("target", "measure"), [("category", "balanced accuracy"), ("order", "concordance")])
def test_classes_and_orders_are_read_again(target: str, measure: str) -> None:
    items = battery_frame(160).assign(order=np.arange(320) % 7)
    question = stage(items, select(items, target), "domain")
    assert isinstance(question, Stage)
    y = question.part.y
    code = np.eye(8)[y] if target == "category" else y[:, None]
    x = rng().normal(size=(len(y), 2, 24)) + (2.0 * code @ rng(1).normal(size=(code.shape[1], 24)))[:, None]
    logits = reread(x, question, draws=1, network=False)
    found = Erasure(read_scores(logits, question, [0, 1]), pd.DataFrame(), {"layers": [0, 1]})
    for layer in (0, 1):
        assert found.estimate(FRESH, NONE, layer).value > 0.8
        assert found.estimate(FRESH, "leace - none", layer).value < -0.3
    assert {reader for reader, _, _ in logits} == {FRESH, OLD}


# Running without it


def texts(n: int = 8) -> list[tuple[str, str]]:
    """Pairs of one length that differ in their first words."""
    draw = rng(4)
    words = ["".join(draw.choice(list("abcdefghij"), size=5)) for _ in range(2 * n)]
    return [
        (f"The {a} ran home. It was late.", f"The {b} ran home. It was late.")
        for a, b in zip(words[::2], words[1::2], strict=True)
    ]


def lasts(direction: np.ndarray, layer: int = 1) -> Metric:
    """The projection of the last token's stream on a planted direction."""
    u = torch.from_numpy(direction)
    return Metric(
        "planted projection", lambda r: r.streams[layer][:, len(r.side) - 1].double() @ u, unit="norm",
        layers=frozenset({layer}),
    )  # fmt: skip


def one_direction(u: np.ndarray) -> Leace:
    """An eraser of one direction, by hand."""
    return Leace(np.zeros(len(u)), u[:, None], u[:, None], 1.0)


def runs_of(model: LensModel, metric: Metric, erasers: dict[int, Leace], *, together: bool = False) -> pd.DataFrame:
    engine = Engine(model)
    pairs = prepare(model, texts(3), labels=metric.labels or None)
    every = {pair.group: erasers for pair in pairs}
    return use(engine, Job(engine, [metric], ()), pairs, every, together=together, draws=2, progress=False)


def test_erasing_the_planted_direction_takes_the_metric_and_an_unrelated_one_leaves_it(llama: LensModel) -> None:
    u, v = np.linalg.qr(rng().normal(size=(D, 2)))[0].T
    for direction, share in ((u, 1.0), (v, 0.0)):
        runs = runs_of(llama, lasts(u), {1: one_direction(direction)})
        scores, gap = use_scores(runs, 0)
        found = Erasure(scores, runs, {})
        before = runs[runs["method"] == NONE]
        after = runs[(runs["method"] == LEACE) & (runs["layer"] == 1)]
        assert np.allclose(after["value"], (1 - share) * before["value"].to_numpy(), atol=1e-5)
        random = runs[(runs["method"] == RANDOM) & (runs["draw"] == 1)]
        assert np.abs(random["value"].to_numpy() - before["value"].to_numpy()).min() > 1e-4
        assert np.abs(random["value"].to_numpy() - after["value"].to_numpy()).min() > 1e-4
        unit = 1.0 if gap.low > 0 or gap.high < 0 else gap.value
        assert found.estimate("lost", LEACE, 1).value == pytest.approx(share * unit, abs=1e-5)
        assert found.estimate("loss", LEACE, 1).value != 0
        assert found.estimate("moved", LEACE, 1).value == pytest.approx(share * before["value"].abs().mean(), abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("together", [False, True])
def test_runs_without_a_concept_are_hooked_forwards(family: str, together: bool) -> None:
    model = tiny_model(family)
    x, y = planted(40, D)
    erasers = {layer: Leace.fit(x + layer, y) for layer in (0, 1)}
    runs = runs_of(model, METRIC, erasers, together=together)
    pair = prepare(model, texts(3), labels=LABELS)[1]
    edits: list[tuple[int, dict[Site, Callable[[Tensor, object], Tensor]]]]
    acts = {layer: (lambda value, _, one=one: one(value)) for layer, one in erasers.items()}
    if together:
        edits = [(TOGETHER, {Site("resid_post", layer): act for layer, act in acts.items()})]
    else:
        edits = [(layer, {Site("resid_post", layer): act}) for layer, act in acts.items()]
    plain = runs[(runs["method"] == NONE) & (runs["pair"] == pair.name) & (runs["side"] == "clean")].iloc[0]
    for layer, changes in edits:
        here = runs[(runs["pair"] == pair.name) & (runs["method"] == LEACE) & (runs["layer"] == layer)]
        row = here[here["side"] == "clean"].iloc[0]
        text = texts(3)[1][0]
        with al.edit(model, changes), torch.no_grad():
            scores = al.label_logprobs(model, [text], LABELS, progress=False)
            ids = torch.tensor([pair.clean.prompt.ids])
            logits = model.hf(input_ids=ids).logits[0, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:])
        assert row["value"] == pytest.approx(scores.difference("good", "bad")[0], abs=1e-4)
        assert row["loss"] == pytest.approx(float(loss), abs=1e-4)
        assert abs(plain["loss"] - row["loss"]) > 1e-3


def test_the_loss_is_of_the_text_and_not_of_its_cue(llama: LensModel) -> None:
    engine = Engine(llama)
    u = rng().normal(size=D)
    made = []
    for cue in ("", " It felt"):
        pairs = prepare(llama, texts(1), labels=LABELS, cue=cue)
        erasers = {pairs[0].group: {0: one_direction(u / np.linalg.norm(u))}}
        made.append(use(engine, Job(engine, [METRIC], ()), pairs, erasers, draws=1, progress=False))
    assert np.allclose(made[0]["loss"], made[1]["loss"], atol=1e-4)
    assert not np.allclose(made[0]["value"], made[1]["value"], atol=1e-4)


def test_erasers_of_several_layers_are_fitted_on_what_the_lower_ones_leave(llama: LensModel) -> None:
    items = pd.DataFrame({"id": [f"t{i}" for i in range(12)], "text": [a for pair in texts(6) for a in pair]})
    items = items.assign(ending=0)
    y = np.arange(12) % 2
    layouts, prompts = encode(llama, items)
    engine, rule = Engine(llama), Position.parse("mean")
    begun = [begin(engine, p, lay, 0, rule) for p, lay in zip(prompts, layouts, strict=True)]
    found = fit_through(engine, begun, y, [0, 1])
    first = al.capture(llama, as_table(items), sites="L0.resid_post", positions="mean", progress=False).at()[:, 0]
    assert np.allclose(found[0].erase(first), Leace.fit(first, y).erase(first), atol=1e-4)
    with al.edit(llama, {"L0.resid_post": lambda value, _: found[0](value)}):
        second = al.capture(llama, as_table(items), sites="L1.resid_post", positions="mean", progress=False).at()[:, 0]
    assert np.allclose(found[1].erase(second), Leace.fit(second, y).erase(second), atol=1e-4)
    assert np.abs(means(found[1].erase(second), y)[0] - means(found[1].erase(second), y)[1]).max() < 1e-4


def story(n: int = 16) -> TextTable:
    """A small battery with texts of its own."""
    frame = battery_frame(n).drop(columns="cell")
    draw = rng(3)
    words = ["".join(draw.choice(list("abcdefgh"), size=4)) for _ in range(len(frame))]
    told = [f"A {word} {role[:4]} came. So it went." for word, role in zip(words, frame["role"], strict=True)]
    return as_table(frame.assign(text=told))


@pytest.mark.parametrize("together", [False, True])
def test_erase_answers_both_questions_and_leaves_the_model_as_it_was(llama: LensModel, together: bool) -> None:
    battery = story()
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in vars(m)) for m in llama.hf.modules()]
    with torch.no_grad():
        before = llama.hf(input_ids=torch.arange(9)[None]).logits
    found = erase(llama, battery, "affect", layers=(0, 1), metric=METRIC, cue=" I", n_pairs=5, draws=2, network=False,
                  together=together, progress=False)  # fmt: skip
    with torch.no_grad():
        assert torch.equal(before, llama.hf(input_ids=torch.arange(9)[None]).logits)
    assert hooks == [
        (len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in vars(m)) for m in llama.hf.modules()
    ]
    assert found.estimate(OLD, "leace - none", 1).value < -0.2
    assert set(found.runs["layer"]) == ({TOGETHER} if together else {TOGETHER, 0, 1})
    assert found.runs["pair"].nunique() == 5
    assert not found.runs.duplicated(["pair", "side", "method", "layer", "draw"]).any()
    at = TOGETHER if together else 1
    assert found.estimate("loss", LEACE, at).n == 5
    assert len(found.summary()) == 2 + 1 + (1 if together else 2)
    assert "<table" in found._repr_html_()
    assert len(found.plot().to_dict()["data"]) == 7
    assert found.table().notna().all().all()


def test_erasers_never_see_the_groups_that_are_run(llama: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    battery = story()
    acts = al.capture(llama, battery, positions=("mean", "ending"), progress=False)
    items = battery.frame()
    question = stage(items, select(items, "affect"), "domain")
    assert isinstance(question, Stage)
    seen: dict[str, dict[int, Leace]] = {}

    def spy(
        engine: Engine, job: Job, pairs: list[PatchPair], erasers: dict[str, dict[int, Leace]], **given: Any
    ) -> pd.DataFrame:
        seen.update(erasers)
        return use(engine, job, pairs, erasers, **given)

    monkeypatch.setattr("affectlens.patching.subspaces.erasing.use", spy)
    erase(llama, battery, layers=[1], metric=METRIC, n_pairs=6, draws=1, network=False, progress=False)
    assert len(seen) == 6
    domain = dict(zip(items["group"], items["domain"], strict=True))
    assert len({domain[group] for group in seen}) == 6
    x = acts.at("mean")[question.part.rows][:, 1]
    for group, erasers in seen.items():
        other = (question.asked.items["domain"] != domain[group]).to_numpy()
        left = erasers[1].erase(x)
        assert np.abs(np.subtract(*means(left[other], question.part.y[other]))).max() < 1e-8
        assert np.abs(np.subtract(*means(left[~other], question.part.y[~other]))).max() > 1e-4


def test_erase_refuses_what_it_cannot_do(llama: LensModel) -> None:
    battery = story()
    with pytest.raises(PatchError, match="layers are \\[0, 2\\]; .* has layers 0 to 1"):
        erase(llama, battery, layers=(0, 2))
    with pytest.raises(PatchError, match="each must be 1 or more"):
        erase(llama, battery, draws=0)
    with pytest.raises(BatteryError, match="no target"):
        erase(llama, battery, "colour")
    strangers = prepare(llama, texts(2), labels=LABELS)
    with pytest.raises(PatchError, match="No pair is of the target's groups"):
        erase(llama, battery, layers=[1], metric=METRIC, pairs=strangers, network=False, progress=False)


# Interchanging subspaces


def exchanges(model: LensModel, metric: Metric, layer: int, segment: str, n: int = 8) -> list[Exchange]:
    job = Job(Engine(model), [metric], ())
    pairs = prepare(model, texts(n), labels=metric.labels or None)
    return [Exchange.of(job, pair, layer, segment) for pair in pairs]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", [0, 1])
def test_an_interchange_is_a_hooked_forward(family: str, layer: int) -> None:
    model = tiny_model(family)
    one = exchanges(model, METRIC, layer, "all", 1)[0]
    basis = torch.from_numpy(random_basis(D, 20, rng()))
    base = texts(1)[0][1]
    with torch.no_grad(), al.record(model, f"L{layer}.resid_post") as seen:
        model.hf(input_ids=torch.tensor([one.pair.clean.prompt.ids]))
    source = seen[f"L{layer}.resid_post"][0]
    there, at = (list(places) for places in zip(*one.pair.segments["all"], strict=True))

    def swap(value: Tensor, cursor: object) -> Tensor:
        new = value.clone()
        if value.shape[1] > max(at):  # not in the short passes that continue with a verbaliser
            part = basis.to(value)
            new[:, at] += ((source[there] - value[:, at]) @ part) @ part.T
        return new

    with al.edit(model, {f"L{layer}.resid_post": swap}):
        found = al.label_logprobs(model, [base], LABELS, progress=False).difference("good", "bad")[0]
    with torch.no_grad():
        mine = one.values([within(basis), whole]).tolist()
    assert mine[0] == pytest.approx(found, abs=1e-4)
    assert abs(mine[0] - one.start) > 1e-4
    short = exchanges(model, SHORT_METRIC, layer, "all", 1)[0]
    with torch.no_grad():  # texts of one length: all from the first difference on is all that differs
        assert short.values([whole]).item() == pytest.approx(short.aim, abs=1e-4)
    assert abs(short.aim - short.start) > 1e-4


def test_gradients_are_those_of_finite_differences(llama: LensModel) -> None:
    model = replace_double(llama)
    one = exchanges(model, lasts(rng(5).normal(size=D)), 0, "changed", 1)[0]
    basis = torch.from_numpy(random_basis(D, 2, rng())).requires_grad_()
    way = torch.from_numpy(rng(1).normal(size=(D, 2)))
    (gradient,) = torch.autograd.grad(one.values([within(basis)]).sum(), [basis])
    step = 1e-3  # some norms compute in float32
    with torch.no_grad():
        up, down = one.values([within(basis + step * way), within(basis - step * way)])
    assert float((gradient * way).sum()) == pytest.approx(float((up - down) / (2 * step)), rel=5e-3)


def replace_double(model: LensModel) -> LensModel:
    """The tiny model in float64, of its own."""
    fresh = tiny_model("llama")
    return al.load_model(model=fresh.hf.double(), tokenizer=fresh.tokenizer, check=False)


def spelt(n: int) -> list[tuple[str, str]]:
    """Pairs that differ in six letters of a small alphabet, so that differences lie in few directions."""
    words = ["".join(rng(4 + i).choice(list("abcdef"), size=6)) for i in range(2 * n)]
    return [(f"The {a} ran home.", f"The {b} ran home.") for a, b in zip(words[::2], words[1::2], strict=True)]


@pytest.fixture(scope="module")
def found(llama: LensModel) -> tuple[np.ndarray, SubspaceSearch]:
    """A metric that is a projection, at the letters, on a direction along which texts differ; and the search for it."""
    job = Job(Engine(llama), [lasts(np.ones(D))], ())
    every = [Exchange.of(job, pair, 1, "changed") for pair in prepare(llama, spelt(40))]
    axes = torch.linalg.svd(torch.cat([one.source - one.here for one in every]).double()).Vh
    u = (axes[0] + axes[1] + axes[2]) / 3**0.5
    metric = Metric("planted projection", lambda r: r.streams[1][:, 4:10].double().sum(1) @ u, unit="norm",
                    layers=frozenset({1}))  # fmt: skip
    out = das(llama, spelt(40), metric=metric, layer=1, segment="changed", sizes=(1, 2), epochs=10, rate=0.3, draws=4,
              progress=False)  # fmt: skip
    return u.numpy(), out


def test_the_search_finds_the_planted_direction_and_its_controls_do_not(
    found: tuple[np.ndarray, SubspaceSearch],
) -> None:
    u, out = found
    for bases in out.bases:
        assert abs(u @ bases[1][:, 0]) > 0.95
        assert np.linalg.norm(u @ bases[2]) > 0.95
        assert np.allclose(bases[2].T @ bases[2], np.eye(2), atol=1e-5)
    off = (out.rows["value"] - out.rows["clean"]).abs().groupby(out.rows["method"]).mean()
    off /= (out.rows["clean"] - out.rows["corrupt"]).abs().mean()
    assert max(off["das"], off["das_natural"]) < 0.15
    assert off["site"] < 0.05
    assert min(off["random"], off["turned"], off["mean_difference"]) > 0.5


def test_pairs_are_tested_by_what_was_found_without_them(found: tuple[np.ndarray, SubspaceSearch]) -> None:
    _, out = found
    folds = out.rows.groupby("group")["fold"].nunique()
    assert (folds == 1).all()
    assert len(folds) == 40
    assert out.rows.groupby("fold")["group"].nunique().tolist() == [20, 20]
    assert not np.allclose(out.bases[0][1], out.bases[1][1])


def test_no_group_is_both_searched_and_tested(llama: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []

    def spy(name: str) -> None:
        kept = getattr(searching, name)

        def act(pairs: list[Exchange], *given: Any, **named: Any) -> Any:
            seen.append({one.pair.group for one in pairs})
            return kept(pairs, *given, **named)

        monkeypatch.setattr(searching, name, act)

    spy("search")
    spy("judge")
    das(
        llama,
        spelt(6),
        metric=METRIC,
        layer=0,
        segment="changed",
        sizes=[1],
        epochs=1,
        draws=1,
        folds=3,
        progress=False,
    )
    assert [len(groups) for groups in seen] == [4, 2] * 3
    assert all(not train & held for train, held in zip(seen[::2], seen[1::2], strict=True))
    assert set().union(*seen[1::2]) == {f"pair{i}" for i in range(6)}


def test_effects_are_ratios_of_means_with_pairs_of_their_own(found: tuple[np.ndarray, SubspaceSearch]) -> None:
    _, out = found
    rows = out.rows.copy()
    rows["clean"], rows["corrupt"] = 2.0 + 0.1 * rows["pair"].astype("category").cat.codes, 0.0
    rows["value"] = rows["clean"] * rows["method"].map({"das": 0.6, "random": 0.1}).fillna(0.0)
    rows.loc[rows["method"] == "site", "value"] = rows["clean"]
    made = replace(out, rows=rows)
    assert made.normalised
    assert made.effect("das", 1).value == pytest.approx(0.6)
    assert made.effect("das", 1, beside="random").value == pytest.approx(0.5)
    assert made.effect("site").value == pytest.approx(1.0)
    even = rows.assign(clean=np.where(rows["pair"].astype("category").cat.codes % 2, 1.0, -1.0), value=0.3)
    none = replace(out, rows=even)
    assert not none.normalised
    assert none.effect("das", 1).value == pytest.approx(0.3)  # in the metric's unit
    assert "may be zero" in none.summary()[0]
    with pytest.raises(PatchError, match="'das' with 3 dimensions was not run"):
        out.effect("das", 3)


def test_a_search_says_and_draws_itself(found: tuple[np.ndarray, SubspaceSearch]) -> None:
    _, out = found
    table = out.table()
    assert set(table["method"]) == {"das", "das_natural", "turned", "random", "mean_difference", "site"}
    assert (table["effect_low"] <= table["effect"]).all()
    assert len(out.summary()) == 3
    assert "<table" in out._repr_html_()
    drawn = [trace["name"] for trace in out.plot().to_dict()["data"] if trace.get("showlegend", True)]
    assert drawn[0] == "search"
    assert len(drawn) == 6


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_all_of_a_site_carries_all_of_the_gap_in_both_directions(llama: LensModel, direction: str) -> None:
    out = das(llama, texts(8), metric=SHORT_METRIC, layer=0, segment="all", sizes=[1], epochs=1, draws=1, turned=False,
              direction=direction, progress=False)  # fmt: skip
    site = out.rows[out.rows["method"] == "site"]
    assert np.allclose(site["value"], site["clean" if direction == "denoise" else "corrupt"], atol=1e-4)
    part = site["value"] - site["corrupt"] if direction == "denoise" else site["clean"] - site["value"]
    assert np.allclose(part, site["clean"] - site["corrupt"], atol=1e-4)
    labels = [al.label_logprobs(llama, [a], SHORT, progress=False).difference("good", "bad")[0] for a, _ in texts(8)]
    assert np.allclose(sorted(site["clean"]), sorted(labels), atol=1e-4)


def test_das_leaves_the_model_as_it_was(llama: LensModel) -> None:
    def state() -> list[tuple[int, int, bool]]:
        return [(len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in vars(m)) for m in llama.hf.modules()]

    before = state()
    das(llama, texts(4), metric=METRIC, layer=0, sizes=[1], epochs=1, draws=1, progress=False)
    assert state() == before
    assert all(p.grad is None for p in llama.hf.parameters())


def test_das_refuses_what_it_cannot_do(llama: LensModel) -> None:
    pairs = texts(4)
    cases: list[tuple[str, dict[str, object]]] = [
        ("Layer 2 does not exist", {"layer": 2}),
        ("no segment 'middle'", {"segment": "middle"}),
        ("sizes are \\(0,\\)", {"sizes": (0,)}),
        ("direction is 'both'", {"direction": "both"}),
        ("3 folds of 4 groups", {"folds": 3}),
        ("each must be 1 or more", {"epochs": 0}),
        ("reads nothing above layer 1", {"metric": lasts(np.ones(D), 0)}),
    ]
    for message, given in cases:
        with pytest.raises(PatchError, match=message):
            das(llama, pairs, **({"metric": METRIC, "layer": 1, "progress": False} | given))  # type: ignore[arg-type]
    with pytest.raises(PatchError, match="the same in both texts"):
        constant = Metric("constant", lambda r: 0 * METRIC(r), labels=LABELS)
        das(llama, pairs, metric=constant, layer=0, progress=False)


# What is natural


def test_a_direction_that_borrows_a_dormant_one_is_seen(llama: LensModel) -> None:
    draw = rng()
    axis, dormant = np.eye(D)[0], np.eye(D)[D - 1]
    scale = np.array([3.0] * 6 + [0.01] * (D - 6))
    like = exchanges(llama, METRIC, 0, "all", 8)
    rows = [torch.from_numpy(draw.normal(size=(2, len(one.at), D)) * scale) for one in like]
    made = [replace(one, source=pair[0], here=pair[1]) for one, pair in zip(like, rows, strict=True)]
    natural = Natural.of(made)
    illusion = torch.from_numpy((axis + dormant)[:, None] / np.sqrt(2))
    plain = torch.from_numpy(axis[:, None])
    assert natural.used == 6
    assert natural.chance == pytest.approx(6 / D)
    assert natural.share(plain) == pytest.approx(1.0, abs=1e-3)
    assert natural.share(illusion) == pytest.approx(0.5, abs=1e-2)
    assert abs(float(natural.part(illusion)[:, 0] @ plain[:, 0])) > 0.99
    strain = {
        name: np.mean([natural.strain(within(basis)(one.source - one.here), 1) for one in made])
        for name, basis in (("plain", plain), ("illusion", illusion))
    }
    assert strain["plain"] == pytest.approx(1.0, abs=0.2)
    assert strain["illusion"] > 5
    assert natural.spread(plain) > 1.5 > 0.2 > natural.spread(torch.from_numpy(dormant[:, None]))


def test_ratios_weigh_groups() -> None:
    clusters = Clusters(["a", "b", "a"])
    ratio = clusters.ratio(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0]))
    assert ratio(np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 2.0]])) == pytest.approx([1.0, 1.0, 1.0])
    assert clusters.mean(np.array([1.0, 5.0, 3.0]))(np.array([[1.0, 0.0], [0.0, 1.0]])) == pytest.approx([2.0, 5.0])


def test_pairs_without_the_segment_are_named(llama: LensModel) -> None:
    pair: PatchPair = prepare(llama, texts(1), labels=LABELS)[0]
    with pytest.raises(PatchError, match="no matched tokens in segment 'cue'"):
        Exchange.of(Job(Engine(llama), [METRIC], ()), pair, 0, "cue")


@pytest.mark.real
def test_on_real_weights_a_run_without_a_concept_is_a_hooked_forward(smol: LensModel) -> None:
    draw = rng()
    x = draw.normal(size=(40, smol.d_model)) + 2.0 * (np.arange(40) % 2)[:, None] * draw.normal(size=smol.d_model)
    eraser = Leace.fit(x, np.arange(40) % 2)
    labels = {"good": " good", "bad": " bad"}
    pairs = prepare(smol, [("She won. It was", "She lost. It was")], labels=labels)
    engine, metric = Engine(smol), label_difference(labels, "good", "bad")
    runs = use(engine, Job(engine, [metric], ()), pairs, {pairs[0].group: {14: eraser}}, draws=1, progress=False)
    with al.edit(smol, {"L14.resid_post": lambda value, _: eraser(value)}):
        theirs = al.label_logprobs(smol, ["She won. It was", "She lost. It was"], labels, progress=False)
    mine = runs[runs["method"] == LEACE].set_index("side")["value"]
    assert np.allclose(mine[["clean", "corrupt"]], theirs.difference("good", "bad"), atol=1e-3)
