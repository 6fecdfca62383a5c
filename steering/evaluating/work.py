"""What one evaluation writes, step by step; each is kept in the run folder as soon as it is there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pandas as pd

from affectlens.errors import SteerError
from affectlens.generating import Decoding
from affectlens.model import LensModel
from affectlens.paths import write_parquet
from affectlens.run import Run
from affectlens.steering.directions import Directions
from affectlens.steering.evaluating import conditions as written
from affectlens.steering.evaluating.asking import asked, conversations, laid_out
from affectlens.steering.evaluating.conditions import Desk
from affectlens.steering.evaluating.judged import judged, reads_with
from affectlens.steering.evaluating.parts import by_method, methods_beside, of_parts, placebo_vectors
from affectlens.steering.evaluating.result import SteeringReport, report_on
from affectlens.steering.evaluating.safety import choices
from affectlens.steering.judging.verdicts import Judge
from affectlens.stimuli.battery import Battery
from affectlens.types import Json

TEMPERATURE = 0.7


@dataclass(frozen=True)
class Scale:
    """How much is written."""

    doses: tuple[float, ...]  # raw
    prompts: int  # of each half
    tokens: int  # of a reply
    draws: int  # of random directions
    beside: int  # draws of the other placebos
    texts: int  # neutral ones
    pairs: tuple[tuple[str, str], ...] = ()
    methods: tuple[str, ...] = ()  # other ones, as by_method names them
    heads: tuple[float, ...] = ()
    neurons: tuple[float, ...] = ()
    shots: int = 3  # examples of an emotion


PAIRS = (("joy", "surprise"), ("fear", "sadness"), ("anger", "disgust"))
FULL = Scale((0.1, 0.15, 0.2, 0.3, 0.4), 16, 24, 159, 8, 16, PAIRS, ("others", "keyword"), (0.5, 1.0, 2.0), (0.1, 0.3))
QUICK = Scale((0.05, 0.1, 0.2), 4, 16, 19, 0, 4)


@dataclass
class Work:
    """The parts of one evaluation; each is kept in the run folder as soon as it is there."""

    run: Run
    model: LensModel
    directions: Directions
    battery: Battery
    scale: Scale
    judges: Sequence[Judge]
    seed: int
    progress: bool | None

    def __post_init__(self) -> None:
        prompts = tuple(asked(self.scale.prompts))
        plain = laid_out(self.model, conversations([p[2] for p in prompts], "plain", "", self.battery))
        how = Decoding(self.scale.tokens, TEMPERATURE, seed=self.seed)
        self.desk = Desk(self.model, prompts, tuple(plain), how, self.progress)

    def report(self) -> SteeringReport:
        """Write what is not there yet, and report on it."""
        s = self.scale
        neutral = pd.concat([self.kept(f"neutral.{dose:g}", partial(self._neutral, dose)) for dose in s.doses])
        parts = {"plain": self.kept("plain", self._plain)}
        for dose in s.doses:
            parts[f"dose.{dose:g}"] = self.kept(f"dose.{dose:g}", partial(self._over, self.directions, "steer", [dose]))
        found = {one.arm.emotion: one.safe for one in choices(pd.concat(parts.values(), ignore_index=True), neutral)}
        safe = {emotion: dose for emotion, dose in found.items() if dose is not None}
        for dose in sorted(set(safe.values())):
            parts[f"placebos.{dose:g}"] = self.kept(f"placebos.{dose:g}", partial(self._placebos, dose))
        for condition in ("prompted", "fewshot"):
            parts[condition] = self.kept(condition, partial(self._asked, condition))
        if pairs := [pair for pair in s.pairs if set(pair) <= set(safe)]:
            parts["pairs"] = self.kept("pairs", lambda: written.together(self.desk, self.directions, pairs, safe))
        parts |= dict(self._others())
        read = [self.kept(f"judged.{name}", partial(judged, frame, self.judges, progress=self.progress))
                for name, frame in parts.items()]  # fmt: skip
        trust = [judge.trust().assign(judge=judge.name) for judge in self.judges]
        facts: Json = {
            "method": self.directions.all[0].called, "seed": self.seed, "model": self.model.name, "draws": s.draws,
            "self_judged": [j.name for j in self.judges if reads_with(j) == self.model.fingerprint],
            "temperature": TEMPERATURE, "tokens": s.tokens, "left_out": self.run.info.get("left_out", {}),
        }  # fmt: skip
        return report_on(
            pd.concat(read, ignore_index=True),
            neutral.reset_index(drop=True),
            judges=pd.concat(trust, ignore_index=True),
            facts=facts,
        )

    def _plain(self) -> pd.DataFrame:
        return self.desk.written([(i, {}, written.facts("plain")) for i in self.desk.numbers()])

    def _placebos(self, dose: float) -> pd.DataFrame:
        return written.placebos(self.desk, self.directions, self._vectors, dose)

    @cached_property
    def _vectors(self) -> dict[str, np.ndarray]:
        s = self.scale
        return placebo_vectors(self.model, self.directions, self.battery, s.draws, s.beside, self.seed, self.progress)

    def _others(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """Other ways to steer, each over a grid of its own."""
        s = self.scale
        for name in methods_beside(self.directions, s.methods):
            yield name, self.kept(name, partial(self._method, name))
        for kind, doses in (("heads", s.heads), ("neurons", s.neurons)):
            if doses:
                try:
                    yield kind, self.kept(kind, partial(self._parts, kind, doses))
                except SteerError as error:  # a battery with too few scenes to select on
                    self.leave_out(kind, str(error))

    def _method(self, name: str) -> pd.DataFrame:
        found = by_method(self.model, self.directions, self.battery, name, self.seed, self.progress)
        return self._over(found, "steer", self.scale.doses[1::2])

    def leave_out(self, what: str, why: str) -> None:
        """Say in the run, and so in the report, what was not done."""
        self.run.note(left_out=self.run.info.get("left_out", {}) | {what: why})

    def _parts(self, kind: str, doses: Sequence[float]) -> pd.DataFrame:
        return self._over(
            of_parts(self.model, self.directions, self.battery, kind, self.seed, self.progress), kind, doses
        )

    def _over(self, directions: Directions, condition: str, doses: Sequence[float]) -> pd.DataFrame:
        return written.steered(self.desk, directions, dict.fromkeys(directions.emotions, doses), condition=condition)

    def _asked(self, condition: str) -> pd.DataFrame:
        parts: list[pd.DataFrame] = []
        mine = self.desk.numbers("report")
        for emotion in self.directions.emotions:
            said = conversations(
                [p[2] for p in self.desk.prompts],
                condition,
                emotion,
                self.battery,
                shots=self.scale.shots,
                seed=self.seed,
            )
            rows: list[written.Asked] = [(i, {}, written.facts(condition, emotion)) for i in mine]
            parts.append(self.desk.written(rows, laid_out(self.model, said)))
        return pd.concat(parts, ignore_index=True)

    def _neutral(self, dose: float) -> pd.DataFrame:
        texts = written.calm_texts(self.model, self.battery, self.scale.texts, self.seed)
        grid = dict.fromkeys(self.directions.emotions, (dose,))
        return written.neutral_texts(self.model, texts, self.directions, grid, self.progress)

    def kept(self, name: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """A table of the run, computed once: a stopped run goes on behind it."""
        return kept(self.run, name, compute)


def kept(run: Run, name: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A table of a run, computed once: a stopped run goes on behind it.

    Args:
        run: that keeps it.
        name: of the step.
        compute: what makes it.
    """
    path = run.folder / "results" / f"step.{name}.parquet"
    if path.is_file():
        return pd.read_parquet(path)
    with run.timed(name):
        frame = compute()
    write_parquet(path, frame)
    return frame
