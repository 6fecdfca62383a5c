"""Laws of steering: dose 0 is the identity, doses add, caching, batching, padding and streaming never matter."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from affectlens.errors import SteerError
from affectlens.hooks import record
from affectlens.model import LensModel, load_model
from affectlens.sites import Site
from affectlens.steering import Direction, Directions, Gate, SteeringPlan, plan_for, steer, stream, write
from affectlens.steering.operators import Operator, move, rotate
from affectlens.steering.timing import Timing
from affectlens.testing import FAMILIES, tiny_model

PROMPTS = ["The door was open.", "A longer prompt that was written for the purpose of padding."]
HOWS: list[dict[str, Any]] = [
    {}, {"operator": "project_out"}, {"operator": "clamp(90)"}, {"operator": "rotate(40)"}, {"positions": "response"},
    {"positions": "prompt"}, {"positions": "first(3)", "schedule": "decay(2)"}, {"schedule": "ramp(4)"},
    {"conflict": "orthogonal"}, {"conflict": "strongest"},
]  # fmt: skip
SITES = {"joy": "L0.resid_post", "fear": "L1.resid_post", "anger": "L1.H2", "trust": "L0.neurons", "sadness": "L0.z"}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> LensModel:
    return tiny_model(request.param)


def direction(model: LensModel, emotion: str, site: str, *, seed: int = 0, safe: float | None = 0.5) -> Direction:
    size = int(np.prod(model.sites.shape(Site.parse(site))))
    vector = np.random.default_rng([seed, *emotion.encode()]).normal(size=size)
    return Direction(
        emotion, site, (vector / np.linalg.norm(vector)).astype(np.float32), 6.0, "random", model.name,
        model.fingerprint, safe=safe, levels=np.linspace(-3, 3, 101).astype(np.float32),
    )  # fmt: skip


def directions(model: LensModel, **sites: str) -> Directions:
    return Directions(direction(model, emotion, site) for emotion, site in (sites or SITES).items())


def batch(model: LensModel, texts: list[str], side: str = "left") -> dict[str, torch.Tensor]:
    return dict(model.tokenizer(texts, return_tensors="pt", padding=True, padding_side=side))


def logits_of(model: LensModel, n: int = 6, texts: list[str] | None = None, **how: Any) -> list[torch.Tensor]:
    """The logits of each step of greedy generation, and the tokens."""
    out = model.hf.generate(
        **batch(model, texts or PROMPTS), max_new_tokens=n, min_new_tokens=n, do_sample=False, pad_token_id=2,
        output_logits=True, return_dict_in_generate=True, **how,
    )  # fmt: skip
    return [*out.logits, out.sequences[:, -n:].float()]


def close(a: list[torch.Tensor], b: list[torch.Tensor]) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, atol=1e-4, rtol=0)


def test_dose_zero_is_bitwise_the_identity(model: LensModel) -> None:
    plain, hooks = logits_of(model), sum(len(m._forward_hooks) for m in model.hf.modules())
    with steer(model, dict.fromkeys(SITES, 0.0), directions=directions(model)) as steering:
        assert sum(len(m._forward_hooks) for m in model.hf.modules()) == hooks
        assert "generate" not in vars(model.hf)
        steered = logits_of(model)
    assert steering.plan.is_nothing
    assert all(torch.equal(a, b) for a, b in zip(plain, steered, strict=True))


@pytest.mark.parametrize("how", HOWS, ids=str)
def test_caching_and_batching_never_matter(model: LensModel, how: dict[str, Any]) -> None:
    plain = logits_of(model)
    with steer(model, {"joy": 1.0, "terror": 0.7, "anger": 0.9, "trust": 0.8, "grief": 0.5},
               directions=directions(model), **how):  # fmt: skip
        cached, uncached = logits_of(model), logits_of(model, use_cache=False)
        single = logits_of(model, texts=PROMPTS[:1])
    assert not torch.equal(plain[-2], cached[-2]) or how.get("positions") == "first(3)"
    close(cached, uncached)
    close([step[:1] for step in cached], single)
    assert all(torch.equal(a, b) for a, b in zip(plain, logits_of(model), strict=True)), "the model is as it was"


@pytest.mark.parametrize("how", [{}, {"operator": "rotate(40)"}, {"positions": "prompt"}], ids=str)
def test_padding_on_either_side_is_the_same(model: LensModel, how: dict[str, Any]) -> None:
    if how.get("positions"):
        how = how | {"prompt_tokens": 10**6}
    with steer(model, {"joy": 1.0, "anger": 1.0}, directions=directions(model), **how), torch.inference_mode():
        found = []
        for side in ("left", "right"):
            given = batch(model, PROMPTS, side)
            places = (given["attention_mask"].cumsum(1) - 1).clamp(min=0)
            logits = model.hf(**{**given, "position_ids": places}).logits
            found.append([row[mask.bool()] for row, mask in zip(logits, given["attention_mask"], strict=True)])
    close(*found)


def test_beams_samples_and_streams_are_steered(llama: LensModel) -> None:
    mine = directions(llama, joy="L1.resid_post")
    plan = plan_for(llama, {"joy": 40.0}, directions=mine)
    with steer(llama, plan):
        beams = [llama.hf.generate(**batch(llama, PROMPTS), max_new_tokens=8, num_beams=3, do_sample=False,
                                   pad_token_id=2, use_cache=cache) for cache in (True, False)]  # fmt: skip
    assert torch.equal(*beams)
    for temperature in (0.0, 0.1):
        how: dict[str, Any] = {"max_new_tokens": 12, "chat": False, "temperature": temperature, "seed": 3}
        whole = write(llama, PROMPTS, doses=plan, **how)
        assert whole[0] == write(llama, PROMPTS[:1], doses=plan, **how)[0], "a reply does not depend on its batch"
        assert whole[0] == "".join(stream(llama, PROMPTS[0], doses=plan, **how))
        assert whole != write(llama, PROMPTS, **how)


def test_doses_add(model: LensModel) -> None:
    mine = directions(model, joy="L0.resid_post")
    with steer(model, {"joy": 1.2}, directions=mine):
        once = logits_of(model)
    with steer(model, {"joy": 0.5}, directions=mine), steer(model, {"joy": 0.7}, directions=mine):
        nested = logits_of(model)
    both = plan_for(model, {"joy": 0.5}, directions=mine) + plan_for(model, {"joy": 0.7}, directions=mine)
    with steer(model, both):
        summed = logits_of(model)
    with steer(model, {"joy": 0.6}, directions=mine, raw=True):
        raw = logits_of(model)
    for other in (nested, summed, raw):
        close(once, other)


def test_what_is_added_is_the_dose_times_the_norm(model: LensModel) -> None:
    mine = directions(model, joy="L0.resid_post")
    given = batch(model, PROMPTS[:1])
    with record(model, "L0.resid_post") as plain:
        model.hf(**given)
    with steer(model, {"joy": 0.4}, directions=mine, raw=True), record(model, "L0.resid_post") as seen:
        model.hf(**given)
    moved = seen["L0.resid_post"] - plain["L0.resid_post"]
    expected = torch.as_tensor(0.4 * 6.0 * mine["joy"][0].vector)
    torch.testing.assert_close(moved, expected.expand_as(moved), atol=1e-4, rtol=0)


def test_projecting_out_leaves_nothing_and_moves_nothing_else(model: LensModel) -> None:
    mine = directions(model, joy="L1.resid_post")
    given, u = batch(model, PROMPTS), torch.as_tensor(mine["joy"][0].vector)
    with record(model, "L1.resid_post") as plain:
        model.hf(**given)
    with steer(model, {"joy": 1.0}, directions=mine, operator="project_out"), record(model, "L1.resid_post") as seen:
        model.hf(**given)
    real = given["attention_mask"].bool()
    before, after = plain["L1.resid_post"][real], seen["L1.resid_post"][real]
    assert float((before @ u).abs().max()) > 0.01
    assert float((after @ u).abs().max()) < 1e-4
    torch.testing.assert_close(after - (after @ u)[:, None] * u, before - (before @ u)[:, None] * u, atol=1e-4, rtol=0)


def test_padding_is_left_alone(model: LensModel) -> None:
    given = batch(model, PROMPTS)
    with record(model, "L1.resid_post") as plain:
        model.hf(**given)
    with steer(model, {"joy": 1.0}, directions=directions(model, joy="L1.resid_post"), operator="clamp(90)"), \
            record(model, "L1.resid_post") as seen:  # fmt: skip
        model.hf(**given)
    padding = given["attention_mask"] == 0
    assert padding.any()
    assert torch.equal(plain["L1.resid_post"][padding], seen["L1.resid_post"][padding])


def test_clamp_reaches_its_level_and_rotation_keeps_the_length() -> None:
    torch.manual_seed(0)
    h, u = torch.randn(2, 3, 8), torch.nn.functional.normalize(torch.randn(8), dim=0)
    torch.testing.assert_close(move(h, u, 1.0, 2.5) @ u, torch.full((2, 3), 2.5))
    assert torch.equal(move(h, u, 0.0, 2.5), h)
    assert torch.equal(rotate(h, u, 0.0, 90.0), h)
    turned = rotate(h, u, 0.5, 60.0)
    torch.testing.assert_close(turned.norm(dim=-1), h.norm(dim=-1))
    angle = torch.acos(torch.nn.functional.cosine_similarity(turned, h, dim=-1)).rad2deg()
    near = torch.acos(torch.nn.functional.cosine_similarity(h, u, dim=-1)).rad2deg()
    torch.testing.assert_close(angle, near.clamp(max=30.0), atol=1e-2, rtol=0)
    torch.testing.assert_close(rotate(u[None, None] * 3, u, 1.0, 30.0), u[None, None] * 3)
    torch.testing.assert_close(rotate(h, u, 1.0, 180.0), h.norm(dim=-1, keepdim=True) * u)  # to u, and not past it


@pytest.mark.parametrize(
    ("place", "course", "expected"),
    [("all", "constant", [1, 1, 1, 1, 1]), ("prompt", "constant", [1, 1, 0, 0, 0]),
     ("response", "constant", [0, 0, 1, 1, 1]), ("first(2)", "constant", [0, 0, 1, 1, 0]),
     ("all", "decay(1)", [1, 1, 1, 0.5, 0.25]), ("response", "ramp(4)", [0, 0, 0.25, 0.5, 0.75])],
)  # fmt: skip
def test_timing(place: str, course: str, expected: list[float]) -> None:
    share = Timing.of(place, course).share(torch.arange(-2, 3))
    assert share.tolist() == expected


def test_only_the_reply_is_steered_where_asked(llama: LensModel) -> None:
    mine = directions(llama, joy="L1.resid_post")
    given = batch(llama, PROMPTS[:1])
    width = given["input_ids"].shape[1]
    with record(llama, "L1.resid_post") as plain:
        llama.hf(**given)
    for place, columns in (("response", slice(width - 1, None)), ("prompt", slice(None, width - 1))):
        with steer(llama, {"joy": 1.0}, directions=mine, positions=place, prompt_tokens=width), \
                record(llama, "L1.resid_post") as seen:  # fmt: skip
            llama.hf(**given)
        moved = (seen["L1.resid_post"] - plain["L1.resid_post"]).norm(dim=-1)[0] > 1e-6
        expected = torch.zeros(width, dtype=torch.bool)
        expected[columns] = True
        assert torch.equal(moved, expected)


def test_purified_direction_does_not_move_what_was_taken_out(llama: LensModel) -> None:
    """The intervention itself: the projection on the removed direction is the same, steered or not."""
    rng = np.random.default_rng(1)
    fixed = np.linalg.qr(rng.normal(size=(llama.d_model, 3)))[0].T.astype(np.float32)
    raw = rng.normal(size=llama.d_model)
    left = raw - fixed.T @ (fixed @ raw)
    one = Direction("joy", "L0.resid_post", (left / np.linalg.norm(left)).astype(np.float32), 6.0, "planted",
                    llama.name, llama.fingerprint, purified=("others",), fixed=fixed)  # fmt: skip
    given = batch(llama, PROMPTS[:1])
    with record(llama, "L0.resid_post") as plain:
        llama.hf(**given)
    with steer(llama, {"joy": 1.0}, directions=Directions([one]), raw=True), record(llama, "L0.resid_post") as seen:
        llama.hf(**given)
    basis = torch.as_tensor(fixed).T
    moved = seen["L0.resid_post"] - plain["L0.resid_post"]
    assert float(moved.norm()) > 1
    assert float((moved @ basis).abs().max()) < 1e-4


def test_gates_open_where_they_should(llama: LensModel) -> None:
    mine = directions(llama, joy="L1.resid_post")
    given = batch(llama, PROMPTS)
    with record(llama, ["L0.resid_post", "L1.resid_post"]) as plain:
        llama.hf(**given)
    probe = np.random.default_rng(5).normal(size=llama.d_model)
    for site in ("L0.resid_post", "L1.resid_post"):
        for below in (False, True):
            gate = Gate(Site.parse(site), probe, 0.1, below, fingerprint=llama.fingerprint)
            score = plain[site] @ torch.as_tensor(probe, dtype=torch.float32) + 0.1
            expected = (score < 0 if below else score > 0) & given["attention_mask"].bool()
            with steer(llama, {"joy": 1.0}, directions=mine, gate=gate) as steering, \
                    record(llama, "L1.resid_post") as seen:  # fmt: skip
                llama.hf(**given)
            assert 0 < int(expected.sum()) < given["attention_mask"].sum()
            moved = (seen["L1.resid_post"] - plain["L1.resid_post"]).norm(dim=-1) > 1e-6
            assert torch.equal(moved, expected)
            assert steering.opened == int(expected.sum())
            assert steering.seen == int(given["attention_mask"].sum())
    late = Gate(Site.parse("L1.resid_post"), probe, 0.0, fingerprint=llama.fingerprint)
    with pytest.raises(SteerError, match="computed after"), \
            steer(llama, {"joy": 1.0}, directions=directions(llama, joy="L0.resid_post"), gate=late):  # fmt: skip
        pass


def test_conflict_rules() -> None:
    model = tiny_model("llama")
    mine = Directions([direction(model, "joy", "L0.resid_post"), direction(model, "fear", "L0.resid_post")])
    joy, fear = mine["joy"][0], mine["fear"][0]

    def total(conflict: str) -> np.ndarray:
        plan = plan_for(model, {"joy": 0.4, "fear": 0.6}, directions=mine, raw=True, conflict=conflict)
        return np.sum([t.vector for t in plan.acting[Site.parse("L0.resid_post")]], axis=0)

    np.testing.assert_allclose(total("sum"), 6 * (0.4 * joy.vector + 0.6 * fear.vector), atol=1e-5)
    np.testing.assert_allclose(total("strongest"), 6 * 0.6 * fear.vector, atol=1e-5)
    rest = fear.vector - (fear.vector @ joy.vector) * joy.vector
    np.testing.assert_allclose(total("orthogonal"), 6 * (0.4 * joy.vector + 0.6 * rest), atol=1e-5)
    assert abs(total("orthogonal") @ joy.vector - 6 * 0.4) < 1e-5, "the first keeps its whole effect"


def test_a_plan_explains_itself(llama: LensModel) -> None:
    mine = Directions([direction(llama, "joy", "L0.resid_post"), direction(llama, "fear", "L0.resid_post", safe=None)])
    plan = plan_for(llama, {"joy": 3.0}, directions=mine) + plan_for(llama, {"terror": 0.2}, directions=mine, raw=True)
    said = plan.explain()
    for part in ("joy dose +3", "+1.500 of the norm (6)", "cosine", "summed as they are", "beyond the 0.50", "no safe"):
        assert part in said
    assert "bitwise the unsteered" in plan_for(llama, {"joy": 0.0}, directions=mine).explain()


def test_a_plan_that_changes_no_logit_is_an_error() -> None:
    """The last block's first-position attention apart, a value that is never read can't steer."""
    model = tiny_model("llama")
    with torch.no_grad():
        model.hf.model.layers[1].self_attn.o_proj.weight[:] = 0
    model = load_model(model=model.hf, tokenizer=model.tokenizer)
    dead = directions(model, joy="L1.z")
    with pytest.raises(SteerError, match="changes no logit"), steer(model, {"joy": 1.0}, directions=dead):
        pass
    half = load_model(model=tiny_model("llama").hf.to(torch.bfloat16), tokenizer=model.tokenizer)
    with pytest.raises(SteerError, match="changes no logit"), \
            steer(half, {"joy": 1e-6}, directions=directions(half, joy="L1.resid_post")):  # fmt: skip
        pass


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, d: plan_for(m, {}, directions=d), "No emotion is named"),
        (lambda m, d: plan_for(m, {"envy": 1.0}, directions=d), "There is no direction of 'envy'"),
        (lambda m, d: plan_for(m, {"joy": float("nan")}, directions=d), "give a number"),
        (lambda m, d: plan_for(m, {"joy": 1.0, "ecstasy": 1.0}, directions=d), "named twice"),
        (lambda m, d: plan_for(m, {"joy": 1.0}, directions=d, operator="push"), "no operator 'push'"),
        (lambda m, d: plan_for(m, {"joy": 1.0}, directions=d, operator="clamp(101)"), "from 0 to 100"),
        (lambda m, d: plan_for(m, {"joy": 2.0}, directions=d, operator="project_out"), "from 0 to 1"),
        (lambda m, d: plan_for(m, {"joy": 1.0}, directions=d, positions="early"), "positions='early'"),
        (lambda m, d: plan_for(m, {"joy": 1.0}, directions=d, schedule="decay"), "schedule='decay'"),
        (lambda m, d: plan_for(m, {"joy": 1.0}, directions=d, conflict="war"), "conflict='war'"),
        (lambda m, d: plan_for(m, {"joy": 1.0}, directions=d, layers=[1]), "only at 0"),
        (lambda m, d: plan_for(m, {"joy": 1.0}, directions=d.with_safe({"joy": None})), "No safe dose of joy"),
        (lambda m, d: plan_for(m, {"joy": 1.0}, directions=d, layers=1), "only at 0"),
        (lambda m, d: plan_for(m, {"joy": 1.0}, directions=d, gate=Gate(Site.parse("L0.resid_post"), d.all[0].vector,
                                                                         0.0, fingerprint="f")), "another model"),
        (lambda m, d: plan_for(m, {"joy": 1.0}), "There are no directions for"),
        (lambda m, d: plan_for(m, {"joy": 1.0}, directions="nowhere.safetensors"), "There is no file"),
        (lambda m, d: plan_for(tiny_model("llama", seed=3), {"joy": 1.0}, directions=d), "can't steer"),
    ],
)  # fmt: skip
def test_bad_input_gets_a_sentence(
    llama: LensModel, call: Callable[[LensModel, Directions], SteeringPlan], message: str
) -> None:
    with pytest.raises(SteerError, match=message):
        call(llama, directions(llama))


def test_positions_without_a_prompt_are_refused(llama: LensModel) -> None:
    with (
        steer(llama, {"joy": 1.0}, directions=directions(llama), positions="response"),
        pytest.raises(SteerError, match="where the reply begins"),
    ):
        llama.hf(**batch(llama, PROMPTS))
    plan = plan_for(llama, {"joy": 1.0}, directions=directions(llama))
    with pytest.raises(SteerError, match="A plan says it all"), steer(llama, plan, raw=True):
        pass
    with pytest.raises(SteerError, match="does not know dosis"), steer(llama, {"joy": 1.0}, dosis=2):
        pass
    with pytest.raises(SteerError, match="Without doses"):
        write(llama, PROMPTS, raw=True, chat=False)


def test_everything_is_restored_after_an_error(llama: LensModel) -> None:
    before = logits_of(llama)
    with (
        pytest.raises(ZeroDivisionError),
        steer(llama, {"joy": 1.0}, directions=directions(llama), positions="response"),
    ):
        raise ZeroDivisionError
    assert "generate" not in vars(llama.hf)
    assert llama.editing == 0
    assert all(torch.equal(a, b) for a, b in zip(before, logits_of(llama), strict=True))


def test_a_users_own_hook_stays_and_sees_what_is_steered(llama: LensModel) -> None:
    seen: list[torch.Tensor] = []
    handle = llama.blocks[1].register_forward_hook(
        lambda m, i, o: seen.append((o[0] if isinstance(o, tuple) else o)[:])
    )
    given = batch(llama, PROMPTS[:1])
    llama.hf(**given)
    with steer(llama, {"joy": 1.0}, directions=directions(llama, joy="L0.resid_post")):
        n = len(seen)
        llama.hf(**given)
    handle.remove()
    assert len(seen) == n + 1
    assert not torch.equal(seen[0], seen[-1])


def test_operators_print_and_parse() -> None:
    for text in ("add", "project_out", "clamp(90)", "rotate(30)"):
        assert str(Operator.parse(text)) == text


@pytest.mark.real
def test_the_laws_hold_on_the_real_model(smol: LensModel) -> None:
    mine = directions(smol, joy="L18.resid_post")
    said = [smol.tokenizer.apply_chat_template([{"role": "user", "content": p}], tokenize=False,
                                               add_generation_prompt=True) for p in PROMPTS]  # fmt: skip
    plain = logits_of(smol, texts=said)
    with steer(smol, {"joy": 0.0}, directions=mine):
        assert all(torch.equal(a, b) for a, b in zip(plain, logits_of(smol, texts=said), strict=True))
    with steer(smol, {"joy": 10.0}, directions=mine, positions="response", schedule="decay(4)"):
        cached, uncached = logits_of(smol, texts=said), logits_of(smol, texts=said, use_cache=False)
        single = logits_of(smol, texts=said[:1])
    assert float((cached[0] - plain[0]).abs().max()) > 0.1
    close(cached, uncached)
    for a, b in zip(cached, single, strict=True):
        torch.testing.assert_close(a[:1], b, atol=1e-4, rtol=0)


def test_threads_wait_for_each_other(llama: LensModel) -> None:
    """Plain and steered replies that are written at once are those that are written alone."""
    plan = plan_for(llama, {"joy": 40.0}, directions=directions(llama, joy="L1.resid_post"), positions="response")
    how: dict[str, Any] = {"chat": False, "max_new_tokens": 6, "progress": False}
    alone = {doses: write(llama, PROMPTS, doses=doses, **how) for doses in (None, plan)}
    with ThreadPoolExecutor(2) as pool:
        jobs = [(doses, pool.submit(write, llama, PROMPTS, doses=doses, **how)) for doses in (None, plan) * 6]
        for doses, job in jobs:
            assert job.result() == alone[doses]
    assert alone[None] != alone[plan]
    assert "generate" not in vars(llama.hf)


def test_an_open_stream_steers_nothing_else(llama: LensModel) -> None:
    plan = plan_for(llama, {"joy": 40.0}, directions=directions(llama, joy="L1.resid_post"))
    how: dict[str, Any] = {"chat": False, "max_new_tokens": 30}
    plain = write(llama, PROMPTS, progress=False, **how)
    pieces = stream(llama, PROMPTS[0], doses=plan, **how)
    next(pieces)
    assert write(llama, PROMPTS, progress=False, **how) == plain
    pieces.close()  # type: ignore[attr-defined]
    with steer(llama, plan), pytest.raises(SteerError, match="a thread of its own"):
        next(stream(llama, PROMPTS[0], **how))


def test_contexts_may_end_in_any_order(llama: LensModel) -> None:
    before = logits_of(llama)
    mine = directions(llama, joy="L1.resid_post")
    first, second = (steer(llama, {"joy": dose}, directions=mine, positions="response") for dose in (1.0, 2.0))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with steer(llama, {"joy": 2.0}, directions=mine, positions="response"):
        pass
    left = logits_of(llama)
    second.__exit__(None, None, None)
    with steer(llama, {"joy": 2.0}, directions=mine, positions="response"):
        close(left, logits_of(llama))
    assert "generate" not in vars(llama.hf)
    assert all(torch.equal(a, b) for a, b in zip(before, logits_of(llama), strict=True))


def test_steering_is_proved_inside_steering(llama: LensModel) -> None:
    gate = Gate(Site.parse("L0.resid_post"), np.ones(llama.d_model), 0.0, fingerprint=llama.fingerprint)
    mine = directions(llama, joy="L1.resid_post", fear="L1.resid_post")
    with steer(llama, {"joy": 1.0}, directions=mine, positions="response", gate=gate) as outer, \
            steer(llama, {"fear": 0.987}, directions=mine):  # fmt: skip
        assert outer.seen == 0, "the proof is no pass of the user's"
        logits_of(llama)
        assert outer.seen > 0


def test_each_conflict_rule_is_proved_by_itself(llama: LensModel) -> None:
    joy = direction(llama, "joy", "L0.resid_post")
    against = replace(joy, emotion="fear", vector=-joy.vector)
    doses, mine = {"joy": 1.0, "fear": 1.0}, Directions([joy, against])
    with steer(llama, doses, directions=mine, conflict="strongest"):
        pass
    with pytest.raises(SteerError, match="changes no logit"), steer(llama, doses, directions=mine):
        pass


def test_embeddings_tell_the_prompt_too(llama: LensModel) -> None:
    given = batch(llama, PROMPTS[:1])
    embedded = llama.hf.get_input_embeddings()(given["input_ids"])
    more: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 2}
    with steer(llama, {"joy": 40.0}, directions=directions(llama, joy="L1.resid_post"), positions="response"):
        by_ids = llama.hf.generate(**given, **more)[:, given["input_ids"].shape[1] :]
        by_values = llama.hf.generate(
            input_ids=None, inputs_embeds=embedded, attention_mask=given["attention_mask"], **more
        )
    assert torch.equal(by_ids, by_values)


def test_doses_that_would_double_are_refused(llama: LensModel) -> None:
    joy = direction(llama, "joy", "L0.resid_post")
    with pytest.raises(SteerError, match="two directions of joy at one site"):
        Directions([joy, joy])
    assert len(Directions([joy]).only("joy", "ecstasy")) == 1
    for safe in (0.0, -0.5, float("nan")):
        with pytest.raises(SteerError, match="safe dose of joy"):
            Directions([joy]).with_safe({"joy": safe})
