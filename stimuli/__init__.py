"""Stimulus batteries: what a model reads, and what each item is; others' batteries; the audit; schemes of emotion."""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.stimuli.agreement import alpha
    from affectlens.stimuli.auditing import Audit, Bounds, audit, contrast, floors_figure
    from affectlens.stimuli.battery import Battery, load_battery
    from affectlens.stimuli.explorer import balance_figure, view
    from affectlens.stimuli.importing import Imported, read_published, read_table, write_battery
    from affectlens.stimuli.norms import VAD, read_norms, vad
    from affectlens.stimuli.rating import Ratings, read_ratings, survey, write_survey
    from affectlens.stimuli.schemes import relabel
    from affectlens.stimuli.stimulus import Stimulus
    from affectlens.stimuli.taxonomy import EMOTIONS, canonical

_FROM = {
    "agreement": ("alpha",),
    "auditing": ("Audit", "Bounds", "audit", "contrast", "floors_figure"),
    "battery": ("Battery", "load_battery"),
    "explorer": ("balance_figure", "view"),
    "importing": ("Imported", "read_published", "read_table", "write_battery"),
    "norms": ("VAD", "read_norms", "vad"),
    "rating": ("Ratings", "read_ratings", "survey", "write_survey"),
    "schemes": ("relabel",),
    "stimulus": ("Stimulus",),
    "taxonomy": ("EMOTIONS", "canonical"),
}
__all__ = [
    "EMOTIONS", "VAD", "Audit", "Battery", "Bounds", "Imported", "Ratings", "Stimulus", "alpha", "audit",
    "balance_figure", "canonical", "contrast", "floors_figure", "load_battery", "read_norms", "read_published",
    "read_ratings", "read_table", "relabel", "survey", "vad", "view", "write_battery", "write_survey",
]  # fmt: skip
__getattr__, __dir__ = lazily(__name__, {name: module for module, names in _FROM.items() for name in names})
