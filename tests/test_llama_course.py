"""What llama.cpp is told to add, position by position, and what it is never asked; without llama.cpp itself."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affectlens.errors import ModelError, SteerError
from affectlens.model import LensModel
from affectlens.sites import Site
from affectlens.steering import Direction, Directions, Gate, SteeringPlan, plan_for
from affectlens.steering.engines.gguf_files import find_gguf
from affectlens.steering.engines.llama import room_for
from affectlens.steering.engines.llama_course import NOTHING, Course, Push, check_plan
from affectlens.steering.engines.llama_native import library
from affectlens.steering.exporting import summed

PROMPT, WHOLE = 5, 14


def direction(model: LensModel, emotion: str, site: str) -> Direction:
    size = int(np.prod(model.sites.shape(Site.parse(site))))
    vector = np.random.default_rng([*emotion.encode()]).normal(size=size)
    unit = (vector / np.linalg.norm(vector)).astype(np.float32)
    levels = np.linspace(-3, 3, 101).astype(np.float32)
    return Direction(emotion, site, unit, 6.0, "random", model.name, model.fingerprint, safe=0.5, levels=levels)


def planned(model: LensModel, site: str = "L1.resid_post", **how: Any) -> SteeringPlan:
    found = Directions([direction(model, "joy", site), direction(model, "fear", site)])
    doses = {"joy": 0.5, "fear": 0.2 if "operator" in how else -0.2}
    return plan_for(model, doses, directions=found, raw="operator" not in how, **how)


def arrays(push: Push) -> dict[int, np.ndarray]:
    return {layer: np.frombuffer(vector, np.float32) for layer, vector in push}


@pytest.mark.parametrize("positions", ["all", "prompt", "response", "first(3)"])
@pytest.mark.parametrize("schedule", ["constant", "decay(2)", "ramp(4)"])
def test_each_position_gets_its_share_of_the_sum(llama: LensModel, positions: str, schedule: str) -> None:
    """The share is the timing's own, counted from the prompt's last token."""
    plan = planned(llama, positions=positions, schedule=schedule)
    found = Directions(term.direction for term in plan.terms)
    whole = summed(found, {"joy": 0.5, "fear": -0.2}, raw=True)[1]
    course = Course(plan, PROMPT)
    shares = plan.terms[0].timing.share(torch.arange(WHOLE) - (PROMPT - 1)).tolist()
    for position, share in enumerate(shares):
        here = arrays(course.at(position))
        assert set(here) == ({1} if share else set())
        if share:
            np.testing.assert_allclose(here[1], share * whole, rtol=1e-5, atol=1e-6)
    assert len(set(shares)) > 1 or (positions, schedule) == ("all", "constant")
    assert [course.at(p) for p in reversed(range(WHOLE))] == [
        Course(plan, PROMPT).at(p) for p in reversed(range(WHOLE))
    ]


def test_a_conversation_has_the_models_own_context_as_far_as_a_gib_goes(llama: LensModel) -> None:
    """The count of a model's cells is that of its own cache, in float32."""
    with torch.inference_mode():
        cache = llama.hf(torch.tensor([[1, 2, 3]]), use_cache=True).past_key_values
    floats = sum(part.numel() for layer in cache.layers for part in (layer.keys, layer.values))
    own = llama.n_ctx
    assert room_for(llama, 1) == own
    llama.n_ctx = 10**9
    try:
        assert room_for(llama, 1) == 2**30 // (4 * floats // 3)
        assert room_for(llama, 2) == room_for(llama, 1) // 2
        assert room_for(llama, 10**6) == 2048
    finally:
        llama.n_ctx = own


def test_equal_doses_are_equal_and_none_is_nothing(llama: LensModel) -> None:
    assert Course(planned(llama), 3).at(0) == Course(planned(llama), 7).at(9) != NOTHING
    assert Course(None, 3).at(2) == NOTHING
    found = Directions([direction(llama, "joy", "L1.resid_post")])
    zero = plan_for(llama, {"joy": 0.0}, directions=found, raw=True)
    check_plan(zero)
    assert Course(zero, 3).at(2) == NOTHING


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"operator": "project_out"}, "joy at L1.resid_post has the operator project_out: the PyTorch engine can"),
        ({"operator": "clamp(90)"}, r"the operator clamp\(90\)"),
        ({"operator": "rotate(30)"}, r"the operator rotate\(30\)"),
        ({"site": "L1.H2"}, r"block \(resid_post\), and L1.H2 is elsewhere"),
        ({"site": "L1.neurons"}, "L1.neurons is elsewhere"),
        ({"site": "L0.resid_post"}, "no control vector for layer 0"),
    ],
)
def test_what_is_not_adding_at_a_blocks_end_is_refused(llama: LensModel, how: dict[str, Any], why: str) -> None:
    with pytest.raises(SteerError, match=why):
        check_plan(planned(llama, **how))
    check_plan(planned(llama, positions="first(3)", schedule="decay(2)"))


def test_gates_and_cancelling_doses_are_refused(llama: LensModel) -> None:
    plan = planned(llama)
    one = plan.terms[0]
    gate = Gate.of_direction(direction(llama, "trust", "L0.resid_post"), 50)
    with pytest.raises(SteerError, match="has a gate or a loop: the PyTorch engine can"):
        check_plan(SteeringPlan((replace(one, gate=gate),)))
    with pytest.raises(SteerError, match="These doses cancel"):
        check_plan(SteeringPlan((one, replace(one, strength=-one.strength))))


def test_a_file_is_found_by_the_models_name_or_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "own.gguf"
    file.write_bytes(b"GGUF")
    assert find_gguf(str(file)) == file
    for name in ("gpt2", str(tmp_path)):
        with pytest.raises(SteerError, match="is not a GGUF file, which llama.cpp needs: .* --gguf FILE"):
            find_gguf(name)
    with pytest.raises(ModelError, match="There is no model"):
        find_gguf("nobody")


def test_without_llama_cpp_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(SteerError, match=r"pip install 'affectlens\[llamacpp\]'"):
        library()
