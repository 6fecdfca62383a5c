"""Does it hold elsewhere: over methods, over emotions, and when two emotions are steered together.

An effect is the target share less that of plain replies, on the half ``report``. Over *methods*: the correlation of the
emotions' effects, each at its own safe dose, and the cosine of the directions where it was given. Over *emotions*: the
standard deviation of a method's effects. Of *combinations* ``joy+fear``, steered at one common dose: each component's
share less plain, and less what the same dose of that emotion alone gives. A judge that gives one label can't give two,
so both components of a perfect combination may have half.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.stats import Estimate, Statistic, Weights, estimate, less
from affectlens.steering.evaluating.frames import REPORT, Arm, at_dose, classes_of, judges_of
from affectlens.steering.evaluating.safety import Choice
from affectlens.steering.evaluating.shares import called, common, gap, mean_of, record, tabled

_Effects = dict[str, dict[str, pd.DataFrame]]  # method, emotion: replies
_COLUMNS = ("over", "judge", "a", "b", "emotion", "dose", "quantity")


def stabilities(
    replies: pd.DataFrame, chosen: Sequence[Choice], *, cosines: Sequence[Mapping[str, object]] = (), seed: int = 0
) -> pd.DataFrame:
    """One row a comparison: ``over`` is methods, emotions or combinations; ``a`` and ``b`` are what is compared.

    Args:
        replies: one row a reply.
        chosen: the safe doses.
        cosines: of two methods' directions: ``emotion, a, b, cosine``.
        seed: of bootstraps.
    """
    mine = replies[replies["half"] == REPORT]
    plain = mine[mine["condition"] == "plain"]
    out: list[dict[str, object]] = []
    for judge in judges_of(replies):
        classes = classes_of(replies, judge)
        reached = _reached(mine, chosen, classes)
        out += [row | {"judge": judge} for row in _methods(reached, plain, judge, seed)]
        out += [row | {"judge": judge} for row in _spread(reached, plain, judge, seed)]
        out += [row | {"judge": judge} for row in _combined(mine, plain, judge, classes, seed)]
    for one in cosines:
        value = float(str(one["cosine"]))
        exact = Estimate(value, value, value, 1, "direction", method="exact")
        out.append({"over": "methods", "judge": "", "quantity": "cosine", "a": one["a"], "b": one["b"],
                    "emotion": one["emotion"]} | record(exact))  # fmt: skip
    return tabled(out, _COLUMNS)


def _reached(mine: pd.DataFrame, chosen: Sequence[Choice], classes: Sequence[str]) -> _Effects:
    found: _Effects = {}
    for one in chosen:
        rows = one.arm.of(mine, one.safe) if one.safe is not None else mine.iloc[:0]
        if len(rows) and one.arm.emotion in classes:
            found.setdefault(named(one.arm), {}).setdefault(one.arm.emotion, rows)
    return found


def named(arm: Arm) -> str:
    """A way of steering in a word or two: its method, and the condition if that is not ``steer``.

    Args:
        arm: the way.
    """
    return arm.method if arm.condition == "steer" else f"{arm.condition} {arm.method}".strip()


def _family(
    parts: Mapping[str, pd.DataFrame], plain: pd.DataFrame, judge: str, prompts: Sequence[str]
) -> Callable[[Weights], Float[np.ndarray, "draw emotion"]]:
    """Each emotion's effect under the same weights."""
    family = [
        less(*(mean_of(part, called(part, judge, emotion), prompts) for part in (rows, plain)))
        for emotion, rows in parts.items()
    ]
    return lambda weights: np.stack([one(weights) for one in family], axis=1)


def _methods(reached: _Effects, plain: pd.DataFrame, judge: str, seed: int) -> Iterator[dict[str, object]]:
    for a, b in combinations(reached, 2):
        shared = [emotion for emotion in reached[a] if emotion in reached[b]]
        prompts = common(plain, *(reached[name][one] for name in (a, b) for one in shared)) if shared else []
        if len(shared) < 3 or len(prompts) < 2:
            continue
        one, two = (_family({e: reached[name][e] for e in shared}, plain, judge, prompts) for name in (a, b))
        found = _reaching(_correlation(one, two), len(prompts), seed, (-1.0, 1.0))
        about = {"over": "methods", "a": a, "b": b, "emotion": "+".join(shared), "quantity": "correlation of effects"}
        yield about | record(found)


def _correlation(
    one: Callable[[Weights], Float[np.ndarray, "draw emotion"]],
    two: Callable[[Weights], Float[np.ndarray, "draw emotion"]],
) -> Statistic:
    """Pearson's over emotions; 0 where one has no spread."""

    def statistic(weights: Weights) -> Float[np.ndarray, " draw"]:
        x, y = (values - values.mean(1, keepdims=True) for values in (one(weights), two(weights)))
        under = np.sqrt((x**2).sum(1) * (y**2).sum(1))
        return np.divide((x * y).sum(1), under, out=np.zeros(len(weights)), where=under > 1e-12)

    return statistic


def _spread(reached: _Effects, plain: pd.DataFrame, judge: str, seed: int) -> Iterator[dict[str, object]]:
    for name, parts in reached.items():
        prompts = common(plain, *parts.values())
        if len(parts) < 3 or len(prompts) < 2:
            continue
        effects = _family(parts, plain, judge, prompts)
        found = _reaching(_deviation(effects), len(prompts), seed, (0.0, 1.0))
        about = {"over": "emotions", "a": name, "b": "", "emotion": "+".join(parts), "quantity": "spread of effects"}
        yield about | record(found)


def _deviation(effects: Callable[[Weights], Float[np.ndarray, "draw emotion"]]) -> Statistic:
    return lambda weights: effects(weights).std(1, ddof=1)


def _reaching(statistic: Statistic, n: int, seed: int, within: tuple[float, float]) -> Estimate:
    """An interval that holds the value: resampling adds noise, which widens spreads and lowers correlations."""
    found = estimate(statistic, n, "prompt", seed=seed, bounds=None)
    low, high = max(min(found.low, found.value), within[0]), min(max(found.high, found.value), within[1])
    return Estimate(found.value, low, high, n, "prompt", method=found.method)


def _combined(
    mine: pd.DataFrame, plain: pd.DataFrame, judge: str, classes: Sequence[str], seed: int
) -> Iterator[dict[str, object]]:
    steered = mine[mine["condition"] == "steer"]
    together = steered[steered["emotion"].str.contains("+", regex=False)]
    for (name, method, site, dose), rows in together.groupby(["emotion", "method", "site", "dose"]):
        for emotion in (one for one in str(name).split("+") if one in classes):
            alone = steered[(steered["emotion"] == emotion) & (steered["method"] == method)]
            here = alone[alone["site"] == site]
            alone = at_dose(alone if here.empty else here, float(str(dose)))
            for other, part in (("plain", plain), ("alone", alone)):
                found = gap(rows, called(rows, judge, emotion), part, called(part, judge, emotion), seed=seed)
                if found is not None:
                    about = {"over": "combinations", "a": name, "b": other, "emotion": emotion, "dose": dose}
                    yield about | {"quantity": f"share less {other}"} | record(found)
