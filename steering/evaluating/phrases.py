"""Names and numbers as the sentences and figures write them."""

from collections.abc import Sequence

from affectlens.stats import Estimate

NAMES = {
    "plain": "plain", "random": "a random direction", "shuffled": "directions of shuffled labels",
    "mean": "the mean of all directions", "orthogonal": "a direction orthogonal to it", "prompted": "prompting",
    "fewshot": "few-shot prompting", "steer": "steering", "heads": "steering by heads",
    "neurons": "steering by neurons",
}  # fmt: skip


def signed(found: Estimate) -> str:
    """A difference with its sign and interval.

    Args:
        found: the difference.
    """
    return f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def short(value: float) -> str:
    """A p value with two digits.

    Args:
        value: the p.
    """
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def listed(names: Sequence[str]) -> str:
    """Names with commas, and `and` before the last.

    Args:
        names: at least one.
    """
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" and {names[-1]}"
