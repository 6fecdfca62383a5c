"""The commands of a chat that write, read or begin conversations; what was not saved is kept first."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.errors import SteerError
from affectlens.steering.talking.events import Event, Says
from affectlens.steering.talking.keeping import is_own, keep, read_chat, unused, write_chat
from affectlens.steering.talking.settings import mark_of

if TYPE_CHECKING:
    from affectlens.steering.talking.session import Session


def save(session: "Session", rest: str) -> Iterator[Event]:
    """Write the conversation, unless the file is something else's."""
    path = Path(rest).expanduser() if rest else session.file or unused(Path())
    if not is_own(session, path):
        raise SteerError(f"{path} is there already, and this chat did not write it so: /save! {path} replaces it.")
    yield from _saved(session, path)


def save_over(session: "Session", rest: str) -> Iterator[Event]:
    """Write the conversation, whatever the file was."""
    if not rest:
        raise SteerError("/save! needs the file that it replaces, for example /save! talk.json.")
    yield from _saved(session, Path(rest).expanduser())


def _saved(session: "Session", path: Path) -> Iterator[Event]:
    write_chat(session, path)
    session.file = path
    n = len(session.exchanges)
    yield Says(f"Saved to {path}: {n} exchange{'s' * (n != 1)}.")


def load(session: "Session", rest: str) -> Iterator[Event]:
    """Go on with a saved conversation."""
    if not rest:
        raise SteerError("/load needs a file that /save wrote, for example /load talk.json.")
    path = Path(rest).expanduser()
    yield from _kept(session)
    read_chat(session, path)
    session.file = path
    n = len(session.exchanges)
    yield Says(f"{path}: {n} exchange{'s' * (n != 1)}. {session.settings.stated(session.model)}")
    last = session.exchanges[-1] if session.exchanges else None
    if last and last.doses == session.settings.doses and last.mark != mark_of(session.settings.plan(session.model)):
        yield Says("Its last reply was steered by other directions or settings than are in use now.")


def reset(session: "Session", _rest: str) -> Iterator[Event]:
    """Begin anew, with the same doses."""
    yield from _kept(session)
    session.exchanges, session.dropped, session.left_out, session.file = [], [], 0, None
    session.unsaved = False
    yield Says(f"The conversation begins anew; {session.settings.stated(session.model)}")


def _kept(session: "Session") -> Iterator[Event]:
    if path := keep(session):
        yield Says(f"The conversation so far is kept in {path}.")
