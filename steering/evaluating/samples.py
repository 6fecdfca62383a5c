"""Replies to read, plain beside steered: drawn by a seed, and the worst by perplexity, so that none is hand-picked."""

from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from affectlens.steering.evaluating.frames import REPORT, Arm

if TYPE_CHECKING:
    from affectlens.steering.evaluating.result import SteeringReport

EACH = 3


def samples(report: "SteeringReport") -> pd.DataFrame:
    """Three rows an emotion with a safe dose: ``emotion, prompt, seed, plain, steered, dose, ppl, worst`` and verdicts.

    Two are drawn at random by the report's seed, and one is the steered reply of the highest perplexity.

    Args:
        report: of an evaluation.
    """
    rng = np.random.default_rng(report.facts["seed"])
    mine = report.replies[report.replies["half"] == REPORT]
    plain = mine[mine["condition"] == "plain"].set_index(["prompt", "seed"])["reply"]
    out = []
    for row in report.facts["arms"]:
        arm = Arm(row["condition"], row["emotion"], row["method"], row["site"])
        if row["safe"] is None or arm.condition != "steer" or arm.method != report.method:
            continue
        rows = arm.of(mine, row["safe"]).sort_values(["prompt", "seed"]).reset_index(drop=True)
        if rows.empty:
            continue
        worst = int(rows["ppl"].fillna(np.inf).to_numpy(dtype=float).argmax())
        rest = [i for i in range(len(rows)) if i != worst]
        drawn = rng.permutation(np.array(rest, dtype=int))[: EACH - 1].tolist()
        for i in [*sorted(drawn), worst]:
            one = rows.iloc[i]
            known = {judge: one[judge] or "none" for judge in report.facts["judges"]}
            out.append({"emotion": arm.emotion, "prompt": one["prompt"], "seed": int(one["seed"]),
                        "plain": plain.get((one["prompt"], one["seed"]), ""), "steered": one["reply"],
                        "dose": row["safe"], "ppl": one["ppl"], "worst": i == worst, **known})  # fmt: skip
    return pd.DataFrame(out)


def shown(table: pd.DataFrame, judges: list[str]) -> str:
    """The samples as a fragment of HTML.

    Args:
        table: of :func:`samples`.
        judges: whose verdicts to show.
    """
    parts = []
    for emotion, rows in table.groupby("emotion", sort=False):
        parts.append(f"<h3>{escape(str(emotion))}, dose {float(rows['dose'].iloc[0]):.2f} of the norm</h3>")
        parts += [_one({str(name): value for name, value in row.items()}, judges) for row in rows.to_dict("records")]
    return "".join(parts)


def _one(row: dict[str, object], judges: list[str]) -> str:
    said = ", ".join(f"{judge}: {row[judge]}" for judge in judges)
    about = "the highest perplexity of all" if row["worst"] else "drawn at random"
    head = f"{row['prompt']}, seed {row['seed']}; {about}, {float(str(row['ppl'])):.1f}; {said}"
    return (
        f"<details open><summary>{escape(head)}</summary><p><strong>Plain.</strong> {escape(str(row['plain']))}</p>"
        f"<p><strong>Steered.</strong> {escape(str(row['steered']))}</p></details>"
    )
