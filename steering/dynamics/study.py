"""``affectlens dynamics MODEL``: let a mood set the doses of conversations, measure the replies, compare, report."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from affectlens.errors import SteerError
from affectlens.generating import Decoding
from affectlens.model import LensModel, load_model
from affectlens.progress import tracked
from affectlens.run import Run
from affectlens.steering.directions import Directions
from affectlens.steering.dynamics.adding import gram_of
from affectlens.steering.dynamics.dosing import Dosing
from affectlens.steering.dynamics.feeding import Feed, axes_of
from affectlens.steering.dynamics.feeds import feed_of, identity, other_than, unlike
from affectlens.steering.dynamics.measuring import BAND, WINDOW
from affectlens.steering.dynamics.noising import calm_band
from affectlens.steering.dynamics.replying import Writer, writing
from affectlens.steering.dynamics.result import DynamicsReport, report_on
from affectlens.steering.dynamics.scripts import Script
from affectlens.steering.dynamics.sections import render
from affectlens.steering.dynamics.settings import Setup
from affectlens.steering.dynamics.work import PHASES, Work
from affectlens.steering.shipped import load_directions
from affectlens.types import Json

COMMAND = "dynamics"


def run(
    model: str | LensModel,
    *,
    out: str | Path,
    setup: Setup | None = None,
    feed: str | Feed = "encoder",
    instrument: str | Feed | None = None,
    directions: Directions | str | Path | None = None,
    config: Json | None = None,
    writer: Writer | None = None,
    resume: bool = False,
    device: str | None = None,
    dtype: str = "float32",
    revision: str | None = None,
    progress: bool | None = None,
) -> tuple[Run, DynamicsReport]:
    """Let moods set the doses of scripted conversations, and write the run to ``out``.

    Args:
        model: a name, or a loaded model; it needs a chat template.
        out: the run folder.
        setup: rules, scripts and numbers.
        feed: what moves the mood: encoder, lexicon, likelihood, or a feed of your own (such as a
            :class:`affectlens.steering.dynamics.ProbeFeed`).
        instrument: what measures the replies, another than the feed; VADER by default, or the encoder if VADER feeds.
        directions: with safe doses; the bundled ones by default.
        config: what else to note in ``run.json``, for ``--resume``.
        writer: what writes replies; an engine on the model by default.
        resume: go on with what a stopped run left out, with the same settings.
        device: as for :func:`affectlens.load_model`.
        dtype: as for :func:`affectlens.load_model`.
        revision: as for :func:`affectlens.load_model`.
        progress: show bars; by default where a person is looking.

    Returns:
        The run, with ``report.html``, and the report.

    Raises:
        SteerError: no chat template, an instrument that is the feed, no safe doses.
        RunError: a folder that exists, or, resumed, one that was begun otherwise.
    """
    home, how = Path(out), setup or Setup()
    scripts = how.spoken()
    if not resume:
        Run.refuse_existing(home)
    opened = Run.of(home, COMMAND) if resume else None
    lens = model if isinstance(model, LensModel) else load_model(
        model, device=device, dtype=dtype, revision=revision, progress=progress
    )  # fmt: skip
    if writer is None and not lens.tokenizer.chat_template:
        raise SteerError(f"{lens.name} has no chat template, so it can't hold a conversation.")
    fed = feed_of(feed, lens, progress=progress) if isinstance(feed, str) else feed
    named = instrument if instrument is not None else other_than(fed.name)
    measures = feed_of(named, lens, progress=progress) if isinstance(named, str) else named
    unlike(fed, measures)
    kept = home / "directions.safetensors"
    found = directions if isinstance(directions, Directions) else load_directions(kept if resume else directions, lens)
    found.expect(lens)
    dosing = Dosing.of(found, emotions=how.emotions, axes=axes_of(fed), baseline=how.rules[0].baseline, full=how.full,
                       ceiling=how.ceiling, nearest=how.nearest)  # fmt: skip
    settings = _digest(how, scripts, found, fed, measures)
    if opened is None:
        opened = Run.create(home, command=COMMAND, config={"model": lens.name, "seed": how.seed} | (config or {}))
        opened.note(fingerprint=lens.fingerprint, source=lens.source, settings=settings, device=str(lens.device))
        found.save(kept)
    opened.expect("model", "fingerprint", lens.fingerprint)
    opened.expect("plan (setup, scripts, feed, instrument or directions)", "settings", settings)
    opened.note(status="running")
    decoding = Decoding(how.max_new_tokens, how.temperature, how.top_p, how.seed)
    try:
        with nullcontext(writer) if writer is not None else writing(lens, found, decoding) as write, \
                opened.timed("conversations"), _ticking(PHASES * len(scripts[0]), progress) as tick:  # fmt: skip
            turns, zeros = Work(home, how, scripts, write, fed, dosing, gram_of(found, dosing.emotions), tick).turns()
        rows = _measured(turns, measures)
        report = report_on(rows, _facts(lens, how, scripts, fed, measures, rows, zeros))
        report.save(home)
        opened.close("done")
        render(opened, report)
    except BaseException:
        opened.close("stopped")
        raise
    return opened, report


def reload(folder: str | Path) -> tuple[Run, DynamicsReport]:
    """A run and its report, from the folder.

    Args:
        folder: of a finished run.

    Raises:
        RunError: if the folder holds no dynamics, or they are not finished.
    """
    return Run.of(folder, COMMAND), DynamicsReport.load(folder)


def _measured(turns: pd.DataFrame, instrument: Feed) -> pd.DataFrame:
    """With the instrument's valence of each reply; 0, as of what says nothing, where it found nothing to read."""
    values = instrument.read(turns["reply"].tolist(), progress=False).values[:, 0].astype(float)
    return turns.assign(measured=np.nan_to_num(values), unread=np.isnan(values))


def _facts(
    model: LensModel, setup: Setup, scripts: list[Script], feed: Feed, instrument: Feed, turns: pd.DataFrame,
    zeros: Json,
) -> Json:  # fmt: skip
    doses = [column for column in turns if str(column).startswith("dose.")]
    still = zeros.pop("still")
    return {
        "model": model.name, "rules": [rule.says for rule in setup.rules], "feed": feed.name,
        "instrument": instrument.name, "scripts": list(dict.fromkeys(one.name for one in scripts)),
        "protocols": list(setup.protocols), "sign": scripts[0].sign, "turns": len(scripts[0]), "zeros": zeros,
        "still": still,
        "repeats": setup.repeats, "own": setup.own, "full": setup.full, "ceiling": setup.ceiling,
        "nearest": setup.nearest, "emotions": [str(column).removeprefix("dose.") for column in doses],
        "history": setup.history, "max_new_tokens": setup.max_new_tokens, "temperature": setup.temperature,
        "top_p": setup.top_p, "band": setup.band or calm_band(turns, setup.window, seed=setup.seed),
        "window": setup.window, "seed": setup.seed,
        "dropped": int(turns["dropped"].sum()), "unread": int(turns["unread"].sum()),
    }  # fmt: skip


def _digest(setup: Setup, scripts: list[Script], directions: Directions, feed: Feed, instrument: Feed) -> str:
    """What replies that were written once depend on, and how they are read."""
    written = replace(setup, band=BAND, window=WINDOW)  # these two only read
    said = [repr(written), repr(scripts), identity(feed), identity(instrument)]
    vectors = [f"{d.emotion} {d.site} {d.norm!r} {d.safe!r}".encode() + d.vector.tobytes() for d in directions]
    return hashlib.sha256("|".join(said).encode() + b"|".join(vectors)).hexdigest()


@contextmanager
def _ticking(turns: int, progress: bool | None) -> "Iterator[Ticker]":
    bar = tracked(range(turns + 1), "turns", show=progress)
    next(bar)
    try:
        yield Ticker(bar)
    finally:
        for _ in bar:
            """To its end, which takes it off the screen."""


class Ticker:
    """Moves a bar by one."""

    def __init__(self, bar: Iterator[int]) -> None:
        self.bar = bar

    def __call__(self) -> None:
        next(self.bar, None)
