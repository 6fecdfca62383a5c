"""The methods paragraph of a study, generated from it, and the works that it rests on."""

from typing import TYPE_CHECKING

from affectlens.stats import DRAWS, FEW_CLUSTERS
from affectlens.steering.dynamics.dosing import STEP
from affectlens.stimuli.norms import SOURCE

if TYPE_CHECKING:
    from affectlens.steering.dynamics.result import DynamicsReport

REFERENCES = """@misc{subaharan2026dynamics,
  title = {Controlling Long-Horizon Behavior in Language Model Agents with Explicit State Dynamics},
  author = {Subaharan, Sukesh},
  year = {2026},
  eprint = {2601.16087},
  archivePrefix = {arXiv}
}

@article{scott2019glasgow,
  title = {The Glasgow Norms: Ratings of 5,500 Words on Nine Scales},
  author = {Scott, Graham G. and Keitel, Anne and Becirspahic, Marc and Yao, Bo and Sereno, Sara C.},
  journal = {Behavior Research Methods},
  volume = {51},
  pages = {1258--1270},
  year = {2019}
}

@inproceedings{hutto2014vader,
  title = {VADER: A Parsimonious Rule-Based Model for Sentiment Analysis of Social Media Text},
  author = {Hutto, C. J. and Gilbert, Eric},
  booktitle = {Proceedings of ICWSM},
  year = {2014}
}

@book{westfall1993resampling,
  title = {Resampling-Based Multiple Testing: Examples and Methods for p-Value Adjustment},
  author = {Westfall, Peter H. and Young, S. Stanley},
  publisher = {Wiley},
  year = {1993}
}"""


def methods(report: "DynamicsReport") -> str:
    """The paragraph.

    Args:
        report: of a study.
    """
    facts = report.facts
    dropped = int(facts.get("dropped", 0))
    lost = f"; {dropped} exchanges did not fit and were dropped" if dropped else ""
    shown = f"the last {facts['history']} exchanges" if facts["history"] else "no earlier exchange"
    return (
        f"{facts['model']} held conversations of {facts['turns']} turns whose user lines were written beforehand: "
        f"{len(facts['scripts'])} scripts ({', '.join(facts['scripts'])}; protocols {', '.join(facts['protocols'])}), "
        f"{facts['repeats']} time(s) each, replies of at most {facts['max_new_tokens']} tokens at temperature "
        f"{facts['temperature']} (top_p {facts['top_p']}) with the same luck under every policy. The model was shown "
        f"{shown} of each conversation{lost}. Beside it a state of valence, arousal and dominance was kept "
        f"({'; '.join(report.rules)}), fed at each turn by `{facts['feed']}` with the user's line plus {facts['own']} "
        "times the model's last reply, each less what the feed reads in calm lines and in plain replies to them, "
        f"after the dynamics of Subaharan (2026). Emotions' coordinates are those of their names ({SOURCE}). Doses "
        f"are of the {facts['nearest']} emotion(s) at the least angle to the state's offset, in proportion to its "
        f"length beyond {facts['still']:.3f} (up to there the mood counts as at rest and nothing is steered), over "
        f"{facts['full']}, at most {facts['ceiling']} together, in steps of {STEP}; a dose of 1 is the "
        "emotion's safe dose. Controls: no steering; the doses of the rule's mean trajectory over the other "
        "scripts without feedback; the closed loop's mean doses throughout, rescaled to add a vector of the same mean "
        "length; its doses in another order of turns. Replies were measured "
        f"by `{facts['instrument']}`; of {facts['unread']} of {len(report.turns)} nothing could be read, which counts "
        f"as 0. Settling is within {facts['band']:.2f} of the mean of plain replies to the script's calm turns, "
        f"smoothed over {facts['window']} turns (by default what noise like theirs stays within in 95% of scripts); "
        "scripts that never settle count with all their turns. Intervals are 95% over scripts (bootstrap of "
        f"{DRAWS:,} draws; below {FEW_CLUSTERS} scripts the jackknife with Student's t). Figures are tested against "
        "other orders of turns within scripts, differences of response and hysteresis to each control by flipping the "
        f"signs of scripts, both corrected by max-T (Westfall and Young 1993). Seed {facts['seed']}."
    )
