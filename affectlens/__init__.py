"""AffectLens: what emotion is inside a language model, where it is computed, whether it is used, how to turn it.

>>> import affectlens as al
>>> battery = al.load_battery("starter")
>>> len(battery)
160

Names load on first use, so that ``import affectlens`` costs nothing and brings in no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affectlens import circuits, errors, patching, probing, steering, stimuli
    from affectlens.capture import capture
    from affectlens.model import LensModel, load_model
    from affectlens.run import Run
    from affectlens.sites import Site
    from affectlens.stats import Estimate
    from affectlens.stimuli import Battery, Stimulus, load_battery
    from affectlens.store import Activations

__version__ = "0.1.0"

_HOME = {
    "Activations": "store",
    "Battery": "stimuli",
    "Estimate": "stats",
    "LensModel": "model",
    "Run": "run",
    "Site": "sites",
    "Stimulus": "stimuli",
    "capture": "capture",
    "load_battery": "stimuli",
    "load_model": "model",
}
_MODULES = {"circuits", "errors", "patching", "probing", "steering", "stimuli"}

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


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"affectlens.{name}")
    if name not in _HOME:
        raise AttributeError(f"affectlens has no {name!r}; it offers {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"affectlens.{_HOME[name]}"), name)
    globals()[name] = value     # also wins over the submodule of the same name (affectlens.capture)
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
