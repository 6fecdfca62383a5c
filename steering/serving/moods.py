"""From a request's ``emotion`` to a steering plan."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from affectlens.errors import AffectLensError
from affectlens.model import LensModel
from affectlens.probing.probes import Probes
from affectlens.steering.directions import Directions
from affectlens.steering.plan import SteeringPlan, plan_for
from affectlens.steering.serving.refusals import Refusal, worded
from affectlens.steering.serving.schemas import Mood

_MOST = 100  # emotions in a request
_KEPT = 256  # plans


@dataclass(frozen=True, eq=False)
class Steering:
    """How a reply is steered."""

    plan: SteeringPlan | None = None
    doses: Mapping[str, float] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any] | None:
        """What the response says of it; None where no emotion was asked for."""
        return None if self.plan is None else {"doses": dict(self.doses), "plan": self.plan.explain()}

    @property
    def emotions(self) -> tuple[str, ...]:
        """What really acts."""
        terms = self.plan.terms if self.plan else ()
        return tuple(dict.fromkeys(term.direction.emotion for term in terms if term.strength))


class Moods:
    """Makes plans, and keeps those that were asked for last.

    Args:
        model: that is steered.
        directions: of it.
        default: doses of a request that says nothing of emotion.
        probes: for gates and loops that ask a probe: a set, or its file.

    Raises:
        SteerError: another model's directions, or default doses that can't be.
        StoreError: probes that can't be read, or of another model.
    """

    def __init__(
        self,
        model: LensModel,
        directions: Directions,
        *,
        default: Mapping[str, float],
        probes: Probes | str | Path | None = None,
    ) -> None:
        self.model, self.directions = model, directions
        self.probes = Probes.load(probes, model) if isinstance(probes, str | Path) else probes
        self.default = dict(default)
        directions.expect(model)
        self._made = lru_cache(_KEPT)(self._make)
        if self.default:
            self._make(json.dumps({"doses": self.default}))

    def of(self, emotion: Any) -> Steering:
        """The plan that a request asks for.

        Args:
            emotion: its field: doses by name, or the long form with ``doses`` in it; None takes the server's own.

        Raises:
            Refusal: another form, or what the library refuses.
        """
        if emotion is not None and not isinstance(emotion, dict):
            raise _wrong('write {"joy": 0.6}, or {"doses": {"joy": 0.6}, "schedule": "decay(16)"}.')
        given = emotion or {}
        long = "doses" in given or bool(given and set(given) <= set(Mood.model_fields))
        form = given if long else {"doses": None if emotion is None else given}
        doses = form.get("doses")
        if isinstance(doses, dict) and len(doses) > _MOST:
            raise _wrong(f"{len(doses)} emotions are named, and at most {_MOST} can be.")
        try:
            mood = Mood.model_validate(form)
        except ValidationError as error:
            raise _invalid(error, long) from None
        wanted = mood.model_dump(exclude_none=True)
        wanted["doses"] = self.default if mood.doses is None else mood.doses
        if not wanted["doses"]:
            if mood.doses is None and emotion is not None:
                raise _wrong('no doses are given: add "doses", such as {"joy": 0.6}.')
            return Steering()
        try:
            return Steering(self._made(json.dumps(wanted)), wanted["doses"])
        except AffectLensError as error:
            raise _wrong(str(error), said=False) from None

    def _make(self, text: str) -> SteeringPlan:
        how = json.loads(text)
        if "gate" in how or "loop" in how:
            how["probes"] = self.probes
        return plan_for(self.model, how.pop("doses"), directions=self.directions, **how)


def _wrong(sentence: str, *, said: bool = True, param: str = "emotion") -> Refusal:
    return Refusal(400, f"{param}: {sentence}" if said else sentence, param=param)


def _invalid(error: ValidationError, long: bool) -> Refusal:
    first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"] if part in Mood.model_fields or first["loc"][0] == "doses")
    param = f"emotion.{path if long else path.removeprefix('doses.')}".rstrip(".")
    if first["type"] == "extra_forbidden":
        known = ", ".join(Mood.model_fields)
        return _wrong(f"{first['loc'][0]!r} is not known beside doses; there are {known}.")
    return _wrong(worded(first), param=param)
