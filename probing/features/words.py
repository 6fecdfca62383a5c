"""What a search for features found, in sentences, controls included; Markdown."""

from typing import TYPE_CHECKING

from affectlens.probing.features.classing import CLASSES
from affectlens.probing.features.halving import AFFECT

if TYPE_CHECKING:
    from affectlens.probing.features.report import FeatureReport


def summary(report: "FeatureReport") -> list[str]:
    """The counts first, then what random labels give, the classes, the dictionary's quality, its stability."""
    lines = [_counted(report), _chance(report)]
    if not report.placed.empty:
        lines += [_classes(report), _crossed(report)]
    else:
        lines.append(f"No feature is placed on the keyword-affect plane: {report.meta['rule']}.")
    lines.append(_quality(report))
    if not report.stability.empty:
        lines.append(_stable(report))
    return lines


def claim(report: "FeatureReport") -> str:
    """The finding in one clause."""
    if report.placed.empty:
        return "no feature of an emotion is placed"
    given = report.placed[report.placed["emotion"] == AFFECT]["class"].value_counts()
    of = int(given.sum())
    parts = ", ".join(f"{int(given.get(name, 0))} {name}" for name in CLASSES)
    return f"of {of} features found to tell emotional scenes from their neutral twins, with words or without: {parts}"


def _counted(report: "FeatureReport") -> str:
    meta, table = report.meta, report.differential
    tested = int(table["feature"].nunique())
    dealt = "domains" if (table["dealt"] == "domain").all() else "scenes (the battery has too few domains)"
    said = []
    for texts, part in table.groupby("texts", sort=False):
        by = part.groupby("emotion", sort=False)["survives"].sum().astype(int)
        single = ", ".join(f"{name} {count}" for name, count in by.drop(AFFECT, errors="ignore").items())
        every = f"**{int(by[AFFECT])}** of all emotions together" if AFFECT in by else ""
        joined = " and ".join(one for one in (every, f"of one: {single}" if single else "") if one)
        said.append(f"{texts} scenes {joined}")
    return (
        f"Of {meta['n_features']:,} features of `{meta['sae']}` at {meta['site']}, {tested:,} are active in enough "
        f"scenes to be tested. From their neutral twins differ, in {'; in '.join(said)}. Found in half of the {dealt} "
        f"at a false-discovery rate of {meta['q']:.2f} and confirmed in the other half."
    )


def _chance(report: "FeatureReport") -> str:
    parts = []
    for (texts, contrast), rows in report.enrichment.groupby(["texts", "contrast"], sort=False):
        beyond = rows[rows["p_adjusted"] <= 0.05]
        some = [f"{r['emotion']} {r['count']} (random labels {r['null_low']:.0f} to {r['null_high']:.0f})"
                for r in beyond.to_dict("records")]  # fmt: skip
        parts.append(f"{texts}, {contrast}: {', '.join(some) if some else 'none'}")
    draws = int(report.enrichment["draws"].iloc[0])
    return (
        f"More than {draws} random labellings of the same structure give (adjusted p at most 0.05): {'; '.join(parts)}."
    )


def _classes(report: "FeatureReport") -> str:
    rows = report.counts[report.counts["emotion"] == AFFECT]
    if rows.empty:
        rows = report.counts
    of = int(rows.groupby("emotion")["of"].first().sum())
    parts = [
        f"{name} {int(part['given'].sum())}"
        + (f" (nearest to it {int(part['nearest'].sum())} [{part['low'].sum():.0f}, {part['high'].sum():.0f}])"
           if len(part) == 1 else "")
        for name, part in rows.groupby("class", sort=False)
    ]  # fmt: skip
    of_what = "emotional scenes" if (rows["emotion"] == AFFECT).all() else "single emotions"
    return (
        f"Keyword or affect? Of the {of} features of {of_what} that were found, with words or without, and placed by "
        f"the scenes of the other half: {', '.join(parts)}. {report.meta['rule']}"
    )


def _crossed(report: "FeatureReport") -> str:
    tested = report.placed[report.placed["crossed_q"].notna()]
    if tested.empty:
        return "The battery has no crossed quadruples, so binding is not tested."
    hits = tested[(tested["crossed_q"] <= 0.05) & (tested["crossed"] * tested["emotional"] > 0)]
    least = float(tested["crossed_attainable"].min())
    return (
        f"On crossed quadruples, where no word can tell, {len(hits)} of {len(tested)} placed features respond to the "
        f"emotional cells (adjusted p at most 0.05; the least p there is {least:.2g})."
    )


def _quality(report: "FeatureReport") -> str:
    table = report.evaluation
    parts = []
    for name, part in table.groupby("sae", sort=False):
        at = {str(row["measure"]): row for row in part.to_dict("records")}
        explained = at["explained_variance"]
        parts.append(
            f"{name} explains {explained['value']:.2f} [{explained['low']:.2f}, {explained['high']:.2f}] of the "
            f"variance with {at['l0']['value']:.1f} active features a token and {at['dead']['value']:.2f} of its "
            "features never active"
        )
    return f"On {report.meta['battery']}: {'; '.join(parts)}."


def _stable(report: "FeatureReport") -> str:
    rows = report.stability[report.stability["emotion"] == AFFECT]
    row = (rows if len(rows) else report.stability).iloc[0]
    if not row["surviving"]:
        return f"No feature of {row['emotion']} survives that could come back in `{report.meta['beside']}`."
    return (
        f"In `{report.meta['beside']}`, trained from another seed, {row['share']:.2f} [{row['low']:.2f}, "
        f"{row['high']:.2f}] of the features of {row['emotion']} have a mate (decoder cosine 0.7 or more) that "
        f"survives too; of features that don't survive here, matched in activity, {row['control_share']:.2f} "
        f"[{row['control_low']:.2f}, {row['control_high']:.2f}]."
    )
