"""Where the doses of a run come from: the mood itself, or a control that lacks a part of it.

``plain``     no steering
``closed``    the mood's, which is fed by what the user said and by the model's own last reply
``open``      a schedule fixed beforehand: of the mean trajectory over the *other* scripts, fed by their lines alone
``equal``     at every turn the mean of the closed loop's doses for the script, scaled so that the vector that is added
              is as long as the loop's is in the mean: as much, without a time
``shuffled``  the closed loop's doses for the script in another order of turns: as much, at the wrong time

Only the closed loop's doses follow what happens in a conversation. What a control does too is not the loop's doing. The
open loop knows when the protocol pushes, from other scripts: to differ from it is to go beyond knowing the timing.
"""

import numpy as np
from jaxtyping import Float

from affectlens.steering.dynamics.adding import Gram, lengths
from affectlens.steering.dynamics.dosing import Dosing
from affectlens.steering.dynamics.state import Moods, Rule, trajectory

PLAIN, CLOSED, OPEN, EQUAL, SHUFFLED = POLICIES = ("plain", "closed", "open", "equal", "shuffled")
CONTROLS = (PLAIN, OPEN, EQUAL, SHUFFLED)
SAYS = {
    PLAIN: "plain replies", CLOSED: "the closed loop", OPEN: "an open-loop schedule",
    EQUAL: "the equal mean dose", SHUFFLED: "the same doses at other turns",
}  # fmt: skip
Schedule = Float[np.ndarray, "turn emotion"]


def open_loop(rule: Rule, dosing: Dosing, readings: Float[np.ndarray, "script turn 3"]) -> Schedule:
    """The doses of the mean trajectory of a rule.

    Args:
        rule: of the mood.
        dosing: from moods to doses.
        readings: of what the users of other scripts say, offsets from the baseline.
    """
    moods: Moods = np.mean([trajectory(rule, one) for one in readings], axis=0)
    return dosing.schedule(moods)


def equal_mean(doses: Schedule, gram: Gram) -> Schedule:
    """The mean over turns, at every turn, rescaled to add a vector as long as the turns' are in the mean.

    A mean over turns holds many emotions at once, whose vectors cancel in part; without the scale it would add less.

    Args:
        doses: of the closed loop.
        gram: inner products of what a dose of 1 of each emotion adds.
    """
    mean = doses.mean(0, keepdims=True)
    length = lengths(mean, gram)[0]
    scale = lengths(doses, gram).mean() / length if length > 1e-12 else 1.0
    return np.repeat(mean * scale, len(doses), axis=0)


def shuffled(doses: Schedule, seed: int) -> Schedule:
    """The same rows in another order.

    Args:
        doses: of the closed loop.
        seed: of the order.
    """
    return doses[np.random.default_rng(seed).permutation(len(doses))]


def fed_by(user: Float[np.ndarray, " 3"], reply: Float[np.ndarray, " 3"], own: float) -> Float[np.ndarray, " 3"]:
    """What a mood is told at a turn, kept within -1 and 1; NaN, where nothing was read, counts as 0.

    Args:
        user: the reading of the user's line.
        reply: that of the model's last reply.
        own: the weight of the reply.
    """
    return np.clip(np.nan_to_num(user) + own * np.nan_to_num(reply), -1.0, 1.0)
