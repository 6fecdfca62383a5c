"""Addresses of activations: ``Site("resid_post", 12)``, in text ``L12.resid_post``; head 3 of layer 12 is ``L12.H3``.

========== ============ ==================================== ======================================
kind       text         what it is                           transformer-lens calls it
========== ============ ==================================== ======================================
resid_pre  L12.resid_pre the residual stream entering a block blocks.12.hook_resid_pre
q          L12.q, L12.H3.q  heads' queries                   blocks.12.attn.hook_q
k          L12.k, L12.H3.k  key-value heads' keys            blocks.12.attn.hook_k
v          L12.v, L12.H3.v  key-value heads' values          blocks.12.attn.hook_v
pattern    L12.pattern, L12.H3.pattern attention weights     blocks.12.attn.hook_pattern
z          L12.z, L12.H3 heads' outputs before the o matrix  blocks.12.attn.hook_z
attn_out   L12.attn_out what attention adds to the stream    blocks.12.hook_attn_out
resid_mid  L12.resid_mid the stream between the two          blocks.12.hook_resid_mid
neurons    L12.neurons, L12.N17 MLP neurons' outputs         blocks.12.mlp.hook_post
mlp_out    L12.mlp_out  what the MLP adds to the stream      blocks.12.hook_mlp_out
resid_post L12.resid_post the stream leaving a block         blocks.12.hook_resid_post
features   L12.features@NAME, L12.F7@NAME  an SAE's features  (an SAE attached to the model by name)
========== ============ ==================================== ======================================

Queries and keys are as their matrix gives them: before rotary embedding, before a norm of queries and keys where the
family has one, and before any scaling; in all this as transformer-lens's bridge has them. Where several heads share a
key and a value (grouped-query attention), ``k`` and ``v`` count the key-value heads, of which there are fewer.
"""

import re
from dataclasses import dataclass
from functools import total_ordering

from affectlens.errors import SiteError

KINDS = (
    "resid_pre", "q", "k", "v", "pattern", "z", "attn_out", "resid_mid", "neurons", "mlp_out", "resid_post", "features",
)  # fmt: skip
_TL = {
    "hook_resid_pre": "resid_pre", "hook_in": "resid_pre", "attn.hook_q": "q", "attn.hook_k": "k",
    "attn.hook_v": "v", "attn.hook_pattern": "pattern", "attn.hook_z": "z",
    "hook_attn_out": "attn_out", "hook_resid_mid": "resid_mid", "mlp.hook_post": "neurons",
    "hook_mlp_out": "mlp_out", "hook_resid_post": "resid_post", "hook_out": "resid_post",
}  # fmt: skip
_INDEXED = {
    "q": "H{}.q", "k": "H{}.k", "v": "H{}.v", "pattern": "H{}.pattern", "z": "H{}", "neurons": "N{}", "features": "F{}",
}  # fmt: skip
_TEXT = re.compile(
    r"L(?P<layer>\d+)\.(?:H(?P<head>\d+)(?:\.(?P<of>[qkv]|pattern))?|N(?P<neuron>\d+)|F(?P<feature>\d+)|(?P<kind>\w+))"
    r"(?:@(?P<sae>.+))?"
)
_FORMS = "L12.resid_post, L12.H3, L12.N17, L12.H3.q, L12.H3.pattern, L12.F7@sae or blocks.12.hook_resid_post"


@total_ordering
@dataclass(frozen=True)
class Site:
    """One activation of one layer; sorts in the order in which a block computes, prints and parses.

    >>> Site.parse("L12.H3")
    Site(kind='z', layer=12, index=3, sae=None)
    >>> str(Site.parse("blocks.12.attn.hook_z"))
    'L12.z'
    >>> sorted([Site("resid_post", 2), Site("attn_out", 2), Site("resid_post", 1)])[0].text
    'L1.resid_post'
    """

    kind: str
    layer: int
    index: int | None = None  # a head (of k and v a key-value head), neuron or feature; None is all of them
    sae: str | None = None  # for features: the name under which the dictionary was attached

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SiteError(f"There is no site {self.kind!r}; choose from {', '.join(KINDS)}.")
        if self.index is not None and self.kind not in _INDEXED:
            raise SiteError(f"{self.kind} has no parts to index; only {', '.join(_INDEXED)} have.")
        if self.layer < 0 or (self.index or 0) < 0:
            raise SiteError(f"Layers and indices count from 0: {self.layer}, {self.index} can't be.")
        if (self.sae is None) == (self.kind == "features"):
            raise SiteError("A feature's site names its dictionary, and no other site does: L12.F7@my-sae.")

    @classmethod
    def head(cls, layer: int, head: int) -> "Site":
        """One attention head's output before the output matrix, ``[d_head]``."""
        return cls("z", layer, head)

    @classmethod
    def neuron(cls, layer: int, index: int) -> "Site":
        """One MLP neuron, a scalar."""
        return cls("neurons", layer, index)

    @classmethod
    def pattern(cls, layer: int, head: int) -> "Site":
        """One head's attention weights, ``[query, key]``."""
        return cls("pattern", layer, head)

    @classmethod
    def feature(cls, sae: str, layer: int, index: int) -> "Site":
        """One feature of the dictionary that was attached as ``sae`` to a site of ``layer``."""
        return cls("features", layer, index, sae)

    @property
    def what(self) -> str:
        """The text form without its layer: the name under which layers are stacked."""
        name = self.kind if self.index is None else _INDEXED[self.kind].format(self.index)
        return f"{name}@{self.sae}" if self.sae else name

    @property
    def text(self) -> str:
        return f"L{self.layer}.{self.what}"

    def __str__(self) -> str:
        return self.text

    @property
    def order(self) -> tuple[int, int, str, int]:
        """What sites sort by: layer, the block's order of computing, dictionary, index."""
        return (self.layer, KINDS.index(self.kind), self.sae or "", -1 if self.index is None else self.index)

    def __lt__(self, other: "Site") -> bool:
        return self.order < other.order

    @classmethod
    def parse(cls, text: str) -> "Site":
        """The site that ``text`` names, in our form or in transformer-lens's.

        Raises:
            SiteError: if the text has another form or names an unknown kind.
        """
        if foreign := re.fullmatch(r"blocks\.(\d+)\.(.+)", text):
            if foreign[2] not in _TL:
                raise SiteError(f"{text!r} is not a site here; of a block there are {', '.join(sorted(_TL))}.")
            return cls(_TL[foreign[2]], int(foreign[1]))
        match = _TEXT.fullmatch(text)
        if not match:
            raise SiteError(f"{text!r} is not a site: write it as {_FORMS}.")
        layer, sae = int(match["layer"]), match["sae"]
        for kind, index in ((match["of"] or "z", "head"), ("neurons", "neuron"), ("features", "feature")):
            if match[index] is not None:
                return cls(kind, layer, int(match[index]), sae)
        return cls(match["kind"], layer, None, sae)
