"""What targets, readers and rungs are called in sentences, tables and figures, and how a difference is written."""

import re

from affectlens.stats import Estimate

ASKED = {
    "affect": "Whether a text evokes an emotion",
    "category": "Which emotion a text evokes",
    "valence": "Whether an emotional text is pleasant or unpleasant",
    "arousal": "The arousal of the emotion that a text evokes",
    "dominance": "The dominance of the emotion that a text evokes",
    "intensity": "The intensity of the emotion, among versions of one scene,",
}
FLOOR_NAMES = {"tfidf": "TF-IDF words", "function_words": "function words", "surface": "surface marks"}
METHOD_NAMES = {
    "logistic": "logistic probe",
    "mean_difference": "mean-difference probe",
    "lda": "shrinkage LDA",
    "ridge": "ridge probe",
    "network": "network with one hidden layer",
}
READER_NAMES = {
    **FLOOR_NAMES,
    **METHOD_NAMES,
    "neutral_pseudo_label": "neutral partners, same labels",
    "random_directions": "random directions",
    "control_task": "control task (a label for each word)",
    "control_task_words": "control task, read by TF-IDF words",
    "layer_0": "layer 0",
    "gain": "added to the floor's prediction",
    "chance": "chance",
}
UNITS = {"random": "items", "pair": "scenes", "domain": "domains", "author": "authors", "emotion": "emotions",
         "split": "domains"}  # fmt: skip


def signed(gap: Estimate) -> str:
    """A difference with its sign.

    >>> signed(Estimate(0.1, -0.02, 0.22, 32, "scene"))
    '+0.10 [-0.02, +0.22]'
    """
    return f"{gap.value:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]"


def plain(line: str) -> str:
    """A Markdown sentence without its marks."""
    return re.sub(r"\*\*|`", "", line)
