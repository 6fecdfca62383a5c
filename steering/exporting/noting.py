"""What an exported file says of itself: where the vector comes from, in JSON for programs and in words for people."""

import json
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from affectlens.sites import Site
from affectlens.steering.plan import SteeringPlan
from affectlens.types import Json


def provenance(plan: SteeringPlan) -> Json:
    """Model, fingerprint and one entry a term of a plan, as JSON."""
    first = plan.terms[0].direction
    terms = [
        {
            "emotion": term.direction.emotion, "dose": term.dose, "dose_is_raw": term.raw, "raw": term.strength,
            "site": term.direction.site, "norm": term.direction.norm,
            "norm_measured": term.direction.facts.get("norm_measured", term.direction.norm),
            "method": term.direction.method, "purified": list(term.direction.purified),
            "battery": term.direction.battery, "battery_sha256": term.direction.battery_sha256,
        }
        for term in plan.terms
        if term.strength
    ]  # fmt: skip
    return {"model": first.model, "fingerprint": first.fingerprint, "conflict": plan.conflict, "terms": terms}


def as_json(plan: SteeringPlan) -> str:
    return json.dumps(provenance(plan))


def norms_in(text: str, fingerprint: str) -> dict[int, float]:
    """The norms by layer that a file of ours states, if it is of the model with this fingerprint; else none."""
    try:
        found = json.loads(text)
        if found["fingerprint"] != fingerprint:
            return {}
        sites = {term["site"]: float(term.get("norm_measured", term["norm"])) for term in found["terms"]}
        return {int(site.removeprefix("L").partition(".")[0]): norm for site, norm in sites.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def in_words(plan: SteeringPlan, sizes: dict[str, float], family: str) -> str:
    """The README of a folder with a baked checkpoint, in Markdown.

    Args:
        plan: what was baked.
        sizes: the length of what is added by site, in the model's units.
        family: a sentence on how the architecture was changed; empty if it was not.
    """
    about = provenance(plan)
    rows = "\n".join(
        f"| {t['emotion']} | {t['dose']:g}{' (raw)' if t['dose_is_raw'] else ''} | {t['raw']:.4g} | {t['site']} "
        f"| {t['norm']:.4g} | {t['method']} | {_battery(t)} |"
        for t in about["terms"]
    )
    lengths = ", ".join(f"{size:.4g} at {site}" for site, size in sizes.items())
    kinds = ", ".join(dict.fromkeys(f"{t['emotion']} {t['dose']:g}" for t in about["terms"]))
    return f"""---
tags: [affectlens, steered]
---
# {about["model"]}, steered: {kinds}

**This is not the original model.** A steering vector is baked into its biases, so every text that it writes is steered,
in any engine that loads it, without hooks. Nothing in a prompt shows it: say so wherever you use it.

| emotion | dose | share of the norm | site | norm | found by | battery |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

A dose of 1.0 is the emotion's validated safe dose; one that is marked as raw is the share of the site's median norm
itself. What is added at every token has a length of {lengths}.

- Original: {about["model"]}, fingerprint `{about["fingerprint"]}`. Its licence and terms of use hold for this copy too.
- {family or "Its architecture is the original's."}
- When this folder was written, its logits were compared with those of the original steered by hooks, at a prompt and at
  cached decode steps, and were the same.

Made by AffectLens.
"""


def _battery(term: Json) -> str:
    return f"{term['battery']} `{term['battery_sha256'][:12]}`" if term["battery"] else "not stated"


def sizes_of(sums: Mapping[Site, Float[np.ndarray, " d"]]) -> dict[str, float]:
    """The length of each vector, by the text of its site."""
    return {str(site): float(np.linalg.norm(vector)) for site, vector in sums.items()}
