"""What edges a model can have: who writes into the residual stream, and who reads it, in the order of computation.

Every head and MLP reads the sum of what all before it wrote, so each pair of an earlier writer and a later reader is an
edge. Heads read three times, into queries, keys and values; where several heads share a key and a value (grouped-query
attention), the readers are the key-value heads.

======== ============== ============================================================================
senders  ``embedding``  what enters the first block
         ``L3.H2``      a head's output, through its part of the o matrix (and a norm after attention)
         ``L3.mlp_out`` an MLP's output
readers  ``L3.H2.q``    a head's queries
         ``L3.H0.k``    a key-value head's keys; ``L3.H0.v`` its values
         ``L3.mlp_in``  an MLP
         ``end``        what the metric reads: the logits, or the stream that leaves a layer
======== ============== ============================================================================

A set of edges is a boolean array ``[sender, receiver]``. Biases write the same in every run, so they carry no
difference between two texts and are no nodes. In parallel blocks a head does not reach its own layer's MLP.
"""

from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool

from affectlens.errors import CircuitError
from affectlens.model import LensModel
from affectlens.sites import Site
from affectlens.types import Json

ARROW = " -> "
Edges = Bool[np.ndarray, "sender receiver"]


@dataclass(frozen=True)
class EdgeSpace:
    """The nodes and possible edges of a model, up to the layer that a metric reads.

    Attributes:
        n_layers: how many layers count: those up to the one whose stream is read.
        n_heads: heads a layer.
        n_kv: key-value heads a layer.
        parallel: of each layer, whether its MLP reads what its attention reads.
        end: what the reader ``end`` is, in words: ``logits`` or a site such as ``L22.resid_post``.
    """

    n_layers: int
    n_heads: int
    n_kv: int
    parallel: tuple[bool, ...]
    end: str = "logits"

    @classmethod
    def of(cls, model: LensModel, *, layer: int | None = None) -> "EdgeSpace":
        """The space of a model.

        Args:
            model: from :func:`affectlens.load_model`.
            layer: whose stream is read; None reads the logits.

        Raises:
            CircuitError: a model without heads or MLPs that can be reached.
        """
        lacking = [kind for kind in ("q", "k", "v", "z", "attn_out", "mlp_out") if kind not in model.sites.kinds]
        if lacking:
            raise CircuitError(
                f"{model.name} has no {', '.join(lacking)} that AffectLens can reach, so it has no edges to find: "
                "circuits need a model whose heads and MLPs add to one residual stream."
            )
        layers = model.n_layers if layer is None else layer + 1
        n_kv = model.sites.shape(Site("k", 0))[0]
        parallel = tuple(not model.sites.has(Site("resid_mid", at)) for at in range(layers))
        end = "logits" if layer is None else Site("resid_post", layer).text
        return cls(layers, model.n_heads, n_kv, parallel, end)

    @cached_property
    def senders(self) -> tuple[str, ...]:
        """The writers' names, in the order of computation."""
        blocks = ((*(f"L{at}.H{h}" for h in range(self.n_heads)), f"L{at}.mlp_out") for at in range(self.n_layers))
        return ("embedding", *(name for block in blocks for name in block))

    @cached_property
    def receivers(self) -> tuple[str, ...]:
        """The readers' names, in the order of computation."""
        out: list[str] = []
        for at in range(self.n_layers):
            out += [f"L{at}.H{h}.q" for h in range(self.n_heads)]
            out += [f"L{at}.H{h}.{kind}" for kind in "kv" for h in range(self.n_kv)]
            out.append(f"L{at}.mlp_in")
        return (*out, "end")

    @cached_property
    def allowed(self) -> Edges:
        """Which pairs are edges: the sender is computed before the receiver."""
        written = np.array([self.time(name) for name in self.senders])
        read = np.array([self.time(name) for name in self.receivers])
        return np.asarray(written[:, None] < read[None])

    @cached_property
    def feeds(self) -> Bool[np.ndarray, "receiver sender"]:
        """Which senders are computed from which receivers: a head from its queries and its group's keys and values."""
        out = np.zeros((len(self.receivers), len(self.senders)), dtype=bool)
        group = self.n_heads // self.n_kv
        for row, name in enumerate(self.receivers[:-1]):
            layer, part = name.split(".", 1)
            if part == "mlp_in":
                out[row, self.sender[f"{layer}.mlp_out"]] = True
                continue
            head, kind = part[1:].split(".")
            heads = [int(head)] if kind == "q" else range(int(head) * group, (int(head) + 1) * group)
            out[row, [self.sender[f"{layer}.H{h}"] for h in heads]] = True
        return out

    @cached_property
    def sender(self) -> dict[str, int]:
        """Each sender's row."""
        return {name: row for row, name in enumerate(self.senders)}

    @cached_property
    def receiver(self) -> dict[str, int]:
        """Each receiver's column."""
        return {name: column for column, name in enumerate(self.receivers)}

    @property
    def n_edges(self) -> int:
        """How many edges there are in all."""
        return int(self.allowed.sum())

    def time(self, name: str) -> int:
        """When a sender has written, or a receiver reads; of equal times neither reaches the other.

        Args:
            name: of a sender or receiver.
        """
        if name in ("embedding", "end"):
            return 0 if name == "embedding" else 4 * self.n_layers + 1
        layer, part = name[1:].split(".", 1)
        at = int(layer)
        if part == "mlp_in":
            return 4 * at + (1 if self.parallel[at] else 3)
        return 4 * at + (4 if part == "mlp_out" else 1 if "." in part else 2)

    def index(self, edge: str) -> tuple[int, int]:
        """The row and column of an edge's name, such as ``L3.H2 -> L5.H0.k``.

        Raises:
            CircuitError: if there is none such.
        """
        sender, _, receiver = edge.partition(ARROW)
        row, column = self.sender.get(sender, -1), self.receiver.get(receiver, -1)
        if row < 0 or column < 0 or not self.allowed[row, column]:
            raise CircuitError(
                f"There is no edge {edge!r}: name one as 'L3.H2 -> L5.H0.k', a sender before its receiver."
            )
        return row, column

    def name(self, row: int, column: int) -> str:
        """The name of an edge.

        Args:
            row: the sender's.
            column: the receiver's.
        """
        return f"{self.senders[row]}{ARROW}{self.receivers[column]}"

    def connected(self, edges: Edges) -> Edges:
        """Those edges that lie on a path from the embedding to the end; the rest can't carry anything there.

        Args:
            edges: the set.
        """
        reached = np.zeros(len(self.senders), dtype=bool)
        reached[0] = True
        order = np.argsort([self.time(name) for name in self.receivers], kind="stable")
        for column in order:
            if (edges[:, column] & reached).any():
                reached |= self.feeds[column]
        useful = np.zeros(len(self.receivers), dtype=bool)
        useful[-1] = True
        for row in reversed(np.argsort([self.time(name) for name in self.senders], kind="stable")):
            if (edges[row] & useful).any():
                useful |= self.feeds[:, row]
        return np.asarray(edges & reached[:, None] & useful[None])

    def check(self, edges: Edges) -> None:
        """Refuse a set of edges that are not all of this space.

        Args:
            edges: the set.

        Raises:
            CircuitError: if one is not.
        """
        if edges.shape != self.allowed.shape or (edges & ~self.allowed).any():
            raise CircuitError(
                "This circuit has edges that the space lacks: it is another model's, or another layer's. Take one made "
                "for this model and metric."
            )

    def to_json(self) -> Json:
        """What :meth:`from_json` reads."""
        return asdict(self) | {"parallel": list(self.parallel)}

    @classmethod
    def from_json(cls, found: Json) -> "EdgeSpace":
        """The space that :meth:`to_json` wrote.

        Args:
            found: its dictionary.
        """
        return cls(**(found | {"parallel": tuple(found["parallel"])}))
