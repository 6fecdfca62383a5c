"""What holds for the next reply: doses, what else a plan takes, how tokens are chosen, what is shown."""

import hashlib
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from affectlens.errors import SteerError
from affectlens.generating import Decoding
from affectlens.model import LensModel
from affectlens.probing.probes import Probes
from affectlens.steering.directions import Directions
from affectlens.steering.explaining import one_line
from affectlens.steering.plan import SteeringPlan, named, plan_for
from affectlens.types import Json

_SOME = 0.1  # a dose
NOTHING = "No dose is set, and replies are plain."


@dataclass(frozen=True)
class Settings:
    """The settings of a chat; a change makes new ones."""

    directions: Directions
    doses: dict[str, float]
    how: dict[str, Any]  # what plan_for takes besides directions
    decoding: Decoding
    aside: dict[str, float] = field(default_factory=dict)  # doses that /off keeps for /on
    beside: bool = False  # the plain reply too
    colours: bool = True
    shown: str = ""  # the emotion whose reading colours; by default that of the strongest dose
    probes: Probes | None = None  # read replies, and are what gates and loops name

    def plan(self, model: LensModel) -> SteeringPlan | None:
        """The plan of the next reply, or None where it is plain.

        Args:
            model: that is steered.

        Raises:
            SteerError: as for :func:`affectlens.steering.plan_for`.
        """
        return self._plan(model, self.doses) if self.doses else None

    def stated(self, model: LensModel) -> str:
        """What the doses do, in one line.

        Args:
            model: that is steered.
        """
        plan = self.plan(model)
        return NOTHING if plan is None else one_line(plan.explain())

    def dosed(self, model: LensModel, more: dict[str, float]) -> "Settings":
        """With these doses besides or instead; 0 ends a dose.

        Args:
            model: that is steered.
            more: by emotion.

        Raises:
            SteerError: doses that can't be.
        """
        doses = {**named(self.doses), **named(more)}
        self._plan(model, doses)
        return replace(self, doses={emotion: dose for emotion, dose in doses.items() if dose})

    def planned(self, model: LensModel, **how: Any) -> "Settings":
        """With something else that a plan takes; refused now, not at the next reply, if it can't be.

        Args:
            model: that is steered.
            how: what plan_for takes; None for its default.

        Raises:
            SteerError: what a plan can't do.
        """
        changed = replace(self, how={k: v for k, v in {**self.how, **how}.items() if v is not None})
        changed.trial(model)
        return changed

    def trial(self, model: LensModel) -> SteeringPlan:
        """A plan by these settings, also where no dose is set: what it can't do, no later dose could.

        Args:
            model: that is steered.

        Raises:
            SteerError: what a plan can't do.
        """
        return self._plan(model, self.doses or {self.directions.emotions[0]: _SOME})

    def as_json(self) -> Json:
        """All but the directions, as plain values."""
        plain = (str, int, float, bool, list)
        how = {k: v for k, v in self.how.items() if isinstance(v, plain)}
        return {"doses": self.doses, "aside": self.aside, "how": how, "decoding": asdict(self.decoding),
                "beside": self.beside, "colours": self.colours, "shown": self.shown}  # fmt: skip

    def restored(self, model: LensModel, saved: Json) -> "Settings":
        """These directions and probes with settings that were saved.

        Args:
            model: that is steered.
            saved: from :meth:`as_json`.

        Raises:
            SteerError: doses that these directions can't do.
        """
        kept = {k: v for k, v in self.how.items() if not isinstance(v, (str, int, float, bool, list))}
        how = {**kept, **saved["how"]}
        rest = {k: saved[k] for k in ("aside", "beside", "colours", "shown")}
        out = replace(self, doses=dict(saved["doses"]), how=how, decoding=Decoding(**saved["decoding"]), **rest)
        return out.planned(model)

    def _plan(self, model: LensModel, doses: dict[str, float]) -> SteeringPlan:
        if not doses:
            raise SteerError("No emotion is named: give one with its dose, /joy 0.6.")
        return plan_for(model, doses, directions=self.directions, probes=self.probes, **self.how)


def mark_of(plan: SteeringPlan | None) -> str:
    """A hash of what a plan does, or nothing for no plan.

    Args:
        plan: the plan.
    """
    if plan is None:
        return ""
    said = [plan.explain().encode(), *(term.vector.tobytes() for term in plan.terms)]
    return hashlib.sha256(b"|".join(said)).hexdigest()[:16]
