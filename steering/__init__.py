"""Directions of emotion, and steering by them: extract, explain, steer, measure, export."""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.steering import dynamics, engines, evaluating, exporting, extracting, judging, serving, talking
    from affectlens.steering.applying import steer
    from affectlens.steering.directions import Direction, Directions
    from affectlens.steering.evaluating.result import SteeringReport, report_on
    from affectlens.steering.evaluating.study import evaluate
    from affectlens.steering.evaluating.work import Scale
    from affectlens.steering.exporting import export, import_directions
    from affectlens.steering.extracting import (
        cosine_heat,
        cosines,
        extract,
        from_decoder,
        placebos,
        score_curve,
        select_parts,
    )
    from affectlens.steering.extracting.featuring import feature_directions
    from affectlens.steering.gates import Gate, parse_gate
    from affectlens.steering.judging import encoder_judge, endpoint_judge, kappa, likelihood_judge
    from affectlens.steering.looping import Loop, parse_loop
    from affectlens.steering.plan import SteeringPlan, plan_for
    from affectlens.steering.shipped import bundled, load_directions
    from affectlens.steering.side_by_side import beside
    from affectlens.steering.sides import Beside
    from affectlens.steering.writing import stream, write

_FROM = {
    "": ("dynamics", "engines", "evaluating", "exporting", "extracting", "judging", "serving", "talking"),
    "applying": ("steer",),
    "directions": ("Direction", "Directions"), "evaluating.result": ("SteeringReport", "report_on"),
    "evaluating.study": ("evaluate",), "evaluating.work": ("Scale",), "exporting": ("export", "import_directions"),
    "extracting": ("cosine_heat", "cosines", "extract", "from_decoder", "placebos", "score_curve", "select_parts"),
    "extracting.featuring": ("feature_directions",),
    "gates": ("Gate", "parse_gate"), "looping": ("Loop", "parse_loop"),
    "judging": ("encoder_judge", "endpoint_judge", "kappa", "likelihood_judge"),
    "plan": ("SteeringPlan", "plan_for"), "shipped": ("bundled", "load_directions"), "side_by_side": ("beside",),
    "sides": ("Beside",), "writing": ("stream", "write"),
}  # fmt: skip
__all__ = [
    "Beside",
    "Direction",
    "Directions",
    "Gate",
    "Loop",
    "Scale",
    "SteeringPlan",
    "SteeringReport",
    "beside",
    "bundled",
    "cosine_heat",
    "cosines",
    "dynamics",
    "encoder_judge",
    "endpoint_judge",
    "engines",
    "evaluate",
    "evaluating",
    "export",
    "exporting",
    "extract",
    "extracting",
    "feature_directions",
    "from_decoder",
    "import_directions",
    "judging",
    "kappa",
    "likelihood_judge",
    "load_directions",
    "parse_gate",
    "parse_loop",
    "placebos",
    "plan_for",
    "report_on",
    "score_curve",
    "select_parts",
    "serving",
    "steer",
    "stream",
    "talking",
    "write",
]
__getattr__, __dir__ = lazily(__name__, {name: module for module, names in _FROM.items() for name in names})
