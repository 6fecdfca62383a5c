"""The error family: each is a user's to mend, so its message says what was wrong, what was expected, what to do.

The command line prints the message alone and exits with 2; a notebook shows it as the last line.
"""


class AffectLensError(Exception):
    """Base of every error that AffectLens raises on purpose."""


class ModelError(AffectLensError):
    """A model could not be found, fetched, loaded, or did not pass its load check."""


class BatteryError(AffectLensError):
    """A battery is missing, malformed, empty, or lacks what a target needs."""


class CaptureError(AffectLensError):
    """Activations could not be captured, for example a text longer than the model's context."""


class StoreError(AffectLensError):
    """Stored activations or probes are missing, damaged, or belong to something else."""


class RunError(AffectLensError):
    """A run folder exists already, or is not one."""


class SiteError(AffectLensError):
    """An address of an activation does not parse or does not exist in the model."""


class PatchError(AffectLensError):
    """A patch or an ablation that can't be done as asked: tokens without a match, a site that can't be changed."""


class SteerError(AffectLensError):
    """Directions or a steering plan that can't do what was asked: another model's, an unknown emotion, no effect."""


class CircuitError(AffectLensError):
    """A circuit that can't be found or read as asked: a model without edges, a metric without an end, another graph."""
