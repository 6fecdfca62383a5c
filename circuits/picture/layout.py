"""Where each room stands: layers upward, the embedding at the bottom, the end at the top, MLPs right of the heads.

A head and an MLP are a room each. Where heads share keys and values, the key-value head is a low room beneath the
heads that it serves, and edges into keys and values end there. In parallel blocks an MLP stands level with its heads,
since it reads what they read. Lengths are in pixels; y counts downward, as in SVG.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from affectlens.circuits.space import EdgeSpace

WIDTH, HEIGHT, LOW, GAP, FLOOR = 62.0, 20.0, 9.0, 10.0, 26.0
BROAD = 90.0  # the embedding and the end
LEFT, RIGHT = 92.0, 92.0
PORTS = ("q", "k", "v", "mlp", "end")
ENTRIES = {"q": 0.2, "k": 0.5, "v": 0.8, "mlp": 0.5, "end": 0.5}  # where an edge enters, as a share of the room's width
SHARED = ENTRIES | {"q": 0.5, "k": 0.34, "v": 0.66}  # where keys and values have rooms of their own


@dataclass(frozen=True)
class Room:
    """One node of the picture."""

    name: str  # embedding, L3.H2, L3.kv0, L3.mlp, end, or a neuron's or feature's site
    kind: str  # embedding, head, kv, mlp, neuron, feature, end
    layer: int  # -1 for the embedding, the number of layers for the end
    heads: tuple[str, ...] = ()  # of a key-value head, the heads that it serves


@dataclass(frozen=True)
class Box:
    """A rectangle, by its upper left corner."""

    x: float
    y: float
    w: float
    h: float


@dataclass(frozen=True)
class Plan:
    """Boxes by room, the floors' labels by their y, and the size of the whole."""

    boxes: Mapping[str, Box]
    floors: tuple[tuple[int, float], ...]  # layer and the y of its lower edge
    width: float
    height: float


def rooms(space: EdgeSpace, extras: Sequence[Room] = ()) -> list[Room]:
    """Every room of a model, in the order of computation.

    Args:
        space: the model's edges.
        extras: neurons and features.
    """
    group = space.n_heads // space.n_kv
    out = [Room("embedding", "embedding", -1)]
    for at in range(space.n_layers):
        heads = [f"L{at}.H{h}" for h in range(space.n_heads)]
        out += [Room(f"L{at}.kv{g}", "kv", at, tuple(heads[g * group : (g + 1) * group]))
                for g in range(space.n_kv) if group > 1]  # fmt: skip
        out += [Room(name, "head", at) for name in heads]
        out.append(Room(f"L{at}.mlp", "mlp", at))
        out += [room for room in extras if room.layer == at]
    return [*out, Room("end", "end", space.n_layers)]


def room_of(space: EdgeSpace, name: str) -> str:
    """The room of a sender, receiver or node: ``L3.mlp_out`` is in ``L3.mlp``, ``L3.H0.k`` in ``L3.kv0`` if shared.

    Args:
        space: the model's edges.
        name: of the node.
    """
    layer, _, part = name.partition(".")
    if part in ("mlp_in", "mlp_out", "mlp"):
        return f"{layer}.mlp"
    head, _, port = part.partition(".")
    if port in ("k", "v") and space.n_kv < space.n_heads:
        return f"{layer}.kv{head[1:]}"
    return f"{layer}.{head}" if port in ("q", "k", "v") else name


def port_of(receiver: str) -> str:
    """What a receiver reads into: q, k, v, mlp or end.

    >>> port_of("L3.H0.k"), port_of("L3.mlp_in"), port_of("end")
    ('k', 'mlp', 'end')

    Args:
        receiver: its name.
    """
    return "end" if receiver == "end" else "mlp" if receiver.endswith("mlp_in") else receiver.rsplit(".", 1)[1]


def entries(space: EdgeSpace) -> dict[str, float]:
    """Where edges of each port enter a room, as a share of its width.

    Args:
        space: the model's edges.
    """
    return dict(SHARED if space.n_kv < space.n_heads else ENTRIES)


def plan(space: EdgeSpace, every: Sequence[Room], shown: Collection[str]) -> Plan:
    """The places of some rooms; floors without any are left out.

    Args:
        space: the model's edges.
        every: from :func:`rooms`.
        shown: names of the rooms to place; the embedding and the end always are. A key-value head without one of its
            heads gets its first.
    """
    kept = {"embedding", "end", *shown}
    kept |= {room.heads[0] for room in every if room.name in kept and room.heads and not kept & set(room.heads)}
    floors = [[room for room in every if room.layer == at and room.name in kept] for at in range(space.n_layers)]
    n_heads = max([2, *(sum(room.kind == "head" for room in floor) for floor in floors)])
    n_right = max([1, *(sum(room.kind not in ("head", "kv") for room in floor) for floor in floors)])
    across = n_heads * (WIDTH + GAP) - GAP
    middle = LEFT + across / 2
    up: dict[str, Box] = {
        "embedding": Box(middle - BROAD / 2, 0.0, BROAD, HEIGHT)
    }  # y is the lower edge, counted upward
    height, lines = HEIGHT + FLOOR, []
    for at, floor in enumerate(floors):
        if floor:
            lines.append((at, height))
            height = _floor(up, floor, height, across, space.parallel[at]) + FLOOR
    up["end"] = Box(middle - BROAD / 2, height, BROAD, HEIGHT)
    total = height + HEIGHT + 2 * GAP
    boxes = {name: Box(box.x, total - GAP - box.y - box.h, box.w, box.h) for name, box in up.items()}
    width = LEFT + across + GAP + n_right * (WIDTH + GAP) + RIGHT
    return Plan(boxes, tuple((at, total - GAP - low) for at, low in lines), width, total)


def _floor(up: dict[str, Box], floor: Sequence[Room], low: float, across: float, parallel: bool) -> float:
    """Place one layer's rooms from ``low`` upward; returns where it ends."""
    heads = [room.name for room in floor if room.kind == "head"]
    groups = [room for room in floor if room.kind == "kv"]
    beside = [room.name for room in floor if room.kind not in ("head", "kv")]
    start = LEFT + (across - len(heads) * (WIDTH + GAP) + GAP) / 2
    level = low + (LOW + 3 if groups else 0.0)
    for i, name in enumerate(heads):
        up[name] = Box(start + i * (WIDTH + GAP), level, WIDTH, HEIGHT)
    for room in groups:
        served = [up[name] for name in room.heads if name in heads]
        up[room.name] = Box(served[0].x, low, served[-1].x + WIDTH - served[0].x, LOW)
    top = level + HEIGHT if heads else low
    raised = level if parallel or not heads else top + 12
    for i, name in enumerate(beside):
        up[name] = Box(LEFT + across + GAP + i * (WIDTH + GAP), raised, WIDTH, HEIGHT)
    return max(top, raised + HEIGHT if beside else top)


def curve(a: Box, b: Box, share: float, middle: float) -> str:
    """The path of an edge from the top of ``a`` to the bottom of ``b``; long upright ones bow outward, around rooms.

    Args:
        a: the sender's box.
        b: the reader's.
        share: where it enters, as a share of the reader's width.
        middle: x of the picture's middle.
    """
    x, y, to, end = a.x + a.w / 2, a.y, b.x + b.w * share, b.y + b.h
    rise = y - end
    reach = max(rise * 0.4, 12)
    upright = max(0.0, 1 - abs(to - x) / 140)
    bow = (min(16 + 0.12 * rise, 110) * upright if rise > 50 else 0.0) * (1 if x + to >= 2 * middle else -1)
    return f"M{x:.1f} {y:.1f}C{x + bow:.1f} {y - reach:.1f} {to + bow:.1f} {end + reach:.1f} {to:.1f} {end:.1f}"
