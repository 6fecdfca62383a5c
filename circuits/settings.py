"""What ``affectlens circuit`` is asked for, as ``run.json`` keeps it."""

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from affectlens.errors import CircuitError
from affectlens.types import Json

if TYPE_CHECKING:
    from affectlens.circuits.verifying.plan import Amounts

SCENES, FEW = 32, 12  # of each emotion at most; and of a quick run
EXACT, SOME = 100, 24  # edges of the circuit that are patched exactly; and of a quick run


@dataclass(frozen=True)
class Asked:
    """The settings of a run."""

    model: str
    emotions: tuple[str, ...]
    battery: str = "core"
    metric: str = "said_category"
    contrast: str = "emotional/neutral"
    layer: int | None = None  # that read-outs read
    method: str = "eap-ig"
    steps: int = 5
    rule: str = "greedy"
    pairs: int | None = None  # scenes of each emotion, at most
    randoms: int | None = None  # random circuits of equal size
    cue: str | None = None  # None is the one that our words were chosen with
    chat: bool = False
    quick: bool = False
    runs: str = "runs"  # where earlier runs are looked for
    read: bool = False  # probe each emotion at each layer, if no earlier run has
    seed: int = 0
    device: str | None = None
    dtype: str = "float32"
    revision: str | None = None
    memory: float = 1.0  # GB

    def __post_init__(self) -> None:
        from affectlens.circuits.scoring import METHODS
        from affectlens.circuits.selecting import RULES

        for what, value, known in (("method", self.method, METHODS), ("rule", self.rule, RULES)):
            if value not in known:
                raise CircuitError(f"{what} is {value!r}; choose {', '.join(known)}.")
        if self.memory <= 0 or self.steps < 1:
            raise CircuitError(f"memory is {self.memory} GB and steps is {self.steps}: both need to be more than none.")

    @property
    def scenes(self) -> int:
        """How many scenes of each emotion are taken at most."""
        return self.pairs or (FEW if self.quick else SCENES)

    @property
    def exact(self) -> int:
        """How many edges of a circuit are patched exactly."""
        return SOME if self.quick else EXACT

    @property
    def amounts(self) -> "Amounts":
        """How much of each part of the verification is run."""
        from affectlens.circuits.verifying.plan import Amounts

        few = Amounts((0.001, 0.005, 0.02, 0.1, 0.5, 1.0), randoms=19, sets=4, drops=8, references=8, patches=16,
                      resamples=20)  # fmt: skip
        found = few if self.quick else Amounts()
        return found if self.randoms is None else replace(found, randoms=self.randoms)

    def to_config(self) -> Json:
        """What :meth:`from_config` reads."""
        return asdict(self) | {"emotions": list(self.emotions)}

    @classmethod
    def from_config(cls, found: Json) -> "Asked":
        """The settings that :meth:`to_config` wrote.

        Args:
            found: its dictionary.
        """
        return cls(**(found | {"emotions": tuple(found["emotions"])}))
