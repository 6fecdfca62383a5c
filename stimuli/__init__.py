"""Stimulus batteries: what a model reads, and what each item is."""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.stimuli.battery import Battery, load_battery
    from affectlens.stimuli.stimulus import Stimulus
    from affectlens.stimuli.taxonomy import EMOTIONS, canonical

__all__ = ["EMOTIONS", "Battery", "Stimulus", "canonical", "load_battery"]
__getattr__, __dir__ = lazily(
    __name__,
    {
        "Battery": "battery",
        "load_battery": "battery",
        "Stimulus": "stimulus",
        "EMOTIONS": "taxonomy",
        "canonical": "taxonomy",
    },
)
