"""Steered generation beside plain Hugging Face generation, a baked checkpoint, and peers, in one run.

Every way writes the same number of tokens greedily, one text, with the key-value cache, steered by the same vector at
the same layer; the ways take turns. The figure is the ratio of tokens a second to plain ``generate``, median of the
rounds' own ratios with their range. Peers that are not installed are left out:

    pip install --no-deps repeng steering-vectors
    python benchmarks/steering.py --tokens 64 --rounds 7
"""

import argparse
import contextlib
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import affectlens as al
from affectlens.steering import Direction, Directions, steer

PROMPT = "Tell me about your day."
RAW = 0.2
Writer = Callable[[], Any]


def main() -> None:
    """Time the ways and print a table."""
    args = _arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    model = al.load_model(args.model)
    ids = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPT}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    how = {"max_new_tokens": args.tokens, "min_new_tokens": args.tokens, "do_sample": False, "pad_token_id": 0}
    found = _direction(model)
    with contextlib.ExitStack() as stack:
        ways = dict(_ways(stack, model, found, ids, how))
        texts = {name: way() for name, way in ways.items()}  # warm, and each plan proved
        _compare(texts)
        ratios: dict[str, list[float]] = {name: [] for name in ways}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(args.rounds):
            order = list(ways) if turn % 2 == 0 else list(reversed(ways))
            took = {name: _timed(ways[name]) for name in order}
            for name, value in took.items():
                seconds[name].append(value)
                ratios[name].append(took["plain"] / value)
    for name in ways:
        r = sorted(ratios[name])
        print(f"{name:<18} {args.tokens / statistics.median(seconds[name]):7.1f} tokens/s   "
              f"{statistics.median(r):.3f} of plain [{r[0]:.3f}, {r[-1]:.3f}]")  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps({"ratios": ratios, "seconds": seconds}, indent=1), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write every round's figures here")
    return parser.parse_args()


def _direction(model: Any) -> Directions:
    rng = np.random.default_rng(0)
    vector = rng.normal(size=model.d_model)
    layer = round(0.6 * model.n_layers)
    unit = (vector / np.linalg.norm(vector)).astype(np.float32)
    return Directions([Direction("axis", f"L{layer}.resid_post", unit, norm=100.0, method="random", model=model.name,
                                 fingerprint=model.fingerprint)])  # fmt: skip


def _ways(
    stack: contextlib.ExitStack, model: Any, found: Directions, ids: torch.Tensor, how: dict[str, Any]
) -> Iterator[tuple[str, Writer]]:
    mask = torch.ones_like(ids)
    one = found.all[0]
    layer, vector = one.at.layer, torch.as_tensor(RAW * one.norm * one.vector)

    def plain() -> torch.Tensor:
        return model.hf.generate(ids, attention_mask=mask, **how)

    def ours(**more: Any) -> torch.Tensor:
        with steer(model, {"axis": RAW}, directions=found, raw=True, **more):
            return model.hf.generate(ids, attention_mask=mask, **how)

    yield "plain", plain
    yield "affectlens", ours
    yield "affectlens, reply", lambda: ours(positions="response", schedule="decay(32)")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    yield "baked", _baked(model, found, folder / "baked", ids, mask, how)
    yield from _peers(model, layer, vector, ids, mask, how)
    yield "bridge", _bridge(model, layer, vector, ids, how)


def _baked(model: Any, found: Directions, folder: Path, ids: Any, mask: Any, how: dict[str, Any]) -> Writer:
    from affectlens.steering.exporting import export

    export(found, folder, to="checkpoint", doses={"axis": RAW}, raw=True, model=model)
    from transformers import AutoModelForCausalLM

    hf = AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype).eval()
    return lambda: hf.generate(ids, attention_mask=mask, **how)


def _peers(
    model: Any, layer: int, vector: torch.Tensor, ids: Any, mask: Any, how: dict[str, Any]
) -> Iterator[tuple[str, Writer]]:
    with contextlib.suppress(ImportError):
        vars(np).setdefault("float_", np.float64)  # repeng 0.4 names a type of NumPy 1
        from repeng import ControlModel, ControlVector

        wrapped = ControlModel(_twin(model.hf), [layer])
        control = ControlVector(model_type=model.hf.config.model_type, directions={layer: vector.numpy()})

        def by_repeng() -> torch.Tensor:
            wrapped.set_control(control, 1.0)
            try:
                return wrapped.generate(ids, attention_mask=mask, **how)
            finally:
                wrapped.reset()

        yield "repeng", by_repeng
    with contextlib.suppress(ImportError):
        from steering_vectors import SteeringVector

        theirs = SteeringVector(layer_activations={layer: vector}, layer_type="decoder_block")

        def by_steering_vectors() -> torch.Tensor:
            with theirs.apply(model.hf, min_token_index=0):
                return model.hf.generate(ids, attention_mask=mask, **how)

        yield "steering-vectors", by_steering_vectors


def _bridge(model: Any, layer: int, vector: torch.Tensor, ids: Any, how: dict[str, Any]) -> Writer:
    bridge = model.bridge

    def add(value: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001 (the bridge names it)
        return value + vector

    def way() -> torch.Tensor:
        with bridge.hooks(fwd_hooks=[(f"blocks.{layer}.hook_out", add)]):
            return bridge.generate(ids, max_new_tokens=how["max_new_tokens"], do_sample=False, verbose=False,
                                   stop_at_eos=False, return_type="tokens")  # fmt: skip

    return way


def _twin(hf: Any) -> Any:
    """A second module tree over the same parameters: a peer wraps the modules that it is given."""
    memo = {id(p): p for p in (*hf.parameters(), *hf.buffers())}
    return copy.deepcopy(hf, memo)


def _timed(way: Writer) -> float:
    start = time.perf_counter()
    with torch.inference_mode():
        way()
    return time.perf_counter() - start


def _compare(texts: dict[str, Any]) -> None:
    """Say whether all steered ways wrote the same."""
    ours = torch.as_tensor(texts["affectlens"])
    for name, text in texts.items():
        if name not in ("plain", "affectlens, reply"):
            same = torch.equal(torch.as_tensor(text)[..., -32:].reshape(-1), ours[..., -32:].reshape(-1))
            print(f"{name:<18} {'writes the same text' if same else 'WRITES ANOTHER TEXT'}")


if __name__ == "__main__":
    main()
