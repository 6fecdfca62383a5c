"""What is done to a circuit's parts: each moved away from, or towards, a mean activation that was measured before.

With ``z`` a part's activation at a token, ``m`` its mean over neutral texts, ``e`` over texts of the emotion, ``w`` its
weight:

=============== ============================ ==========================================================================
``gain g``      z + (g - 1) w (z - m)        of weight 1: 1 is the identity, 0 mean ablation, 2 twice the deviation
``replace d``   z + d w (e - m)              by ``shift``: what the emotion adds on average, ``d`` times
``replace d``   z + d w (e - z)              by ``set``: of weight 1 and at 1 the emotion's mean, whatever the text is
=============== ============================ ==========================================================================

Scaling amplifies whatever a part says about the text that it reads; replacing says the same about every text. A gain
and ``set`` leave a sequence's first token alone, an attention sink that no mean here includes; ``shift`` acts at every
token, as steering does.
"""

import json
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from affectlens.circuits.modulating.parts import expected_overlap, placebos_of, whole
from affectlens.errors import CircuitError
from affectlens.model import LensModel
from affectlens.paths import replacing
from affectlens.sites import Site
from affectlens.steering.directions import Direction, unit
from affectlens.steering.gates import Gate
from affectlens.steering.operators import Operator
from affectlens.steering.plan import SteeringPlan, Term
from affectlens.steering.timing import Timing
from affectlens.types import Json

_TAG = "affectlens.modulation"
Means = dict[str, Float32[np.ndarray, "*part"]]  # by site of a whole layer, L12.z: [head, d_head]; L9.neurons: [d_mlp]


@dataclass(frozen=True, eq=False, repr=False)
class Modulation:
    """Parts of one model with a weight each, and their means; :meth:`plan` makes a steering plan of them."""

    emotion: str  # Plutchik's basic word
    parts: tuple[str, ...]  # L12.H3, L9.N17, L4.mlp_out
    effects: Float[np.ndarray, " part"]  # on the circuit's metric, as they were given; NaN where none was
    weights: Float[np.ndarray, " part"]
    neutral: Means
    target: Means
    model: str
    fingerprint: str
    battery: str = ""
    battery_sha256: str = ""
    groups: tuple[str, ...] = ()  # the scenes of the means
    facts: Json = field(default_factory=dict)

    @cached_property
    def by_site(self) -> dict[Site, Float[np.ndarray, " d"]]:
        """The weights by site of a whole layer, 0 where no part is, heads laid end to end."""
        found: dict[Site, np.ndarray] = {}
        for name, weight in zip(self.parts, self.weights, strict=True):
            part = Site.parse(name)
            site = whole(part)
            mine = found.setdefault(site, np.zeros(self.neutral[str(site)].shape))
            mine[... if part.index is None else part.index] = weight
        return {site: found[site].reshape(-1) for site in sorted(found) if found[site].any()}

    def mean(self, site: Site, of: str = "neutral") -> Float[np.ndarray, " d"]:
        """The mean of a whole layer's site.

        Args:
            site: one of :attr:`by_site`.
            of: ``neutral`` or ``target``.
        """
        means = self.target if of == "target" else self.neutral
        return means[str(site)].reshape(-1).astype(np.float64)

    def plan(
        self,
        gain: float = 1.0,
        *,
        replace: float = 0.0,
        by: str = "shift",
        positions: str = "all",
        schedule: str = "constant",
        gate: Gate | None = None,
    ) -> SteeringPlan:
        """A steering plan, for ``steer``, ``write``, ``stream`` and ``beside``; gain 1 and replace 0 do nothing at all.

        Args:
            gain: what the deviation from neutral is multiplied with, at weight 1.
            replace: the dose of the emotion's mean.
            by: ``shift`` or ``set``.
            positions: as for :func:`affectlens.steering.plan_for`.
            schedule: as for :func:`affectlens.steering.plan_for`; it moves the gain from 1 to ``gain``.
            gate: act only where it is open.

        Raises:
            CircuitError: a gain or dose that is no number, or another ``by``.
        """
        if not (np.isfinite(gain) and np.isfinite(replace)) or by not in ("shift", "set"):
            raise CircuitError(
                f"gain={gain}, replace={replace}, by={by!r}: give numbers, and shift or set. Gain 1 changes nothing."
            )
        if gate is not None and gate.fingerprint != self.fingerprint:
            raise CircuitError(f"The gate ({gate.says}) was found in another model than {self.model}.")
        when, terms = Timing.of(positions, schedule), []
        for site, w in self.by_site.items():
            scaling = self._direction(site, w, weights=True)
            terms.append(Term(scaling, gain - 1, gain - 1, False, Operator("scale"), when, gate, self.mean(site)))
            if replace and by == "set":
                goal = self.mean(site, "target")
                terms.append(Term(scaling, replace, -replace, False, Operator("scale"), when, gate, goal))
            elif replace:
                moved = self._direction(site, w * (self.mean(site, "target") - self.mean(site)))
                terms.append(Term(moved, replace, replace, True, Operator("add"), when, gate))
        return SteeringPlan(tuple(terms))

    def _direction(self, site: Site, vector: Float[np.ndarray, " d"], *, weights: bool = False) -> Direction:
        return Direction(
            self.emotion, str(site), unit(vector), float(np.linalg.norm(vector)), "modulation", self.model,
            self.fingerprint, self.battery, self.battery_sha256, facts={"weights": weights},
        )  # fmt: skip

    def placebos(self, draws: int, *, seed: int = 0) -> list["Modulation"]:
        """Other sets of as many parts of the same layers and kinds, with the same weights and their own means.

        Any part can be drawn, also one of the circuit; no two placebos are of the same set, and none is of the
        circuit's. A set of ``mlp_out`` or ``attn_out`` is one of layers. Where fewer other sets exist, the list is
        shorter, and empty where the circuit has all the parts of its layers.

        Args:
            draws: how many.
            seed: of the draws.
        """
        sets = placebos_of(self._sites, self._counts, draws, np.random.default_rng(seed))
        return [replace(self, parts=tuple(map(str, one)), effects=np.full(len(one), np.nan)) for one in sets]

    def placebo_facts(self, draws: int, *, seed: int = 0) -> Json:
        """What :meth:`placebos` can say: how many there are (``placebos``), and how much of the circuit is in them.

        Args:
            draws: how many are asked for.
            seed: of the draws.

        Returns:
            ``placebos``; ``placebo_overlap``, the mean share of the circuit's parts that a placebo holds too (None
            without placebos); ``crowded``, whether the parts are more than half of their layers' on average.
        """
        made = self.placebos(draws, seed=seed)
        shared = [len({*one.parts} & {*self.parts}) / len(self.parts) for one in made]
        crowded = expected_overlap(self._sites, self._counts) > 0.5
        return {"placebos": len(made), "placebo_overlap": float(np.mean(shared)) if made else None, "crowded": crowded}

    @property
    def _sites(self) -> list[Site]:
        return [Site.parse(name) for name in self.parts]

    @property
    def _counts(self) -> dict[str, int]:
        return {name: mean.shape[0] for name, mean in self.neutral.items()}

    def expect(self, model: LensModel) -> None:
        """Refuse another model.

        Args:
            model: that is to be modulated.

        Raises:
            CircuitError: if the means are of another.
        """
        if model.fingerprint != self.fingerprint:
            raise CircuitError(
                f"This modulation is of {self.model} ({self.fingerprint[:12]}), not of {model.name} "
                f"({model.fingerprint[:12]}): weights, dtype, tokenizer and template must be the same. Make it anew."
            )

    def table(self) -> pd.DataFrame:
        """One row a part: its effect, its weight, and how far the emotion moves it (a length in its own units)."""
        rows = []
        for name, effect, weight in zip(self.parts, self.effects, self.weights, strict=True):
            part = Site.parse(name)
            at = ... if part.index is None else part.index
            moved = np.linalg.norm(self.target[str(whole(part))][at] - self.neutral[str(whole(part))][at])
            rows.append({"part": name, "effect": float(effect), "weight": float(weight), "moved": float(moved)})
        return pd.DataFrame(rows)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, its manifest in the header.

        Args:
            path: of the file.
        """
        home, header = Path(path), {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _ARRAYS}
        tensors = {f"{of}/{site}": mean for of in ("neutral", "target") for site, mean in getattr(self, of).items()}
        tensors |= {name: np.asarray(getattr(self, name), dtype=np.float64) for name in ("effects", "weights")}
        home.parent.mkdir(parents=True, exist_ok=True)
        with replacing(home) as work:
            contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
            save_file(contiguous, work, metadata={_TAG: json.dumps(header)})
        return home

    @classmethod
    def load(cls, path: str | Path, model: LensModel | None = None) -> "Modulation":
        """Read what :meth:`save` wrote; with ``model``, refuse that of another.

        Args:
            path: of the file.
            model: that it must be of.

        Raises:
            CircuitError: a missing, damaged or foreign file, or another model's.
        """
        try:
            with safe_open(str(path), framework="numpy") as file:
                names = file.keys()
                header = json.loads((file.metadata() or {})[_TAG])
                arrays = {name: file.get_tensor(name) for name in names}
            means: Json = {
                of: {name.split("/", 1)[1]: mean for name, mean in arrays.items() if name.startswith(f"{of}/")}
                for of in ("neutral", "target")
            }
            header |= {"parts": tuple(header["parts"]), "groups": tuple(header["groups"])}
            found = cls(**header, **means, effects=arrays["effects"], weights=arrays["weights"])
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise CircuitError(f"{path} is not a readable file of a modulation ({error!r}).") from None
        if model is not None:
            found.expect(model)
        return found

    def __repr__(self) -> str:
        shown = ", ".join(self.parts[:6]) + (f" and {len(self.parts) - 6} more" if len(self.parts) > 6 else "")
        return f"Modulation of {self.emotion} in {self.model}: {shown}; means of {len(self.groups)} scenes."


_ARRAYS = ("effects", "weights", "neutral", "target")
