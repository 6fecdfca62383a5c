"""What ``affectlens circuit`` does once its options are read: run, forecast, continue, tell."""

from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.console import emit, say, table
from affectlens.errors import AffectLensError
from affectlens.types import Json

if TYPE_CHECKING:
    from affectlens.circuits.settings import Asked
    from affectlens.circuits.study import Finished


def launch(
    asked: "Asked | None", *, out: Path | None, resume: Path | None, dry_run: bool, as_json: bool, quiet: bool
) -> None:
    """Run the command.

    Args:
        asked: the settings; None goes on with a run's own.
        out: the run folder.
        resume: a run folder to continue.
        dry_run: only say what it would take.
        as_json: print the result as JSON.
        quiet: print the report's path alone.

    Raises:
        AffectLensError: whatever the run raises; and if it was interrupted, with how to continue.
    """
    from affectlens.run import Run, default_folder

    if asked is None:
        from affectlens.circuits.settings import Asked
        from affectlens.circuits.study import COMMAND

        assert resume is not None
        asked = Asked.from_config(Run.of(resume, COMMAND).info["config"])
    if dry_run:
        emit(forecast(asked), as_json=as_json, title="This run will take about")
        return
    from affectlens.circuits.study import study

    home = resume or out or default_folder(asked.model, "circuit")
    try:
        done = study(asked, out=home, resume=resume is not None, progress=False if quiet or as_json else None)
    except KeyboardInterrupt:
        kept = f" What was computed is kept; continue with: affectlens circuit --resume {home}"
        raise AffectLensError(f"Stopped.{kept if (home / 'run.json').exists() else ''}") from None
    tell(done, as_json=as_json, quiet=quiet)


def tell(done: "Finished", *, as_json: bool = False, quiet: bool = False) -> None:
    """Print what a run has found: sentences and a table, JSON, or the report's path alone.

    Args:
        done: the run.
        as_json: as JSON.
        quiet: the path alone.
    """
    from affectlens.circuits.sections import PAGE, facts, headlines, shown
    from affectlens.circuits.verifying.completing import MEAN, WORST
    from affectlens.patching.launching import finite
    from affectlens.probing.names import plain

    home = done.run.folder
    if quiet:
        print(home / "report.html")
        return
    if as_json:
        emit({"report": str(home / "report.html"), "picture": str(home / PAGE), "summary": headlines(done),
              "circuits": finite(facts(done.found).to_dict("records"))}, as_json=True)  # fmt: skip
        return
    rows = shown(done)
    columns = [str(name) for name in rows if name not in ("complement", MEAN, WORST)]
    table("Circuits (held-out scenes, 95% intervals)", columns, rows[columns].to_numpy().tolist())
    for line in headlines(done):
        say("\n" + plain(line))
    say(f"\nReport: {home / 'report.html'}\nWalk through the circuits: {home / PAGE}")


def redraw(folder: Path, *, quiet: bool = False) -> None:
    """Write the report of a run anew from its tables, and print it.

    Args:
        folder: of the run.
        quiet: print the report's path alone.
    """
    from affectlens.circuits.sections import render
    from affectlens.circuits.study import reload

    done = reload(folder)
    render(done)
    tell(done, quiet=quiet)


def forecast(asked: "Asked") -> Json:
    """Memory, passes and rough times, from one pair that is scored and run on four circuits; nothing is written.

    Args:
        asked: as for a run.

    Raises:
        AffectLensError: what would stop the run before it begins.
    """
    import time

    import numpy as np

    from affectlens.circuits.asking import questions
    from affectlens.circuits.evaluating import values_on
    from affectlens.circuits.scoring import estimates
    from affectlens.circuits.trials import Bench
    from affectlens.circuits.verifying.plan import cost
    from affectlens.model import load_model
    from affectlens.needs import needs
    from affectlens.patching.named import CUE
    from affectlens.stimuli import load_battery

    battery = load_battery(asked.battery)
    facts = needs(asked.model, battery)
    if "note" in facts:
        return facts
    model = load_model(asked.model, device=asked.device, dtype=asked.dtype, revision=asked.revision)
    cue = CUE if asked.cue is None else asked.cue
    ready = questions(model, battery, asked.emotions, metric=asked.metric, contrast=asked.contrast, layer=asked.layer,
                      pairs=asked.scenes, cue=cue, chat=asked.chat, seed=asked.seed)  # fmt: skip
    bench = Bench.of(model, ready[0].metric, asked.memory)
    pairs = sorted(ready[0].discovery, key=lambda pair: len(pair.clean))
    trial = bench.trial(pairs[len(pairs) // 2])
    began = time.perf_counter()
    estimates(trial, asked.method, asked.steps)
    scored = time.perf_counter()
    values_on(trial, [bench.space.allowed, np.zeros_like(bench.space.allowed)] * 2)
    ran = (time.perf_counter() - scored) / 4
    scenes = sum(len(one.discovery) + len(one.held) for one in ready)
    passes = sum(int(cost(len(one.held), asked.amounts, choosing=len(one.discovery))["passes"].iloc[-1])
                 + asked.exact * len(one.held) for one in ready)  # fmt: skip
    return facts | {
        "edges": bench.space.n_edges,
        "pairs": scenes,
        "runs of a circuit": passes,
        "scoring edges (seconds)": round((scored - began) * scenes),
        "running circuits (seconds)": round(ran * passes),
    }
