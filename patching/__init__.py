"""Activation patching and ablation: what of an emotion a site carries, and whether it is used."""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.patching.ablating import ablate, knockout
    from affectlens.patching.ablation import AblationSweep
    from affectlens.patching.cells import Change, Cut
    from affectlens.patching.confirming import Confirmation, confirm
    from affectlens.patching.engine import Engine
    from affectlens.patching.features.measuring import feature_effects
    from affectlens.patching.features.outcome import FeatureEffects
    from affectlens.patching.features.sharing import ErrorShare, error_share
    from affectlens.patching.flipping import flip
    from affectlens.patching.metrics import (
        Metric,
        kl,
        label_difference,
        logit_difference,
        own_emotion,
        valence_difference,
        words_of,
        written,
    )
    from affectlens.patching.named import named_metrics
    from affectlens.patching.opposing import opposed
    from affectlens.patching.pairs import PatchPair, choose, prepare
    from affectlens.patching.readouts import readout
    from affectlens.patching.results import PatchSweep, agreement
    from affectlens.patching.screening import Screen, screen
    from affectlens.patching.sweeping import patch

_FROM = {
    "ablating": ("ablate", "knockout"),
    "ablation": ("AblationSweep",),
    "cells": ("Change", "Cut"),
    "confirming": ("Confirmation", "confirm"),
    "engine": ("Engine",),
    "features.measuring": ("feature_effects",),
    "features.outcome": ("FeatureEffects",),
    "features.sharing": ("ErrorShare", "error_share"),
    "flipping": ("flip",),
    "metrics": (
        "Metric", "kl", "label_difference", "logit_difference", "own_emotion", "valence_difference",
        "words_of", "written",
    ),
    "named": ("named_metrics",),
    "opposing": ("opposed",),
    "pairs": ("PatchPair", "choose", "prepare"),
    "readouts": ("readout",),
    "results": ("PatchSweep", "agreement"),
    "screening": ("Screen", "screen"),
    "sweeping": ("patch",),
}  # fmt: skip
__all__ = [
    "AblationSweep", "Change", "Confirmation", "Cut", "Engine", "ErrorShare", "FeatureEffects", "Metric", "PatchPair",
    "PatchSweep", "Screen", "ablate", "agreement", "choose", "confirm", "error_share", "feature_effects", "flip", "kl",
    "knockout", "label_difference", "logit_difference", "named_metrics", "opposed", "own_emotion", "patch", "prepare",
    "readout", "screen", "valence_difference", "words_of", "written",
]  # fmt: skip
__getattr__, __dir__ = lazily(__name__, {name: module for module, names in _FROM.items() for name in names})
