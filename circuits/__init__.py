"""Circuits: the edges that carry an emotion, found by gradients, verified by intervention, turned at inference."""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.circuits.agreeing import AgreementReport, agree, circuit_by_layer, read_by_emotion
    from affectlens.circuits.asking import Question, questions
    from affectlens.circuits.assembling import assemble, node_effects
    from affectlens.circuits.evaluating import circuit_values
    from affectlens.circuits.graph import CircuitGraph
    from affectlens.circuits.modulating import Modulation, compare, modulate, modulation_of
    from affectlens.circuits.overlapping import overlap_table, overlaps
    from affectlens.circuits.pathing import path_patch
    from affectlens.circuits.picture import details_of, show, write_picture
    from affectlens.circuits.sampling import random_circuits
    from affectlens.circuits.scoring import EdgeScores, score_edges
    from affectlens.circuits.selecting import at_sizes, greedy, threshold
    from affectlens.circuits.space import EdgeSpace
    from affectlens.circuits.verifying import Verification, verify
    from affectlens.circuits.wheel import dendrogram

_FROM = {
    "agreeing": ("AgreementReport", "agree", "circuit_by_layer", "read_by_emotion"),
    "assembling": ("assemble", "node_effects"),
    "evaluating": ("circuit_values",),
    "graph": ("CircuitGraph",),
    "modulating": ("Modulation", "compare", "modulate", "modulation_of"),
    "overlapping": ("overlap_table", "overlaps"),
    "pathing": ("path_patch",),
    "picture": ("details_of", "show", "write_picture"),
    "asking": ("Question", "questions"),
    "sampling": ("random_circuits",),
    "scoring": ("EdgeScores", "score_edges"),
    "selecting": ("at_sizes", "greedy", "threshold"),
    "space": ("EdgeSpace",),
    "verifying": ("Verification", "verify"),
    "wheel": ("dendrogram",),
}
__all__ = [
    "AgreementReport", "CircuitGraph", "EdgeScores", "EdgeSpace", "Modulation", "Question", "Verification", "agree",
    "assemble", "at_sizes", "circuit_by_layer", "circuit_values", "compare", "dendrogram", "details_of", "greedy",
    "modulate", "modulation_of", "node_effects", "overlap_table", "overlaps", "path_patch", "questions",
    "random_circuits", "read_by_emotion", "score_edges", "show", "threshold", "verify", "write_picture",
]  # fmt: skip
__getattr__, __dir__ = lazily(__name__, {name: module for module, names in _FROM.items() for name in names})
