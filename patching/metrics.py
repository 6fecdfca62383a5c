"""What a patch is judged by: functions of what was read of a run, which add, subtract and scale.

Each gives one number a run, clean, corrupt or patched; a sweep normalises between the first two. A metric says
beforehand what it needs read (verbalisers, the last logits, streams), so one pass serves several and does no more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.errors import PatchError
from affectlens.model import LensModel
from affectlens.patching.pairs import PatchPair, Side
from affectlens.positions import Position
from affectlens.readout import pool_labels
from affectlens.types import Json
from affectlens.verbalisers import Labels, check_labels

Values = Float[Tensor, " row"]


@dataclass(frozen=True, eq=False)
class Reading:
    """What was read of several runs of one text, a row each."""

    side: Side  # the text that was run
    pair: PatchPair
    words: tuple[str, ...] = ()  # the verbalisers
    logprobs: Float[Tensor, "row verbaliser"] | None = None  # float64
    logits: Float[Tensor, "row d_vocab"] | None = None  # of the last token
    streams: Mapping[int, Float[Tensor, "row pos d_model"]] = field(default_factory=dict)  # leaving a layer, by layer
    texts: tuple[str, ...] = ()  # what was generated
    top: Int[Tensor, " row"] | None = None  # the likeliest next token
    clean: "Reading | None" = None  # of the unpatched runs, one row each; None while these are read
    corrupt: "Reading | None" = None

    def beside(self, ends: Mapping[str, "Reading"]) -> "Reading":
        """The same with the pair's unpatched runs, ``clean`` and ``corrupt``."""
        return replace(self, clean=ends["clean"], corrupt=ends["corrupt"])

    def label(self, words: str | Sequence[str]) -> Float[Tensor, " row"]:
        """log P of one label, float64: the log-sum-exp over its verbalisers."""
        assert self.logprobs is not None
        chosen = [self.words.index(word) for word in listed(words)]
        return pool_labels(self.logprobs[:, chosen], [0] * len(chosen))[:, 0]

    def pooled(self, layer: int, position: Position) -> Float[Tensor, "row d_model"]:
        """The stream leaving ``layer``, pooled by a rule over the text's tokens."""
        stream = self.streams[layer].float()  # as captures are pooled
        weights = torch.from_numpy(position.weights(self.side.layout)).to(stream)
        return torch.einsum("rpd,p->rd", stream[:, : len(weights)], weights)


@dataclass(frozen=True, eq=False)
class Metric:
    """A number for each run, and what has to be read for it."""

    name: str
    value: Callable[[Reading], Values]
    unit: str = "nats"
    labels: Mapping[str, str | Sequence[str]] = field(default_factory=dict)  # read log P of these after the prompt
    logits: bool = False  # read the last token's logits
    layers: frozenset[int] = frozenset()  # read the stream that leaves these layers
    generate: int = 0  # tokens to generate from each run; such a run is not resumed, so it is slow
    key: str = ""  # what tells it from another metric of the same name, for sweeps that are continued
    cue: str | None = None  # what must follow each text for the metric to mean what it says; None is anything
    chat: bool = False  # whether it was fitted on conversations; only where there is a cue is this checked

    def __call__(self, reading: Reading) -> Values:
        return self.value(reading)

    @property
    def facts(self) -> Json:
        """What tells its numbers from another metric's, for what is kept and continued."""
        labels, layers = {name: listed(words) for name, words in self.labels.items()}, sorted(self.layers)
        return {"name": self.name, "key": self.key, "labels": labels, "layers": layers, "cue": self.cue}

    def __add__(self, other: "Metric") -> "Metric":
        return _joined(self, other, "+", lambda reading: self(reading) + other(reading))

    def __sub__(self, other: "Metric") -> "Metric":
        return _joined(self, other, "-", lambda reading: self(reading) - other(reading))

    def __neg__(self) -> "Metric":
        return replace(self, name=f"-({self.name})", value=lambda reading: -self(reading))

    def __mul__(self, factor: int | float) -> "Metric":
        return replace(self, name=f"{factor:g} x ({self.name})", value=lambda reading: factor * self(reading))

    __rmul__ = __mul__

    def named(self, name: str) -> "Metric":
        """The same under another name."""
        return replace(self, name=name)


def _joined(a: Metric, b: Metric, sign: str, value: Callable[[Reading], Values]) -> Metric:
    return Metric(
        f"{a.name} {sign} {b.name}", value, a.unit if a.unit == b.unit else "mixed units",
        _both(a, b), a.logits or b.logits, a.layers | b.layers, max(a.generate, b.generate),
        f"{a.key} {sign} {b.key}", merged_cue([a, b]), a.chat or b.chat,
    )  # fmt: skip


def _both(a: Metric, b: Metric) -> dict[str, str | Sequence[str]]:
    """Both metrics' labels; one that has two meanings is named after its metric."""
    shared = {name for name in a.labels if name in b.labels and listed(a.labels[name]) != listed(b.labels[name])}
    return {**a.labels, **{f"{name} ({b.name})" if name in shared else name: w for name, w in b.labels.items()}}


def words_of(metrics: Sequence[Metric]) -> tuple[str, ...]:
    """The verbalisers that metrics read, each once: two metrics may ask for one."""
    every = (listed(words) for metric in metrics for words in metric.labels.values())
    return tuple(dict.fromkeys(word for words in every for word in words))


def merged_cue(metrics: Sequence[Metric]) -> str | None:
    """The cue that all metrics ask for; None if none asks for one.

    Raises:
        PatchError: two that ask for different ones.
    """
    asked = {metric.cue: metric.name for metric in metrics if metric.cue is not None}
    if len(asked) > 1:
        (one, name), (other, its), *_ = asked.items()
        raise PatchError(f"{name} is for texts that end with {one!r} and {its} for {other!r}: read them in two sweeps.")
    return next(iter(asked), None)


def listed(words: str | Sequence[str]) -> list[str]:
    """One verbaliser or several, as several."""
    return [words] if isinstance(words, str) else list(words)


def label_difference(labels: Labels, a: str, b: str) -> Metric:
    """log P(a) - log P(b) in nats, labels of several verbalisers and tokens included; see :mod:`affectlens.labels`.

    Args:
        labels: label to verbaliser or verbalisers.
        a: the label whose probability counts upward; the clean text's.
        b: the other.

    Raises:
        PatchError: a label that is not among them.
    """
    _known(labels, a, b)
    both, name = {name: labels[name] for name in (a, b)}, f"log P({a}) - log P({b})"
    return Metric(name, lambda reading: reading.label(both[a]) - reading.label(both[b]), labels=both)


def own_emotion(labels: Labels) -> Metric:
    """log P(the pair's emotion) - log P(any other label), in nats: for category.

    Args:
        labels: the emotions' names to their verbalisers; a pair's emotion must be among them.
    """
    check_labels(labels)

    def value(reading: Reading) -> Values:
        own = reading.pair.emotion
        if own not in labels:
            raise PatchError(f"{reading.side.name} is of {own!r}, which has no label; there are {', '.join(labels)}.")
        others = torch.stack([reading.label(words) for name, words in labels.items() if name != own], dim=-1)
        return reading.label(labels[str(own)]) - others.logsumexp(-1)

    return Metric("log-odds of the pair's emotion", value, labels=dict(labels))


def valence_difference(labels: Labels, pleasant: str = "pleasant", unpleasant: str = "unpleasant") -> Metric:
    """log P(pleasant) - log P(unpleasant) in nats, its sign turned where the pair's clean text is unpleasant.

    Args:
        labels: label to verbaliser or verbalisers.
        pleasant: the label of pleasant texts.
        unpleasant: the label of the others.
    """
    plain = label_difference(labels, pleasant, unpleasant)

    def value(reading: Reading) -> Values:
        sign = reading.pair.valence
        if not sign:
            raise PatchError(f"{reading.side.name} is neither pleasant nor unpleasant: leave its pair out.")
        return sign * plain(reading)

    return replace(plain, name=f"valence, {plain.name} in the clean text's direction", value=value)


def _known(labels: Labels, *names: str) -> None:
    check_labels(labels)
    for name in names:
        if name not in labels:
            raise PatchError(f"There is no label {name!r} among {', '.join(labels)}.")


def logit_difference(model: LensModel, a: str, b: str) -> Metric:
    """The logit of token ``a`` less that of token ``b``, at the last token; unlike log-probabilities not normalised.

    Args:
        model: whose tokenizer is used.
        a: a string of one token, with the space that goes before it.
        b: the other.

    Raises:
        PatchError: a string of several tokens.
    """
    ids = []
    for text in (a, b):
        ids += (found := model.tokenizer(text, add_special_tokens=False).input_ids)
        if len(found) != 1:
            raise PatchError(f"{text!r} has {len(found)} tokens, a logit has one: use label_difference.")

    def value(reading: Reading) -> Values:
        assert reading.logits is not None
        return reading.logits[:, ids[0]] - reading.logits[:, ids[1]]

    return Metric(f"logit of {a!r} - logit of {b!r}", value, unit="logits", logits=True)


def kl() -> Metric:
    """-KL(clean, run) of the next token, in nats: 0 for the clean run itself.

    Its effect in a denoising sweep is 1 - KL(clean, patched) / KL(clean, corrupt).
    """

    def value(reading: Reading) -> Values:
        there, here = (one.logits if one else None for one in (reading.clean, reading))
        assert there is not None
        assert here is not None
        clean, run = (one.double().log_softmax(-1) for one in (there, here))
        return -(clean.exp() * (clean - run)).sum(-1)

    return Metric("-KL(clean, run)", value, logits=True)


def written(name: str, score: Callable[[str], float], *, tokens: int = 32) -> Metric:
    """A score of the text that the model writes greedily. Each run is whole and unbatched: for a few cells.

    Args:
        name: what the score is.
        score: from what was written to a number.
        tokens: how many to write at most.
    """

    def value(reading: Reading) -> Values:
        return torch.tensor([float(score(text)) for text in reading.texts], dtype=torch.float64)

    return Metric(name, value, unit="score", generate=tokens)
