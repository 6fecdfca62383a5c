"""How a likelihood judge is calibrated: ``python -m affectlens.steering.judging.fitting_likelihood FOLDER [MODEL]``.

FOLDER holds GoEmotions. Offsets and scale come from at most 60 comments a class of dev; the record is of at most 60 a
class of test, which are other comments, and of the vignettes of our battery ``starter``, the one place where trust and
anticipation can be measured. The classes are equally frequent in the first, so accuracy there is macro recall.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from affectlens.model import LensModel, load_model
from affectlens.steering.judging.by_likelihood import LikelihoodJudge
from affectlens.steering.judging.calibrating import FILE, Calibration, bundled, calibrate, save_calibrations
from affectlens.steering.judging.goemotions import LICENCE, balanced, read_comments, sha256_of
from affectlens.steering.judging.scores import LABELS, read_forms
from affectlens.steering.judging.scoring import Record, record
from affectlens.steering.judging.verdicts import NEUTRAL, Judge
from affectlens.stimuli import load_battery

EACH = 60  # comments a class
NAMES = {"emotional": "emotion without its words", "keyword": "emotion named"}


def vignettes(name: str, role: str) -> pd.DataFrame:
    """A battery's vignettes of one role with their neutral twins, and the column ``truth``.

    Args:
        name: the battery's.
        role: emotional or keyword.
    """
    frame = load_battery(name).frame()
    frame = frame[(frame["split"] == "vignettes") & frame["role"].isin((role, "neutral"))]
    return frame.assign(truth=frame["emotion"].where(frame["role"] != "neutral", NEUTRAL))


def battery_records(judge: Judge, name: str, *, progress: bool | None = None) -> list[Record]:
    """A judge on our battery's vignettes: without a keyword, and with one; the neutral twins in both.

    Args:
        judge: any judge.
        name: the battery's.
        progress: show a bar; by default where a person is looking.
    """
    parts = {role: vignettes(name, role) for role in NAMES}
    texts = list(dict.fromkeys(text for part in parts.values() for text in part["text"]))
    said = dict(zip(texts, judge.judge(texts, progress=progress).best, strict=True))
    return [
        record(
            part["truth"].tolist(), [said[text] for text in part["text"]], judge.labels,
            groups=part["group"].tolist(), unit="scene", source=f"battery {name}, {NAMES[role]}",
        )
        for role, part in parts.items()
    ]  # fmt: skip


def fit(
    model: LensModel, folder: str | Path, *, forms: Sequence[str] = ("quoted",), battery: str = "starter",
    progress: bool | None = None,
) -> Calibration:  # fmt: skip
    """Calibrate a model on GoEmotions' dev and score it on test and on our battery.

    Args:
        model: the language model, not steered.
        folder: with ``dev.tsv`` and ``test.tsv``.
        forms: the forms whose scores are added.
        battery: whose vignettes are judged.
        progress: show bars; by default where a person is looking.

    Raises:
        SteerError: files that can't be read.
    """
    dev, test = (balanced(read_comments(folder, part), EACH) for part in ("dev", "test"))
    found = calibrate(model, read_forms(model, dev.texts, forms, progress=progress), dev.classes)
    judge = LikelihoodJudge(model, found)
    said = judge.judge(test.texts, progress=progress).best
    records = [
        record(test.classes, said, LABELS, source=f"GoEmotions test, {EACH} a class", groups=test.ids, unit="comment"),
        *battery_records(judge, battery, progress=progress),
    ]
    facts = {"licence": f"Calibrated on {LICENCE}", "n": {"dev": len(dev), "test": len(test)},
             "sha256": {part: sha256_of(folder, part) for part in ("dev", "test")}}  # fmt: skip
    return replace(found, records=tuple(records), facts=facts)


def main(arguments: Sequence[str]) -> None:
    """Calibrate, write beside the other models' calibrations, and print the records."""
    if not 1 <= len(arguments) <= 3:
        raise SystemExit("usage: python -m affectlens.steering.judging.fitting_likelihood FOLDER [MODEL [FORM,FORM]]")
    folder, name, forms = [*arguments, *("smollm2-135m", "quoted")[len(arguments) - 1 :]]
    target = Path(__file__).parents[1] / "data" / FILE
    found = fit(load_model(name), folder, forms=forms.split(","))
    others = [one for one in (bundled() if target.is_file() else []) if one.fingerprint != found.fingerprint]
    save_calibrations(target, [*others, found])
    for one in found.records:
        print(f"\n{one}\n{one.table().round(3).to_string(index=False)}\n{one.matrix().to_string()}")


if __name__ == "__main__":
    main(sys.argv[1:])
