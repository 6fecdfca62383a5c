"""How far the judges agree beyond chance, on the replies that are reported."""

from collections.abc import Sequence
from itertools import combinations

import pandas as pd

from affectlens.errors import SteerError
from affectlens.steering.evaluating.frames import ASKED, REPORT, classes_of, judges_of
from affectlens.steering.evaluating.safety import Choice
from affectlens.steering.evaluating.shares import record, tabled
from affectlens.steering.judging.agreeing import kappa


def agreements(replies: pd.DataFrame, chosen: Sequence[Choice], *, seed: int = 0) -> pd.DataFrame:
    """Cohen's kappa: one row a pair of judges and a set of replies: plain, asked, steered (at safe doses), and all.

    Of replies to which both gave a label that both have; a set on which kappa is undefined is left out.

    Args:
        replies: one row a reply.
        chosen: the safe doses.
        seed: of bootstraps.
    """
    mine = replies[replies["half"] == REPORT]
    safe = [one.arm.of(mine, one.safe) for one in chosen if one.safe is not None]
    parts = {"plain": mine[mine["condition"] == "plain"], "asked": mine[mine["condition"].isin(ASKED)]}
    parts["steered"] = pd.concat(safe) if safe else mine.iloc[:0]
    parts["all"] = pd.concat(list(parts.values()))
    out = []
    for a, b in combinations(judges_of(replies), 2):
        shared = set(classes_of(replies, a)) & set(classes_of(replies, b))
        for name, part in parts.items():
            rows = part[part[a].isin(shared) & part[b].isin(shared)]
            prompts = [str(one) for one in rows["prompt"]]
            try:
                found = kappa(rows[a].tolist(), rows[b].tolist(), groups=prompts, unit="prompt", seed=seed)
            except SteerError:
                continue
            out.append({"a": a, "b": b, "replies": name, "judged": len(rows)} | record(found))
    return tabled(out, ("a", "b", "replies", "judged"))
