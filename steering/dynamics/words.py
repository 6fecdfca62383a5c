"""What was found, in sentences; what the controls undo comes first."""

from typing import TYPE_CHECKING

from affectlens.steering.dynamics.policies import PLAIN, SAYS
from affectlens.types import Json

if TYPE_CHECKING:
    from affectlens.steering.dynamics.result import DynamicsReport

CERTAIN = 0.05
_PHASES = ("before", "push", "after")
_AFTER = ("settling", "overshoot")  # without a response there is nothing to come back from
_UNITS = {"settling": "turns", "hysteresis": "valence times level"}
_WHAT = {
    "response": "under the push replies move by", "settling": "after it replies settle within",
    "overshoot": "they pass their calm level by",
    "tracking": "their correlation with the mood of the user's lines alone is",
    "hysteresis": "on the ramp the way down differs from the way up by",
}  # fmt: skip


def summary(report: "DynamicsReport") -> list[str]:
    """The sentences.

    Args:
        report: of a study.
    """
    lines = [_first(report)]
    if not bool((report.differences["attainable"] <= CERTAIN).all()):
        lines.append(
            f"With {int(report.differences['n'].min())} scripts the least p that signs can give is "
            f"{report.differences['attainable'].max():.3f}: this run can't tell the loop from its controls at all."
        )
    lines += [_of_rule(report, rule) for rule in report.rules]
    lines += [_steered(report, rule) for rule in report.rules]
    lines.append(
        f"The mood was fed by `{report.facts['feed']}`, and replies were measured by `{report.facts['instrument']}`; "
        "the mood's own figures follow from its formula and are not counted."
    )
    return lines


def _first(report: "DynamicsReport") -> str:
    own = list(report.own())
    if own:
        said = "; ".join(f"`{figure}` of the rule of {rule}" for rule, figure in own)
        return f"**The closed loop surely differs from every control in {said}** (p at most {CERTAIN}, corrected)."
    steered = report.differences[report.differences["control"] == PLAIN]
    some = steered[steered["p_adjusted"] <= CERTAIN]
    if len(some):
        said = "; ".join(f"`{row['figure']}` ({row['rule']})" for row in some.to_dict("records"))
        return (
            f"**The loop changes {said} against plain replies, but is not surely other than each control**: that its "
            "doses follow the conversation has not been shown to matter."
        )
    least = report.differences["p_adjusted"].min()
    return (
        "**No figure of the closed loop is surely other than the controls'**, plain replies included "
        f"(least corrected p {least:.2f}): the mood moves, and the replies do not show it."
    )


def _of_rule(report: "DynamicsReport", rule: str) -> str:
    parts = []
    for name, what in _WHAT.items():
        row = report.row(name, rule)
        if not row:
            continue
        if row["value"] != row["value"]:
            parts.append(f"{what} not to be had: replies or moods do not vary")
            continue
        if name in _AFTER and (moved := report.row("response", rule)) and not _sure(moved):
            parts.append(f"{name} is not to be had: the response is not surely other than 0")
            continue
        unit = f" {_UNITS[name]}" if name in _UNITS else ""
        said = f"{what} {_said(row)}{unit}"
        if name == "settling":
            said += f" ({row['censored']:.0%} of the scripts never)"
        if (plain := report.row(name, rule, PLAIN)) and name != "tracking":
            said += f", {SAYS[PLAIN]} {plain['value']:.2f}"
        if (noise := row.get("by_noise")) is not None and noise == noise:
            said += f", noise alone {noise:.2f}"
        parts.append(f"{said}; in other orders of turns {row['null']:.2f} (p {row['p_adjusted']:.2f})")
    return f"*{rule}*: " + ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def _steered(report: "DynamicsReport", rule: str) -> str:
    """How much each policy steered; the sum of doses by phase, and the length of what was added."""
    mine = report.doses[report.doses["rule"] == rule]
    parts = []
    for policy in dict.fromkeys(map(str, mine["policy"])):
        rows = {row["phase"]: row for row in mine[mine["policy"] == policy].to_dict("records")}
        doses = [f"{name} {rows[name]['dose']:.2f} ({rows[name]['added']:.3f})" for name in _PHASES if name in rows]
        parts.append(f"{policy} {', '.join(doses)}")
    return (
        f"Mean sum of doses before, under and after the push, {rule} (length added, of the norm): {'; '.join(parts)}."
    )


def _sure(row: Json) -> bool:
    return bool(row["low"] > 0 or row["high"] < 0)


def _said(row: Json) -> str:
    return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
