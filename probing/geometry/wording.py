"""The findings of a geometry report in sentences: noise ceiling first, then what survives it. Markdown."""

from affectlens.probing.geometry.axes import AFTER, BEFORE, SHARE
from affectlens.probing.geometry.circle import Circumplex
from affectlens.probing.geometry.report import GeometryReport
from affectlens.stats import Estimate

LEVEL = 0.05
OF = {"emotions": "Directions of emotions", "words": "Directions of emotion words"}


def summary(report: GeometryReport) -> list[str]:
    """The sentences, most important first."""
    lines = [_ceiling(report), _silhouette(report)]
    for of in report.sets:
        lines += [*_axis(report, of), *_rsa(report, of), *_circle(report, of), *_trees(report, of)]
    lines += _cka(report)
    lines += [f"Not done, {what}: {why.rstrip('.')}." for what, why in report.meta["notes"].items()]
    return lines


def methods(report: GeometryReport) -> str:
    """How the numbers were made, in a paragraph."""
    meta = report.meta
    return (
        f"Rows are scenes, emotional less neutral ({meta['scenes']} of them; {meta['dropped']} groups had no partner "
        f"or were alone), `{meta['site']}` at position {meta['position']}; directions are centred on their mean. "
        f"Layer {meta['layer']} was fixed beforehand; p in brackets is for it alone, then corrected over all layers by "
        f"max-T. Orders of up to eight names are enumerated, beyond that {meta['draws']:,} are drawn. Intervals are "
        "95%: those of emotions hold for these emotions and draw scenes anew within each; those of reliability, "
        "silhouettes, words and CKA leave out a scene, a block of words or of groups at a time. The floor is the same "
        "analysis on TF-IDF vectors of the words (of terms, of the word's letters). Of the terms, nouns alone "
        "are kept: whether a word is an adjective is a direction of its own."
    )


def said(p: float | None) -> str:
    """A p value in words that end where its digits do."""
    if p is None or p != p:
        return "no test"
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def _both(p: float | None, adjusted: float | None, over: str = "layers") -> str:
    return f"{said(p)}; over {over} {said(adjusted).removeprefix('p ').removeprefix('= ')}"


def _tested(found: Estimate) -> str:
    return f"({_both(found.p, found.p_adjusted)})"


def _holds(found: Estimate | None) -> bool:
    return found is not None and found.p_adjusted is not None and found.p_adjusted <= LEVEL


def _ceiling(report: GeometryReport) -> str:
    r = report.find("reliability", set="emotions", name="all", kind="model")
    assert r is not None
    table = report.tables["agreement"]
    row = table[(table["layer"] == report.layer) & (table["kind"] == "model")].iloc[0]
    floor = report.find("reliability", set="emotions", name="all", kind="floor")
    agree = row["p_adjusted"] <= LEVEL
    verdict = "agree beyond chance" if agree else "do not agree beyond chance"
    beside = f" Of words alone it is {floor}." if floor else ""
    weak = (
        ""
        if r.low > 0.5
        else " **So little of a direction is repeatable that its geometry can hardly be told from noise.**"
    )
    return (
        f"**Scenes of one emotion {verdict} at layer {report.layer}** ({_both(row['p'], row['p_adjusted'])}; emotions "
        f"shuffled within domains{_words_alone(report)}). The split-half reliability of the "
        f"{len(report.meta['emotions'])} centred directions, their noise ceiling, is {r}, from {r.n} scenes.{beside}"
        f"{weak}"
    )


def _words_alone(report: GeometryReport) -> str:
    table = report.tables["agreement"]
    return f"; in vectors of words alone {said(table.loc[table['kind'] == 'floor', 'p'].iloc[0])}"


def _silhouette(report: GeometryReport) -> str:
    parts = []
    for valence, name in (("kept", "as they are"), ("removed", "with the valence axis removed")):
        if found := report.find("silhouettes", valence=valence, emotion="all", kind="model"):
            parts.append(f"{found} {name} {_tested(found)}")
    floor = report.find("silhouettes", valence="kept", emotion="all", kind="floor")
    return f"The mean silhouette of scenes by emotion is {' and '.join(parts)}; of words alone {floor}."


def _axis(report: GeometryReport, of: str) -> list[str]:
    share, before, after = (report.find("axis", set=of, statistic=s, kind="model") for s in (SHARE, BEFORE, AFTER))
    if share is None or before is None or after is None:
        return []
    more = "more" if _holds(share) else "no more"
    line = (
        f"{OF[of]}: one valence axis carries {share} of the variance between them, {more} than axes of re-ordered "
        f"valences {_tested(share)}."
    )
    if before.value == before.value:
        line += f" Pairs of one valence are closer than pairs of opposite valence by {before} in cosine"
        line += f"; with the axis removed, by {after}" + (
            " (an axis that is fitted to so few points takes their noise along, which pushes this below 0)."
            if of == "emotions" else ".")  # fmt: skip
    return [line]


def _rsa(report: GeometryReport, of: str) -> list[str]:
    table = report.tables.get("rsa")
    if table is None:
        return []
    out = []
    names = list(dict.fromkeys(table.loc[table["set"] == of, "model"]))
    for name in names:
        found, floor = (report.find("rsa", set=of, model=name, kind=k) for k in ("model", "floor"))
        gap = report.find("differences", set=of, model=name)
        if found is None or floor is None or gap is None:
            continue
        above = _holds(found) and gap.low > 0
        out.append(f"{'**' if above else ''}{name} {found}{'**' if above else ''} {_tested(found)}, less its floor "
                   f"{gap.value:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]")  # fmt: skip
    if not out:
        return []
    first = report.meta["layers"][0]
    start = report.find("rsa", set=of, model="valence", kind="model", layer=first)
    line = f"{OF[of]} against models of their distances (Spearman, layer {report.layer}): " + "; ".join(out) + "."
    if start:
        line += f" Valence is at {start} at layer {first} already."
    return [line]


def _circle(report: GeometryReport, of: str) -> list[str]:
    table = report.tables.get("circumplex")
    if table is None:
        return []
    rows = table[(table["set"] == of) & (table["kind"] == "model")]
    stats = {s: report.find("circumplex", set=of, statistic=s, kind="model") for s in ("fit", "valence", "arousal",
             "arousal given valence", "variance in the plane")}  # fmt: skip
    if rows.empty or any(s is None for s in stats.values()):
        return []
    circle = Circumplex(rows, rows, int(rows["terms"].iloc[0]))
    claim = circle.claim(report.layer)
    head = {
        "refused": f"No circumplex is claimed. {circle.refusal}",
        "circumplex": "**The first two components are people's circumplex: valence, and arousal beyond it.**",
        "valence axis": "**A valence axis, not a circumplex**: arousal is not there once valence is taken out.",
        "neither": "**No circumplex**: the first two components are neither valence nor arousal.",
    }[claim]
    numbers = "; ".join(f"{name} {found}" + (f" {_tested(found)}" if found.p == found.p else "")
                        for name, found in stats.items() if found)  # fmt: skip
    wide = rows.pivot(index="layer", columns="statistic", values="p_adjusted")
    tested = {name: wide[name].to_numpy(dtype=float) <= LEVEL for name in ("fit", "arousal given valence", "valence")}
    passing = [int(k) for k in wide.index[tested["fit"] & tested["arousal given valence"]]]
    lines = [int(k) for k in wide.index[tested["valence"]]]
    where = "" if claim == "refused" else (
        f" Over all layers, corrected: a circumplex at {_ranges(passing)}, valence at {_ranges(lines)}.")  # fmt: skip
    return [f"{head} {circle.n_terms} {of}, layer {report.layer}: {numbers}.{where}"]


def _trees(report: GeometryReport, of: str) -> list[str]:
    table = report.tables.get("trees")
    out = []
    for name in ("Parrott", "Plutchik") if table is not None else ():
        found, floor = (report.find("trees", set=of, tree=name, kind=k) for k in ("model", "floor"))
        if found and floor and table is not None:
            rows = table[(table["set"] == of) & (table["tree"] == name)]
            out.append(f"{name}'s tree {found} {_tested(found)}, words alone {floor}; the least p that its names can "
                       f"give is {rows['attainable'].iloc[0]:.2g}")  # fmt: skip
    return [f"{OF[of]}, clustered (cophenetic correlation): " + "; ".join(out) + "."] if out else []


def _cka(report: GeometryReport) -> list[str]:
    table = report.tables["cka"]
    first, last = report.meta["layers"][0], report.meta["layers"][-1]
    out = []
    own = table[(table["models"] == report.meta["model"]) & (table["a"] == first) & (table["b"] == last)]
    if len(own):
        row = own.iloc[0]
        out.append(
            f"Debiased CKA of layer {first} with layer {last} over all items is {row['value']:.2f} [{row['low']:.2f}, "
            f"{row['high']:.2f}]; whole scenes exchanged at random, {row['null']:.2f}, as twins are alike anywhere."
        )
    for rows in ("items", "scenes"):
        other = table[(table["models"] != report.meta["model"]) & (table["rows"] == rows)]
        near = other[other["a"] == report.layer]
        if len(near):
            depth = near.iloc[round((len(near) - 1) * report.meta["layers"].index(report.layer) / max(
                len(report.meta["layers"]) - 1, 1))]  # fmt: skip
            low, high, n = float(depth["low"]), float(depth["high"]), int(depth["n"])
            found = Estimate(float(depth["value"]), low, high, n, "group")
            out.append(
                f"{near['models'].iloc[0]}, {rows}: debiased CKA of layer {report.layer} with layer {depth['b']}, at "
                f"the same depth, is {found} ({_both(depth['p'], depth['p_adjusted'], 'pairs of layers')}; by chance "
                f"{depth['null']:.2f})."
            )
    return out


def _ranges(layers: list[int]) -> str:
    """Layers in words: 3 to 7 and 9."""
    if not layers:
        return "no layer"
    runs: list[list[int]] = []
    for k in layers:
        if runs and k == runs[-1][-1] + 1:
            runs[-1].append(k)
        else:
            runs.append([k])
    said = [f"{r[0]} to {r[-1]}" if len(r) > 1 else str(r[0]) for r in runs]
    return (
        f"layer{'s' if len(layers) > 1 else ''} " + (", ".join(said[:-1]) + " and " if len(said) > 1 else "") + said[-1]
    )
