"""``python -m affectlens.steering.evaluating.bundling RUN``: the set that ships for a model, from its evaluation.

Each direction carries the evaluation's figures for its emotion, so the file says what it was found to do.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from affectlens.errors import SteerError
from affectlens.steering.directions import Directions
from affectlens.steering.evaluating.result import SteeringReport
from affectlens.steering.evaluating.study import reload
from affectlens.steering.shipped import DATA
from affectlens.types import Json


def bundle(folder: str | Path, into: Path = DATA) -> Path:
    """Write ``directions_MODEL.safetensors`` from a finished evaluation.

    Args:
        folder: of the run.
        into: where to.

    Raises:
        RunError: if the folder holds no steering run.
        SteerError: if it is not finished, or no emotion has a safe dose.
    """
    run, report = reload(Path(folder))
    found = Directions.load(Path(folder) / "directions.safetensors")
    if not any(report.safe.values()):
        raise SteerError(f"{folder} found no safe dose of any emotion: there is nothing that could ship.")
    told = [replace(d, facts=d.facts | {"evaluation": figures(report, d.emotion, run.info["started"])}) for d in found]
    return Directions(told).save(into / f"directions_{found.model}.safetensors")


def figures(report: SteeringReport, emotion: str, date: str) -> Json:
    """What the evaluation found of one emotion, as JSON.

    Args:
        report: of the evaluation.
        emotion: its name.
        date: of the run.
    """
    table = report.table()
    rows = table[table["emotion"] == emotion].astype(object)
    return {
        "date": date[:10], "draws": report.facts["draws"], "prompts": report.facts["n_report"],
        "table": rows.where(rows.notna(), None).to_dict("records"),
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="the folder of a finished affectlens steer --evaluate")
    print(bundle(parser.parse_args().run))
