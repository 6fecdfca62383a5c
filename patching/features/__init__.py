"""Causal tests of SAE features: edits that keep the reconstruction error, beside placebos; what the error carries."""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.patching.features.measuring import feature_effects
    from affectlens.patching.features.outcome import FeatureEffects
    from affectlens.patching.features.sharing import ErrorShare, error_share

__all__ = ["ErrorShare", "FeatureEffects", "error_share", "feature_effects"]
__getattr__, __dir__ = lazily(
    __name__,
    {"ErrorShare": "sharing", "FeatureEffects": "outcome", "error_share": "sharing", "feature_effects": "measuring"},
)
