"""Directions: unit vectors at sites of one model, each with where it comes from and how strong one dares to make it.

A set is one safetensors file, its manifest in the header. ``raw`` doses are fractions of the site's median norm; a
user's dose of 1.0 is the emotion's ``safe`` raw dose, which an evaluation found and wrote into the set.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from affectlens.errors import BatteryError, SteerError
from affectlens.model import LensModel
from affectlens.paths import replacing
from affectlens.sites import Site
from affectlens.stimuli.taxonomy import canonical
from affectlens.types import Json

_TAG = "affectlens.directions"


@dataclass(frozen=True, eq=False)
class Direction:
    """One unit vector at one site.

    Attributes:
        emotion: Plutchik's basic word, or a name of the user's for another axis.
        site: where it is added, ``L14.resid_post``, ``L12.H3``, ``L9.neurons``.
        vector: of length one; ``[d]`` is the site's size at one token, heads laid end to end.
        norm: the median norm of the site's values over tokens, without the sequence's first; ``raw`` doses count in it.
        method: how it was found.
        model, fingerprint: of the model that it belongs to.
        battery, battery_sha256: what it was fitted on.
        position: the pooling of the activations that it was fitted on.
        purified: what was taken out of it, in order.
        fixed: an orthonormal basis ``[k, d]`` of all that was taken out: the vector has no part in it.
        safe: the raw dose that a dose of 1.0 stands for; None as long as nothing has validated one.
        levels: percentiles 0, 1, ... 100 of the projection of neutral tokens or items, for ``clamp``; may be empty.
        facts: what else there is to know, as JSON: scores, seeds, the share of variance.
    """

    emotion: str
    site: str
    vector: Float[np.ndarray, " d"]
    norm: float
    method: str
    model: str
    fingerprint: str
    battery: str = ""
    battery_sha256: str = ""
    position: str = "mean"
    purified: tuple[str, ...] = ()
    fixed: Float[np.ndarray, "k d"] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    safe: float | None = None
    levels: Float[np.ndarray, " percentile"] = field(default_factory=lambda: np.zeros(0, np.float32))
    facts: Json = field(default_factory=dict)

    def __post_init__(self) -> None:
        length = float(np.linalg.norm(np.asarray(self.vector, dtype=np.float64)))
        if not np.isfinite(length) or abs(length - 1) > 1e-3:
            raise SteerError(
                f"The direction of {self.emotion} at {self.site} has length {length:.3g}: divide it by its length, "
                "which must be finite and not zero."
            )
        if not np.isfinite(self.norm) or self.norm <= 0:
            raise SteerError(f"The norm at {self.site} is {self.norm}: it must be above zero.")
        if self.safe is not None and not (np.isfinite(self.safe) and self.safe > 0):
            raise SteerError(f"The safe dose of {self.emotion} is {self.safe}: it is a number above zero, or None.")
        Site.parse(self.site)
        if self.fixed.size == 0:
            object.__setattr__(self, "fixed", np.zeros((0, len(self.vector)), np.float32))

    @property
    def at(self) -> Site:
        """The site, parsed."""
        return Site.parse(self.site)

    @property
    def called(self) -> str:
        """The method, with what it was against, as tables and figures name it."""
        against = self.facts.get("against")
        return f"{self.method}, against {against}" if against else self.method


class Directions:
    """Directions of one model; ``directions["joy"]`` are those of an emotion, most often one, at any number of sites.

    Plutchik's basic and peak words are one name: ``grief`` finds ``sadness``.
    """

    def __init__(self, directions: Iterable[Direction]) -> None:
        self.all = tuple(directions)
        if not self.all:
            raise SteerError("A set of directions needs at least one.")
        prints = {d.fingerprint for d in self.all}
        if len(prints) > 1:
            raise SteerError(f"A set of directions belongs to one model; these are of {len(prints)}.")
        for name in self.emotions:
            if len({d.site for d in self[name]}) < len(self[name]):
                raise SteerError(f"There are two directions of {name} at one site: their doses would add. Keep one.")
            if len({d.safe for d in self[name]}) > 1:
                raise SteerError(f"The directions of {name} state different safe doses: give them one.")

    @property
    def emotions(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(dict.fromkeys(d.emotion for d in self.all))

    @property
    def model(self) -> str:
        return self.all[0].model

    @property
    def fingerprint(self) -> str:
        return self.all[0].fingerprint

    def __getitem__(self, name: str) -> tuple[Direction, ...]:
        found = tuple(d for d in self.all if d.emotion == spelled(name))
        if not found:
            raise SteerError(f"There is no direction of {name!r}; there are {', '.join(self.emotions)}.")
        return found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(d.emotion == spelled(name) for d in self.all)

    def __iter__(self) -> Iterator[Direction]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    def only(self, *names: str) -> "Directions":
        """Those of these emotions."""
        return Directions(d for name in dict.fromkeys(map(spelled, names)) for d in self[name])

    def with_safe(self, doses: dict[str, float | None]) -> "Directions":
        """The same with safe raw doses by emotion; emotions that are not named keep theirs."""
        mine = {spelled(name): dose for name, dose in doses.items()}
        return Directions(replace(d, safe=mine.get(d.emotion, d.safe)) for d in self.all)

    def expect(self, model: LensModel) -> None:
        """Raise a :class:`SteerError` unless these directions were found in ``model``."""
        if model.fingerprint != self.fingerprint:
            raise SteerError(
                f"These directions were found in {self.model} ({self.fingerprint[:12]}) and can't steer {model.name} "
                f"({model.fingerprint[:12]}): weights, dtype, tokenizer and template must be the same. Extract them "
                f"anew: affectlens directions extract {model.name}."
            )

    def table(self) -> pd.DataFrame:
        """One row a direction, without the vectors."""
        left_out = ("vector", "fixed", "levels", "facts", "fingerprint", "battery_sha256")
        return pd.DataFrame([{k: v for k, v in _plain(d).items() if k not in left_out} for d in self.all])

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, under a temporary name first."""
        target = Path(path)
        tensors = {
            f"{i}.{name}": np.ascontiguousarray(getattr(d, name), dtype=np.float32)
            for i, d in enumerate(self.all)
            for name in _ARRAYS
        }
        header = [{k: v for k, v in _plain(d).items() if k not in _ARRAYS} for d in self.all]
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as work:
            save_file(tensors, work, metadata={_TAG: json.dumps(header)})
        return target

    @classmethod
    def load(cls, path: str | Path, model: LensModel | None = None) -> "Directions":
        """Read a file of directions; with ``model``, refuse those of another.

        Raises:
            SteerError: a missing, damaged or foreign file, or directions of another model.
        """
        try:
            with safe_open(str(path), framework="numpy") as file:
                header = json.loads((file.metadata() or {})[_TAG])
                arrays = [{name: file.get_tensor(f"{i}.{name}") for name in _ARRAYS} for i in range(len(header))]
            found = [
                Direction(**(facts | {"purified": tuple(facts["purified"])}), **tensors)
                for facts, tensors in zip(header, arrays, strict=True)
            ]
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise SteerError(f"{path} is not a readable file of AffectLens directions ({error!r}).") from None
        directions = cls(found)
        if model is not None:
            directions.expect(model)
        return directions

    def __repr__(self) -> str:
        rows = [
            f"  {d.emotion:<14} {d.site:<16} {d.method:<16} "
            + (f"dose 1.0 is {d.safe:.2f} of the norm" if d.safe else "no safe dose yet")
            for d in self.all
        ]
        return "\n".join([f"{len(self)} directions of {self.model}:", *rows])

    def _repr_html_(self) -> str:
        return str(self.table().to_html(index=False, float_format="{:.3g}".format))


_ARRAYS = ("vector", "fixed", "levels")


def spelled(name: str) -> str:
    """The name under which an emotion's direction is kept: Plutchik's basic word, or the name as it is.

    >>> spelled("Grief"), spelled("formality")
    ('sadness', 'formality')
    """
    try:
        return canonical(name)
    except BatteryError:
        return name


def unit(vector: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
    """The vector divided by its length, in float32.

    Raises:
        SteerError: a vector without a length, which points nowhere.
    """
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not np.isfinite(length) or length < 1e-12:
        raise SteerError("This vector has no length, so it points nowhere: what was contrasted does not differ.")
    return (vector.astype(np.float64) / length).astype(np.float32)


def _plain(direction: Direction) -> Json:
    shallow = {f.name: getattr(direction, f.name) for f in fields(Direction)}
    return shallow | {"purified": list(direction.purified)}
