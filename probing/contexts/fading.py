"""``fade``: the paired difference token by token after a passage, when it fades, and what placebos give.

Two lengths are told apart. ``lasts`` counts the tokens until the simultaneous band first touches zero: it grows with
the number of scenes, as any test does. ``half_life`` counts those until the difference, averaged over five tokens, is
half of what it was on the first five: it does not.
"""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy import stats

from affectlens.probing.contexts.matching import mean_of
from affectlens.probing.contexts.results import ALL, UNIT, Persistence
from affectlens.stats import Estimate, band, estimate, multinomial
from affectlens.types import Json

WINDOW = 5  # tokens that a half-life averages over
ENDS = 10  # tokens at either end that the sentences average over


def fade(
    differences: Float[np.ndarray, "continuation group token"],
    random: Float[np.ndarray, "draw group token"],
    shuffled: Float[np.ndarray, "draw group token"],
    *,
    passage: Float[np.ndarray, " group"],
    meta: Json,
) -> Persistence:
    """A :class:`Persistence` from scenes' differences.

    Args:
        differences: of each continuation, in the unit that is to be reported.
        random: along random directions, averaged over continuations, in any unit.
        shuffled: along refitted directions, with the signs of the flipped labels.
        passage: on the passages themselves.
        meta: what the result says of its origin; ``seed`` is used.
    """
    seed = int(meta["seed"])
    mean = differences.mean(0)
    n, n_tokens = mean.shape
    tables = [_curve(str(i + 1), one, seed) for i, one in enumerate(differences)]
    whole = _curve(ALL, mean, seed)
    drawn, seen = np.abs(t_of(random)), np.abs(t_of(mean))
    limit = float(np.quantile(drawn.max(1), 0.95))
    whole["p_random"], whole["p_random_adjusted"] = exceeding(seen, drawn)
    whole["p_shuffled"], whole["p_shuffled_adjusted"] = exceeding(seen, np.abs(t_of(shuffled)))
    whole["random_limit"] = limit * mean.std(0, ddof=1) / np.sqrt(n)
    weights = np.concatenate([np.ones((1, n)), multinomial(n, seed)])
    curves = weights @ mean / n
    errors = np.sqrt(np.maximum(weights @ mean**2 / n - curves**2, 0) / (n - 1))
    half = (whole["band_high"] - whole["value"]).to_numpy()
    lasts = _tokens(run_length(curves - half * errors / np.maximum(errors[0], 1e-12) > 0), n)
    ends = min(ENDS, n_tokens)
    near, far = (estimate(mean_of(part.mean(1)), n, UNIT, seed=seed, bounds=None)
                 for part in (mean[:, :ends], mean[:, -ends:]))  # fmt: skip
    return Persistence(
        meta | {"n_scenes": n, "half_width": float(np.median(half))},
        pd.concat([whole, *tables], ignore_index=True),
        estimate(mean_of(passage), n, UNIT, seed=seed, bounds=None),
        near, far, lasts,
        _tokens(halved(curves), n) if lasts.value > 0 and n_tokens >= 2 * WINDOW else None,
    )  # fmt: skip


def t_of(values: Float[np.ndarray, "*some group token"]) -> Float[np.ndarray, "*some token"]:
    """Student's t of the mean over scenes; 0 where all scenes are 0, as after a passage that left nothing."""
    error = values.std(-2, ddof=1) / np.sqrt(values.shape[-2])
    return np.divide(values.mean(-2), error, out=np.zeros_like(error), where=error > 0)


def exceeding(
    seen: Float[np.ndarray, " token"], drawn: Float[np.ndarray, "draw token"]
) -> tuple[Float[np.ndarray, " token"], Float[np.ndarray, " token"]]:
    """p = (1 + hits) / (1 + draws) of each token by itself, and against the largest of each draw (max-T)."""
    slack = 1e-9 * (1 + seen)
    alone, any_token = drawn >= seen - slack, drawn.max(1, keepdims=True) >= seen - slack
    return (1 + alone.sum(0)) / (1 + len(drawn)), (1 + any_token.sum(0)) / (1 + len(drawn))


def run_length(above: Bool[np.ndarray, "draw token"]) -> Float[np.ndarray, " draw"]:
    """How many tokens from the first on are above, without a break."""
    return np.where(above.all(1), above.shape[1], (~above).argmax(1)).astype(float)


def halved(curves: Float[np.ndarray, "draw token"]) -> Float[np.ndarray, " draw"]:
    """Tokens until the running mean is half its first value; all that could be looked at if it never is.

    >>> halved(2.0 ** -(np.arange(40.0)[None] / 12))
    array([12.])
    """
    smooth = np.lib.stride_tricks.sliding_window_view(curves, WINDOW, axis=1).mean(-1)
    return run_length((smooth > (0.5 + 1e-9) * smooth[:, :1]) & (smooth[:, :1] > 0))


def _tokens(counts: Float[np.ndarray, " draw"], n: int) -> Estimate:
    """The first count with the percentiles of the others."""
    low, high = np.percentile(counts[1:], [2.5, 97.5])
    value = float(counts[0])
    return Estimate(value, min(value, float(low)), max(value, float(high)), n, UNIT,
                    method=f"cluster bootstrap, {len(counts) - 1} draws")  # fmt: skip


def _curve(name: str, values: Float[np.ndarray, "group token"], seed: int) -> pd.DataFrame:
    n = len(values)
    mean, error = values.mean(0), values.std(0, ddof=1) / np.sqrt(n)
    half, all_at_once = float(stats.t.ppf(0.975, n - 1)) * error, band([mean_of(one) for one in values.T], n, seed=seed)
    return pd.DataFrame({
        "continuation": name, "token": np.arange(1, len(mean) + 1), "value": mean, "low": mean - half,
        "high": mean + half, "band_low": all_at_once.low, "band_high": all_at_once.high, "t": t_of(values), "n": n,
    })  # fmt: skip
