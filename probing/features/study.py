"""The search for an emotion's features: encode, measure, compare, place; every table is kept as soon as it is there."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from affectlens.capturing import capture
from affectlens.errors import BatteryError, StoreError
from affectlens.model import LensModel
from affectlens.paths import write_parquet
from affectlens.probing.features.classing import classed
from affectlens.probing.features.codes import encode_tokens
from affectlens.probing.features.dashboard import make_cards
from affectlens.probing.features.differing import differential
from affectlens.probing.features.evaluating import evaluate_captured
from affectlens.probing.features.halving import pair
from affectlens.probing.features.harvesting import only_for
from affectlens.probing.features.mating import mates, stable
from affectlens.probing.features.plane import responses
from affectlens.probing.features.report import FeatureReport
from affectlens.probing.features.telling import FREE, RICH, chosen, compared, counted, told_by
from affectlens.probing.features.untrained import untrained_like
from affectlens.probing.sae import Sae
from affectlens.progress import working
from affectlens.stimuli import Battery, load_battery
from affectlens.store import Activations

POOLING = "mean"
CARDS = 40  # features whose texts are shown
Keep = Callable[[str, Callable[[], pd.DataFrame]], pd.DataFrame]


def find_features(
    model: LensModel,
    sae: Sae,
    battery: Battery | str = "core",
    *,
    emotions: Sequence[str] | None = None,
    beside: Sae | None = None,
    q: float = 0.05,
    draws: int = 199,
    cards: int = CARDS,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool | None = None,
) -> FeatureReport:
    """Which features differ between emotional texts and their neutral twins, and whether words or emotion move them.

    Args:
        model: from :func:`affectlens.load_model`.
        sae: from :func:`affectlens.load_sae`.
        battery: vignettes are needed; keyword-rich twins, decoys and quadruples are used where it has them.
        emotions: which, ``affect`` (all together) among them; all by default.
        beside: a dictionary trained from another seed: how many features come back in it.
        q: false discovery rate.
        draws: random labellings that the counts are compared with.
        cards: how many features get their top texts, for the dashboard.
        seed: of halves, flips and draws.
        folder: where each table is kept; a folder that has some is continued.
        progress: show bars.

    Raises:
        SiteError: a dictionary that does not fit the model.
        BatteryError: a battery without pairs or with too few, or an emotion that it does not have.
        StoreError: a folder of another search, or a second dictionary of another site.
    """
    if beside is not None and (beside.site, beside.d_in) != (sae.site, sae.d_in):
        raise StoreError(f"{beside.name} reads {beside.site} and {sae.name} {sae.site}: give two of one site.")
    table = load_battery(battery) if isinstance(battery, str) else battery
    home = Path(folder) / "results" if folder else None
    if home:
        only_for(home / "search.json", {
            "model": model.fingerprint, "dictionary": sae.sha256, "battery": table.sha256, "q": q, "draws": draws,
            "seed": seed, "emotions": list(emotions) if emotions else None,
            "second dictionary": beside.sha256 if beside else None,
        })  # fmt: skip
    keep = partial(_kept, home, progress)
    sae.attach(model)
    acts = capture(model, table, sites=sae.site, positions="all", progress=progress)
    codes = encode_tokens(model, acts, sae.encode, sae, progress=progress)
    pooled, items = codes.pooled(POOLING), codes.items
    found = keep("differential", lambda: compared(pooled, items, emotions=emotions, q=q, seed=seed))
    if found.empty:
        raise BatteryError(f"{table.name} has too few scenes: no feature is active in 8 pairs of half of them.")
    tables = {
        "differential": found,
        "enrichment": keep("enrichment", lambda: counted(pooled, items, found, draws=draws, q=q, seed=seed)),
        "evaluation": keep("evaluation", lambda: _quality(sae, acts, table.name)),
    }
    meta = {
        "sae": sae.name, "sae_sha256": sae.sha256, "site": str(sae.site), "n_features": sae.n_features,
        "architecture": sae.architecture, "model": model.name, "fingerprint": model.fingerprint, "source": model.source,
        "battery": table.name, "battery_sha256": table.sha256, "pooling": POOLING, "q": q, "draws": draws, "seed": seed,
        "l0": codes.l0, "facts": sae.facts,
    }  # fmt: skip
    if beside is not None:
        free = found[found["texts"] == FREE]
        tables["stability"] = keep("stability", lambda: _stability(model, sae, beside, acts, free, q, seed, progress))
        meta["beside"] = beside.name
    placed, counts, rule = _placed(pooled, items, found, q, seed)
    shown = ranked(placed, cards) if cards else []
    told = make_cards(codes, shown, model=model, sae=sae) if shown else {}
    return FeatureReport(meta | {"rule": rule}, placed=placed, counts=counts, cards=told, **tables)


def _placed(
    pooled: np.ndarray, items: pd.DataFrame, found: pd.DataFrame, q: float, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """What was found in the discovery half, on the plane by the scenes of the other half; or why there is nothing."""
    both = chosen(found, q)
    if both.empty:
        return pd.DataFrame(), pd.DataFrame(), "none was found"
    halves = [pair(pooled[told[0]], told[1], seed=seed) for texts in (FREE, RICH) if (told := told_by(items, texts))]
    discovery = {group for half in halves for group in half.scenes.loc[half.found_in, "group"]}
    kept = ~((items["split"] == "vignettes") & items["group"].isin(discovery)).to_numpy(dtype=bool)
    try:
        classes = classed(responses(pooled[kept], items[kept].reset_index(drop=True), both, seed=seed))
    except BatteryError as error:
        return pd.DataFrame(), pd.DataFrame(), str(error)
    return classes.table, classes.counts, classes.rule


def _quality(sae: Sae, acts: Activations, text: str) -> pd.DataFrame:
    firsts = acts.offsets[:-1][acts.offsets[:-1] < 1 << 13]  # attention sinks: a mean with them is of nothing else
    some = torch.from_numpy(np.delete(acts[sae.site, "all"][: 1 << 13], firsts, axis=0).reshape(-1, sae.d_in))
    return evaluate_captured({sae.name: sae, "untrained": untrained_like(sae, some)}, acts).assign(text=text)


def _stability(
    model: LensModel, sae: Sae, other: Sae, acts: Activations, found: pd.DataFrame, q: float, seed: int,
    progress: bool | None,
) -> pd.DataFrame:  # fmt: skip
    emotions = list(dict.fromkeys(found["emotion"]))
    theirs = encode_tokens(model, acts, other.encode, other, progress=progress)
    table = differential(theirs.pooled(POOLING), theirs.items, emotions=emotions, q=q, seed=seed)
    return stable(found, mates(sae.decoder, other.decoder), table)


def ranked(placed: pd.DataFrame, n: int) -> list[int]:
    """The features with the largest effects of each emotion in turn, until there are ``n``."""
    if placed.empty:
        return []
    order = placed.assign(size=placed["d"].abs()).sort_values("size", ascending=False)
    order["turn"] = order.groupby("emotion").cumcount()
    return list(dict.fromkeys(order.sort_values(["turn", "size"], ascending=[True, False])["feature"].astype(int)))[:n]


def _kept(home: Path | None, progress: bool | None, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A table of the folder, or made now and put there."""
    path = home / f"{name}.parquet" if home else None
    if path is not None and path.is_file():
        return pd.read_parquet(path)
    with working(f"{name} of features", show=progress):
        made = make()
    if path is not None and not made.empty:
        write_parquet(path, made)
    return made
