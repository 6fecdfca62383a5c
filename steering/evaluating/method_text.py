"""The methods paragraph of an evaluation, generated from it, and the works that it rests on."""

from typing import TYPE_CHECKING

from affectlens.stats import DRAWS, FEW_CLUSTERS
from affectlens.steering.evaluating.frames import PLACEBOS, REPORT
from affectlens.steering.evaluating.quality import LOOPED, POOR, STRANGE
from affectlens.steering.evaluating.safety import HIGHEST
from affectlens.steering.evaluating.trends import DRAWS as EXCHANGES
from affectlens.steering.evaluating.verdicts import LEVEL

if TYPE_CHECKING:
    from affectlens.steering.evaluating.result import SteeringReport

REFERENCES = """@inproceedings{li2016diversity,
  title = {A Diversity-Promoting Objective Function for Neural Conversation Models},
  author = {Li, Jiwei and Galley, Michel and Brockett, Chris and Gao, Jianfeng and Dolan, Bill},
  booktitle = {Proceedings of NAACL-HLT 2016},
  year = {2016},
  eprint = {1510.03055},
  archivePrefix = {arXiv}
}

@article{cohen1960kappa,
  title = {A Coefficient of Agreement for Nominal Scales},
  author = {Cohen, Jacob},
  journal = {Educational and Psychological Measurement},
  volume = {20},
  pages = {37--46},
  year = {1960}
}

@article{rogan1978prevalence,
  title = {Estimating Prevalence from the Results of a Screening Test},
  author = {Rogan, Walter J. and Gladen, Beth},
  journal = {American Journal of Epidemiology},
  volume = {107},
  pages = {71--76},
  year = {1978}
}

@article{page1963ordered,
  title = {Ordered Hypotheses for Multiple Treatments: A Significance Test for Linear Ranks},
  author = {Page, Ellis Batten},
  journal = {Journal of the American Statistical Association},
  volume = {58},
  pages = {216--230},
  year = {1963}
}

@article{benjamini1995fdr,
  title = {Controlling the False Discovery Rate: A Practical and Powerful Approach to Multiple Testing},
  author = {Benjamini, Yoav and Hochberg, Yosef},
  journal = {Journal of the Royal Statistical Society, Series B},
  volume = {57},
  pages = {289--300},
  year = {1995}
}

@book{westfall1993resampling,
  title = {Resampling-Based Multiple Testing: Examples and Methods for p-Value Adjustment},
  author = {Westfall, Peter H. and Young, S. Stanley},
  publisher = {Wiley},
  year = {1993}
}"""
_PLACEBO = {"random": "random directions", "shuffled": "directions found from shuffled labels",
            "mean": "the mean of all directions", "orthogonal": "directions orthogonal to the target's"}  # fmt: skip


def methods(report: "SteeringReport") -> str:
    """The paragraph.

    Args:
        report: of an evaluation.
    """
    facts, mine = report.facts, report.replies[report.replies["half"] == REPORT]
    seeds = int(mine["seed"].nunique())
    model = f" in {facts['model']}" if "model" in facts else ""
    draws = {kind: int(mine.loc[mine["condition"] == kind, "draw"].nunique()) for kind in PLACEBOS}
    placebo = ", ".join(f"{_PLACEBO[kind]} ({n} draws)" for kind, n in draws.items() if n) or "none were run"
    corrections = [one for one in report.targets["correction"].dropna().unique() if one in _FAMILY]
    family = "; ".join(_FAMILY[one] for one in corrections) or "there was no family to correct"
    return (
        f"Replies{model} were steered to {len(report.emotions)} emotions by directions of the method {report.method}, "
        f"doses being fractions of the median norm at the site, and written to {facts['n_choose']} prompts on which "
        f"doses were chosen and {facts['n_report']} others on which all is reported, {seeds} sampling "
        f"{'seed' if seeds == 1 else 'seeds'} each, the same for every condition. The safe dose is the largest for "
        f"which the perplexity of replies under the unsteered model and that of neutral text under the steered one "
        f"are at most {HIGHEST} times the plain ones (ratios of geometric means), there and at every smaller dose. "
        f"Judges ({', '.join(facts['judges'])}) were not told the target; they abstain from classes that they lack, "
        "and one whose recall on human-written texts is on no source surely above its false alarms has no say on that "
        "class. A "
        f"reply is degenerate if it is empty, if more than {LOOPED:.0%} of its tokens are in loops, if its distinct-2 "
        f"(Li et al. 2016) is below {POOR} or its perplexity above {STRANGE:.0f} times the plain geometric mean. "
        f"Intervals are 95%: a bootstrap by prompt ({DRAWS:,} draws; below {FEW_CLUSTERS} prompts the cluster "
        "jackknife with Student's t; at a "
        "bound the exact binomial), differences paired by prompt. Whether shares rise with the dose was tested by "
        f"exchanging doses within prompts ({EXCHANGES:,} draws, the design of Page 1963; Benjamini and Hochberg "
        f"over emotions). Placebos of the same norm: "
        f"{placebo}. Their p is the rank of the target share among the draws', over the prompts and seeds that all "
        f"have, (1 + hits) / (1 + draws); {family}. Where the least p times "
        f"the number of emotions is above {LEVEL}, the paired difference counts instead, and a placebo whose rank "
        "counts is needed for any claim. Shares corrected for a judge's errors on human texts follow Rogan "
        f"and Gladen (1978); agreement is Cohen's kappa (1960). Seed {facts['seed']}."
    )


_FAMILY = {
    "max-T": "the family of emotions is corrected by max-T over draws (Westfall and Young 1993)",
    "Benjamini-Hochberg": "the family of emotions, whose draws differ, by Benjamini and Hochberg (1995)",
}
