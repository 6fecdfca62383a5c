"""What is written in an evaluation: one table of replies a condition, with what each reply was steered by."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from affectlens.errors import SteerError
from affectlens.generating import Decoding
from affectlens.layouts import Layout, lay_out
from affectlens.model import LensModel
from affectlens.sites import Site
from affectlens.steering.directions import Direction, Directions
from affectlens.steering.evaluating.rows import Addition, Row, reply_nll, text_nll, write_rows
from affectlens.stimuli.battery import Battery
from affectlens.types import Json

Prompt = tuple[str, str, str]  # id, half, text
Asked = tuple[int, Addition, Json]  # the prompt's number, what is added, and the columns that say what it is


@dataclass(frozen=True)
class Desk:
    """Who writes, to what, and how."""

    model: LensModel
    prompts: tuple[Prompt, ...]
    plain: tuple[Layout, ...]  # the prompts as they are
    how: Decoding
    progress: bool | None = None

    def written(self, rows: Sequence[Asked], layouts: Sequence[Layout] | None = None) -> pd.DataFrame:
        """The replies, with the plain model's perplexity of them after the plain prompt, however it was asked.

        Args:
            rows: what is written.
            layouts: the prompts as they were asked, if otherwise than as they are.
        """
        asked = list(layouts or self.plain)
        jobs = [Row(i, addition) for i, addition, _ in rows]
        ids = write_rows(self.model, asked, jobs, self.how, progress=self.progress)
        nll = reply_nll(self.model, self.plain, [i for i, _, _ in rows], ids, progress=self.progress)
        frame = pd.DataFrame([facts for _, _, facts in rows])
        said = [self.model.tokenizer.decode(one, skip_special_tokens=True) for one in ids]
        return frame.assign(
            prompt=[self.prompts[i][0] for i, _, _ in rows], half=[self.prompts[i][1] for i, _, _ in rows],
            seed=self.how.seed, reply=said, n_new=[len(one) for one in ids], ppl=np.exp(nll),
        )  # fmt: skip

    def numbers(self, half: str | None = None) -> list[int]:
        """The prompts of a half, or of both."""
        return [i for i, (_, mine, _) in enumerate(self.prompts) if half in (None, mine)]


def facts(
    condition: str, emotion: str = "", *, method: str = "", site: str = "", dose: float = 0.0, draw: int = 0
) -> Json:
    """The columns that say what a reply is."""
    return {"condition": condition, "method": method, "site": site, "emotion": emotion, "dose": dose, "draw": draw}


def addition(directions: Directions, emotion: str, raw: float) -> dict[Site, np.ndarray]:
    """An emotion's vectors at a raw dose, at all its sites."""
    return {d.at: raw * d.norm * d.vector.astype(np.float64) for d in directions[emotion]}


def steered(
    desk: Desk, directions: Directions, doses: Mapping[str, Sequence[float]], *, condition: str = "steer",
    half: str | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Every emotion at its doses.

    Args:
        desk: who writes.
        directions: of the emotions.
        doses: raw, by emotion.
        condition: steer, heads or neurons.
        half: the prompts of one half only.
    """
    rows = []
    for emotion, grid in doses.items():
        for dose in grid:
            said = facts(
                condition, emotion, method=directions[emotion][0].called, site=_site(directions[emotion]), dose=dose
            )
            rows += [(i, addition(directions, emotion, dose), said) for i in desk.numbers(half)]
    return desk.written(rows)


def placebos(desk: Desk, directions: Directions, vectors: Mapping[str, np.ndarray], dose: float) -> pd.DataFrame:
    """Placebo directions at a dose that they stand beside, on the reporting half.

    Args:
        desk: who writes.
        directions: whose sites and norms they take.
        vectors: unit vectors ``[draw, site, d]`` by kind.
        dose: raw.
    """
    places = {d.at: d.norm for d in directions}
    rows = []
    for kind, drawn in vectors.items():
        for draw, each in enumerate(drawn):
            sized = zip(places.items(), each, strict=True)
            more = {place: dose * norm * v.astype(np.float64) for (place, norm), v in sized}
            said = facts(kind, method=kind, site=_site(places), dose=dose, draw=draw)
            rows += [(i, more, said) for i in desk.numbers("report")]
    return desk.written(rows)


def _site(places: Collection[Direction] | Collection[Site]) -> str:
    """One site by name, several by how many: the same in every table."""
    name = str(next(one.at if isinstance(one, Direction) else one for one in places))
    return name if len(places) == 1 else f"{len(places)} sites"


def together(
    desk: Desk, directions: Directions, pairs: Sequence[tuple[str, str]], doses: Mapping[str, float]
) -> pd.DataFrame:
    """Two emotions at once, each at the smaller of their two doses.

    Args:
        desk: who writes.
        directions: of the emotions.
        pairs: of emotions.
        doses: raw, by emotion.
    """
    rows = []
    for a, b in pairs:
        dose = min(doses[a], doses[b])
        both = dict(addition(directions, a, dose))
        for site, vector in addition(directions, b, dose).items():
            both[site] = both.get(site, np.zeros_like(vector)) + vector
        said = facts("steer", f"{a}+{b}", method=directions[a][0].called, site=_site(both), dose=dose)
        rows += [(i, both, said) for i in desk.numbers("report")]
    return desk.written(rows)


def neutral_texts(
    model: LensModel, texts: Mapping[str, Layout], directions: Directions, doses: Mapping[str, Sequence[float]],
    progress: bool | None,
) -> pd.DataFrame:  # fmt: skip
    """Nats a token of neutral human texts, as the steered and as the plain model reads them.

    Args:
        model: the model.
        texts: laid out, by id.
        directions: of the emotions.
        doses: raw, by emotion.
        progress: show a bar.
    """
    asked = [
        (addition(directions, e, d), {"emotion": e, "method": directions[e][0].called, "site": _site(directions[e]),
                                      "dose": d})
        for e, grid in doses.items() for d in grid
    ]  # fmt: skip
    return read_neutral(model, texts, asked, progress)


def read_neutral(
    model: LensModel, texts: Mapping[str, Layout], changes: Sequence[tuple[Addition, Json]], progress: bool | None
) -> pd.DataFrame:
    """Nats a token of neutral human texts under each change, beside those of the plain model.

    Args:
        model: the model.
        texts: laid out, by id.
        changes: what is done, with the columns that say what it is.
        progress: show a bar.
    """
    names, layouts = list(texts), list(texts.values())
    plain = text_nll(model, layouts, [Row(i, {}) for i in range(len(layouts))], progress=progress)
    cells = [(change, said, i) for change, said in changes for i in range(len(layouts))]
    read = text_nll(model, layouts, [Row(i, change) for change, _, i in cells], progress=progress)
    return pd.DataFrame([
        said | {"text": names[i], "nll": nll, "plain_nll": plain[i]}
        for (_, said, i), nll in zip(cells, read, strict=True)
    ])  # fmt: skip


def calm_texts(
    model: LensModel, battery: Battery, n: int, seed: int, without: Collection[str] = ()
) -> dict[str, Layout]:
    """Up to ``n`` neutral items of a battery, laid out, by id.

    Args:
        model: that reads them.
        battery: whose items they are.
        n: how many at most.
        seed: of the choice.
        without: groups whose items are not taken.

    Raises:
        SteerError: fewer than two.
    """
    items = battery.frame()
    calm = items[(items["role"] == "neutral") & ~items["group"].isin(list(without))]
    if len(calm) < 2:
        raise SteerError(f"{battery.name} has {len(calm)} neutral items; perplexity is measured on 2 or more.")
    order = np.random.default_rng(seed).permutation(len(calm))[:n]
    mine = calm.iloc[np.sort(order)]
    return dict(zip(mine["id"].astype(str), lay_out(model, mine), strict=True))
