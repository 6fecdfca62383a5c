"""``affectlens steer MODEL --evaluate``: write, judge, compare, report; stoppable and resumable.

1. Plain replies, and every emotion at every dose, on both halves of the prompts; neutral human texts at every dose.
2. The half ``choose`` gives each emotion its safe dose. The rest is written on the half ``report`` alone:
3. placebos of the same norm and dose, asking in words and by examples, two emotions at once; and, with a grid of their
   own, the heads and the neurons that were selected on other scenes, and directions by a second method.
4. Two blind judges read everything, with and without its emotion words.
"""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from affectlens.errors import RunError
from affectlens.model import LensModel, load_model
from affectlens.run import Run
from affectlens.steering.directions import Directions
from affectlens.steering.evaluating.parts import checked
from affectlens.steering.evaluating.result import SteeringReport
from affectlens.steering.evaluating.sections import render
from affectlens.steering.evaluating.work import FULL, QUICK, Scale, Work
from affectlens.steering.judging.by_endpoint import endpoint_judge
from affectlens.steering.judging.verdicts import Judge
from affectlens.steering.shipped import bundled, load_directions
from affectlens.stimuli.battery import Battery, load_battery
from affectlens.types import Json

COMMAND = "steer"


def evaluate(
    model: str | LensModel,
    *,
    directions: Directions | str | Path | None = None,
    battery: str = "core",
    out: Path,
    resume: bool = False,
    quick: bool = False,
    emotions: Sequence[str] | None = None,
    judges: Sequence[Judge] | None = None,
    endpoint: dict[str, str] | None = None,
    scale: Scale | None = None,
    seed: int = 0,
    device: str | None = None,
    dtype: str = "float32",
    revision: str | None = None,
    progress: bool | None = None,
) -> tuple[Run, SteeringReport]:
    """Evaluate directions as steering, and write the run to ``out``.

    Args:
        model: a name, or a loaded model.
        directions: a set or its file; by default the bundled one, or for other models one extracted from ``battery``.
        battery: where directions, heads, neurons, examples and neutral texts come from.
        out: the run folder.
        resume: go on with what a stopped run left out, with its own directions.
        quick: three doses, few prompts and draws: a first look, whose p can't pass for eight emotions.
        emotions: only these; all that the set has if None.
        judges: two or more; by default the encoder and the embedded model's likelihoods.
        endpoint: of an OpenAI-compatible server that is one judge more: ``url``, ``model`` and ``key_env``, as
            :func:`affectlens.steering.judging.endpoint_judge` takes them.
        scale: how much is written, for a size of your own.
        seed: of sampling, draws and bootstraps.
        device: as for :func:`affectlens.load_model`.
        dtype: as for :func:`affectlens.load_model`.
        revision: as for :func:`affectlens.load_model`.
        progress: show bars; by default where a person is looking.

    Returns:
        The run and the report. ``run.folder / "directions.safetensors"`` are the directions with their safe doses.

    Raises:
        AffectLensError: whatever the parts raise; the run folder then keeps what was finished.
    """
    if not resume:
        Run.refuse_existing(out)
    start = time.perf_counter()
    lens = model if isinstance(model, LensModel) else load_model(
        model, device=device, dtype=dtype, revision=revision, progress=progress
    )  # fmt: skip
    table = load_battery(battery)
    if resume:
        run = _reopen(out)
        run.expect("model", "fingerprint", lens.fingerprint)
        run.expect("battery", "battery_sha256", table.sha256)
    kept = out / "directions.safetensors"
    found = _directions(lens, kept if resume else directions, table, seed, progress)
    found = found if resume or not emotions else found.only(*emotions)
    checked(found)
    how_much, readers = scale or (QUICK if quick else FULL), list(judges or judges_for(lens, progress))
    if endpoint:
        key = endpoint.get("key_env", "")
        readers.append(endpoint_judge(endpoint["url"], endpoint["model"], key_env=key, seed=seed))
    settings = _digest(found, how_much, readers, seed)
    if resume:
        run.expect("plan (scale, seed, judges or directions)", "settings", settings)
    else:
        config: Json = {
            "model": lens.name, "directions": str(directions) if isinstance(directions, str | Path) else None,
            "battery": battery, "emotions": list(found.emotions), "quick": quick, "seed": seed, "device": device,
            "dtype": dtype, "revision": revision, "endpoint": endpoint,
        }  # fmt: skip
        run = Run.create(out, command=COMMAND, config=config)
        run.note(fingerprint=lens.fingerprint, source=lens.source, battery_sha256=table.sha256, settings=settings,
                 device=str(lens.device))  # fmt: skip
        found.save(kept)
    run.info["timings"]["load"] = round(time.perf_counter() - start, 2)
    run.note(status="running")
    try:
        report = Work(run, lens, found, table, how_much, readers, seed, progress).report()
        report.save(run.folder)
        found.with_safe(report.safe).save(kept)
        run.close("done")
        render(run, report)
    except BaseException:
        run.close("stopped")
        raise
    return run, report


def _digest(directions: Directions, scale: Scale, judges: Sequence[Judge], seed: int) -> str:
    """What replies that were written once depend on."""
    said = [repr(scale), str(seed), *(judge.name for judge in judges)]
    vectors = [f"{d.emotion} {d.site} {d.norm!r} {d.called}".encode() + d.vector.tobytes() for d in directions]
    return hashlib.sha256("|".join(said).encode() + b"|".join(vectors)).hexdigest()


def _directions(
    model: LensModel, asked_for: Directions | str | Path | None, battery: Battery, seed: int, progress: bool | None
) -> Directions:
    if isinstance(asked_for, Directions):
        asked_for.expect(model)
        return asked_for
    if asked_for is not None or model.name in bundled():
        return load_directions(asked_for, model)
    from affectlens.steering.extracting import extract

    return extract(model, battery, sites=[layer_of(model)], against="neutral", seed=seed, progress=progress)


def layer_of(model: LensModel) -> int:
    """The layer that directions are taken from if none is named: three fifths of the way up."""
    return round(0.6 * model.n_layers)


def judges_for(model: LensModel, progress: bool | None) -> list[Judge]:
    """The two judges that read if none are given: an encoder, and the likelihoods of the embedded model.

    Args:
        model: that is steered; it judges itself if it is the embedded one.
        progress: show a bar; by default where a person is looking.
    """
    from affectlens.steering.judging import encoder_judge, likelihood_judge
    from affectlens.steering.judging.calibrating import bundled as calibrations

    known = any(one.fingerprint == model.fingerprint for one in calibrations())
    reader = model if known else load_model("smollm2-135m", progress=progress)
    return [encoder_judge(progress=progress), likelihood_judge(reader)]


def _reopen(folder: Path) -> Run:
    run = Run.open(folder)
    if run.info["command"] != COMMAND:
        raise RunError(f"{folder} is a {run.info['command']} run, not a {COMMAND} run.")
    return run


def reload(folder: Path) -> tuple[Run, SteeringReport]:
    """A run and its report, from the folder.

    Args:
        folder: of a finished run.

    Raises:
        RunError: if the folder holds no steering run, or one that is not finished.
    """
    return _reopen(folder), SteeringReport.load(folder)
