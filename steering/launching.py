"""What ``affectlens steer`` does once its options are read."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.console import emit, say
from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.steering.operators import Operator
from affectlens.steering.plan import CONFLICTS, SteeringPlan, plan_for
from affectlens.steering.shipped import bundled, load_directions
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
         "norm": t.direction.norm, "safe": t.direction.safe}
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
    from affectlens.steering.chatting import COMMANDS, Chat, converse, typed_lines

    if not asked.model.tokenizer.chat_template:
        raise SteerError(f"{asked.model.name} has no chat template, so it can't hold a conversation.")
    chat = Chat(asked.model, asked.doses, asked.how, asked.decoding)
    opening = chat.stated()
    if not asked.quiet:
        say(f"{opening}\n{COMMANDS}")
    converse(chat, typed_lines())


def write_plainly(asked: Asked, *, streamed: bool, both: bool) -> None:
    """Replies as plain text.

    Args:
        asked: what was typed.
        streamed: print as it is written.
        both: the plain reply first.
    """
    from affectlens.steering.chatting import one_line
    from affectlens.steering.writing import stream, write

    asked.check_template()
    plan, how = asked.plan, asked.decoding | {"chat": asked.chat}
    if asked.as_json:
        (reply,) = write(asked.model, [asked.prompt], doses=plan, progress=False, **how)
        facts = {"model": asked.model.name, "plan": plan.explain(), **how, "prompt": asked.prompt, "reply": reply}
        emit(facts, as_json=True)
        return
    if not asked.quiet:
        say(one_line(plan.explain()) + "\n")
    for name, one in [("plain: ", None), ("steered: ", plan)] if both else [("", plan)]:
        print(name, end="", flush=True)
        if streamed:
            for piece in stream(asked.model, asked.prompt, doses=one, **how):
                print(piece, end="", flush=True)
            print()
        else:
            print(*write(asked.model, [asked.prompt], doses=one, progress=False if asked.quiet else None, **how))


def show_beside(asked: Asked, probes: Path | None) -> None:
    """The steered reply beside the plain one.

    Args:
        asked: what was typed.
        probes: a file of probes that colour the tokens.
    """
    from rich.console import Console

    from affectlens.steering.chatting import one_line
    from affectlens.steering.side_by_side import beside

    asked.check_template()
    found = beside(asked.model, [asked.prompt], asked.plan, probes=probes, chat=asked.chat,
                   progress=False if asked.as_json else None, **asked.decoding)  # fmt: skip
    if asked.as_json:
        emit(found.as_json(), as_json=True)
        return
    say(one_line(found.plan.explain()) + "\n")
    console = Console()
    if console.is_terminal:
        console.print(found)
    else:
        print(found)
