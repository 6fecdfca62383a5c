"""The phases of a study: plain replies, the loops and their open-loop twins, then what needs the loops' doses.

Each turn of a phase is kept once it is written, so that a stopped run goes on behind its last whole turn.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from affectlens.paths import write_parquet
from affectlens.steering.dynamics.dosing import Dosing
from affectlens.steering.dynamics.feeding import Feed
from affectlens.steering.dynamics.policies import (
    CLOSED,
    EQUAL,
    OPEN,
    PLAIN,
    SHUFFLED,
    Schedule,
    equal_mean,
    open_loop,
    shuffled,
)
from affectlens.steering.dynamics.replying import Writer
from affectlens.steering.dynamics.scripts import Script
from affectlens.steering.dynamics.settings import Setup
from affectlens.steering.dynamics.state import AXES, Rule
from affectlens.steering.dynamics.turning import Saying, Scales, Talk, converse
from affectlens.types import Json

PHASES = 3


@dataclass(frozen=True)
class Work:
    """A study that is going on in a folder."""

    folder: Path
    setup: Setup
    scripts: list[Script]
    writer: Writer
    feed: Feed
    dosing: Dosing
    tick: Callable[[], None]

    def turns(self) -> tuple[pd.DataFrame, Json]:
        """Every row of every conversation, and what the feed's zeros were."""
        said = self._read()
        calm = np.concatenate([said[i][np.array(one.levels) == 0] for i, one in enumerate(self.scripts)])
        scales = Scales(_zero(calm), np.zeros(3), self.setup.own)
        plain = self._phase("plain", self._talks(PLAIN, said), scales)
        heard = plain.loc[plain["level"] == 0, [f"heard.{axis}" for axis in AXES]].to_numpy(dtype=float)
        scales = replace(scales, reply=_zero(heard))
        loops = self._phase("loops", list(self._loops(said, scales)), scales)
        rest = self._phase("controls", list(self._controls(said, loops)), scales)
        zeros = {"user": scales.user.tolist(), "reply": scales.reply.tolist()}
        return pd.concat([plain, loops, rest], ignore_index=True), zeros

    def _read(self) -> list[Float[np.ndarray, "turn 3"]]:
        """The feed's readings of the scripts."""
        every = self.feed.read([text for one in self.scripts for text in one.texts], progress=False).values
        ends = np.cumsum([len(one) for one in self.scripts])
        return [part.astype(float) for part in np.split(every, ends[:-1])]

    def _talks(self, policy: str, said: list[Float[np.ndarray, "turn 3"]], rule: Rule | None = None) -> list[Talk]:
        return [
            Talk(script, repeat, policy, said[i], rule if policy == CLOSED else None, rule.says if rule else "")
            for i, script in enumerate(self.scripts)
            for repeat in range(self.setup.repeats)
        ]

    def _loops(self, said: list[Float[np.ndarray, "turn 3"]], scales: Scales) -> Iterator[Talk]:
        for rule in self.setup.rules:
            yield from self._talks(CLOSED, said, rule)
            plans: dict[str, Schedule] = {}
            for protocol in self.setup.protocols:
                mine = [np.clip(np.nan_to_num(said[i] - scales.user), -1, 1)
                        for i, one in enumerate(self.scripts) if one.protocol == protocol]  # fmt: skip
                plans[protocol] = open_loop(rule, self.dosing, np.stack(mine))
            for talk in self._talks(OPEN, said, rule):
                talk.schedule = plans[talk.script.protocol]
                yield talk

    def _controls(self, said: list[Float[np.ndarray, "turn 3"]], loops: pd.DataFrame) -> Iterator[Talk]:
        columns = [f"dose.{name}" for name in self.dosing.emotions]
        closed = loops[loops["policy"] == CLOSED].sort_values("turn")
        for k, rule in enumerate(self.setup.rules):
            for policy in (EQUAL, SHUFFLED):
                for i, talk in enumerate(self._talks(policy, said, rule)):
                    own = closed[(closed["rule"] == rule.says) & (closed["script"] == talk.script.name)]
                    own = own[(own["protocol"] == talk.script.protocol) & (own["repeat"] == talk.repeat)]
                    doses = own[columns].to_numpy(dtype=float)
                    luck = int(np.random.SeedSequence([self.setup.seed, k, i]).generate_state(1)[0])
                    talk.schedule = equal_mean(doses) if policy == EQUAL else shuffled(doses, luck)
                    yield talk

    def _phase(self, name: str, talks: list[Talk], scales: Scales) -> pd.DataFrame:
        path = self.folder / "turns" / f"{name}.parquet"
        done = pd.read_parquet(path) if path.is_file() else pd.DataFrame()
        tables = {int(str(turn)): rows for turn, rows in done.groupby("turn")} if len(done) else {}

        def keep(turn: int, rows: pd.DataFrame) -> None:
            tables[turn] = rows
            write_parquet(path, pd.concat([tables[k] for k in sorted(tables)], ignore_index=True))

        how = Saying(self.writer, self.feed, self.dosing, scales, self.setup.history, self.setup.seed)
        return converse(talks, how, kept=tables.get, keep=keep, tick=self.tick)


def _zero(values: Float[np.ndarray, "text 3"]) -> Float[np.ndarray, " 3"]:
    """The mean of what was read; 0 for an axis that was not."""
    known = np.isfinite(values)
    return np.nan_to_num(values).sum(0) / np.maximum(known.sum(0), 1)
