"""AffectLens: what emotion is inside a language model, where it is computed, whether it is used, how to turn it.

>>> import affectlens as al
>>> battery = al.load_battery("starter")
>>> len(battery)
160

Names load on first use, so that ``import affectlens`` costs nothing and brings in no torch.
"""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens import circuits, errors, patching, probing, steering, stimuli
    from affectlens.capturing import capture
    from affectlens.model import LensModel, load_model
    from affectlens.run import Run
    from affectlens.sites import Site
    from affectlens.stats import Estimate
    from affectlens.stimuli import Battery, Stimulus, load_battery
    from affectlens.store import Activations

__version__ = "0.1.0"

__all__ = [
    "Activations",
    "Battery",
    "Estimate",
    "LensModel",
    "Run",
    "Site",
    "Stimulus",
    "capture",
    "circuits",
    "errors",
    "load_battery",
    "load_model",
    "patching",
    "probing",
    "steering",
    "stimuli",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Activations": "store", "Battery": "stimuli", "Estimate": "stats", "LensModel": "model", "Run": "run",
        "Site": "sites", "Stimulus": "stimuli", "capture": "capturing", "load_battery": "stimuli",
        "load_model": "model", "circuits": "", "errors": "", "patching": "", "probing": "", "steering": "",
        "stimuli": "",
    },
)  # fmt: skip
