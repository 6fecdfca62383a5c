"""llama.cpp as a runner: logits at the prompt and at each decode step are those of the model steered by hooks here.

It runs the embedded model's weights dequantised to float32, so that both compute the same function; its own Q4_1 file,
where llama.cpp rounds activations too, is compared by what steering changes.
"""

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from affectlens.errors import SteerError
from affectlens.generating import Decoding
from affectlens.model import LensModel
from affectlens.steering import SteeringPlan, plan_for, steer
from affectlens.steering.directions import Direction, Directions, unit
from affectlens.steering.engines import Engine, Request, Together
from affectlens.steering.engines.gguf_files import find_gguf
from affectlens.steering.engines.llama import LlamaCpp
from affectlens.steering.engines.llama_course import Push
from affectlens.steering.engines.llama_native import Token
from tests.gguf_plain import write_plain

pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python is not installed: pip install 'affectlens[llamacpp]' builds it in ten minutes"
)
pytestmark = pytest.mark.real
STEPS = 32
BOTH = {"joy": 0.5, "fear": -0.2}
CASES: dict[str, tuple[dict[str, float], dict[str, Any]]] = {
    "plain": ({}, {}),
    "constant": ({"joy": 0.5}, {}),
    "two emotions": (BOTH, {}),
    "prompt": (BOTH, {"positions": "prompt"}),
    "response": (BOTH, {"positions": "response"}),
    "first(8)": (BOTH, {"positions": "first(8)"}),
    "decay(16)": (BOTH, {"schedule": "decay(16)"}),
    "ramp(16)": (BOTH, {"positions": "response", "schedule": "ramp(16)"}),
}


@pytest.fixture(scope="module")
def plain_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    target = write_plain(find_gguf("smollm2-135m"), tmp_path_factory.mktemp("gguf") / "plain.gguf")
    yield target
    target.unlink()


@pytest.fixture(scope="module")
def runner(smol: LensModel, plain_file: Path) -> Iterator[LlamaCpp]:
    made = LlamaCpp(smol, plain_file, slots=4, n_ctx=1024, threads=1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def directions(smol: LensModel) -> Directions:
    """Two random directions at two layers: parity does not ask what they mean."""
    rng = np.random.default_rng(0)
    return Directions(
        Direction(emotion, site, unit(rng.normal(size=576).astype(np.float32)), 30.0, "random", smol.name,
                  smol.fingerprint, fixed=np.zeros((0, 576), np.float32))
        for emotion in ("joy", "fear") for site in ("L9.resid_post", "L14.resid_post")
    )  # fmt: skip


@pytest.fixture(scope="module")
def prompt(smol: LensModel) -> tuple[int, ...]:
    told = [{"role": "user", "content": "Tell me about your day."}]
    return tuple(smol.tokenizer.apply_chat_template(told, add_generation_prompt=True, return_dict=False))


def planned(smol: LensModel, directions: Directions, case: str) -> SteeringPlan | None:
    doses, how = CASES[case]
    return plan_for(smol, doses, directions=directions, raw=True, **how) if doses else None


@torch.inference_mode()
def ours(smol: LensModel, prompt: tuple[int, ...], plan: SteeringPlan | None) -> tuple[np.ndarray, list[int]]:
    """Logits after the prompt and after each token of a greedy reply; and the reply."""
    with steer(smol, plan, prompt_tokens=len(prompt)) if plan else nullcontext():
        out = smol.hf(input_ids=torch.tensor([prompt]), use_cache=True)
        logits, said = [out.logits[0, -1]], []
        for _ in range(STEPS):
            said.append(int(logits[-1].argmax()))
            out = smol.hf(input_ids=torch.tensor([said[-1:]]), past_key_values=out.past_key_values, use_cache=True)
            logits.append(out.logits[0, -1])
    return torch.stack(logits).numpy(), said


def request(prompt: tuple[int, ...], plan: SteeringPlan | None) -> Request:
    return Request(prompt, Decoding(STEPS), plan)


def read(runner: LlamaCpp, new: dict[int, Request]) -> dict[int, torch.Tensor]:
    for one in new.values():
        runner.check(one)
    *parts, last = runner.read(new)
    assert not any(parts)
    assert last is not None
    return dict(last)


def theirs(
    runner: LlamaCpp, new: dict[int, Request], replies: dict[int, list[int]], steps: int = STEPS
) -> dict[int, np.ndarray]:
    """The same in llama.cpp, with the replies given, all requests stepping together."""
    logits = {key: [row] for key, row in read(runner, new).items()}
    for step in range(steps):
        for key, row in runner.step({key: replies[key][step] for key in new}).items():
            logits[key].append(row)
    for key in new:
        runner.free(key)
    return {key: torch.stack(rows).numpy() for key, rows in logits.items()}


@pytest.mark.parametrize("case", CASES)
def test_every_step_is_the_hooked_models(
    smol: LensModel, runner: LlamaCpp, directions: Directions, prompt: tuple[int, ...], case: str
) -> None:
    plan = planned(smol, directions, case)
    expected, reply = ours(smol, prompt, plan)
    found = theirs(runner, {7: request(prompt, plan)}, {7: reply})[7]
    assert np.abs(found - expected).max() < 1e-3
    assert found.argmax(axis=1).tolist()[:STEPS] == reply
    if plan is not None:
        plain = theirs(runner, {7: request(prompt, None)}, {7: reply})[7]
        assert np.abs(plain - expected).max() > 1


def test_one_layer_off_is_another_model(
    smol: LensModel, runner: LlamaCpp, directions: Directions, prompt: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison sees it: the same vectors, each a block later."""
    plan = planned(smol, directions, "two emotions")
    expected, reply = ours(smol, prompt, plan)
    push = runner.native.push

    def late(vectors: Push) -> None:
        push(tuple((layer + 1, vector) for layer, vector in vectors))

    monkeypatch.setattr(runner.native, "push", late)
    assert np.abs(theirs(runner, {0: request(prompt, plan)}, {0: reply})[0] - expected).max() > 1


def test_together_is_as_alone_and_equal_doses_share_a_pass(
    smol: LensModel, runner: LlamaCpp, directions: Directions, prompt: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four requests: two of the same dose, of which one has another prompt; one on a schedule; one plain."""
    other = (*prompt[:6], *prompt[9:])
    texts = {3: prompt, 4: other, 5: prompt, 6: prompt}
    cases = {3: "two emotions", 4: "two emotions", 5: "decay(16)", 6: "plain"}
    expected, replies = {}, {}
    for key, case in cases.items():
        expected[key], replies[key] = ours(smol, texts[key], planned(smol, directions, case))
    run, passes = runner.native.run, []

    def counted(tokens: list[Token]) -> dict[int, torch.Tensor]:
        passes.append(len(tokens))
        return run(tokens)

    monkeypatch.setattr(runner.native, "run", counted)
    new = {key: request(texts[key], planned(smol, directions, case)) for key, case in cases.items()}
    found = theirs(runner, new, replies)
    for key, logits in found.items():
        assert np.abs(logits - expected[key]).max() < 1e-3, cases[key]
    assert passes[-3:] == [2, 1, 1]
    alone = theirs(runner, {3: new[3]}, {3: replies[3]})[3]
    assert np.abs(found[3] - alone).max() < 1e-4


def test_a_slot_that_is_used_again_knows_nothing_of_before(
    smol: LensModel, runner: LlamaCpp, directions: Directions, prompt: tuple[int, ...]
) -> None:
    """Also one that was given up while its prompt was read; and there are as many slots as before."""
    steered, (expected, reply) = planned(smol, directions, "two emotions"), ours(smol, prompt, None)
    long = Request(prompt * 5, Decoding(8), steered)
    for _ in range(3):
        parts = runner.read(dict.fromkeys(range(runner.slots), long))
        assert next(parts) is None
        for key in (0, 2, 3, 99):
            runner.free(key)
        *_, last = parts
        assert last is not None
        assert list(last) == [1]
        runner.free(1)
    found = theirs(runner, {key: request(prompt, None) for key in range(4)}, dict.fromkeys(range(4), reply), steps=4)
    for logits in found.values():
        assert np.abs(logits - expected[:5]).max() < 1e-3
    assert not runner.seats
    *_, last = runner.read({key: request(prompt, None) for key in range(runner.slots)})
    with pytest.raises(SteerError, match="1 requests came for 0 free slots"):
        next(runner.read({8: request(prompt, None)}))
    for key in range(runner.slots):
        runner.free(key)


def test_an_engine_writes_the_same_as_with_pytorch(
    smol: LensModel, runner: LlamaCpp, plain_file: Path, directions: Directions, prompt: tuple[int, ...]
) -> None:
    wanted = [request(prompt, planned(smol, directions, case)) for case in ("plain", "two emotions", "first(8)")]
    with Engine(Together(smol)) as engine:
        expected = [engine.write(one) for one in wanted]
    with Engine(LlamaCpp(smol, plain_file, slots=2, n_ctx=128, threads=1)) as engine:
        assert [engine.write(one) for one in wanted] == expected
    assert len({text for text, _ in expected}) == 3


def test_what_it_can_not_do_is_refused(
    smol: LensModel, runner: LlamaCpp, llama: LensModel, directions: Directions, prompt: tuple[int, ...]
) -> None:
    with pytest.raises(SteerError, match="has the operator project_out"):
        runner.check(request(prompt, plan_for(smol, {"joy": 1.0}, directions=directions, operator="project_out")))
    with pytest.raises(SteerError, match=r"Prompt and reply are 1100 and up to 32 tokens.* room for 1024"):
        runner.check(request(prompt[:1] * 1100, None))
    one = next(iter(directions["joy"]))
    alien = Directions([Direction("joy", one.site, one.vector, 30.0, "random", llama.name, "f" * 32)])
    terms = plan_for(smol, {"joy": 0.5}, directions=directions, raw=True).terms
    with pytest.raises(SteerError, match=f"This plan is for {llama.name}, not for {smol.name}"):
        runner.check(request(prompt, SteeringPlan(tuple(_of(term, alien.all[0]) for term in terms))))
    assert "plain.gguf" in runner.says
    assert "all F32" in repr(runner)


def _of(term: Any, direction: Direction) -> Any:
    changed = copy.copy(term)
    object.__setattr__(changed, "direction", direction)
    return changed


def test_a_file_of_another_model_is_refused(smol: LensModel, llama: LensModel, tmp_path: Path) -> None:
    file = find_gguf("smollm2-135m")
    small: dict[str, Any] = {"slots": 1, "n_ctx": 64, "threads": 1}
    with pytest.raises(SteerError, match=r"is another model than .*: it has 30 layers, and 2 were expected"):
        LlamaCpp(llama, file, **small)
    shuffled = copy.deepcopy(smol.hf)
    blocks = shuffled.model.layers
    for a, b in ((5, 20), (8, 25)):
        blocks[a].mlp, blocks[b].mlp = blocks[b].mlp, blocks[a].mlp
    other = LensModel(shuffled, smol.tokenizer, name="shuffled", source="a test")
    with pytest.raises(SteerError, match="does not compute what shuffled does"):
        LlamaCpp(other, file, **small)
    with pytest.raises(SteerError, match="There is no file"):
        LlamaCpp(smol, tmp_path / "nowhere.gguf", **small)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(file.read_bytes()[:200_000])
    with pytest.raises(SteerError, match=r"llama.cpp can't load broken.gguf \(.*\)"):
        LlamaCpp(smol, broken, **small)
    with pytest.raises(SteerError, match="slots is 0"):
        LlamaCpp(smol, file, slots=0)
    with pytest.raises(SteerError, match="n_ctx is 0 and threads None"):
        LlamaCpp(smol, file, n_ctx=0)


def test_a_vocabulary_in_another_order_is_refused(smol: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two words have changed places in ours: the file spells their tokens the old way."""
    file = find_gguf("smollm2-135m")
    tokenizer = copy.deepcopy(smol.tokenizer)
    decode = tokenizer.decode
    monkeypatch.setattr(tokenizer, "decode", lambda ids, **how: decode([i + 1 for i in ids], **how))
    other = LensModel(smol.hf, tokenizer, name="reordered", source="a test")
    with pytest.raises(SteerError, match="has another vocabulary than reordered: the tokens of .* spell"):
        LlamaCpp(other, file, slots=1, n_ctx=64, threads=1)


def test_the_quantised_file_is_steered_as_much_and_closing_gives_memory_back(
    smol: LensModel, directions: Directions, prompt: tuple[int, ...]
) -> None:
    plain, reply = ours(smol, prompt, None)
    plan = planned(smol, directions, "two emotions")
    new = {0: request(prompt, None), 1: request(prompt, plan)}
    sizes: list[int] = []
    found: dict[int, np.ndarray] = {}
    for _ in range(4):
        quantised = LlamaCpp(smol, find_gguf("smollm2-135m"), slots=2, n_ctx=128, threads=1)
        assert "Q4_1" in quantised.says
        found = theirs(quantised, new, {0: reply, 1: reply}, steps=8)
        quantised.close()
        quantised.close()
        sizes.append(psutil.Process(os.getpid()).memory_info().rss)
    assert sizes[-1] - sizes[0] < 60 * 2**20  # one that stays takes 110 MB
    with steer(smol, plan) if plan else nullcontext(), torch.inference_mode():
        whole = smol.hf(input_ids=torch.tensor([[*prompt, *reply[:8]]])).logits[0, len(prompt) - 1 :].numpy()
    change, their_change = whole - plain[:9], found[1] - found[0]
    agree = [float(np.corrcoef(a, b)[0, 1]) for a, b in zip(change, their_change, strict=True)]
    assert min(agree) > 0.9
    assert np.median(agree) > 0.97


def test_the_benchmark_runs() -> None:
    """No speed is asserted."""
    script = Path(__file__).parent.parent / "benchmarks" / "llama.py"
    command = [sys.executable, str(script), "--tokens", "4", "--rounds", "1", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.rsplit("  ", 1)[0].split("  ")[0] for line in done.stdout.splitlines()[1:]] == [
        "plain", "steered", "steered, decay",
    ]  # fmt: skip
