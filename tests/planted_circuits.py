"""Models whose circuits are known because their weights were written by hand.

All are Llamas without norms (so that an edge carries what the weights say), of 4 heads and a byte-level tokenizer: a
character is a token, and a feature of it a dimension of the stream. A text has a sink ``^``, an event, a goal and a
query ``?``, in that order, with fillers between. Emotion = the event happened AND it was wanted, as in the crossed
design, so both the event and the goal can be exchanged to make a neutral text.

Rotary embedding turns a head's first pair of dimensions by a radian a token and the others hardly at all
(``rope_theta`` is 1e16), so heads match content in the latter. On top of what is planted, every matrix has Gaussian
noise of standard deviation ``noise``: no edge that can carry anything is exactly 0.

What is ``true`` of a planted model is proved in the tests, by exact path patches of every edge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import nn

from affectlens.model import LensModel, load_model
from affectlens.patching.metrics import Metric, logit_difference
from affectlens.patching.pairs import PatchPair, prepare
from affectlens.quiet import quiet_transformers
from affectlens.testing import VOCABULARY, tiny_tokenizer
from affectlens.texts import TextFrame

D_MODEL, N_HEADS, D_HEAD, D_MLP = 32, 4, 8, 16
NOISE = 0.01
SURE = 12.0  # by how much a head's score for its match exceeds that for the sink
FEATURES = (
    "one", "sink", "slot", "goal_slot", "query", "event", "other_event", "goal", "moved", "other_moved",
    "emotion", "other_emotion", "wanted", "felt", "other_felt", "backed", "said", "other_said",
)  # fmt: skip
AT = {name: at for at, name in enumerate(FEATURES)}
# what each character is; fillers are only "one"
CHARACTERS: Mapping[str, Mapping[str, float]] = {
    "^": {"sink": 1.0},
    "J": {"slot": 1.0, "event": 1.0},
    "K": {"slot": 1.0, "other_event": 1.0},
    "n": {"slot": 1.0},
    "W": {"goal_slot": 1.0, "goal": 1.0},
    "u": {"goal_slot": 1.0},
    "?": {"query": 1.0},
}
FILLERS = "abcdefgh"


@dataclass(frozen=True, eq=False)
class Planted:
    """A model with a known circuit, and what it is asked."""

    model: LensModel
    pairs: list[PatchPair]
    metric: Metric
    edges: frozenset[str]  # the circuit
    hidden: frozenset[str] = frozenset()  # those that matter only while others are off

    def half(self, second: bool) -> list[PatchPair]:
        """The pairs of every other scene: some to discover edges with, some to judge them by."""
        return [pair for pair in self.pairs if int(pair.group[1:]) % 2 == second]


class Writer:
    """Writes into a Llama's weights, by features' names."""

    def __init__(self, *, n_layers: int, n_kv: int = N_HEADS, noise: float = NOISE, seed: int = 0) -> None:
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            import transformers

            hf: Any = transformers
            config = hf.LlamaConfig(
                hidden_size=D_MODEL, intermediate_size=D_MLP, num_hidden_layers=n_layers, num_attention_heads=N_HEADS,
                num_key_value_heads=n_kv, head_dim=D_HEAD, vocab_size=VOCABULARY, max_position_embeddings=256,
                bos_token_id=0, eos_token_id=1, pad_token_id=2, tie_word_embeddings=False,
                rope_parameters={"rope_type": "default", "rope_theta": 1e16},
            )  # fmt: skip
            self.hf = hf.LlamaForCausalLM(config).requires_grad_(False)
        self.tokenizer, self.n_kv = tiny_tokenizer(), n_kv
        rng = torch.Generator().manual_seed(seed)
        for parameter in self.hf.parameters():
            parameter.copy_(noise * torch.randn(parameter.shape, generator=rng))
        self.hf.model.norm = nn.Identity()
        for layer in self.hf.model.layers:
            layer.input_layernorm, layer.post_attention_layernorm = nn.Identity(), nn.Identity()
        self.used = [0] * n_layers  # neurons written, by layer

    def token(self, text: str) -> int:
        """A character's token."""
        found: int = self.tokenizer(text).input_ids[0]
        return found

    def embed(self, characters: Mapping[str, Mapping[str, float]] = CHARACTERS) -> None:
        """Give every character its features."""
        table = self.hf.model.embed_tokens.weight
        for character in {*FILLERS, *characters}:
            for name, value in {"one": 1.0, **characters.get(character, {})}.items():
                table[self.token(character), AT[name]] += value

    def head(
        self, layer: int, head: int, *, q: Mapping[str, float], k: Mapping[str, float], v: str = "", to: str = "",
        gain: float = 1.0, moves: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """A head whose score is (its query features' sum) x (its key features' sum), and which moves features.

        Of a group of heads with one key and value, the key's and value's part is written for all of them.
        """
        block, group = self.hf.model.layers[layer].self_attn, head * self.n_kv // N_HEADS
        match = 2  # a dimension that rotary embedding leaves as it is
        for name, value in q.items():
            block.q_proj.weight[head * D_HEAD + match, AT[name]] += value
        for name, value in k.items():
            block.k_proj.weight[group * D_HEAD + match, AT[name]] += value * D_HEAD**0.5
        for at, (source, target) in enumerate((moves or {v: to}).items()):
            block.v_proj.weight[group * D_HEAD + at, AT[source]] += 1.0
            block.o_proj.weight[AT[target], head * D_HEAD + at] += gain

    def neuron(self, layer: int, *, gate: Mapping[str, float], up: Mapping[str, float], to: str, gain: float) -> None:
        """silu(gate) x up, written to a feature."""
        block, at = self.hf.model.layers[layer].mlp, self.used[layer]
        self.used[layer] += 1
        for name, value in gate.items():
            block.gate_proj.weight[at, AT[name]] += value
        for name, value in up.items():
            block.up_proj.weight[at, AT[name]] += value
        block.down_proj.weight[AT[to], at] += gain

    def both(self, layer: int, a: str, b: str, to: str) -> None:
        """``to`` = 1 where features ``a`` and ``b`` both are 1, and 0 where one is 0."""
        self.neuron(layer, gate={a: 8.0}, up={b: 1.0}, to=to, gain=1 / 8)

    def clipped(self, layer: int, sources: Sequence[str], to: str, *, sharp: float = 30.0) -> None:
        """``to`` = the sources' sum, at least 0 and at most 1."""
        total = dict.fromkeys(sources, sharp)
        self.neuron(layer, gate=total, up={"one": 1.0}, to=to, gain=1 / sharp)
        self.neuron(layer, gate=total | {"one": -sharp}, up={"one": 1.0}, to=to, gain=-1 / sharp)

    def say(self, feature: str, character: str, gain: float = 4.0) -> None:
        """Let a feature at the last token raise a character's logit."""
        self.hf.lm_head.weight[self.token(character), AT[feature]] += gain

    def model(self) -> LensModel:
        """The model, load-checked."""
        return load_model(model=self.hf, tokenizer=self.tokenizer)


def crossed(
    model: LensModel, *, event: str = "J", scenes: int = 12, n_domains: int = 4, seed: int = 0
) -> list[PatchPair]:
    """Scenes of an emotional text and two neutral ones: without the event, and with it not wanted; of equal lengths."""
    rng = torch.Generator().manual_seed(seed)
    rows = []
    for scene in range(scenes):
        fill = ["".join(FILLERS[int(i)] for i in torch.randint(len(FILLERS), (3,), generator=rng)) for _ in range(3)]
        for name, a, b in (("emotional", event, "W"), ("eventless", "n", "W"), ("unwanted", event, "u")):
            rows.append({
                "id": f"s{scene}.{name}", "text": f"^{fill[0]}{a}{fill[1]}{b}{fill[2]}?", "split": "vignettes",
                "role": "emotional" if name == "emotional" else "neutral", "emotion": "joy", "valence": 1,
                "domain": f"d{scene // 2 % n_domains}", "group": f"s{scene}", "affect": name == "emotional",
            })  # fmt: skip
    return prepare(model, TextFrame(pd.DataFrame(rows), name="crossed scenes"))


def linear(seed: int = 0) -> Planted:
    """A linear model: attention is uniform (its scores are below 1e-8: queries and keys of nothing at all can't be told
    from one another), MLPs are matrices, norms are none. Every edge that can carry anything does, and a gradient is
    exact."""
    writer = Writer(n_layers=3, n_kv=2, noise=0.25, seed=seed)
    rng = torch.Generator().manual_seed(seed + 1)
    for layer in writer.hf.model.layers:
        layer.self_attn.q_proj.weight.mul_(1e-5)
        layer.self_attn.k_proj.weight.mul_(1e-5)
        layer.mlp = nn.Linear(D_MODEL, D_MODEL, bias=False).requires_grad_(False)
        layer.mlp.weight.copy_(0.25 * torch.randn(D_MODEL, D_MODEL, generator=rng))
    writer.embed()
    model = writer.model()
    pairs = crossed(model, scenes=4)
    edges = frozenset(
        f"{sender} -> {receiver}"
        for layer in range(4)
        for receiver in ([f"L{layer}.H{h}.v" for h in range(2)] + [f"L{layer}.mlp_in"] if layer < 3 else ["end"])
        for sender in [
            "embedding",
            *(f"L{at}.{part}" for at in range(layer) for part in ("H0", "H1", "H2", "H3", "mlp_out")),
            *([f"L{layer}.H{h}" for h in range(4)] if receiver.endswith("mlp_in") else []),
        ]
    )
    return Planted(model, pairs, logit_difference(model, "j", "s"), edges)


def emotion(*, n_kv: int = N_HEADS, noise: float = NOISE, seed: int = 0) -> Planted:
    """Ten edges: a head carries the event on, an MLP joins it with the goal, a head carries the emotion to the query.

    L0.H0 attends to the event and moves it to later tokens; L1.mlp writes the emotion at the goal where both hold;
    L1.H3 brings the goal to the query, so that L2.H1's query there is on only if it was wanted; L2.H1 attends, by its
    key, to where the emotion is, and moves it; the last MLP says half of it again.
    """
    writer = Writer(n_layers=3, n_kv=n_kv, noise=noise, seed=seed)
    group = N_HEADS // n_kv
    writer.embed()
    writer.head(0, 0, q={"one": SURE}, k={"slot": 1.0}, v="event", to="moved")
    writer.both(1, "goal", "moved", "emotion")
    writer.head(1, 3, q={"query": SURE}, k={"goal_slot": 1.0}, v="goal", to="wanted")
    writer.head(2, 1, q={"wanted": SURE}, k={"emotion": 1.0, "sink": 0.5}, v="emotion", to="felt")
    writer.neuron(2, gate={"felt": 8.0}, up={"one": 0.5}, to="said", gain=1 / 8)
    writer.say("felt", "j")
    writer.say("said", "j")
    model = writer.model()
    pairs = crossed(model)
    edges = frozenset({
        "embedding -> L0.H0.v", "L0.H0 -> L1.mlp_in", "embedding -> L1.mlp_in", f"embedding -> L1.H{3 // group}.v",
        "L1.H3 -> L2.H1.q", f"L1.mlp_out -> L2.H{1 // group}.k", f"L1.mlp_out -> L2.H{1 // group}.v", "L2.H1 -> end",
        "L2.H1 -> L2.mlp_in", "L2.mlp_out -> end",
    })  # fmt: skip
    return Planted(model, pairs, logit_difference(model, "j", "s"), edges)


def two_emotions(*, noise: float = NOISE, seed: int = 0) -> dict[str, Planted]:
    """Two emotions in one model, of different events: the head that moves events and the MLP that joins them with the
    goal are shared, and a head of its own says each."""
    writer = Writer(n_layers=3, noise=noise, seed=seed)
    writer.embed()
    moves = {"event": "moved", "other_event": "other_moved"}
    writer.head(0, 0, q={"one": SURE}, k={"slot": 1.0}, moves=moves)
    writer.both(0, "goal", "moved", "emotion")
    writer.both(0, "goal", "other_moved", "other_emotion")
    writer.head(1, 1, q={"query": SURE}, k={"goal_slot": 1.0}, v="emotion", to="felt")
    writer.head(2, 2, q={"query": SURE}, k={"other_emotion": 1.0, "sink": 0.5}, v="other_emotion", to="other_felt")
    writer.say("felt", "j")
    writer.say("other_felt", "f")
    model = writer.model()
    shared = {"embedding -> L0.H0.v", "L0.H0 -> L0.mlp_in", "embedding -> L0.mlp_in"}
    own = {
        "joy": ("J", "j", {"L0.mlp_out -> L1.H1.v", "L1.H1 -> end"}),
        "fear": ("K", "f", {"L0.mlp_out -> L2.H2.v", "L0.mlp_out -> L2.H2.k", "L2.H2 -> end"}),
    }
    out = {}
    for name, (event, said, edges) in own.items():
        pairs = crossed(model, event=event)
        metric = logit_difference(model, said, "s")
        out[name] = Planted(model, pairs, metric, frozenset(shared | edges))
    return out


def backup(*, noise: float = NOISE, seed: int = 0) -> Planted:
    """Self-repair: L3.H2 does what L2.H1 does, but attends to the sink while L2.H1 has written; the last MLP says their
    sum, at most 1. What the backup does shows only when the main head is off; and what feeds the main head's values is
    repaired when it alone is patched."""
    writer = Writer(n_layers=4, noise=noise, seed=seed)
    writer.embed()
    writer.head(0, 0, q={"one": SURE}, k={"slot": 1.0}, v="event", to="moved")
    writer.both(0, "goal", "moved", "emotion")
    writer.head(2, 1, q={"query": SURE}, k={"goal_slot": 1.0}, v="emotion", to="felt")
    writer.head(3, 2, q={"query": SURE, "felt": -2 * SURE}, k={"goal_slot": 1.0}, v="emotion", to="backed")
    writer.clipped(3, ("felt", "backed"), "said")
    writer.say("said", "j")
    model = writer.model()
    pairs = crossed(model)
    edges = frozenset({
        "embedding -> L0.H0.v", "L0.H0 -> L0.mlp_in", "embedding -> L0.mlp_in", "L0.mlp_out -> L2.H1.v",
        "L2.H1 -> L3.mlp_in", "L3.mlp_out -> end",
    })  # fmt: skip
    hidden = frozenset({"L2.H1 -> L3.H2.q", "L0.mlp_out -> L3.H2.v", "L3.H2 -> L3.mlp_in"})
    return Planted(model, pairs, logit_difference(model, "j", "s"), edges, hidden)
