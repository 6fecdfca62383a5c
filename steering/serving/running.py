"""Running a server: in the main thread until a signal, or in a thread of its own for a ``with`` block."""

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread

from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.probing.probes import Probes
from affectlens.steering.directions import Directions
from affectlens.steering.engines.engine import Engine
from affectlens.steering.engines.runner import Runner
from affectlens.steering.engines.together import Together
from affectlens.steering.serving.connections import Host
from affectlens.steering.serving.service import Service
from affectlens.steering.serving.settings import Settings, loopback, names_of
from affectlens.steering.shipped import load_directions


@contextmanager
def served(
    model: LensModel,
    *,
    directions: Directions | str | Path | None = None,
    runner: Runner | None = None,
    settings: Settings | None = None,
    probes: Probes | str | Path | None = None,
    slots: int = 16,
    queue: int = 64,
    host: str = "127.0.0.1",
    port: int = 0,
) -> Iterator[str]:
    """Serve from a thread while the block runs; yields the address, such as ``http://127.0.0.1:49152``.

    Args:
        model: to serve.
        directions: a set, its file, or None for the set that is bundled for this model.
        runner: what runs the model; by default PyTorch, for ``slots`` requests at a time.
        settings: names and limits; by default the model's own name, and no token.
        probes: a file of probes or a set, for gates and loops that ask one.
        slots: requests that are written at a time.
        queue: requests that may wait.
        host: where; one that others reach needs a token in ``settings``.
        port: 0 takes one that is free.

    Raises:
        SteerError: another model's directions, an address that is taken, or one that others reach without a token.
    """
    found = directions if isinstance(directions, Directions) else load_directions(directions, model)
    asked = settings or Settings(served_name(model.name))
    if not loopback(host) and asked.token is None:
        raise SteerError(f"Others can reach {host}: give Settings(..., token=...), or serve on 127.0.0.1.")
    if not asked.hosts and asked.token is None:
        asked = replace(asked, hosts=names_of(host))
    with (
        bound(host, port) as listener,
        Engine(runner or Together(model, slots), room=queue) as engine,
        hosted(Service(engine, found, settings=asked, probes=probes), listener),
    ):
        yield address(listener)


@contextmanager
def hosted(service: Service, listener: socket.socket) -> Iterator[Host]:
    """A service in a thread of its own, while the block runs.

    Args:
        service: what answers.
        listener: where.
    """
    server = Host(service)
    thread = Thread(target=server.run, args=([listener],), name="affectlens-server", daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield server
    finally:
        server.begin_stop()
        thread.join()
        service.close()


def serve_forever(service: Service, listener: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM, then end what runs.

    Args:
        service: what answers.
        listener: where.
    """
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of pieces on their way to clients that left
    try:
        Host(service).run([listener])
    finally:
        service.close()


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket at an address.

    Args:
        host: a name or an address.
        port: 0 takes one that is free.

    Raises:
        SteerError: an address that is taken or is not this machine's.
    """
    try:
        family, kind, proto, _, place = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise SteerError(f"{host} is no address of this machine ({error.strerror}): try 127.0.0.1.") from None
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(place)
        except OSError as error:
            raise SteerError(f"{host}:{port} can't be served on ({error.strerror}): choose another --port.") from None
        yield listener


def address(listener: socket.socket) -> str:
    """The URL of a socket, without ``/v1``.

    Args:
        listener: it.
    """
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def served_name(name: str) -> str:
    """The name under which a model is served: a folder's own name, else the name as it is.

    Args:
        name: as it was typed.
    """
    path = Path(name).expanduser()
    return path.resolve().name if path.exists() else name
