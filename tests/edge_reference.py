"""A plain reference for edges: a forward pass in which every reader has its own input, a sum that a function decides.

Slow, unbatched and written out by family (Llama, Gemma 3, Qwen 2, GPT-2, GPT-NeoX) from the Hugging Face modules, so
that what the engine finds by hooks can be compared with something that is right by reading it. The input of a reader is
the constants (attention's output biases) plus, for each writer before it, what ``value(sender, receiver, written)``
returns. A head writes z W_O[h]; where a norm follows attention, times its gain and this run's 1/rms, so that heads add
up to what attention writes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affectlens.model import LensModel, load_model
from affectlens.patching.metrics import Metric, Reading
from affectlens.patching.pairs import PatchPair, Side
from affectlens.testing import tiny_hf, tiny_tokenizer

Value = Callable[[str, str, Tensor], Tensor]  # sender, receiver, what the sender writes in this run: what is read
ARROW = " -> "


@dataclass(frozen=True, eq=False)
class Trace:
    """One run: what each writer wrote, ``[1, pos, d_model]``, and what came out."""

    wrote: dict[str, Tensor]
    raw: dict[str, Tensor]  # the heads' z W_O[h], before a norm after attention
    stream: Tensor  # what the reader ``end`` was given
    logits: Tensor | None  # [1, pos, d_vocab]; None where the metric reads a layer's stream
    read: dict[str, list[str]]  # each reader's writers


@dataclass(frozen=True)
class Plain:
    """A model written out; ``layer`` is the one whose stream the end reads, None for the logits."""

    model: LensModel
    layer: int | None = None
    family: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "family", str(self.model.hf.config.model_type))

    # 1. Where the modules are

    @cached_property
    def body(self) -> Any:
        return self.model.hf.base_model

    @cached_property
    def blocks(self) -> list[Any]:
        every = list(self.body.h if self.family == "gpt2" else self.body.layers)
        return every if self.layer is None else every[: self.layer + 1]

    @cached_property
    def config(self) -> Any:
        return self.model.hf.config

    @cached_property
    def n_heads(self) -> int:
        return int(self.config.num_attention_heads)

    @cached_property
    def n_kv(self) -> int:
        return int(getattr(self.config, "num_key_value_heads", None) or self.n_heads)

    @cached_property
    def d_head(self) -> int:
        return int(getattr(self.config, "head_dim", None) or self.config.hidden_size // self.n_heads)

    def attention(self, at: int) -> Any:
        return getattr(self.blocks[at], {"gpt2": "attn", "gpt_neox": "attention"}.get(self.family, "self_attn"))

    def parallel(self, at: int) -> bool:
        return self.family == "gpt_neox" and bool(self.blocks[at].use_parallel_residual)

    def embedding(self, ids: Sequence[int]) -> Tensor:
        tokens = torch.tensor([list(ids)])
        if self.family == "gpt2":
            return self.body.wte(tokens) + self.body.wpe(torch.arange(len(ids)))[None]
        return self.body.embed_in(tokens) if self.family == "gpt_neox" else self.body.embed_tokens(tokens)

    # 2. Reading: from a head's input in the stream to its query, key or value

    def weight(self, at: int, kind: str, head: int) -> tuple[Tensor, Tensor | None]:
        """The matrix ``[d_head, d_model]`` and the bias of one head's query, key or value."""
        module, d, width = self.attention(at), self.d_head, self.n_heads * self.d_head
        if self.family == "gpt2":  # one matrix: all queries, all keys, all values; transposed
            rows = slice(("qkv".index(kind) * width) + head * d, ("qkv".index(kind) * width) + (head + 1) * d)
            return module.c_attn.weight.T[rows], module.c_attn.bias[rows]
        if self.family == "gpt_neox":  # one matrix: of each head its query, key and value
            rows = slice((3 * head + "qkv".index(kind)) * d, (3 * head + "qkv".index(kind) + 1) * d)
            matrix = module.query_key_value
        else:
            rows, matrix = slice(head * d, (head + 1) * d), getattr(module, f"{kind}_proj")
        return matrix.weight[rows], None if matrix.bias is None else matrix.bias[rows]

    def reads(self, at: int, kind: str, head: int, x: Tensor) -> Tensor:
        """A head's queries, keys or values ``[1, pos, d_head]``, from its own input."""
        block = self.blocks[at]
        normed = block.ln_1(x) if self.family == "gpt2" else block.input_layernorm(x)
        matrix, bias = self.weight(at, kind, head)
        out = normed @ matrix.T + (0 if bias is None else bias)
        if kind == "v":
            return out
        if self.family == "gemma3_text":
            out = (self.attention(at).q_norm if kind == "q" else self.attention(at).k_norm)(out)
        return out if self.family == "gpt2" else self.rotated(at, out)

    def rotated(self, at: int, x: Tensor) -> Tensor:
        """Rotary position embedding of the first dimensions, in halves."""
        given = self.config.rope_parameters
        given = given[self.config.layer_types[at]] if self.family == "gemma3_text" else given
        size = int(self.d_head * given.get("partial_rotary_factor", 1.0))
        rate = given["rope_theta"] ** (-torch.arange(0, size, 2).float() / size)
        angle = torch.arange(x.shape[1])[:, None] * rate
        cos, sin = angle.cos(), angle.sin()
        a, b, rest = x[..., : size // 2], x[..., size // 2 : size], x[..., size:]
        return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), dim=-1)

    def attends(self, at: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What one head gives before the o matrix, ``[1, pos, d_head]``."""
        scale = self.config.query_pre_attn_scalar if self.family == "gemma3_text" else self.d_head
        there, here = torch.arange(q.shape[1])[:, None], torch.arange(q.shape[1])[None]
        seen = here <= there
        if self.family == "gemma3_text" and self.config.layer_types[at] == "sliding_attention":
            seen = seen & (there - here < self.config.sliding_window)
        scores = (q @ k.transpose(1, 2) / scale**0.5).masked_fill(~seen, float("-inf"))
        return scores.softmax(-1) @ v

    # 3. Writing

    def writes(self, at: int, head: int, z: Tensor) -> Tensor:
        """z W_O[h], ``[1, pos, d_model]``."""
        module, columns = self.attention(at), slice(head * self.d_head, (head + 1) * self.d_head)
        if self.family == "gpt2":
            return z @ module.c_proj.weight[columns]
        return z @ (module.dense if self.family == "gpt_neox" else module.o_proj).weight[:, columns].T

    def constant(self, at: int) -> Tensor | float:
        """The bias that attention adds, in every run the same."""
        module = self.attention(at)
        bias = {"gpt2": "c_proj", "gpt_neox": "dense"}.get(self.family, "o_proj")
        found = getattr(module, bias).bias
        return 0.0 if found is None else found

    def after(self, at: int, x: Tensor) -> Tensor:
        """The norm after attention, where there is one."""
        return self.blocks[at].post_attention_layernorm(x) if self.family == "gemma3_text" else x

    def frozen(self, at: int, total: Tensor) -> Tensor | float:
        """What each head's part is multiplied by so that the parts add up to the normed sum ``total``."""
        if self.family != "gemma3_text":
            return 1.0
        norm = self.blocks[at].post_attention_layernorm
        return (1 + norm.weight) * (total.pow(2).mean(-1, keepdim=True) + norm.eps).rsqrt()

    def feeds(self, at: int, x: Tensor) -> Tensor:
        """What an MLP writes, from its own input."""
        block = self.blocks[at]
        if self.family == "gemma3_text":
            return block.post_feedforward_layernorm(block.mlp(block.pre_feedforward_layernorm(x)))
        return block.mlp((block.ln_2 if self.family == "gpt2" else block.post_attention_layernorm)(x))

    def ends(self, x: Tensor) -> Tensor:
        """The logits."""
        name = {"gpt2": "ln_f", "gpt_neox": "final_layer_norm"}.get(self.family, "norm")
        return self.model.hf.get_output_embeddings()(getattr(self.body, name)(x))

    # 4. A run

    def run(
        self, ids: Sequence[int], value: Value = lambda sender, receiver, x: x, *, start: Tensor | None = None
    ) -> Trace:
        """One run.

        Args:
            ids: the text's tokens.
            value: what a reader gets of a writer, from their names and what was written.
            start: what enters the first block, in place of the tokens' embeddings.
        """
        wrote: dict[str, Tensor] = {"embedding": self.embedding(ids) if start is None else start}
        raw: dict[str, Tensor] = {}
        read: dict[str, list[str]] = {}
        constants: Tensor | float = 0.0

        def given(receiver: str) -> Tensor:
            read[receiver] = list(wrote)
            return sum((value(sender, receiver, x) for sender, x in wrote.items()), start=torch.zeros(())) + constants

        for at in range(len(self.blocks)):
            keys = {h: self.reads(at, "k", h, given(f"L{at}.H{h}.k")) for h in range(self.n_kv)}
            values = {h: self.reads(at, "v", h, given(f"L{at}.H{h}.v")) for h in range(self.n_kv)}
            heads = {}
            for h in range(self.n_heads):
                q, group = self.reads(at, "q", h, given(f"L{at}.H{h}.q")), h // (self.n_heads // self.n_kv)
                heads[f"L{at}.H{h}"] = self.writes(at, h, self.attends(at, q, keys[group], values[group]))
            mlp = self.feeds(at, given(f"L{at}.mlp_in")) if self.parallel(at) else None
            scale = self.frozen(at, sum(heads.values(), start=torch.zeros(())))
            wrote |= {name: x * scale for name, x in heads.items()}
            raw |= heads
            constants = constants + self.constant(at)
            wrote[f"L{at}.mlp_out"] = self.feeds(at, given(f"L{at}.mlp_in")) if mlp is None else mlp
        stream = given("end")
        return Trace(wrote, raw, stream, self.ends(stream) if self.layer is None else None, read)

    # 5. What is asked of edges

    @cached_property
    def known(self) -> dict[tuple[int, ...], Trace]:
        return {}

    @torch.no_grad()
    def own(self, ids: Sequence[int]) -> Trace:
        """A text's own run, kept."""
        if tuple(ids) not in self.known:
            self.known[tuple(ids)] = self.run(ids)
        return self.known[tuple(ids)]

    @torch.no_grad()
    def run_circuit(self, clean: Sequence[int], corrupt: Sequence[int], kept: set[str]) -> Trace:
        """Edges in ``kept`` carry what this run has, the others what the corrupt text's own run has."""
        other = self.own(corrupt).wrote
        return self.run(clean, lambda s, r, x: x if f"{s}{ARROW}{r}" in kept else other[s])

    @torch.no_grad()
    def patch_edge(self, clean: Sequence[int], corrupt: Sequence[int], edge: str) -> Trace:
        """Only ``edge`` carries what the corrupt text's run has; a norm after attention sees the exchanged head."""
        other, own = self.own(corrupt), self.own(clean)
        sender, receiver = edge.split(ARROW)
        if receiver not in own.read or sender not in own.read[receiver]:
            raise KeyError(edge)
        change = other.wrote[sender] - own.wrote[sender]
        if sender in own.raw:
            at = int(sender[1:].split(".")[0])
            parts = {name: x for name, x in own.raw.items() if name.startswith(f"L{at}.")}
            whole, swapped = (
                self.after(at, sum(these.values(), start=torch.zeros(())))
                for these in (parts, parts | {sender: other.raw[sender]})
            )
            change = swapped - whole
        return self.run(clean, lambda s, r, x: x + change if (s, r) == (sender, receiver) else x)

    @property
    def edges(self) -> list[str]:
        """Every edge, found by running."""
        read = self.own([3, 4, 5]).read
        return [f"{sender}{ARROW}{receiver}" for receiver, senders in read.items() for sender in senders]


def rough(family: str, *, seed: int = 0, scale: float = 4.0) -> LensModel:
    """A tiny model whose biases and gains are random too, and whose matrices are ``scale`` times as large, so that
    every edge counts."""
    hf = tiny_hf(family, seed=seed)
    rng = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in hf.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn(parameter.shape, generator=rng)
            else:
                parameter *= scale
    return load_model(model=hf, tokenizer=tiny_tokenizer(bos=family == "gemma3"))


@dataclass(frozen=True, eq=False)
class Question:
    """A pair and a metric: what edges do to it. A verbaliser of several tokens is a run of its own, text and tokens."""

    plain: Plain
    pair: PatchPair
    metric: Metric

    @classmethod
    def of(cls, model: LensModel, pair: PatchPair, metric: Metric) -> "Question":
        return cls(Plain(model, next(iter(metric.layers), None)), pair, metric)

    @cached_property
    def texts(self) -> list[tuple[list[int], list[int]]]:
        """The tokens of each run, of the clean and of the corrupt text."""
        a, b = self.pair.clean.prompt, self.pair.corrupt.prompt
        assert len(a.ids) == len(b.ids), "a token stands for that at its own place"
        tails = [()] if self.plain.layer is not None else [tail[:-1] for tail in a.tails]
        return [([*a.ids, *tail], [*b.ids, *tail]) for tail in tails]

    def judge(self, traces: Sequence[Trace], side: Side | None = None) -> Tensor:
        """The metric of the clean text's runs, one for each verbaliser; a scalar."""
        side = side or self.pair.clean
        n, layer = len(side.prompt.ids), self.plain.layer
        if layer is not None:
            return self.metric(Reading(side, self.pair, streams={layer: traces[0].stream[:, :n]}))[0]
        every = [trace.logits for trace in traces if trace.logits is not None]
        logprobs = [
            torch.stack([logits[0, n - 1 + i].double().log_softmax(-1)[token] for i, token in enumerate(tail)]).sum()
            for logits, tail in zip(every, side.prompt.tails, strict=True)
            if tail
        ]
        read = torch.stack(logprobs)[None] if logprobs else None
        return self.metric(Reading(side, self.pair, self.pair.words, read, every[0][:, n - 1]))[0]

    @property
    def full(self) -> float:
        return float(self.judge([self.plain.own(a) for a, _ in self.texts]))

    @property
    def corrupt(self) -> float:
        return float(self.judge([self.plain.own(b) for _, b in self.texts], self.pair.corrupt))

    def on(self, kept: set[str]) -> float:
        """The metric on a circuit."""
        return float(self.judge([self.plain.run_circuit(a, b, kept) for a, b in self.texts]))

    def drop(self, edge: str) -> float:
        """The drop if one edge is patched."""
        return self.full - float(self.judge([self.plain.patch_edge(a, b, edge) for a, b in self.texts]))

    def gradients(self, along: float) -> list[dict[str, Tensor]]:
        """Of each run, the metric's gradient by every reader's own input, so far ``along`` to the corrupt text."""
        traces, leaves = [], []
        for clean, corrupt in self.texts:
            these: dict[str, Tensor] = {}

            def value(_sender: str, receiver: str, x: Tensor, these: dict[str, Tensor] = these) -> Tensor:
                if receiver in these:
                    return x
                these[receiver] = torch.zeros_like(x, requires_grad=True)
                return x + these[receiver]

            a, b = (self.plain.own(ids).wrote["embedding"] for ids in (clean, corrupt))
            traces.append(self.plain.run(clean, value, start=a + along * (b - a)))
            leaves.append(these)
        flat = [leaf for these in leaves for leaf in these.values()]
        found = iter(torch.autograd.grad(self.judge(traces), flat, allow_unused=True, materialize_grads=True))
        return [{name: next(found) for name in these} for these in leaves]

    def eap(self, steps: int = 0) -> dict[str, float]:
        """Each edge's estimated drop: by the gradient at the clean text, or with ``steps`` by the mean of those along
        the straight way of the embedding to the corrupt text's, at Gauss and Legendre's nodes."""
        nodes, weights = np.polynomial.legendre.leggauss(steps) if steps else (np.array([-1.0]), np.array([2.0]))
        out = dict.fromkeys(self.plain.edges, 0.0)
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            for (clean, corrupt), gradients in zip(self.texts, self.gradients(float(node)), strict=True):
                own, other = self.plain.own(clean).wrote, self.plain.own(corrupt).wrote
                for edge in out:
                    sender, receiver = edge.split(ARROW)
                    out[edge] -= weight * float((gradients[receiver] * (other[sender] - own[sender])).sum())
        return out
