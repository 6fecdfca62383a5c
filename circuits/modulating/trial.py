"""What a comparison writes, step by step; each is kept in the run folder as soon as it is there.

1. Plain replies, and every way at every dose, on both halves of the prompts; neutral human texts under every dose.
2. The half ``choose`` gives each way, emotion and budget the largest dose whose two perplexity ratios are within it.
3. At these doses, on the half ``report``: placebos, which are other sets of parts or random directions.
4. The judges read the half ``report``, as it is and with emotion words masked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd

from affectlens.circuits.modulating.extents import WAYS, Extent, Way, ways_of
from affectlens.circuits.modulating.modulation import Modulation
from affectlens.generating import Decoding
from affectlens.layouts import Layout
from affectlens.model import LensModel
from affectlens.run import Run
from affectlens.steering.directions import Directions
from affectlens.steering.evaluating import conditions as written
from affectlens.steering.evaluating.asking import asked, conversations, laid_out
from affectlens.steering.evaluating.conditions import Desk
from affectlens.steering.evaluating.frames import CHOOSE, Arm
from affectlens.steering.evaluating.judged import judged
from affectlens.steering.evaluating.rows import reply_nll
from affectlens.steering.evaluating.safety import Choice, choice, halved
from affectlens.steering.evaluating.work import TEMPERATURE, kept
from affectlens.steering.judging.verdicts import Judge
from affectlens.stimuli.battery import Battery

ASKED = "asked in words"


@dataclass(frozen=True)
class Written:
    """All that was written and read."""

    replies: pd.DataFrame  # judged; of a placebo the condition is ``random WAY``
    neutral: pd.DataFrame  # one row a neutral text, way and dose
    chosen: dict[tuple[float, str, str], Choice]  # by budget, emotion and way


@dataclass
class Trial:
    """The parts of one comparison."""

    run: Run
    model: LensModel
    modulations: Sequence[Modulation]
    directions: Directions
    battery: Battery
    extent: Extent
    judges: Sequence[Judge]
    seed: int
    progress: bool | None

    def __post_init__(self) -> None:
        prompts = tuple(asked(self.extent.prompts))
        plain = laid_out(self.model, conversations([p[2] for p in prompts], "plain", "", self.battery))
        how = Decoding(self.extent.tokens, TEMPERATURE, seed=self.seed)
        self.desk = Desk(self.model, prompts, tuple(plain), how, self.progress)
        self.ways = [way for one in self.modulations for way in ways_of(one, self.directions, self.extent, self.seed)]
        used = {group for one in self.modulations for group in one.groups}
        self.texts = written.calm_texts(self.model, self.battery, self.extent.texts, self.seed, used)

    def written(self) -> Written:
        """Write and judge what is not there yet."""
        plain = self._kept("plain", self._plain)
        parts, texts = {"plain": plain}, []
        for way in self.ways:
            name = f"{way.name}.{way.emotion}"
            parts[name] = self._kept(name, partial(self._grid, way))
            texts.append(self._kept(f"neutral.{name}", partial(self._read, way)))
        for one in self.modulations:
            name = f"prompted.{one.emotion}"
            parts[name] = self._kept(name, partial(self._asked, one.emotion))
            texts.append(self._kept(f"neutral.{name}", partial(self._read_asked, one.emotion)))
        neutral = pd.concat(texts, ignore_index=True)
        chosen = choices(pd.concat(parts.values(), ignore_index=True), neutral, self.extent.budgets)
        for way in self.ways:
            safe = {found.safe for (_, emotion, name), found in chosen.items() if (emotion, name) == _key(way)}
            for dose in sorted(dose for dose in safe if dose is not None and way.draws):
                name = f"random.{way.name}.{way.emotion}.{dose:g}"
                parts[name] = self._kept(name, partial(self._placebos, way, dose))
        read = [self._kept(f"judged.{name}", partial(judged, frame, self.judges, progress=self.progress))
                for name, frame in parts.items()]  # fmt: skip
        return Written(pd.concat(read, ignore_index=True), neutral, chosen)

    def _kept(self, name: str, compute: partial[pd.DataFrame]) -> pd.DataFrame:
        return kept(self.run, name, compute)

    @property
    def _plain(self) -> partial[pd.DataFrame]:
        return partial(self.desk.written, [(i, {}, written.facts("plain")) for i in self.desk.numbers()])

    def _grid(self, way: Way) -> pd.DataFrame:
        rows: list[written.Asked] = []
        for dose in way.doses:
            said = written.facts(way.name, way.emotion, method=way.method, site=way.site, dose=dose)
            rows += [(i, way.change(dose), said) for i in self.desk.numbers()]
        return self.desk.written(rows)

    def _placebos(self, way: Way, dose: float) -> pd.DataFrame:
        rows: list[written.Asked] = []
        for draw in range(way.draws):
            said = written.facts(f"random {way.name}", way.emotion, method=way.method, site=way.site, dose=dose,
                                 draw=draw)  # fmt: skip
            rows += [(i, way.placebo(draw, dose), said) for i in self.desk.numbers("report")]
        return self.desk.written(rows)

    def _asked(self, emotion: str) -> pd.DataFrame:
        said = written.facts("prompted", emotion, method=ASKED, dose=1.0)
        return self.desk.written([(i, {}, said) for i in self.desk.numbers()], self._wishes(emotion))

    def _wishes(self, emotion: str) -> list[Layout]:
        return laid_out(self.model, conversations([p[2] for p in self.desk.prompts], "prompted", emotion, self.battery))

    def _read(self, way: Way) -> pd.DataFrame:
        said = {"condition": way.name, "emotion": way.emotion, "method": way.method, "site": way.site}
        changes = [(way.change(dose), said | {"dose": dose}) for dose in way.doses]
        return written.read_neutral(self.model, self.texts, changes, self.progress)

    def _read_asked(self, emotion: str) -> pd.DataFrame:
        """Neutral texts as replies to the prompts, with and without the wish: what asking changes is the context."""
        names, layouts = list(self.texts), list(self.texts.values())
        of = [i % len(self.desk.prompts) for i in range(len(names))]
        ids = [[token for token, mine in zip(one.ids, one.content, strict=True) if mine] for one in layouts]
        nll, plain = (
            reply_nll(self.model, prompts, of, ids, progress=self.progress)
            for prompts in (self._wishes(emotion), self.desk.plain)
        )
        return pd.DataFrame({
            "condition": "prompted", "emotion": emotion, "method": ASKED, "site": "", "dose": 1.0, "text": names,
            "nll": nll, "plain_nll": plain,
        })  # fmt: skip


def _key(way: Way) -> tuple[str, str]:
    return way.emotion, way.name


def choices(
    replies: pd.DataFrame, neutral: pd.DataFrame, budgets: Sequence[float]
) -> dict[tuple[float, str, str], Choice]:
    """The largest dose of each way and emotion within each budget, there and at every smaller dose.

    Args:
        replies: one row a reply.
        neutral: one row a neutral text, way and dose.
        budgets: perplexity ratios, of replies under the plain model and of neutral text under the changed one.
    """
    mine, texts = replies[replies["half"] == CHOOSE], halved(neutral)
    texts, plain = texts[texts["half"] == CHOOSE], mine[mine["condition"] == "plain"]
    found = {}
    for way in WAYS:
        rows = mine[mine["condition"] == way]
        for row in rows[["emotion", "method", "site"]].drop_duplicates().to_dict("records"):
            arm = Arm(way, str(row["emotion"]), str(row["method"]), str(row["site"]))
            for budget in budgets:
                key = (budget, arm.emotion, way)
                found[key] = choice(arm, arm.of(rows), plain, arm.of(texts), budget)
    return found
