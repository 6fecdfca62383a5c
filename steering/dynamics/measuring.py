"""What replies do over a conversation: response, settling, overshoot, hysteresis, tracking.

All of it is of what an instrument reads in the replies (most often valence), never of the rule's own state, where these
would be properties of a formula. Values are counted from ``rest``, in the direction of the push: in a study the mean of
plain replies to the calm turns of the same script, so that what a policy does at rest counts too.

``response``    the mean over the pushed turns: how far replies went along; without it the rest says little
``settling``    turns after the push until replies, smoothed, are within the band around 0, and stay; all the turns that
                there are, if they never do (censored)
``overshoot``   how far they go beyond 0 to the other side after the push, smoothed
``tracking``    the correlation over turns with the valence of the mood that the user's lines alone would make
``hysteresis``  the area between the way down and the way up over matched levels (0 to 1): above 0 replies stay behind
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from affectlens.steering.dynamics.scripts import Phases

Values = Float[np.ndarray, "*draw turn"]
States = Float[np.ndarray, "*script turn"]  # the same for every draw
Figure = Float[np.ndarray, "*draw"]
Rest = Float[np.ndarray, "*script 1"]
Of = Callable[[Values, States, Phases, Rest | None], Figure]
BAND, WINDOW, LAGS = 0.1, 3, 6
PUSHED = ("response", "settling", "overshoot", "tracking")  # read on the protocol push
RAMPED = ("hysteresis",)  # on the ramp
FIGURES = (*PUSHED, *RAMPED)


def response(values: Values, phases: Phases, *, rest: Rest | None = None) -> Figure:
    """The mean over the pushed turns, from rest, in the direction of the push.

    Args:
        values: of replies, by turn.
        phases: of the script.
        rest: that values are counted from; by default their own mean over the calm turns.
    """
    return np.asarray(_counted(values, phases, rest)[..., phases.pushed].mean(-1))


def settling(
    values: Values, phases: Phases, *, band: float = BAND, window: int = WINDOW, rest: Rest | None = None
) -> Figure:
    """Turns after the push until values are within the band around rest, and stay there.

    Args:
        values: of replies, by turn.
        phases: of the script.
        band: half its width.
        window: turns that are averaged, centred, inside the phase.
        rest: that values are counted from; by default their own mean over the calm turns.
    """
    inside = np.abs(recovery(values, phases, window=window, rest=rest)) <= band + 1e-12
    stays = np.flip(np.cumprod(np.flip(inside, -1), axis=-1), -1)
    return np.asarray(inside.shape[-1] - stays.sum(-1), dtype=float)


def censored(
    values: Values, phases: Phases, *, band: float = BAND, window: int = WINDOW, rest: Rest | None = None
) -> Figure:
    """1 where values never settle, else 0.

    Args:
        values: of replies, by turn.
        phases: of the script.
        band: half its width.
        window: turns that are averaged.
        rest: that values are counted from; by default their own mean over the calm turns.
    """
    return np.asarray(settling(values, phases, band=band, window=window, rest=rest) >= phases.after.sum(), dtype=float)


def overshoot(values: Values, phases: Phases, *, window: int = WINDOW, rest: Rest | None = None) -> Figure:
    """The furthest beyond rest on the other side, after the push; 0 if they never get there.

    Args:
        values: of replies, by turn.
        phases: of the script.
        window: turns that are averaged.
        rest: that values are counted from; by default their own mean over the calm turns.
    """
    return np.asarray(np.maximum(-recovery(values, phases, window=window, rest=rest), 0.0).max(-1))


def hysteresis(values: Values, phases: Phases) -> Figure:
    """The integral over matched levels, as shares of the highest, of the way down less the way up.

    Args:
        values: of replies, by turn.
        phases: of a ramp.
    """
    counted = phases.sign * values
    rising, levels = phases.rising, phases.levels
    shared = sorted(set(levels[rising]) & set(levels[~rising]))
    if len(shared) < 2:
        return np.full(values.shape[:-1], np.nan)
    up, down = (
        np.stack([counted[..., (levels == k) & side].mean(-1) for k in shared], axis=-1) for side in (rising, ~rising)
    )
    return np.asarray(np.trapezoid(down - up, np.array(shared) / levels.max(), axis=-1))


def tracking(values: Values, states: States, *, lag: int = 0) -> Figure:
    """The correlation over turns of states with the values ``lag`` turns later; NaN where either is constant.

    Args:
        values: of replies, by turn.
        states: of the mood, by turn.
        lag: in turns.
    """
    end = values.shape[-1] - lag
    x, y = states[..., :end], values[..., lag:]
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    size = np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    steady = size < 1e-12
    return np.where(steady, np.nan, (x * y).sum(-1) / np.where(steady, 1.0, size))


def figure_of(name: str, *, band: float = BAND, window: int = WINDOW) -> Of:
    """A figure by its name, as a function of values, states, phases and rest.

    Args:
        name: one of :data:`FIGURES`, or censored.
        band: of settling.
        window: of smoothing.
    """
    made: dict[str, Of] = {
        "response": lambda v, _s, p, r: response(v, p, rest=r),
        "settling": lambda v, _s, p, r: settling(v, p, band=band, window=window, rest=r),
        "censored": lambda v, _s, p, r: censored(v, p, band=band, window=window, rest=r),
        "overshoot": lambda v, _s, p, r: overshoot(v, p, window=window, rest=r),
        "hysteresis": lambda v, _s, p, _r: hysteresis(v, p),
        "tracking": lambda v, s, _p, _r: tracking(v, s),
    }
    return made[name]


def recovery(
    values: Values, phases: Phases, *, window: int = WINDOW, rest: Rest | None = None
) -> Float[np.ndarray, "*draw after"]:
    """The turns after the push, from rest, as a centred moving mean of those that are inside.

    Args:
        values: of replies, by turn.
        phases: of the script.
        window: turns that are averaged.
        rest: that values are counted from; by default their own mean over the calm turns.
    """
    after = _counted(values, phases, rest)[..., phases.after]
    n, half = after.shape[-1], window // 2
    return np.stack(
        [after[..., max(0, k - half) : min(n, k + half + 1)].mean(-1) for k in range(n)], axis=-1
    )  # fmt: skip


def _counted(values: Values, phases: Phases, rest: Rest | None) -> Values:
    """From rest, in the direction of the push."""
    return phases.sign * (values - (values[..., phases.calm].mean(-1, keepdims=True) if rest is None else rest))
