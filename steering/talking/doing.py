"""What the commands of a chat do to its settings and its history."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from affectlens.errors import SteerError
from affectlens.steering.directions import spelled
from affectlens.steering.talking.events import Event, Says
from affectlens.steering.talking.exchanges import among
from affectlens.steering.talking.settings import NOTHING
from affectlens.steering.typed import dose

if TYPE_CHECKING:
    from affectlens.steering.talking.session import Session


def doses(session: "Session", rest: str) -> Iterator[Event]:
    """Say the doses, or set some: ``joy 0.6 fear -0.2``."""
    words = rest.split()
    if len(words) % 2:
        raise SteerError(f"{rest!r} is no list of doses: write an emotion and a number each, joy 0.6 fear -0.2.")
    more: dict[str, float] = {}
    for name, number in zip(words[::2], words[1::2], strict=True):
        if spelled(name) in more:
            raise SteerError(f"{spelled(name)} is named twice: give it one dose.")
        more[spelled(name)] = dose(name, number)
    if more:
        session.take(session.settings.dosed(session.model, more))
    yield Says(_doses_stated(session))


def off(session: "Session", _rest: str) -> Iterator[Event]:
    """Set all doses aside."""
    settings = session.settings
    session.settings = replace(settings, doses={}, aside=settings.doses or settings.aside)
    yield Says(_doses_stated(session))


def on(session: "Session", _rest: str) -> Iterator[Event]:
    """Bring back what was set aside; a dose that was set since stays."""
    settings = session.settings
    if not settings.aside:
        raise SteerError("No doses were set aside: /off does that, and /joy 0.6 sets one.")
    changed = settings.dosed(session.model, {**settings.aside, **settings.doses})
    session.take(replace(changed, aside={}))
    yield Says(session.settings.stated(session.model))


def beside(session: "Session", rest: str) -> Iterator[Event]:
    """Write plain replies too, or no longer."""
    on_now = _switched("beside", rest, session.settings.beside)
    session.settings = replace(session.settings, beside=on_now)
    yield Says("Unsteered replies too." if on_now else "Steered replies alone.")


def colours(session: "Session", rest: str) -> Iterator[Event]:
    """Colour tokens or not, and by which emotion."""
    if rest in ("", "on", "off"):
        on_now = _switched("colours", rest, session.settings.colours)
        session.settings = replace(session.settings, colours=on_now)
        yield Says("Tokens are coloured." if on_now else "Tokens are not coloured.")
        return
    probes = session.settings.probes
    known = list(dict.fromkeys([*(probes.classes if probes else ()), *session.settings.directions.emotions]))
    shown = among(known, rest)
    if shown is None:
        raise SteerError(f"/colours {rest} is not known: choose on, off, {', '.join(known)}.")
    session.settings = replace(session.settings, colours=True, shown=shown)
    yield Says(f"Tokens are coloured by {shown}, where it is read.")


def gate(session: "Session", rest: str) -> Iterator[Event]:
    """Steer only where a reading passes a threshold."""
    yield from _planned(session, "gate", "fear>90", rest)


def loop(session: "Session", rest: str) -> Iterator[Event]:
    """Close the loop on the reply's own reading."""
    yield from _planned(session, "loop", "joy<75", rest)


def schedule(session: "Session", rest: str) -> Iterator[Event]:
    """Change the doses over the reply."""
    yield from _planned(session, "schedule", "decay(16)", rest)


def positions(session: "Session", rest: str) -> Iterator[Event]:
    """Choose the tokens that are steered."""
    yield from _planned(session, "positions", "response", rest)


def _planned(session: "Session", name: str, example: str, rest: str) -> Iterator[Event]:
    if not rest:
        now = session.settings.how.get(name)
        raise SteerError(f"/{name} needs more, for example /{name} {example}; it is {now or 'not set'} now.")
    session.take(session.settings.planned(session.model, **{name: None if rest == "off" else rest}))
    kept = "" if rest == "off" else f" {name} {rest} is kept for later doses."
    yield Says(session.settings.stated(session.model) if session.settings.doses else NOTHING + kept)


def temperature(session: "Session", rest: str) -> Iterator[Event]:
    """Set the temperature."""
    yield from _decoded(session, "temperature", _number("temperature", rest))


def top_p(session: "Session", rest: str) -> Iterator[Event]:
    """Set the share of the likeliest tokens."""
    yield from _decoded(session, "top_p", _number("top_p", rest))


def seed(session: "Session", rest: str) -> Iterator[Event]:
    """Set the seed."""
    yield from _decoded(session, "seed", _whole("seed", rest))


def tokens(session: "Session", rest: str) -> Iterator[Event]:
    """Set the longest reply."""
    yield from _decoded(session, "max_new_tokens", _whole("tokens", rest))


def _decoded(session: "Session", name: str, value: float | int) -> Iterator[Event]:
    changed: dict[str, Any] = {name: value}
    decoding = replace(session.settings.decoding, **changed)
    session.settings = replace(session.settings, decoding=decoding)
    luck = f"temperature {decoding.temperature:g}, top_p {decoding.top_p:g}" if decoding.temperature else "greedy"
    yield Says(f"Replies of up to {decoding.max_new_tokens} tokens, {luck}, seed {decoding.seed}.")


def history(session: "Session", _rest: str) -> Iterator[Event]:
    """Show the conversation."""
    lines = []
    for at, one in enumerate(session.exchanges):
        told = [f"{name} {value:+g}" for name, value in one.doses.items()]
        told += ["stopped"] * one.stopped + ["no longer sent"] * (at < session.left_out)
        lines += [f"you> {one.said}", f"model{' (' * bool(told)}{', '.join(told)}{')' * bool(told)}> {one.text}"]
    yield Says("\n".join(lines) or "Nothing was said yet.")


def undo(session: "Session", _rest: str) -> Iterator[Event]:
    """Drop the last exchange."""
    if not session.exchanges:
        raise SteerError("There is no exchange to drop.")
    *session.exchanges, last = session.exchanges
    session.dropped.append(last)
    session.unsaved = True
    yield Says(f"Dropped: {last.said!r}. {len(session.exchanges)} left.")


def retry(session: "Session", _rest: str) -> Iterator[Event]:
    """Write the last reply anew."""
    if not session.exchanges:
        raise SteerError("There is no reply to write anew.")
    before = session.exchanges[-1]
    yield from session.answer(before.said, anew=True)
    same = session.exchanges[-1] is not before and session.exchanges[-1].text == before.text
    if same and not session.settings.decoding.temperature:
        yield Says("It is the same: at temperature 0 no seed matters. /temperature 0.7 lets replies differ.")


def _doses_stated(session: "Session") -> str:
    aside = ", ".join(f"{name} {value:+g}" for name, value in session.settings.aside.items())
    said = session.settings.stated(session.model)
    return f"{said} Set aside: {aside}; /on brings back." if aside and not session.settings.doses else said


def _switched(name: str, rest: str, now: bool) -> bool:
    if rest not in ("", "on", "off"):
        raise SteerError(f"/{name} {rest} is not known: write /{name} on or /{name} off.")
    return rest == "on" if rest else not now


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SteerError(f"/{name} {text} is not a number: write one, for example /{name} 0.7.")
    return value


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise SteerError(f"/{name} {text} is not a whole number from 0: write one, for example /{name} 3.")
    return int(text)
