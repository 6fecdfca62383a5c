"""The methods paragraph of a patch or ablate run, generated from it, and the works that it rests on."""

from typing import TYPE_CHECKING

from affectlens.patching.ablation import AblationSweep
from affectlens.patching.named import CUE
from affectlens.patching.settings import Settings, from_config
from affectlens.patching.words import CONTROLS
from affectlens.sites import Site
from affectlens.stats import DRAWS, FEW_CLUSTERS

if TYPE_CHECKING:
    from affectlens.patching.study import Finished

_MEANING = {
    "affect": "the projection of the residual stream leaving layer {layer}, averaged over all tokens but the first, on "
    "the unit difference of means between emotional and neutral texts, fitted on other groups than the pair's",
    "category": "the log-odds of the pair's emotion among the battery's, by differences of means in the residual "
    "stream leaving layer {layer}, averaged over all tokens but the first, fitted on other groups than the pair's",
    "valence": "the projection of the residual stream leaving layer {layer}, averaged over all tokens but the first, "
    "on the unit difference of means between pleasant and unpleasant texts, fitted on other groups than the pair's "
    "and turned to the sign of the clean text",
    "said_category": "the log-odds of words for the clean text's emotion against words for the other seven, as what "
    "the model writes next",
    "said_valence": "log P of pleasant words less log P of unpleasant ones as what the model writes next, turned to "
    "the sign of the clean text",
    "kl": "minus the divergence of the distribution of the next token from the clean run's",
}
_ABLATED = {"mean": "the mean over other groups' texts at the same span", "zero": "zeros",
            "resample": "the values of a text of another group, as far from the end"}  # fmt: skip
_CHOSEN = (
    " The cue and the words were chosen on the battery core, of which starter is a part: on these, whether the answers "
    "differ is not independent of that choice; where the difference is carried is."
)
_SPECIFIC = {
    "patch": "A cell is called specific if its effect and its difference from every null control (for denoising a "
    "random text, a neutral text and another position; for noising a text of the same emotion and another position), "
    "paired by pair, are positive with adjusted p at most 0.05, max-T over cells and these controls.",
    "ablate": "A step is called specific if its effect and its difference from the random change are positive with "
    "adjusted p at most 0.05, max-T over both.",
}
HEIMERSHEIM = """@misc{heimersheim2024patching,
  title = {How to use and interpret activation patching},
  author = {Heimersheim, Stefan and Nanda, Neel},
  year = {2024},
  eprint = {2404.15255},
  archivePrefix = {arXiv}
}"""
ZHANG = """@inproceedings{zhang2024patching,
  title = {Towards Best Practices of Activation Patching in Language Models: Metrics and Methods},
  author = {Zhang, Fred and Nanda, Neel},
  booktitle = {International Conference on Learning Representations},
  year = {2024},
  eprint = {2309.16042},
  archivePrefix = {arXiv}
}"""
GEVA = """@inproceedings{geva2023dissecting,
  title = {Dissecting Recall of Factual Associations in Auto-Regressive Language Models},
  author = {Geva, Mor and Bastings, Jasmijn and Filippova, Katja and Globerson, Amir},
  booktitle = {Proceedings of the 2023 Conference on Empirical Methods in Natural Language Processing},
  year = {2023},
  eprint = {2304.14767},
  archivePrefix = {arXiv}
}"""
WESTFALL = """@book{westfall1993resampling,
  title = {Resampling-Based Multiple Testing: Examples and Methods for p-Value Adjustment},
  author = {Westfall, Peter H. and Young, S. Stanley},
  publisher = {Wiley},
  year = {1993}
}"""


def methods(done: "Finished") -> str:
    """The paragraph.

    Args:
        done: a run with its finished parts.
    """
    first = next(iter(done.said.values())).sweep.meta
    metrics = dict.fromkeys(name for part in done.said.values() for name in part.metrics)
    read = "; ".join(f"{name} is {meaning(done, name)}" for name in metrics)
    cue = f", each followed by the cue {first['cue']!r}" if first["cue"] else ""
    chat = ", as the user's message of a conversation" if first["chat"] else ""
    sets = "; ".join(f"{name}: {one.sweep.meta['n_pairs']} pairs in {one.sweep.pairs['group'].nunique()} groups"
                     for name, one in done.said.items())  # fmt: skip
    spoken = _CHOSEN if any(name.startswith("said_") for name in metrics) and first["cue"] == CUE else ""
    return (
        f"{_did(done)} Model: {first['model']} ({first['source'] or 'weights as loaded'}; fingerprint "
        f"{first['fingerprint'][:12]}), {first['n_layers']} layers, {done.run.info['config']['dtype']}. Texts: matched "
        f"pairs of the battery {first['battery']} (SHA-256 {first['battery_sha256'][:12]}){cue}{chat} ({sets}). "
        f"Metrics, of one and the same run: {read}.{spoken} {_exact(done)} {_statistics(done)} Seed {first['seed']}."
    )


def meaning(done: "Finished", metric: str) -> str:
    """What a metric is, for a sentence.

    Args:
        done: a run.
        metric: its name.
    """
    asked = from_config(Settings, done.run.info["config"])
    n_layers = next(iter(done.said.values())).sweep.meta["n_layers"]
    layer = 3 * n_layers // 4 if asked.layer is None else asked.layer
    return _MEANING.get(metric, metric).format(layer=layer)


def references(done: "Finished") -> str:
    """BibTeX of the works that the methods come from.

    Args:
        done: a run.
    """
    cut = any(part.sweep.meta.get("ablation") == "knockout" for part in done.said.values())
    return "\n\n".join([HEIMERSHEIM, ZHANG, *([GEVA] if cut else []), WESTFALL])


def _did(done: "Finished") -> str:
    said = []
    for name, part in done.said.items():
        meta = part.sweep.meta
        at = ", ".join(meta["positions"])
        if isinstance(part.swept, AblationSweep):
            said.append(_ablated(meta["ablation"], _sites(meta["sites"]), at, bool(meta["controls"]), meta))
            continue
        way = "from the clean text into the run of the corrupt one" if meta["direction"] == "denoise" else (
            "from the corrupt text into the run of the clean one")  # fmt: skip
        by = "; in their place values of " + ", ".join(CONTROLS[one] for one in meta["controls"]) if (
            meta["controls"]) else "; no controls were run"  # fmt: skip
        said.append(f"Values of {_sites(meta['sites'])} were patched {way} ({name}) at {at}{by}.")
    if done.run.info["command"] == "patch":
        said.append(
            "Tokens were matched from the ends of the clause that differs and of what follows it; a token without a "
            "match was not patched."
        )
    return "Activation patching and ablation (Heimersheim and Nanda 2024; Zhang and Nanda 2024). " + " ".join(said)


def _ablated(kind: str, sites: str, at: str, control: bool, meta: dict[str, object]) -> str:
    if kind == "knockout":
        return (
            f"Attention was cut ({at}; {meta['window']} layers together) by scores of minus infinity before the "
            "softmax (Geva et al. 2023)."
        )
    beside = ", beside random changes of the same norm at the same tokens" if control else ""
    summed = ", cumulatively in the order named" if meta["cumulative"] else ""
    return f"Values of {sites} were replaced at {at} by {_ABLATED[kind]}, in both texts of a pair{summed}{beside}."


def _sites(names: list[str]) -> str:
    """Kinds, each with how many there are."""
    kinds: dict[str, int] = {}
    for site in map(Site.parse, names):
        one = "neurons" if site.kind == "neurons" else f"heads' {site.kind}"
        kind = site.kind if site.index is None else f"single {one}"
        kinds[kind] = kinds.get(kind, 0) + 1
    return ", ".join(f"{kind} ({n} sites)" for kind, n in kinds.items())


def _exact(done: "Finished") -> str:
    within = "1e-4" if done.run.info["config"]["dtype"] == "float32" else "5e-2"
    return (
        "Each run was resumed from the first layer and token that it changes, with the text's own residual stream, "
        f"keys and values before; on this model that was checked against whole hooked forwards to {within} (relative), "
        "and whole forwards take its place where the check fails."
    )


def _statistics(done: "Finished") -> str:
    return (
        "An effect is the sum of changes over the sum of gaps, a ratio of means over pairs; pairs whose unpatched "
        "metrics are equal within rounding (1e-5) were left out before any patched value was seen. Intervals are 95%: "
        f"a cluster bootstrap by group ({DRAWS:,} draws), below {FEW_CLUSTERS} groups a cluster jackknife with "
        "Student's t. P values are of sign flips of the groups' summed changes, max-T over all cells of a metric "
        f"(Westfall and Young 1993). {_SPECIFIC[done.run.info['command']]}"
    )
