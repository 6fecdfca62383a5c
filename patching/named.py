"""Metrics by name, with words of ours to ask with: what a sweep reads if nothing else is said.

The cue and the words were chosen on `core` by how far the answers to its pairs lie apart and how much of the model's
probability the words cover (LOG.md); so a finding on `core` about *whether* they differ is not independent of that
choice, and one about *where* is.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from affectlens.errors import PatchError
from affectlens.model import LensModel
from affectlens.patching.metrics import Metric, kl, own_emotion, valence_difference
from affectlens.patching.readouts import readout
from affectlens.types import TextTable

CUE = " It made them feel very"
EMOTION_WORDS = {
    "joy": [" happy", " joyful"], "trust": [" grateful", " trusting"], "fear": [" afraid", " scared"],
    "surprise": [" surprised", " shocked"], "sadness": [" sad", " heartbroken"], "disgust": [" disgusted", " revolted"],
    "anger": [" angry", " furious"], "anticipation": [" eager", " excited"],
}  # fmt: skip
VALENCE_WORDS = {"pleasant": [" happy", " glad", " good"], "unpleasant": [" sad", " angry", " bad"]}
NAMED = ("affect", "category", "valence", "said_category", "said_valence", "kl")


def named_metrics(
    model: LensModel, battery: TextTable, names: Sequence[str], *, layer: int | None = None, cue: str = CUE,
    chat: bool = False, seed: int = 0, progress: bool | None = None,
) -> list[Metric]:  # fmt: skip
    """Metrics by name.

    ``affect``, ``category`` and ``valence`` are read off the residual stream by directions fitted on other groups
    (:func:`affectlens.patching.readout`); ``said_category`` and ``said_valence`` are what the model would answer after
    the cue, by the words above; ``kl`` is the divergence of its next token from the clean run's.

    Args:
        model: from :func:`affectlens.load_model`.
        battery: what read-outs are fitted on.
        names: which.
        layer: that read-outs read; three quarters of the way up by default.
        cue: what is written after each text; the metrics ask a sweep to do so.
        chat: make each text the user's message of a conversation; the sweep must do so as well.
        seed: of the read-outs' folds.
        progress: show bars.

    Raises:
        PatchError: a name that is none of them.
    """
    at = 3 * model.n_layers // 4 if layer is None else layer
    makers: dict[str, Callable[[], Metric]] = {
        "said_category": lambda: replace(own_emotion(EMOTION_WORDS), name="said_category", cue=cue),
        "said_valence": lambda: replace(valence_difference(VALENCE_WORDS), name="said_valence", cue=cue),
        "kl": lambda: kl().named("kl"),
    }
    out = []
    for name in names:
        if name not in NAMED:
            raise PatchError(f"There is no metric {name!r}; choose from {', '.join(NAMED)}.")
        if name in makers:
            out.append(replace(makers[name](), chat=chat))
        else:
            found = readout(model, battery, name, layer=at, cue=cue, chat=chat, seed=seed, progress=progress)
            out.append(found.named(name))
    return out
