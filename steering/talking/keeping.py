"""A conversation as JSON: messages as chat templates take them, and beside each reply all that is known of it.

``messages`` have ``role`` and ``content``; the model's also have tokens, readings by column and token, doses, plan and
decoding, and the plain reply where there is one. So other tools read the file as a list of messages.
"""

import hashlib
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from affectlens.errors import SteerError
from affectlens.generating import Decoding
from affectlens.paths import cache_dir, write_text
from affectlens.steering.talking.exchanges import Column, Exchange, Side
from affectlens.types import Json

if TYPE_CHECKING:
    from affectlens.steering.talking.session import Session

FORMAT = "affectlens chat 1"


def as_json(session: "Session") -> Json:
    """The conversation as plain values.

    Args:
        session: whose.
    """
    return {
        "format": FORMAT, "model": session.model.name, "fingerprint": session.model.fingerprint,
        "saved": datetime.now(UTC).isoformat(timespec="seconds"), "settings": session.settings.as_json(),
        "messages": [message for one in session.exchanges for message in _messages(one)],
        "dropped": [message for one in session.dropped for message in _messages(one)],
    }  # fmt: skip


def write_chat(session: "Session", path: Path) -> None:
    """Write the conversation, whole or not at all, and note that it is saved.

    Args:
        session: whose.
        path: of the file.

    Raises:
        SteerError: a file that can't be written.
    """
    text = json.dumps(as_json(session), ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    try:
        write_text(path, text)
    except (OSError, UnicodeError) as error:
        raise SteerError(f"{path} can't be written ({error}): choose another file.") from None
    session.seen[path.resolve()] = hashlib.sha256(text.encode()).hexdigest()
    session.unsaved = False


def read_chat(session: "Session", path: Path) -> None:
    """Go on with a saved conversation, with its settings; the directions stay those of the session.

    Args:
        session: that goes on with it.
        path: of the file.

    Raises:
        SteerError: no such file, not a conversation, or one with another model; doses that these directions can't do.
    """
    try:
        raw = path.read_bytes()
        found: Json = json.loads(raw)
        if found["format"] != FORMAT:
            raise ValueError(found["format"])
        exchanges, dropped = _exchanges(found["messages"]), _exchanges(found["dropped"])
        saved, model, fingerprint = found["settings"], found["model"], found["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SteerError(f"{path} is not a conversation that /save wrote ({error!r:.100}).") from None
    if fingerprint != session.model.fingerprint:
        raise SteerError(
            f"{path} is a conversation with {model} ({fingerprint[:12]}), not with {session.model.name} "
            f"({session.model.fingerprint[:12]}): weights, dtype, tokenizer and template must be the same."
        )
    try:
        session.take(session.settings.restored(session.model, saved))
    except (KeyError, TypeError, ValueError) as error:
        raise SteerError(f"{path} is damaged: its settings can't be read ({error!r:.100}).") from None
    session.exchanges, session.dropped, session.left_out, session.unsaved = exchanges, dropped, 0, False
    session.seen[path.resolve()] = hashlib.sha256(raw).hexdigest()


def is_own(session: "Session", path: Path) -> bool:
    """Whether a file may be written over: it is not there, or is as this session wrote or read it last.

    Args:
        session: that writes.
        path: of the file.
    """
    if not path.exists():
        return True
    try:
        return session.seen.get(path.resolve()) == hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return False


def keep(session: "Session") -> Path | None:
    """Write what is not saved to the cache folder; where it is kept, or None if there was nothing to keep.

    Args:
        session: whose.

    Raises:
        SteerError: a folder that can't be written.
    """
    if not session.unsaved or not (session.exchanges or session.dropped):
        return None
    path = unused(cache_dir() / "chats")
    write_chat(session, path)
    return path


def unused(folder: Path) -> Path:
    """The name of a new file for a conversation, after the time.

    Args:
        folder: where it is to be.
    """
    stem = f"chat-{datetime.now():%Y%m%d-%H%M%S}"
    names = (folder / f"{stem}{f'-{again}' if again else ''}.json" for again in range(10_000))
    return next(path for path in names if not path.exists())


def _messages(one: Exchange) -> list[Json]:
    user, model = one.messages
    facts: dict[str, Any] = {
        "columns": [asdict(column) for column in one.columns], "doses": one.doses, "plan": one.plan, "mark": one.mark,
        "decoding": asdict(one.decoding), "stopped": one.stopped, "left_out": one.left_out, "shown": one.shown,
        "reply": _side(one.reply), "plain": None if one.plain is None else _side(one.plain),
    }  # fmt: skip
    return [dict(user), {**model, **facts}]


def _side(side: Side) -> Json:
    readings = [[value if np.isfinite(value) else None for value in row] for row in side.readings.tolist()]
    return {"text": side.text, "ids": list(side.ids), "tokens": list(side.tokens), "readings": readings}


def _exchanges(messages: list[Json]) -> list[Exchange]:
    pairs = zip(messages[::2], messages[1::2], strict=True)
    return [_exchange(str(user["content"]), model) for user, model in pairs]


def _exchange(said: str, one: Json) -> Exchange:
    columns = tuple(Column(**column) for column in one["columns"])

    def side(told: Json) -> Side:
        readings = np.array(told["readings"], dtype=np.float64).reshape(len(told["ids"]), len(columns))
        return Side(told["text"], tuple(told["ids"]), tuple(told["tokens"]), readings)

    plain = None if one["plain"] is None else side(one["plain"])
    return Exchange(said, side(one["reply"]), plain, columns, dict(one["doses"]), one["plan"], one["mark"],
                    Decoding(**one["decoding"]), one["stopped"], one["left_out"], one["shown"])  # fmt: skip
