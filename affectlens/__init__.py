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
    from affectlens.aligning import Alignment, align
    from affectlens.capturing import capture
    from affectlens.foreign import from_cache
    from affectlens.hooks import edit, record, watch
    from affectlens.labels import LabelScores, label_logprobs
    from affectlens.model import LensModel, load_model
    from affectlens.pairing import align_pairs
    from affectlens.positions import Position
    from affectlens.probing.sae import Sae
    from affectlens.probing.sae_files import load_sae
    from affectlens.replies import capture_replies
    from affectlens.run import Run
    from affectlens.sites import Site
    from affectlens.stats import Estimate
    from affectlens.stimuli import Battery, Stimulus, load_battery
    from affectlens.store import Activations

__version__ = "0.1.0"

__all__ = [
    "Activations",
    "Alignment",
    "Battery",
    "Estimate",
    "LabelScores",
    "LensModel",
    "Position",
    "Run",
    "Sae",
    "Site",
    "Stimulus",
    "align",
    "align_pairs",
    "capture",
    "capture_replies",
    "circuits",
    "edit",
    "errors",
    "from_cache",
    "label_logprobs",
    "load_battery",
    "load_model",
    "load_sae",
    "patching",
    "probing",
    "record",
    "steering",
    "stimuli",
    "watch",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Activations": "store", "Alignment": "aligning", "Battery": "stimuli", "Estimate": "stats", "LabelScores":
        "labels", "LensModel": "model", "Position": "positions", "Run": "run", "Sae": "probing.sae", "Site": "sites",
        "Stimulus": "stimuli",
        "align": "aligning", "align_pairs": "pairing", "capture": "capturing", "capture_replies": "replies",
        "circuits": "", "edit": "hooks", "errors": "", "from_cache": "foreign", "label_logprobs": "labels",
        "load_battery": "stimuli", "load_model": "model", "load_sae": "probing.sae_files",
        "patching": "", "probing": "", "record": "hooks",
        "steering": "", "stimuli": "", "watch": "hooks",
    },
)  # fmt: skip
