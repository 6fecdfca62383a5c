"""From a body to what the engine is asked for."""

import secrets
from dataclasses import dataclass

from affectlens.generating import Decoding
from affectlens.steering.engines.request import Request
from affectlens.steering.serving.moods import Moods, Steering
from affectlens.steering.serving.prompting import TOO_LONG, Prompts
from affectlens.steering.serving.refusals import Refusal
from affectlens.steering.serving.schemas import Asked, ChatAsked, TextAsked
from affectlens.steering.serving.settings import Settings
from affectlens.steering.serving.unsupported import check_supported
from affectlens.steering.serving.waiting import Patience

_COMPLETION = 16  # tokens of a completion that names no number: OpenAI's default
_LONGEST_STOP = 1000


@dataclass(frozen=True, eq=False)
class Wanted:
    """A reply that is wanted, and how it is steered."""

    request: Request
    steering: Steering


def wanted(asked: Asked, *, settings: Settings, prompts: Prompts, moods: Moods, patience: Patience) -> Wanted:
    """What a body asks for.

    Args:
        asked: the body.
        settings: the server's.
        prompts: lays out.
        moods: makes plans.
        patience: of the client; what is left of it once the prompt is laid out is the reply's.

    Raises:
        Refusal: what can't be done, or not in time.
    """
    patience.check()
    check_supported(asked)
    if asked.model != settings.name:
        sentence = f"There is no model {asked.model!r} here, only {settings.name!r}."
        raise Refusal(404, sentence, param="model", code="model_not_found")
    stops = tuple([asked.stop] if isinstance(asked.stop, str) else asked.stop or ())
    if any(not stop or len(stop) > _LONGEST_STOP for stop in stops):
        raise Refusal(400, f"A stop text has 1 to {_LONGEST_STOP} characters.", param="stop")
    param, most = _limit(asked, settings)
    steering = moods.of(asked.emotion)
    ids = prompts.chat(asked, patience) if isinstance(asked, ChatAsked) else prompts.text(_text(asked), patience)
    left = prompts.n_ctx - len(ids)
    if left < (most or 1):
        raise Refusal(
            400, f"The prompt has {len(ids)} tokens and {most or 1} more are asked for; the context of {settings.name} "
            f"holds {prompts.n_ctx}: shorten the prompt, or ask for fewer.", param=param, code=TOO_LONG,
        )  # fmt: skip
    decoding = Decoding(
        most or min(settings.max_tokens, left),
        temperature=1.0 if asked.temperature is None else asked.temperature,
        top_p=1.0 if asked.top_p is None else asked.top_p,
        seed=secrets.randbits(32) if asked.seed is None else asked.seed % 2**63,
    )
    patience.check()
    return Wanted(Request(ids, decoding, steering.plan, stops, patience.left), steering)


def _limit(asked: Asked, settings: Settings) -> tuple[str, int | None]:
    """The field that says how many tokens may be written, and how many; None: as many as there may be."""
    most, param = asked.max_tokens, "max_tokens"
    if isinstance(asked, ChatAsked):
        newer = asked.max_completion_tokens
        if None not in (most, newer) and most != newer:
            raise Refusal(400, "max_tokens and max_completion_tokens differ: give one of them.", param=param)
        most, param = (newer, "max_completion_tokens") if newer is not None else (most, param)
    elif most is None:
        most = min(_COMPLETION, settings.max_tokens)
    if most is not None and most > settings.max_tokens:
        sentence = f"{param} is {most}, and this server writes at most {settings.max_tokens}: ask for fewer."
        raise Refusal(400, sentence, param=param)
    return param, most


def _text(asked: Asked) -> TextAsked:
    if not isinstance(asked, TextAsked):
        raise Refusal(400, "The body is of neither kind.")
    return asked
