"""``error_share``: of what a site carries, how much its dictionary's features carry, and how much what they miss.

What a dictionary reads is its reconstruction and an error: x = decode(codes) + error. So a patch of the site is a patch
of the codes (the error stays the base's) and one of the error (the codes stay the base's) together. A dictionary whose
error restores as much as its codes leaves out what matters, whatever variance it explains.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from affectlens.errors import PatchError
from affectlens.model import LensModel
from affectlens.patching.cells import Cell, Change
from affectlens.patching.choosing import runner_for
from affectlens.patching.effects import lay_out, measured
from affectlens.patching.features.surveying import encoded
from affectlens.patching.job import Job
from affectlens.patching.keeping import Kept
from affectlens.patching.metrics import Metric
from affectlens.patching.pairs import PatchPair, read_of
from affectlens.patching.recorded import Recorded
from affectlens.patching.results import PatchSweep
from affectlens.patching.sweeping import check_direction, described, facts, listed, prepared
from affectlens.patching.tabling import Given
from affectlens.patching.units import EACH, Positions, Unit, expand_positions, units
from affectlens.probing.sae import Sae
from affectlens.progress import tracked
from affectlens.types import Json

PARTS = WHOLE, CODES, ERROR = "whole", "codes", "error"
POSITIONS = ("changed", "shared", "ending", "last")


@dataclass(frozen=True, eq=False, repr=False)
class ErrorShare:
    """Patches of the whole site, of the codes alone and of the error alone; ``kind`` in the sweep says which."""

    sweep: PatchSweep

    def shares(self, *, metric: str | None = None) -> pd.DataFrame:
        """What each part changes by itself, as a share of what the whole patch changes.

        The two need not sum to one: what lies between them is that the layers above are not linear.

        Args:
            metric: of one metric alone.

        Returns:
            One row a metric, segment, extent (``segment``, or ``token`` for a single one) and part
            (``codes``, ``error``, and ``rest``, which is 1 less both): ``value, low, high``, ``n`` groups, ``unit,
            method, pairs``. Where the whole patch's change may be zero, which nothing can be a share of, ``value, low,
            high`` are NaN.
        """
        table, meta = self.sweep.table, self.sweep.meta
        parts = []
        for name in [metric] if metric else self.sweep.metrics:
            grid = lay_out(table, name, meta["direction"])
            change, cells = grid.change["matched"], grid.cells
            for segment, extent in dict.fromkeys(zip(cells["segment"], cells["extent"], strict=True)):
                here = ((cells["segment"] == segment) & (cells["extent"] == extent)).to_numpy()
                column = {kind: int(np.flatnonzero(here & (cells["kind"] == kind).to_numpy())[0]) for kind in PARTS}
                there = np.isfinite(change[:, column[WHOLE]])
                whole, codes, error = (change[there, column[kind]] for kind in PARTS)
                columns = np.stack([codes, error, whole - codes - error], axis=1)
                found = measured(columns, whole, grid.group[there], int(meta["seed"]), tells=True)
                found.loc[~found["normalised"], ["value", "low", "high"]] = np.nan
                head = {"metric": name, "segment": segment, "extent": extent, "part": [CODES, ERROR, "rest"]}
                parts.append(found.drop(columns=["normalised", "change"]).assign(**head))
        out = pd.concat(parts, ignore_index=True)
        first = ["metric", "segment", "extent", "part"]
        return out[[*first, *(name for name in out if name not in first)]]

    def summary(self) -> list[str]:
        """The shares, in sentences."""
        out = []
        for (metric, segment, _), rows in self.shares().groupby(["metric", "segment", "extent"], sort=False):
            by = {row["part"]: row for _, row in rows.iterrows()}
            said = {part: f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" for part, row in by.items()}
            out.append(
                f"{metric}, {segment}: of what the whole site restores the codes alone restore {said[CODES]}, and "
                f"what the dictionary misses {said[ERROR]}."
                if np.isfinite(by[CODES]["value"])
                else f"{metric}, {segment}: what the whole site restores may be nothing, so there are no shares of it."
            )
        return out

    def __repr__(self) -> str:
        return f"ErrorShare({self.sweep.meta['sae']}: {self.sweep.meta['n_pairs']} pairs)"


def error_share(
    model: LensModel,
    sae: Sae,
    pairs: Given | Sequence[PatchPair],
    positions: Positions = POSITIONS,
    *,
    metric: Metric | Sequence[Metric],
    direction: str = "denoise",
    cue: str | None = None,
    chat: bool = False,
    seed: int = 0,
    memory: float = 1.0,
    folder: str | Path | None = None,
    progress: bool | None = None,
) -> ErrorShare:
    """Patch a dictionary's site from text to text: whole, its codes alone, its reconstruction error alone.

    Args:
        model: from :func:`affectlens.load_model`.
        sae: the dictionary.
        pairs: as for :func:`affectlens.patching.patch`.
        positions: as for :func:`affectlens.patching.patch`.
        metric: one, or several.
        direction: ``denoise`` patches the clean text's values into the corrupt run, ``noise`` the reverse.
        cue: what to write after each text; by default what the metrics ask for, or nothing.
        chat: make each text the user's message of a conversation.
        seed: of bootstrap and flips.
        memory: what a batch may take beyond the model, in GB.
        folder: where each pair's rows are kept; a folder that has some is continued.
        progress: show a bar; by default where a person is looking.

    Raises:
        PatchError: a direction or position that is none, or no pair that can be patched.
    """
    check_direction(direction)
    metrics, where = listed(metric), expand_positions(positions)
    if EACH in where:
        raise PatchError("Shares are of whole spans: name segments such as changed or ending, not each.")
    sae.check_fits(model)
    ready = prepared(model, pairs, metrics, cue=cue, chat=chat)
    turned = [pair if direction == "denoise" else pair.swapped() for pair in ready]
    meta = facts(model, pairs, metrics, [sae.site], where, ready[0], seed) | {
        "direction": direction, "controls": [], "n_pairs": len(ready), "sae": sae.name, "sae_sha256": sae.sha256,
    }  # fmt: skip
    runner = runner_for(model, memory=memory, generating=any(one.generate for one in metrics))
    job = Job(runner, metrics, [sae.site], denoise=direction == "denoise")
    kept = Kept(folder, meta | {"texts": read_of(ready)})
    shape, tables, refused = model.sites.shape(sae.site), [], []
    for number, pair in enumerate(tracked(turned, "patching codes and error", show=progress)):
        every = list(units(pair, where))
        refused += [one for one in every if isinstance(one, str)]
        if chosen := [one for one in every if isinstance(one, Unit)]:
            tables.append(kept.get(number, partial(_rows, job, sae, pair, chosen, shape)))
    if not tables:
        raise PatchError(f"No pair can be patched there: {'; '.join(refused[:3])}.")
    about = pd.DataFrame([described(pair, direction) for pair in turned])
    return ErrorShare(PatchSweep(pd.concat(tables, ignore_index=True), about, meta | {"refused": refused}))


def _rows(job: Job, sae: Sae, pair: PatchPair, chosen: Sequence[Unit], shape: tuple[int, ...]) -> pd.DataFrame:
    """The pair's rows, in the form of a patching sweep's table."""
    source, base = (job.runner.record(side.prompt, [sae.site]) for side in (pair.clean, pair.corrupt))
    ends = job.ends(pair, source, base)
    facts_, cells = [], list[Cell]()
    for fact, cell in _cells(sae, chosen, source, base, shape):
        facts_.append(fact)
        cells.append(cell)
    found, _ = job.read(pair, pair.corrupt, base, cells, ends)
    head = {"pair": pair.name, "group": pair.group, "contrast": pair.contrast, "emotion": pair.emotion}
    tables = [
        pd.DataFrame(facts_).assign(
            **head, metric=one.name, value=found[one.name], **{k: float(one(v)[0]) for k, v in ends.items()}
        )
        for one in job.metrics
    ]
    return pd.concat(tables, ignore_index=True)


def _cells(
    sae: Sae, chosen: Sequence[Unit], source: Recorded, base: Recorded, shape: tuple[int, ...]
) -> Iterator[tuple[Json, Cell]]:
    (x, codes), (y, theirs) = encoded(source, sae), encoded(base, sae)
    for unit in chosen:
        places, at = ([match[end] for match in unit.matches] for end in (0, 1))
        rebuilt = sae.decode(codes[places]) - sae.decode(theirs[at])
        whole = x[places] - y[at]
        for part, moved in ((WHOLE, whole), (CODES, rebuilt), (ERROR, whole - rebuilt)):
            new = (y[at] + moved).reshape(len(at), *shape)
            yield {"source": "matched", "kind": part, "layer": sae.site.layer, "index": -1, "segment": unit.segment,
                   "position": unit.position}, (Change(sae.site, tuple(at), new),)  # fmt: skip
