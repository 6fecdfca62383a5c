"""How the encoder judge's head is made: ``python -m affectlens.steering.judging.fitting FOLDER [HEAD]``.

FOLDER holds GoEmotions' ``train.tsv``, ``dev.tsv`` and ``test.tsv``.

Phase 1 embeds the comments whose labels have one class. Phase 2 fits softmax regressions on train, over how labels are
read, C, and how far rare classes are weighted up, and keeps the one with the best balanced macro F1 on dev. Phase 3
scores that one, once, on test, and on the texts of our own battery, which it never saw. Phase 4 writes the head.

Balanced macro F1 is the mean over the classes of F1 with every class, ``other`` included, weighted as equally frequent:
what a judge of steered replies should be good at does not hang on how often Reddit is disgusted.
"""

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from jaxtyping import Float
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from affectlens.steering.judging.by_encoder import HEAD, EncoderJudge
from affectlens.steering.judging.fitting_likelihood import battery_records
from affectlens.steering.judging.goemotions import CLASSES, LICENCE, OTHER, Comments, read_comments, sha256_of
from affectlens.steering.judging.head import Head
from affectlens.steering.judging.scoring import Record, record
from affectlens.steering.judging.sentences import WEIGHTS, Encoder, pull_encoder
from affectlens.types import Json

Embeddings = Float[np.ndarray, "item d_model"]
READ_AS = ("named", "named without other", "ekman")
C, LIFT = (1.0, 3.0, 10.0), (0.5, 1.0)
BATTERY = "core"


@dataclass(frozen=True)
class Part:
    """Comments with their embeddings."""

    comments: Comments
    embeddings: Embeddings


def balanced_f1(truth: Sequence[str], said: Sequence[str]) -> float:
    """The mean F1 of the classes when each truth, ``other`` included, is as frequent as any.

    >>> balanced_f1([*CLASSES, OTHER], [*CLASSES, ""])
    1.0

    Args:
        truth: classes or ``other``.
        said: classes, or "" where the judge abstained.
    """
    names, columns = (*CLASSES, OTHER), (*CLASSES, "")
    table = np.zeros((len(names), len(columns)))
    for was, called in zip(truth, said, strict=True):
        table[names.index(was), columns.index(called)] += 1
    table /= np.maximum(table.sum(1, keepdims=True), 1)
    size = len(CLASSES)
    hits = np.diag(table)[:size]
    return float((2 * hits / np.maximum(table[:, :size].sum(0) + table[:size].sum(1), 1e-12)).mean())


def fit_head(x: Embeddings, y: Sequence[str], *, c: float, lift: float) -> Head:
    """A softmax regression, with ``other`` as the last class if it occurs.

    Args:
        x: embeddings of length one.
        y: the classes.
        c: inverse strength of the L2 penalty.
        lift: comments of a class weigh (its frequency) ** -lift: 0 as they come, 1 all classes alike.
    """
    counts = {name: list(y).count(name) for name in (*CLASSES, OTHER) if name in y}
    order = tuple(counts)
    weights = np.array([counts[name] ** -lift for name in y])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=c, max_iter=300, tol=1e-3).fit(
            x, [order.index(name) for name in y], sample_weight=weights / weights.mean()
        )
    return Head(order, model.coef_.astype(np.float32), model.intercept_.astype(np.float32), WEIGHTS)


def best_of(head: Head, x: Embeddings) -> list[str]:
    """The likeliest class of each; "" for ``other``."""
    return ["" if head.classes[k] == OTHER else head.classes[k] for k in head.probabilities(x).argmax(1)]


def choose(train: dict[str, Part], dev: Part) -> tuple[Head, list[Json]]:
    """The head with the best balanced macro F1 on dev, and what every one of the grid had.

    Args:
        train: by the way of reading the labels.
        dev: in the reading ``named``.
    """
    tried: list[Json] = []
    best, top = None, -1.0
    for reading, c, lift in product(READ_AS, C, LIFT):
        part = train[reading]
        head = fit_head(part.embeddings, part.comments.classes, c=c, lift=lift)
        score = balanced_f1(dev.comments.classes, best_of(head, dev.embeddings))
        if score > top:
            best, top = head, score
        tried.append({"reading": reading, "c": c, "lift": lift, "balanced_f1": round(score, 4)})
    assert best is not None
    return best, tried


def fit(folder: str | Path, target: str | Path, *, progress: bool | None = None) -> Head:
    """Make the head anew from a folder of GoEmotions, and write it.

    Args:
        folder: with ``train.tsv``, ``dev.tsv`` and ``test.tsv``.
        target: the file to write.
        progress: show bars; by default where a person is looking.

    Raises:
        SteerError: files that can't be read.
    """
    encoder = Encoder.load(pull_encoder(show=progress))
    parts = {name: read_comments(folder, name) for name in ("train", "dev", "test")}
    embedded = {name: Part(part, encoder.embed(part.texts, progress=progress)) for name, part in parts.items()}
    grouped = read_comments(folder, "train", reading="ekman")
    known = dict(zip(parts["train"].ids, embedded["train"].embeddings, strict=True))
    missing = [i for i, name in enumerate(grouped.ids) if name not in known]
    known |= zip([grouped.ids[i] for i in missing], encoder.embed(grouped.at(missing).texts), strict=True)
    named = [i for i, name in enumerate(parts["train"].classes) if name != OTHER]
    train = {
        "named": embedded["train"],
        "named without other": Part(parts["train"].at(named), embedded["train"].embeddings[named]),
        "ekman": Part(grouped, np.stack([known[name] for name in grouped.ids])),
    }
    head, tried = choose(train, embedded["dev"])
    facts = _facts(folder, tried, parts)
    judge = EncoderJudge(encoder, head)
    test = parts["test"]
    records = [
        record(test.classes, best_of(head, embedded["test"].embeddings), judge.labels, source="GoEmotions test",
               groups=test.ids, unit="comment"),
        *battery_records(judge, BATTERY, progress=progress),
    ]  # fmt: skip
    done = Head(head.classes, head.weight, head.bias, head.encoder, facts | {"records": [r.as_json() for r in records]})
    done.save(target)
    return done


def _facts(folder: str | Path, tried: list[Json], parts: dict[str, Comments]) -> Json:
    return {
        "licence": f"Fitted on {LICENCE}; encoder all-MiniLM-L6-v2, Apache-2.0",
        "sha256": {name: sha256_of(folder, name) for name in parts},
        "n": {name: len(part) for name, part in parts.items()},
        "chosen": max(tried, key=lambda row: row["balanced_f1"]),
        "tried": tried,
    }


def main(arguments: Sequence[str]) -> None:
    """Fit, write, and print the records."""
    if len(arguments) not in (1, 2):
        raise SystemExit("usage: python -m affectlens.steering.judging.fitting FOLDER_OF_GOEMOTIONS [HEAD]")
    target = Path(arguments[1]) if len(arguments) == 2 else Path(__file__).parents[1] / "data" / HEAD
    head = fit(arguments[0], target)
    print(f"wrote {target}: {head.facts['chosen']}")
    for facts in head.facts["records"]:
        one = Record.from_json(facts)
        print(f"\n{one}\n{one.table().round(3).to_string(index=False)}\n{one.matrix().to_string()}")


if __name__ == "__main__":
    main(sys.argv[1:])
