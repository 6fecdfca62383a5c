"""What ``affectlens steer`` does once its options are read."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.console import emit, say
from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.steering.looping import read_text
from affectlens.steering.operators import Operator
from affectlens.steering.plan import SteeringPlan, Term, plan_for, strength
from affectlens.steering.settling import CONFLICTS
from affectlens.steering.shipped import bundled, load_directions
from affectlens.steering.thresholds import Threshold
from affectlens.steering.timing import Timing

if TYPE_CHECKING:
    from affectlens.steering.directions import Directions


@dataclass(frozen=True)
class Asked:
    """What was typed, with the model loaded."""

    model: LensModel
    prompt: str
    doses: dict[str, float]
    how: dict[str, Any]  # what plan_for takes besides
    decoding: dict[str, Any]
    chat: bool
    as_json: bool
    quiet: bool
    probes: Path | None = None  # colour the tokens
    gguf: Path | None = None  # llama.cpp writes, on this file

    @property
    def plan(self) -> SteeringPlan:
        return plan_for(self.model, self.doses, **self.how)

    def check_template(self) -> None:
        """Raise a :class:`SteerError` if a chat template is needed, and the model has none."""
        if self.chat and not self.model.tokenizer.chat_template:
            raise SteerError(
                f"{self.model.name} has no chat template: with --no-chat it goes on with the prompt as it is."
            )


def check_forms(operator: str, positions: str, schedule: str, conflict: str) -> None:
    """Refuse what can be refused before a model is loaded.

    Args:
        operator: as typed.
        positions: as typed.
        schedule: as typed.
        conflict: as typed.

    Raises:
        SteerError: a form that is not known.
    """
    Operator.parse(operator)
    Timing.of(positions, schedule)
    if conflict not in CONFLICTS:
        raise SteerError(f"--conflict {conflict} is not known: choose {', '.join(CONFLICTS)}.")


def thresholds_in(gate: str | None, loop: str | None, probes: Path | None) -> list[str]:
    """The emotions whose directions a gate and a loop read.

    Args:
        gate: as typed.
        loop: as typed.
        probes: a file of probes, if one was named.

    Raises:
        SteerError: a form that is not known, or one that names a probe without a file of them.
    """
    found = {gate: Threshold.parse(gate, "gate")} if gate is not None else {}
    if loop is not None:
        found[loop] = read_text(loop)[0]
    for text, one in found.items():
        if one.probe and probes is None:
            raise SteerError(f"{text!r} names a probe: give its file too, --probes FILE.")
    return [one.name for one in found.values() if not one.probe]


def find_directions(model: str, given: Path | None, emotions: list[str]) -> "Directions":
    """The file that was named, or what is bundled for the model.

    Args:
        model: its name.
        given: the file.
        emotions: that it must have.

    Raises:
        SteerError: no such file, none bundled, or an emotion that it lacks.
    """
    if given is None and model not in bundled():
        raise SteerError(
            f"No directions are bundled for {model}: extract them with affectlens directions extract {model}, and give "
            "the file with --directions."
        )
    found = load_directions(given or model)
    for name in emotions:
        _ = found[name]
    return found


def check_llama(doses: dict[str, float], how: dict[str, Any]) -> None:
    """Refuse, before a model is loaded, what llama.cpp can't do.

    Args:
        doses: by emotion; none for a conversation that begins plainly.
        how: what plan_for takes besides, the directions loaded.

    Raises:
        SteerError: an operator other than ``add``, a gate or a loop; directions elsewhere than llama.cpp steers.
    """
    from affectlens.steering.engines.llama_course import check_how, check_plan

    operator, timing = Operator.parse(how["operator"]), Timing.of(how["positions"], how["schedule"])
    check_how(operator, watched=how["gate"] is not None or how["loop"] is not None)
    terms = [
        Term(one, dose, strength(one, dose, operator, how["raw"]), how["raw"], operator, timing)
        for emotion, dose in doses.items()
        for one in how["directions"][emotion]
        if how["layers"] is None or one.at.layer in how["layers"]
    ]
    check_plan(SteeringPlan(tuple(terms), how["conflict"]))


def explain(asked: Asked) -> None:
    """Print what the plan will do.

    Args:
        asked: what was typed.
    """
    plan = asked.plan
    if not asked.as_json:
        say(plan.explain())
        return
    terms = [
        {"emotion": t.direction.emotion, "site": t.direction.site, "dose": t.dose, "raw": t.raw, "strength": t.strength,
         "operator": str(t.operator), "timing": str(t.timing), "method": t.direction.method,
         "norm": t.direction.norm, "safe": t.direction.safe, "gate": t.gate.says if t.gate else None,
         "loop": t.loop.says if t.loop else None}
        for t in plan.terms
    ]  # fmt: skip
    facts = {"model": asked.model.name, "conflict": plan.conflict, "nothing": plan.is_nothing}
    emit(facts | {"terms": terms, "plan": plan.explain()}, as_json=True)


def talk(asked: Asked) -> None:
    """A conversation, until its end.

    Args:
        asked: what was typed.

    Raises:
        SteerError: a model without a chat template, or doses that can't be.
    """
    from affectlens.steering.starting import llama
    from affectlens.steering.talking.launch import talk as hold

    with llama(asked.model, asked.gguf, slots=2) if asked.gguf else nullcontext() as engine:
        hold(asked, engine=engine, probes=asked.probes)
