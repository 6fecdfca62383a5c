"""Fields of OpenAI's API that would change the reply and can't here, and those that change nothing."""

from typing import Any

from affectlens.steering.serving.refusals import Refusal
from affectlens.steering.serving.schemas import Asked

_OFF: tuple[Any, ...] = (None, False, 0, [], {}, "")  # values at which a field asks for nothing
_NEUTRAL: dict[str, tuple[Any, ...]] = {  # what each field may say besides
    "n": (1,), "best_of": (1,), "logprobs": (), "top_logprobs": (), "logit_bias": (), "presence_penalty": (),
    "frequency_penalty": (), "echo": (), "suffix": (), "tools": (), "tool_choice": ("none", "auto"),
    "functions": (), "function_call": ("none", "auto"), "response_format": ({"type": "text"},),
    "modalities": (["text"],), "audio": (), "reasoning_effort": ("none",), "web_search_options": (),
    "verbosity": ("medium",),
}  # fmt: skip
_HARMLESS = {
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "parallel_tool_calls", "prediction",
}  # fmt: skip
_COUNTS = {"n", "best_of"}  # 0 is no number of replies
_MESSAGE = {"tool_calls", "function_call", "audio", "refusal", "tool_call_id"}


def check_supported(asked: Asked) -> None:
    """Refuse what would be another reply than the client thinks.

    Args:
        asked: the request.

    Raises:
        Refusal: a field that can't be done, or that nobody knows.
    """
    for name, value in (asked.model_extra or {}).items():
        if name in _HARMLESS or _asks_nothing(name, value):
            continue
        if name not in _NEUTRAL:
            raise Refusal(400, f"{name} is not known here: leave it out.", param=name)
        if value not in _NEUTRAL[name]:
            only = f" other than {_NEUTRAL[name][0]!r}" if _NEUTRAL[name] else ""
            raise Refusal(400, f"{name}{only} is not supported here: leave it out.", param=name)
    if asked.stream_options is not None and not asked.stream:
        raise Refusal(400, "stream_options belong to stream=true: leave them out.", param="stream_options")
    for at, message in enumerate(getattr(asked, "messages", ())):
        for name in _MESSAGE & set(message.model_extra or {}):
            if message.model_extra[name] not in _OFF:
                raise Refusal(400, f"messages[{at}].{name} is not supported here: only texts are.", param="messages")


def _asks_nothing(name: str, value: Any) -> bool:
    if name == "logprobs" and type(value) is int:  # a number, even 0, asks for that of the token itself
        return False
    return value is None or (value in _OFF and name not in _COUNTS)
