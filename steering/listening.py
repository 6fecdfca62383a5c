"""``generate`` says where the reply begins: one wrapper a model, told to all who listen, gone with the last of them."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from affectlens.model import LensModel


@runtime_checkable
class Listener(Protocol):
    """Who wants to know; ``width`` is the prompt's columns, padding included."""

    width: int | None

    def check_beams(self, beams: int) -> None:
        """Raise what is to be raised before a search of so many beams."""


_LISTENERS: "weakref.WeakKeyDictionary[LensModel, list[Listener]]" = weakref.WeakKeyDictionary()


@contextmanager
def listening(model: LensModel, listener: Listener) -> Iterator[None]:
    """Let each ``generate`` of the model tell ``listener`` how many beams it has, which it may refuse, and how wide its
    prompt is, whatever order contexts end in.

    Args:
        model: whose ``generate`` is listened to; what it is called with is passed on untouched.
        listener: its ``width`` is set while ``generate`` runs, and put back.
    """
    mine = _LISTENERS.setdefault(model, [])
    if not mine:
        _wrap(model, mine)
    mine.append(listener)
    try:
        yield
    finally:
        mine.remove(listener)
        if not mine:
            _LISTENERS.pop(model, None)
            vars(model.hf).pop("generate", None)
            if (before := vars(model.hf).pop("_generate_of_the_user", None)) is not None:
                vars(model.hf)["generate"] = before


def _wrap(model: LensModel, listeners: list[Listener]) -> None:
    inner = model.hf.generate
    if "generate" in vars(model.hf):
        vars(model.hf)["_generate_of_the_user"] = inner

    def generate(*args: Any, **kwargs: Any) -> Any:
        named = (kwargs.get(name) for name in ("inputs", "input_ids", "inputs_embeds"))
        given = next((value for value in (*args[:1], *named) if value is not None), None)
        beams = _beams(model, kwargs)
        for one in listeners:
            one.check_beams(beams)
        told, kept = list(listeners), [one.width for one in listeners]
        for one in told:
            one.width = one.width if given is None else int(given.shape[1])
        try:
            return inner(*args, **kwargs)
        finally:
            for one, width in zip(told, kept, strict=True):
                one.width = width

    vars(model.hf)["generate"] = generate


def _beams(model: LensModel, kwargs: dict[str, Any]) -> int:
    """How many beams a ``generate`` that is called so has."""
    config = kwargs.get("generation_config") or model.hf.generation_config
    named = kwargs.get("num_beams")
    return int((getattr(config, "num_beams", None) if named is None else named) or 1)
