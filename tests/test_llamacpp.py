"""The same steering in llama.cpp and here: an exported file, the same weights, the same tokens, step by step.

llama.cpp is given the embedded model twice: its weights dequantised to float32, so that both engines compute the same
function and any difference is the vector's; and its own Q4_1 file as it is, where llama.cpp rounds activations too.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from affectlens.model import LensModel
from affectlens.steering.directions import Direction, Directions, unit
from affectlens.steering.engines.gguf_files import find_gguf
from affectlens.steering.exporting import export, summed
from tests.gguf_plain import write_plain

llama_cpp: Any = pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python is not installed: pip install 'affectlens[llamacpp]' builds it in ten minutes"
)
pytestmark = pytest.mark.real
PROMPT = [{"role": "user", "content": "Tell me about your day."}]
STEPS = 32


class Engine:
    """One model in llama.cpp, on one thread, without repacked weights or a half-precision cache."""

    def __init__(self, path: Path) -> None:
        settings = llama_cpp.llama_model_default_params()
        settings.n_gpu_layers, settings.use_extra_bufts = 0, False  # repacked Q4_1 crashes on AMX (llama.cpp 20824)
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), settings)
        how = llama_cpp.llama_context_default_params()
        how.n_ctx, how.n_threads, how.n_threads_batch, how.flash_attn_type = 128, 1, 1, 0
        how.type_k = how.type_v = 0  # float32
        self.context = llama_cpp.llama_init_from_model(self.model, how)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def begin(self) -> None:
        """Forget what was said."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        self.past = 0

    def read(self, tokens: list[int]) -> np.ndarray:
        """Logits ``[pos, d_vocab]`` of the next tokens."""
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, self.past + i, 1, 1
            batch.seq_id[i][0] = 0
        assert llama_cpp.llama_decode(self.context, batch) == 0
        llama_cpp.llama_batch_free(batch)
        self.past += len(tokens)
        rows = llama_cpp.llama_get_logits(self.context)
        return np.ctypeslib.as_array(rows, (len(tokens), self.n_vocab)).copy()

    def steer(self, vectors: dict[int, np.ndarray]) -> None:
        """What llama.cpp does with a file: ``direction.N`` is row N - 1 of its table, which begins at layer 1."""
        n_layers, width = llama_cpp.llama_model_n_layer(self.model), llama_cpp.llama_model_n_embd(self.model)
        table = np.zeros((n_layers, width), np.float32)
        for n, vector in vectors.items():
            table[n - 1] = vector
        data = table.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        assert llama_cpp.llama_set_adapter_cvec(self.context, data, table.size, width, 1, n_layers) == 0

    def plain(self) -> None:
        """Without the vector."""
        assert llama_cpp.llama_set_adapter_cvec(self.context, None, 0, 0, 0, 0) == 0

    def close(self) -> None:
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)


@pytest.fixture(scope="module")
def quantised() -> Path:
    """The embedded model's GGUF file, kept in the user's cache."""
    return find_gguf("smollm2-135m")


@pytest.fixture(scope="module")
def plain_file(quantised: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same in float32; half a gigabyte, so not kept."""
    target = write_plain(quantised, tmp_path_factory.mktemp("gguf") / "plain.gguf")
    yield target
    target.unlink()


@contextmanager
def engine(path: Path) -> Iterator[Engine]:
    quiet = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    made = Engine(path)
    try:
        yield made
    finally:
        made.close()
        llama_cpp.llama_log_set(llama_cpp.llama_log_callback(), ctypes.c_void_p(0))  # ours is about to go


@pytest.fixture(scope="module")
def directions(smol: LensModel) -> Directions:
    """Two random directions at two layers: parity does not ask what they mean."""
    rng = np.random.default_rng(0)
    return Directions(
        Direction(emotion, site, unit(rng.normal(size=576).astype(np.float32)), 30.0, "random", smol.name,
                  smol.fingerprint, fixed=np.zeros((0, 576), np.float32))
        for emotion in ("joy", "fear") for site in ("L9.resid_post", "L14.resid_post")
    )  # fmt: skip


DOSES = {"joy": 0.5, "fear": -0.2}


@pytest.fixture(scope="module")
def prompt(smol: LensModel) -> list[int]:
    return list(smol.tokenizer.apply_chat_template(PROMPT, add_generation_prompt=True, return_dict=False))


@contextmanager
def hooked(smol: LensModel, vectors: dict[int, np.ndarray]) -> Iterator[None]:
    """Plain forward hooks."""

    def adding(vector: np.ndarray) -> Any:
        def act(_module: Any, _args: Any, out: Any) -> Any:
            added = torch.from_numpy(vector)
            return (out[0] + added, *out[1:]) if isinstance(out, tuple) else out + added

        return act

    handles = [smol.blocks[layer].register_forward_hook(adding(vector)) for layer, vector in vectors.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def ours(smol: LensModel, prompt: list[int], reply: list[int] | None = None) -> tuple[np.ndarray, list[int]]:
    """Logits of the prompt and of each step from the cache, of a reply given or chosen greedily; and the reply."""
    out = smol.hf(input_ids=torch.tensor([prompt]), use_cache=True)
    logits, said = [out.logits[0]], []
    for step in range(STEPS if reply is None else len(reply)):
        said.append(int(out.logits[0, -1].argmax()) if reply is None else reply[step])
        out = smol.hf(input_ids=torch.tensor([[said[-1]]]), past_key_values=out.past_key_values, use_cache=True)
        logits.append(out.logits[0])
    return torch.cat(logits).numpy(), said


def theirs(made: Engine, prompt: list[int], reply: list[int] | None = None) -> tuple[np.ndarray, list[int]]:
    """The same in llama.cpp."""
    made.begin()
    logits, said = [made.read(prompt)], []
    for step in range(STEPS if reply is None else len(reply)):
        said.append(int(logits[-1][-1].argmax()) if reply is None else reply[step])
        logits.append(made.read([said[-1]]))
    return np.concatenate(logits), said


@dataclass(frozen=True)
class Here:
    """What the model does here."""

    plain: np.ndarray
    reply: list[int]
    steered: np.ndarray
    steered_reply: list[int]


@pytest.fixture(scope="module")
def here(smol: LensModel, directions: Directions, prompt: list[int]) -> Here:
    plain = ours(smol, prompt)
    with hooked(smol, summed(directions, DOSES, raw=True)):
        return Here(*plain, *ours(smol, prompt))


def test_the_same_weights_steered_by_the_same_file_give_the_same_logits(
    smol: LensModel, plain_file: Path, directions: Directions, prompt: list[int], here: Here, tmp_path: Path
) -> None:
    """At the prompt and at each of 32 decode steps of greedy replies, which are the same, token for token."""
    file = export(directions, tmp_path / "v.gguf", to="gguf", doses=DOSES, raw=True, model=smol)
    vectors = {int(t.name.split(".")[1]): np.array(t.data) for t in gguf.GGUFReader(file).tensors}
    with engine(plain_file) as made:
        plain, reply = theirs(made, prompt)
        made.steer(vectors)
        steered, steered_reply = theirs(made, prompt)
        made.steer({n + 1: vector for n, vector in vectors.items()})
        one_late, _ = theirs(made, prompt, [])
        made.plain()
        again, _ = theirs(made, prompt, [])
    assert reply == here.reply
    assert steered_reply == here.steered_reply != here.reply
    assert np.abs(plain - here.plain).max() < 1e-3
    assert np.abs(steered - here.steered).max() < 1e-3
    read = len(prompt)
    assert np.abs(here.steered[:read] - here.plain[:read]).max() > 5
    assert np.abs(one_late - here.steered[:read]).max() > 1  # at another layer it is another model
    assert np.abs(again - here.plain[:read]).max() < 1e-3


def test_the_quantised_file_is_steered_as_much(
    smol: LensModel, quantised: Path, directions: Directions, prompt: list[int], here: Here
) -> None:
    """llama.cpp rounds activations where weights are Q4_1: what steering changes agrees as far as logits do without."""
    vectors, reply = summed(directions, DOSES, raw=True), here.reply[:8]
    with hooked(smol, vectors):
        forced, _ = ours(smol, prompt, reply)
    with engine(quantised) as made:
        their_plain, _ = theirs(made, prompt, reply)
        made.steer(vectors)
        their_forced, _ = theirs(made, prompt, reply)
    plain = here.plain[: len(forced)]
    change, their_change = forced - plain, their_forced - their_plain

    def off(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Root mean square over the vocabulary, at each position."""
        return np.sqrt(((found - expected) ** 2).mean(axis=1))

    rounding, moved = off(their_plain, plain), off(forced, plain)
    assert np.median(moved) > 5 * np.median(rounding)
    assert np.median(off(their_change, change)) < 2 * np.median(rounding)
    # the first token is apart: it is an attention sink, which steering hardly moves
    agree = [float(np.corrcoef(a, b)[0, 1]) for a, b in zip(change[1:], their_change[1:], strict=True)]
    assert min(agree) > 0.9
    assert np.median(agree) > 0.97
