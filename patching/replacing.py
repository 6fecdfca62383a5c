"""What takes the place of values that are ablated."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from affectlens.errors import PatchError
from affectlens.model_sites import Dictionary
from affectlens.patching.cells import Cell, Change
from affectlens.patching.pairs import PatchPair, Side
from affectlens.patching.reading import Runner
from affectlens.patching.spans import tokens
from affectlens.sites import Site

KINDS = ("zero", "mean", "resample", "direction")
New = Tensor | Callable[[Tensor], Tensor]


class Replacing:
    """The new values of one kind of ablation.

    Args:
        kind: one of :data:`KINDS`.
        runner: what records other texts.
        pairs: whose texts means and samples are taken from, always from another group.
        sites: what is ablated.
        spans: where.
        seed: of samples and random changes.
        directions: by layer, orthonormal rows.
        dictionaries: by name, those that features are of.
    """

    def __init__(
        self, kind: str, runner: Runner, pairs: Sequence[PatchPair], sites: Sequence[Site], spans: Iterable[str],
        seed: int, directions: Mapping[int, np.ndarray], dictionaries: Mapping[str, Dictionary] | None = None,
    ) -> None:  # fmt: skip
        self.dictionaries = dictionaries or {}
        self.kind, self.runner, self.pairs, self.sites, self.seed = kind, runner, pairs, sites, seed
        self.directions, self.spans = directions, list(spans)
        self.sums: dict[tuple[str, Site], dict[str, tuple[Tensor, int]]] = {}  # span, site -> group -> sum, tokens
        self._sampled: tuple[str, PatchPair, Side, dict[Site, Tensor]] | None = None

    def _learn(self, span: str) -> None:
        """Sum every text's values over each span that is ablated, by group, for means that leave a group out."""
        if (span, self.sites[0]) in self.sums:
            return
        seen: set[str] = set()
        for pair in self.pairs:
            for side in (pair.clean, pair.corrupt):
                if side.name in seen:
                    continue
                seen.add(side.name)
                run = self.runner.record(side.prompt, self.sites)
                for name in self.spans:
                    if at := tokens(pair, side, name):
                        self._add(pair.group, name, run.sites, at)

    def _add(self, group: str, span: str, values: Mapping[Site, Tensor], at: list[int]) -> None:
        for site in self.sites:
            by_group = self.sums.setdefault((span, site), {})
            total, n = by_group.get(group, (torch.zeros_like(values[site][0], dtype=torch.float64), 0))
            by_group[group] = (total + values[site][at].sum(0), n + len(at))

    def new(self, pair: PatchPair, side: Side, span: str, site: Site, old: Tensor) -> New:
        """The values that replace ``old`` ``[pos, *part]`` over a span of one of the pair's texts."""
        if self.kind == "zero":
            return torch.zeros_like(old)
        if self.kind == "direction":
            basis = torch.from_numpy(self.directions[site.layer]).to(old)
            return lambda value: value - (value @ basis.T) @ basis
        if self.kind == "mean":
            self._learn(span)
            others = [part for group, part in self.sums[span, site].items() if group != pair.group]
            if not others:
                raise PatchError("A mean ablation needs texts of at least two groups: give more pairs.")
            n = sum(count for _, count in others)
            return (torch.stack([total for total, _ in others]).sum(0) / n).expand_as(old)
        other, theirs, values = self._sample(pair, side)
        places = tokens(other, theirs, span) or list(range(1, len(theirs)))
        return values[site][[places[-min(back, len(places))] for back in range(len(old), 0, -1)]]

    def _sample(self, pair: PatchPair, side: Side) -> tuple[PatchPair, Side, dict[Site, Tensor]]:
        """A text of another group, the same for all sites and spans of one text."""
        key = f"{pair.name} {side.name}"
        if self._sampled is None or self._sampled[0] != key:
            foreign = [(one, end) for one in self.pairs if one.group != pair.group for end in (one.clean, one.corrupt)]
            if not foreign:
                raise PatchError("Resampling needs texts of at least two groups: give more pairs.")
            other, theirs = foreign[self._rng(key).integers(len(foreign))]
            self._sampled = (key, other, theirs, self.runner.record(theirs.prompt, self.sites).sites)
        return self._sampled[1:]

    def scrambled(self, side: Side, cell: Cell) -> Cell:
        """The same places with random changes of the same norm.

        Features are changed where their dictionary reads, all of one dictionary together: noise in their own numbers
        would go along the decoder's rows again.
        """
        changes = [one for one in cell if isinstance(one, Change)]
        coded: dict[str, list[Change]] = {}
        for one in changes:
            if one.site.kind == "features":
                coded.setdefault(one.site.sae or "", []).append(one)
        plain = [Change(one.site, one.at, self.random(side, one.site, one.new))
                 for one in changes if one.site.kind != "features"]  # fmt: skip
        return (*plain, *(self._beside_features(side, name, some) for name, some in coded.items()))

    def _beside_features(self, side: Side, name: str, changes: Sequence[Change]) -> Change:
        dictionary = self.dictionaries[name]

        def new(value: Tensor) -> Tensor:
            codes = dictionary.encode(value)
            edited = codes.clone()
            for one in changes:
                index = slice(None) if one.site.index is None else one.site.index
                old = codes[:, index]
                edited[:, index] = (one.new(old) if callable(one.new) else one.new).to(old)
            assert dictionary.decode is not None
            return value + (dictionary.decode(edited) - dictionary.decode(codes)).to(value)

        return Change(dictionary.site, changes[0].at, self.random(side, changes[0].site, new))

    def random(self, side: Side, site: Site, new: New) -> Callable[[Tensor], Tensor]:
        """A change as large as the ablation's, at each token in a random direction."""
        seed = int(self._rng(f"{side.name} {site}").integers(2**62))

        def change(value: Tensor) -> Tensor:
            noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(seed)).to(value)
            step = (new(value) if callable(new) else new.to(value)) - value
            axes = tuple(range(1, value.ndim))
            if not axes:  # a neuron is a number: only its sign can be drawn
                return value + step.abs() * noise.sign()
            return value + noise / noise.norm(dim=axes, keepdim=True) * step.norm(dim=axes, keepdim=True)

        return change

    def _rng(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, *name.encode()])
