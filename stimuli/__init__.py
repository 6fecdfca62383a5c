"""Stimulus batteries: what a model reads, and what each item is."""

from affectlens.stimuli.battery import Battery, load_battery
from affectlens.stimuli.stimulus import Stimulus
from affectlens.stimuli.taxonomy import EMOTIONS, canonical

__all__ = ["EMOTIONS", "Battery", "Stimulus", "canonical", "load_battery"]
