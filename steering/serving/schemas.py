"""The bodies that are understood, as OpenAI's API has them, and ``emotion`` besides."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, StrictBool, StrictInt, StrictStr

_MOST = 1000  # messages, parts of one, layers
_SEED = 2**63 - 1


def _at_most(most: int) -> Callable[[Any], Any]:
    """Refuse a longer list before each of its items is looked at."""

    def check(value: Any) -> Any:
        if isinstance(value, list) and not 1 <= len(value) <= most:
            raise ValueError(f"it has {len(value)} items, and from 1 to {most} are taken")
        return value

    return check


_FEW, _MANY = BeforeValidator(_at_most(4)), BeforeValidator(_at_most(_MOST))


class Part(BaseModel):
    """A part of a message; only texts are read."""

    type: Literal["text"]
    text: StrictStr


class Said(BaseModel):
    """A message."""

    model_config = ConfigDict(extra="allow")
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[StrictStr | list[Part], _MANY]


class Options(BaseModel):
    """Of a stream."""

    include_usage: StrictBool | None = None


class Asked(BaseModel):
    """What both kinds of request have."""

    model_config = ConfigDict(extra="allow")
    model: StrictStr
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, strict=True, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, strict=True, allow_inf_nan=False)] | None = None
    seed: Annotated[StrictInt, Field(ge=-_SEED, le=_SEED)] | None = None
    stop: Annotated[StrictStr | list[StrictStr] | None, _FEW] = None
    stream: StrictBool | None = None
    stream_options: Options | None = None
    emotion: Any = None


class ChatAsked(Asked):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Said], FailFast(), _MANY]
    max_completion_tokens: Annotated[StrictInt, Field(ge=1)] | None = None


class TextAsked(Asked):
    """``POST /v1/completions``."""

    prompt: Any  # a text, tokens, or a list of one of them


class Mood(BaseModel):
    """The long form of ``emotion``: doses, and what else :func:`affectlens.steering.plan_for` takes."""

    model_config = ConfigDict(extra="forbid")
    doses: dict[str, Annotated[float, Field(strict=True, allow_inf_nan=False)]] | None = None
    schedule: Annotated[StrictStr, Field(max_length=100)] | None = None
    positions: Annotated[StrictStr, Field(max_length=100)] | None = None
    operator: Annotated[StrictStr, Field(max_length=100)] | None = None
    layers: Annotated[StrictInt | list[StrictInt] | None, _MANY] = None
    gate: Annotated[StrictStr, Field(max_length=100)] | None = None
    loop: Annotated[StrictStr, Field(max_length=100)] | None = None
    conflict: Annotated[StrictStr, Field(max_length=100)] | None = None
    raw: StrictBool | None = None
