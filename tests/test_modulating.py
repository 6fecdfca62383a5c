"""Laws of modulation: gain 1 is the identity, gain 0 mean ablation; caching, batching, padding never matter."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from affectlens.capturing import capture
from affectlens.circuits.graph import EDGES, CircuitGraph
from affectlens.circuits.modulating import Modulation, modulate, modulation_of
from affectlens.circuits.modulating.parts import placebos_of
from affectlens.circuits.space import EdgeSpace
from affectlens.cursors import Cursor
from affectlens.errors import CircuitError, SteerError
from affectlens.hooks import edit, record
from affectlens.model import LensModel, load_model
from affectlens.sites import Site
from affectlens.steering import steer, stream, write
from affectlens.steering.evaluating.rows import Row, Scaling, added, write_rows
from affectlens.steering.side_by_side import beside
from affectlens.stimuli.battery import load_battery
from affectlens.testing import FAMILIES, tiny_hf, tiny_model, tiny_tokenizer

PROMPTS = ["The door was open.", "A longer prompt that was written for the purpose of padding."]
PARTS = {"L0.H1": 0.5, "L0.H3": -0.25, "L1.H2": 0.1, "L0.N7": 0.3, "L1.N60": -0.2, "L1.mlp_out": 0.4}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> LensModel:
    return tiny_model(request.param)


@pytest.fixture(scope="module")
def made(model: LensModel) -> Modulation:
    return modulation_of(model, PARTS, emotion="grief", battery="starter", progress=False)


def batch(model: LensModel, texts: list[str], side: str = "left") -> dict[str, Tensor]:
    return dict(model.tokenizer(texts, return_tensors="pt", padding=True, padding_side=side))


def logits_of(model: LensModel, n: int = 6, texts: list[str] | None = None, **how: Any) -> list[Tensor]:
    """The logits of each step of greedy generation, and the tokens."""
    out = model.hf.generate(
        **batch(model, texts or PROMPTS), max_new_tokens=n, min_new_tokens=n, do_sample=False, pad_token_id=2,
        output_logits=True, return_dict_in_generate=True, **how,
    )  # fmt: skip
    return [*out.logits, out.sequences[:, -n:].float()]


def close(a: list[Tensor], b: list[Tensor]) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, atol=1e-4, rtol=0)


def test_gain_one_and_dose_zero_are_bitwise_the_identity(model: LensModel, made: Modulation) -> None:
    plain, hooks = logits_of(model), sum(len(m._forward_hooks) for m in model.hf.modules())
    with modulate(model, made, gain=1.0, replace=0.0) as steering:
        assert sum(len(m._forward_hooks) for m in model.hf.modules()) == hooks
        same = logits_of(model)
    assert steering.plan.is_nothing
    assert all(torch.equal(a, b) for a, b in zip(plain, same, strict=True))
    with modulate(model, made, gain=1.5):
        assert not torch.equal(plain[0], logits_of(model)[0])
    assert all(torch.equal(a, b) for a, b in zip(plain, logits_of(model), strict=True)), "the model is as it was"


def by_hand(made: Modulation, act: Callable[[Tensor, Tensor, Tensor], Tensor]) -> dict[str, Any]:
    """Edits of single parts, written without the operator: what ``act`` makes of value and means."""

    def one(name: str) -> Callable[[Tensor, Cursor], Tensor]:
        part = Site.parse(name)
        means = [torch.as_tensor(m[f"L{part.layer}.{part.kind}"], dtype=torch.float32)
                 for m in (made.neutral, made.target)]  # fmt: skip
        mine = [m if part.index is None else m[part.index] for m in means]

        def change(value: Tensor, cursor: Cursor) -> Tensor:
            later = cursor.positions > 0
            later = later if value.ndim == 2 else later[..., None]
            return torch.where(later, act(value, *mine), value)

        return change

    return {name: one(name) for name in made.parts}


@pytest.mark.parametrize(
    ("how", "act"),
    [
        ({"gain": 0.0}, lambda z, m, _e: m.expand_as(z)),
        ({"gain": 2.5}, lambda z, m, _e: m + 2.5 * (z - m)),
        ({"replace": 1.0, "by": "set"}, lambda z, _m, e: e.expand_as(z)),
        ({"replace": 0.4, "by": "set"}, lambda z, _m, e: z + 0.4 * (e - z)),
    ],
    ids=["mean ablation", "gain", "set", "halfway"],
)
def test_it_is_what_edits_by_hand_do(model: LensModel, made: Modulation, how: dict[str, Any], act: Any) -> None:
    with edit(model, by_hand(made, act)):
        expected = logits_of(model)
    with modulate(model, made, **how):
        found = logits_of(model)
    close(found, expected)


def test_shift_adds_what_the_emotion_adds_on_average(model: LensModel, made: Modulation) -> None:
    given = batch(model, PROMPTS[:1])
    with record(model, "L0.z") as plain:
        model.hf(**given)
    with modulate(model, made, replace=3.0), record(model, "L0.z") as seen:
        model.hf(**given)
    moved = (seen["L0.z"] - plain["L0.z"])[0]
    expected = np.zeros_like(made.neutral["L0.z"])
    expected[[1, 3]] = 3 * (made.target["L0.z"] - made.neutral["L0.z"])[[1, 3]]
    torch.testing.assert_close(moved, torch.as_tensor(expected).expand_as(moved), atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", [{"gain": 3.0}, {"replace": 4.0}, {"gain": 0.2, "replace": 0.5, "by": "set"},
                                 {"gain": 3.0, "positions": "response"}], ids=str)  # fmt: skip
def test_caching_and_batching_never_matter(model: LensModel, made: Modulation, how: dict[str, Any]) -> None:
    with modulate(model, made, **how):
        cached, uncached = logits_of(model), logits_of(model, use_cache=False)
        single = logits_of(model, texts=PROMPTS[:1])
    close(cached, uncached)
    close([step[:1] for step in cached], single)


def test_padding_on_either_side_is_the_same(model: LensModel, made: Modulation) -> None:
    with modulate(model, made, gain=0.0, replace=1.0), torch.inference_mode():
        found = []
        for side in ("left", "right"):
            given = batch(model, PROMPTS, side)
            places = (given["attention_mask"].cumsum(1) - 1).clamp(min=0)
            logits = model.hf(**{**given, "position_ids": places}).logits
            found.append([row[mask.bool()] for row, mask in zip(logits, given["attention_mask"], strict=True)])
    close(*found)


def test_only_the_named_heads_change(model: LensModel) -> None:
    one = modulation_of(model, ["L1.H2"], emotion="sadness", battery="starter", progress=False)
    given = batch(model, PROMPTS)
    with record(model, ["L0.z", "L1.z"]) as plain:
        model.hf(**given)
    with modulate(model, one, gain=0.0), record(model, ["L0.z", "L1.z"]) as seen:
        model.hf(**given)
    assert torch.equal(plain["L0.z"], seen["L0.z"])
    assert torch.equal(plain["L1.z"][:, :, [0, 1, 3]], seen["L1.z"][:, :, [0, 1, 3]])
    first = given["attention_mask"].cumsum(1) == 1
    changed = (plain["L1.z"][:, :, 2] != seen["L1.z"][:, :, 2]).any(-1)
    assert torch.equal(changed, given["attention_mask"].bool() & ~first), "padding and the first token are left alone"


def test_rows_of_a_batch_are_each_modulated_as_alone(model: LensModel, made: Modulation) -> None:
    """The evaluation's batches, in which every row has a gain of its own, write what steer writes."""
    from affectlens.circuits.modulating.extents import addition
    from affectlens.generating import Decoding
    from affectlens.layouts import lay_out
    from affectlens.texts import as_table

    prompts = lay_out(model, as_table(PROMPTS).frame())
    asked = [(0, "scale", 0.5), (1, "scale", -1.0), (1, "replace", 2.0), (0, "plain", 0.0)]
    rows = [Row(i, addition(made, way, dose) if dose else {}) for i, way, dose in asked]
    found = write_rows(model, prompts, rows, Decoding(8, seed=0), progress=False)
    for ids, (i, way, dose) in zip(found, asked, strict=True):
        plan = made.plan(1 + dose) if way == "scale" else made.plan(replace=dose)
        text = write(model, [PROMPTS[i]], doses=plan, max_new_tokens=8, chat=False, progress=False)[0]
        assert model.tokenizer.decode(ids, skip_special_tokens=True) == text
    assert any(isinstance(change, Scaling) for change in rows[0].addition.values())
    given = batch(model, [PROMPTS[i] for i, _, _ in asked])
    with added(model, [row.addition for row in rows]), torch.inference_mode():
        together = model.hf(**given).logits
    for row, (_, way, dose) in enumerate(asked):
        alone = made.plan(1 + dose) if way == "scale" else made.plan(replace=dose)
        with steer(model, alone), torch.inference_mode():
            real = given["attention_mask"][row].bool()
            torch.testing.assert_close(together[row][real], model.hf(**given).logits[row][real], atol=1e-4, rtol=0)


def test_means_are_of_the_scenes_that_are_meant(llama: LensModel) -> None:
    battery = load_battery("starter")
    items = battery.frame()
    mine = items[(items["emotion"] == "joy") & (items["role"] == "emotional")]["group"].unique()[:2].tolist()
    found = modulation_of(llama, ["L0.H1"], emotion="joy", battery=battery, groups=mine, progress=False)
    rows = items[items["group"].isin(mine) & (items["role"] == "neutral") & (items["emotion"] == "joy")]
    values = []
    for text in rows["text"]:
        with record(llama, "L0.z") as seen:
            llama.hf(**batch(llama, [text]))
        values.append(seen["L0.z"][0, 1:].mean(0).detach().numpy())
    np.testing.assert_allclose(found.neutral["L0.z"], np.mean(values, axis=0), atol=1e-5)
    assert set(found.groups) == set(mine)
    other = modulation_of(llama, ["L0.H1"], emotion="joy", battery=battery, progress=False)
    assert not np.allclose(found.neutral["L0.z"], other.neutral["L0.z"], atol=1e-5)


def test_weights_follow_effects_and_signs(llama: LensModel) -> None:
    def weights(**how: Any) -> list[float]:
        found = modulation_of(llama, {"L0.H1": 0.5, "L0.H3": -0.25}, emotion="joy", battery="starter",
                              progress=False, **how)  # fmt: skip
        return [float(one) for one in found.weights]

    assert weights() == [1.0, 1.0]
    assert weights(signed=True) == [1.0, -1.0]
    assert weights(weigh="effect") == [1.0, 0.5]
    assert weights(weigh="effect", signed=True) == [1.0, -0.5]
    assert weights(top=1) == [1.0]
    signed = modulation_of(llama, {"L0.H1": 0.5, "L0.H3": -0.25}, emotion="joy", battery="starter", signed=True,
                           progress=False)  # fmt: skip
    given = batch(llama, PROMPTS[:1])
    with record(llama, "L0.z") as plain:
        llama.hf(**given)
    with modulate(llama, signed, gain=1.5), record(llama, "L0.z") as seen:
        llama.hf(**given)
    mean = torch.as_tensor(signed.neutral["L0.z"])
    for head, gain in ((1, 1.5), (3, 0.5), (0, 1.0)):
        expected = mean[head] + gain * (plain["L0.z"][0, 1:, head] - mean[head])
        torch.testing.assert_close(seen["L0.z"][0, 1:, head], expected, atol=1e-5, rtol=0)


def test_a_graph_gives_its_nodes(llama: LensModel) -> None:
    space = EdgeSpace.of(llama)
    rows = [
        ("embedding", "L0.H1.q", 9.0),
        ("L0.H1", "L1.mlp_in", 0.1),
        ("L0.H1", "end", 0.2),
        ("L1.mlp_out", "end", -0.4),
    ]
    edges = pd.DataFrame(rows, columns=["sender", "receiver", "score"]).reindex(columns=EDGES)
    nodes = pd.DataFrame({
        "node": ["L1.N7", "L1.H3", "L0.H1"], "layer": [1, 1, 0], "kind": ["neuron", "head", "head"],
        "effect": [0.7, 0.9, 0.5], "low": 0.0, "high": 1.0, "p_adjusted": 0.01,
    })  # fmt: skip
    meta = {"model": "m", "emotion": "grief", "fingerprint": llama.fingerprint}

    def effects(graph: CircuitGraph) -> dict[str, float]:
        found = modulation_of(llama, graph, battery="starter", progress=False)
        assert found.emotion == "sadness"
        return {part: float(effect) for part, effect in zip(found.parts, found.effects, strict=True)}

    some = CircuitGraph(space, edges, nodes, meta)  # the MLP has no exact effect; L1.H3 does not lie on the circuit
    assert effects(some) == pytest.approx({"L0.H1": 0.3, "L1.mlp_out": -0.4, "L1.N7": 0.7})
    alone = CircuitGraph(space, edges.iloc[:0], nodes, meta)
    assert effects(alone) == pytest.approx({"L1.H3": 0.9, "L0.H1": 0.5, "L1.N7": 0.7})
    with pytest.raises(CircuitError, match="This graph was found in"):
        modulation_of(llama, CircuitGraph(space, edges, nodes, meta | {"fingerprint": "x"}), battery="starter")


def planted() -> LensModel:
    """A llama whose head L0.H2 alone writes, and what it writes is the direction of one token's logit."""
    hf = tiny_hf("llama")
    with torch.no_grad():
        for block in hf.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        goal = torch.nn.functional.normalize(hf.lm_head.weight[ord("!")], dim=0)
        hf.model.layers[0].self_attn.o_proj.weight[:, 16] = 5 * goal  # head 2 has columns 16 to 23
        hf.lm_head.weight.mul_(4)
    return load_model(model=hf, tokenizer=tiny_tokenizer())


def test_scaling_the_head_that_writes_a_token_changes_the_choice() -> None:
    model = planted()
    head = modulation_of(model, ["L0.H2"], emotion="joy", battery="starter", progress=False)
    other = modulation_of(model, ["L0.H1"], emotion="joy", battery="starter", progress=False)
    given = batch(model, PROMPTS[:1])
    token = ord("!")

    def logit(plan: Any) -> tuple[float, int]:
        with steer(model, plan):
            found = model.hf(**given).logits[0, -1]
        return float(found[token]), int(found.argmax())

    with record(model, "L0.z") as seen:
        model.hf(**given)
    up = 1 if float(seen["L0.z"][0, -1, 2, 0]) > float(head.neutral["L0.z"][2, 0]) else -1
    gains = [logit(head.plan(1.0 + up * more)) for more in (0, 5, 400)]
    assert gains[0][0] < gains[1][0] < gains[2][0]
    assert gains[0][1] != token == gains[2][1]
    with pytest.raises(SteerError, match="changes no logit"), modulate(model, other, gain=5.0):
        pass


def test_it_is_kept_and_read_back(llama: LensModel, tmp_path: Path) -> None:
    made = modulation_of(llama, PARTS, emotion="joy", battery="starter", weigh="effect", signed=True, progress=False)
    again = Modulation.load(made.save(tmp_path / "m.safetensors"), llama)
    assert (again.parts, again.emotion, again.groups, again.facts) == (made.parts, "joy", made.groups, made.facts)
    assert list(again.neutral) == sorted(made.neutral)
    with modulate(llama, made, gain=2.0, replace=1.0):
        one = logits_of(llama)
    with modulate(llama, again, gain=2.0, replace=1.0):
        two = logits_of(llama)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    stranger = tiny_model("llama", seed=3)
    with pytest.raises(CircuitError, match="not of"):
        Modulation.load(tmp_path / "m.safetensors", stranger)
    with pytest.raises(CircuitError, match="not of"), modulate(stranger, made, gain=2.0):
        pass
    with pytest.raises(SteerError, match="This plan is for"), steer(stranger, made.plan(2.0)):
        pass
    (tmp_path / "broken").write_bytes(b"pickle")
    with pytest.raises(CircuitError, match="not a readable file"):
        Modulation.load(tmp_path / "broken")


def test_plans_go_wherever_plans_of_directions_go(llama: LensModel) -> None:
    made = modulation_of(llama, PARTS, emotion="joy", battery="starter", progress=False)
    plan = made.plan(6.0, replace=2.0)
    how: dict[str, Any] = {"max_new_tokens": 10, "chat": False}
    whole = write(llama, PROMPTS[:1], doses=plan, **how)[0]
    assert whole == "".join(stream(llama, PROMPTS[0], doses=plan, **how))
    assert whole != write(llama, PROMPTS[:1], **how)[0]
    with modulate(llama, made, gain=6.0), modulate(llama, made, replace=2.0):
        given = batch(llama, PROMPTS[:1])
        nested = llama.hf(**given).logits
    with steer(llama, made.plan(6.0) + made.plan(replace=2.0)):
        torch.testing.assert_close(llama.hf(**given).logits, nested)
    assert "times 6" in made.plan(6.0).explain()
    assert beside(llama, PROMPTS[:1], plan, max_new_tokens=4, chat=False, progress=False).pairs
    with pytest.raises(SteerError, match="no direction to read"):
        beside(llama, PROMPTS[:1], made.plan(6.0), max_new_tokens=4, chat=False, progress=False)


def test_placebos_are_other_sets_of_the_same_layers(llama: LensModel) -> None:
    made = modulation_of(llama, PARTS, emotion="joy", battery="starter", weigh="effect", signed=True, progress=False)
    draws = made.placebos(20, seed=1)
    for one in draws:
        where = [(p.kind, p.layer if p.index is not None else 0) for p in map(Site.parse, one.parts)]
        assert where == [(p.kind, p.layer if p.index is not None else 0) for p in map(Site.parse, made.parts)]
        assert len(set(one.parts)) == len(made.parts)
        assert np.array_equal(one.weights, made.weights)
    assert len({frozenset(one.parts) for one in draws} | {frozenset(made.parts)}) == 21
    assert any(set(one.parts) & set(made.parts) for one in draws), "the circuit's own parts can be drawn"
    assert [one.parts for one in made.placebos(7, seed=1)] == [one.parts for one in draws[:7]]
    facts = made.placebo_facts(20, seed=1)
    shared = [len(set(one.parts) & set(made.parts)) / len(PARTS) for one in draws]
    assert facts == {"placebos": 20, "placebo_overlap": pytest.approx(np.mean(shared)), "crowded": False}


def test_where_few_other_sets_exist_all_are_placebos(llama: LensModel) -> None:
    def made(parts: list[str]) -> Modulation:
        return modulation_of(llama, parts, emotion="joy", battery="starter", progress=False)

    one, most, every = made(["L0.H1"]), made(["L0.H0", "L0.H1", "L0.H2"]), made([f"L0.H{i}" for i in range(4)])
    assert {two.parts for two in one.placebos(39)} == {("L0.H0",), ("L0.H2",), ("L0.H3",)}
    assert one.placebo_facts(39) == {"placebos": 3, "placebo_overlap": 0.0, "crowded": False}
    assert most.placebo_facts(39) == {"placebos": 3, "placebo_overlap": pytest.approx(2 / 3), "crowded": True}
    assert every.placebos(39) == []
    assert every.placebo_facts(39) == {"placebos": 0, "placebo_overlap": None, "crowded": True}


@pytest.mark.parametrize(("size", "draws"), [(1, 39), (2, 39), (2, 19)])
def test_the_rank_among_placebos_is_exchangeable(size: int, draws: int) -> None:
    """Over all circuits of so many of nine heads, p is at most alpha no more often than alpha."""
    does = np.random.default_rng(0).normal(size=9)
    p = []
    for circuit in combinations(range(9), size):
        for seed in range(1 if draws >= 35 else 40):
            parts = [Site("z", 0, i) for i in circuit]
            found = placebos_of(parts, {"L0.z": 9}, draws, np.random.default_rng([seed, *circuit]))
            drawn = [sum(does[one.index] for one in mine if one.index is not None) for mine in found]
            p.append((1 + sum(value >= does[list(circuit)].sum() for value in drawn)) / (1 + len(drawn)))
    for alpha in (0.05, 0.1, 0.25, 0.5):
        assert np.mean(np.array(p) <= alpha + 1e-9) <= alpha + (0.01 if draws < 35 else 1e-9)


@pytest.mark.parametrize(
    ("parts", "how", "message"),
    [
        ([], {}, "can't be modulated"),
        (["L0.resid_post"], {}, "L0.resid_post can't be modulated"),
        (["L0.z"], {}, "L0.z can't be modulated"),
        ("L0.H1", {}, "Give a list"),
        (["L0.H1", "L0.H1"], {}, "named twice"),
        (["L0.H1"], {"signed": True}, "come from effects"),
        (["L0.H1"], {"top": 1}, "known effect"),
        ({"L0.H1": 1.0}, {"top": 2}, "top=2 of 1"),
        (["L0.H1"], {"weigh": "size"}, "weigh='size'"),
        (["L0.H1"], {"groups": ["nowhere"]}, "means need both"),
        (["L0.H1"], {"emotion": None}, "No emotion is named"),
    ],
)
def test_mistakes_are_said(llama: LensModel, parts: Any, how: dict[str, Any], message: str) -> None:
    with pytest.raises(CircuitError, match=message):
        given: dict[str, Any] = {"emotion": "joy", "battery": "starter", "progress": False}
        modulation_of(llama, parts, **(given | how))


def test_plans_that_make_no_sense_are_refused(llama: LensModel) -> None:
    made = modulation_of(llama, ["L0.H1"], emotion="joy", battery="starter", progress=False)
    wrong: list[dict[str, Any]] = [{"gain": float("nan")}, {"replace": float("inf")}, {"by": "both"}]
    for how in wrong:
        with pytest.raises(CircuitError, match="Gain 1 changes nothing"):
            made.plan(**how)
    lost = replace(made.plan(2.0).terms[0], reference=None)
    from affectlens.steering import SteeringPlan

    with pytest.raises(SteerError, match="has none"), steer(llama, SteeringPlan((lost,))):
        pass
    assert capture(llama, ["x y z"], sites="z", progress=False) is not None, "the model is as it was"
