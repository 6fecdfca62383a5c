"""What ``affectlens patch`` and ``affectlens ablate`` are asked for, as ``run.json`` keeps it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from affectlens.types import Json

METRICS = ("affect", "valence", "said_category")
PATCHED, ABLATED = ("resid_post",), ("attn_out", "mlp_out")  # if no site is named
LAYERS = 16  # at most so many of these sites' layers are taken, evenly spread
GROUPS, FEW = 32, 12  # groups of pairs that are taken at most; and of a quick run
EVERY = 3  # of a quick run's layers, each third

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """What both commands are told."""

    model: str
    battery: str = "starter"
    contrast: str | None = None  # emotional/neutral of a battery of ours, and of a user's own whatever there is
    metrics: tuple[str, ...] = METRICS
    pairs: int | None = None  # groups of them, at most
    cue: str | None = None  # None is the one that our words were chosen with
    chat: bool = False
    layer: int | None = None  # that read-outs read
    quick: bool = False
    seed: int = 0
    device: str | None = None
    dtype: str = "float32"
    revision: str | None = None
    memory: float = 1.0  # GB

    @property
    def groups(self) -> int:
        """How many groups of pairs to take at most."""
        return self.pairs or (FEW if self.quick else GROUPS)


@dataclass(frozen=True)
class PatchPlan:
    """What is patched."""

    sites: tuple[str, ...] = ()  # none: the residual stream, at a choice of layers
    positions: tuple[str | int, ...] = ()  # none: the segments that the texts have
    directions: tuple[str, ...] = ("denoise",)
    controls: tuple[str, ...] | None = None  # None: all, and of a quick run two
    crossed: bool = False


@dataclass(frozen=True)
class AblatePlan:
    """What is ablated, and between which spans attention is cut."""

    sites: tuple[str, ...] = ()  # none, and no edges: attention's and the MLPs' output, at a choice of layers
    kind: str = "mean"
    positions: tuple[str, ...] = ("text",)
    edges: tuple[str, ...] = ()  # from:to
    window: int = 1
    cumulative: bool = False
    heads: bool = False  # cut the attention of each head by itself
    control: bool = True


def to_config(settings: Settings, plan: PatchPlan | AblatePlan) -> Json:
    """Both as one flat object."""
    return asdict(settings) | asdict(plan)


def from_config(kind: type[T], config: Mapping[str, Any]) -> T:
    """The settings or the plan that a run was begun with.

    Args:
        kind: :class:`Settings`, :class:`PatchPlan` or :class:`AblatePlan`.
        config: from ``run.json``.
    """
    known = {one.name: config[one.name] for one in fields(kind) if one.name in config}  # type: ignore[arg-type]
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in known.items()})
