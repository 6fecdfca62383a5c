"""What the replies of a chat are read with, and the reading: the plain model over the finished reply.

1. Probes, if there are any: the logit of each class. They had no part in the writing.
2. The steering directions at a later layer of the residual stream, or at their own where there is none; while nothing
   is steered, all directions of the set.
"""

from contextlib import suppress

import numpy as np

from affectlens.errors import BatteryError, SteerError
from affectlens.layouts import Layout
from affectlens.model import LensModel
from affectlens.probing.probes import Probes
from affectlens.probing.tokens.reading import find_class
from affectlens.sites import Site
from affectlens.steering.colouring import strings
from affectlens.steering.directions import Directions
from affectlens.steering.ends import without_end
from affectlens.steering.plan import SteeringPlan, plan_for
from affectlens.steering.readers import Reader, read, readers_for
from affectlens.steering.talking.exchanges import Column, Side

Reading = tuple[tuple[Reader, ...], tuple[Column, ...]]


def reading_of(model: LensModel, plan: SteeringPlan | None, directions: Directions, probes: Probes | None) -> Reading:
    """The readers of a reply, and what their numbers are; the first colours it.

    Args:
        model: that wrote it.
        plan: of the steered reply, or None.
        directions: that are read while nothing is steered.
        probes: of the same model.

    Raises:
        StoreError: probes of another model.
    """
    found: list[tuple[Reader, Column]] = []
    steered = plan is not None and not plan.is_nothing
    watched = plan if plan is not None and steered else _every(model, directions)
    if probes is not None:
        wanted = [t.direction.emotion for t in sorted(watched.terms, key=lambda t: -abs(t.strength))] if steered else []
        classes = _classes_of(probes, wanted)
        found += sorted(_of_probes(model, probes), key=lambda one: _place(one[0].emotion, classes))
    try:
        projections = readers_for(model, watched, None, None, None)
    except SteerError:  # a plan that only scales parts has no direction to read with
        projections = ()
    later = [reader for reader in projections if not reader.own]
    for reader in later or projections:
        found.append((reader, Column(reader.emotion, str(reader.site), "projection", reader.says, reader.zeroed)))
    return tuple(reader for reader, _ in found), tuple(column for _, column in found)


def _every(model: LensModel, directions: Directions) -> SteeringPlan:
    return plan_for(model, dict.fromkeys(directions.emotions, 1.0), directions=directions, raw=True)


def _classes_of(probes: Probes, emotions: list[str]) -> list[str]:
    """What the probes call these emotions, which may be their peak words; without those that they don't know."""
    found = []
    for emotion in emotions:
        with suppress(BatteryError):
            found.append(find_class(probes, emotion)[2])
    return found


def _place(name: str, wanted: list[str]) -> int:
    return wanted.index(name) if name in wanted else len(wanted)


def _of_probes(model: LensModel, probes: Probes) -> list[tuple[Reader, Column]]:
    probes.expect(model.fingerprint, model.name)
    linear, site = probes.at(), Site(probes.site, probes.layer)
    several = len(linear.weights) > 1
    chance = "" if probes.main != "logistic" else "softmax" if several else "sigmoid"
    out = []
    for name in probes.classes if several else (None,):
        column, sign, shown = find_class(probes, name)
        at = column or 0
        says = f"logit of {shown} of the {probes.main} probe of {probes.target} at {site}"
        weights = sign * linear.weights[at].astype(np.float64)
        reader = Reader(shown, site, weights, sign * float(linear.bias[at]), says, zeroed=True, own=False)
        out.append((reader, Column(shown, str(site), f"probe of {probes.target}", says, True, chance)))
    return out


def read_side(model: LensModel, prompt: Layout, ids: list[int], text: str, readers: tuple[Reader, ...]) -> Side:
    """A reply with its tokens and their readings.

    Args:
        model: the model; it must be plain now.
        prompt: what was replied to.
        ids: the reply's tokens.
        text: the reply.
        readers: what reads; none for a reply that is not to be read.
    """
    own = without_end(model, ids)
    values = read(model, prompt.ids, own, readers) if readers else np.zeros((len(own), 0))
    return Side(text, tuple(own), strings(model.tokenizer, own), values)
