"""``export``: one constant vector a site, from doses of directions or from a plan, into another engine's format."""

from collections.abc import Mapping
from pathlib import Path

from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.steering.directions import Directions
from affectlens.steering.exporting.noting import as_json
from affectlens.steering.exporting.summing import by_layer, constant, plan_of
from affectlens.steering.plan import SteeringPlan

FORMATS = ("gguf", "repeng", "easysteer", "checkpoint")


def export(
    directions: Directions | SteeringPlan,
    path: str | Path,
    *,
    to: str,
    doses: Mapping[str, float] | None = None,
    raw: bool = False,
    model: LensModel | None = None,
) -> Path:
    """Write what doses of directions add, for another engine. Several emotions become one vector a layer.

    The file holds the dose: load it with strength 1 (llama.cpp ``--control-vector``, repeng ``coeff=1.0``, EasySteer
    ``scale=1.0``). What is written is checked to be exact for ``checkpoint``, by running it; see docs/exporting.md.

    Args:
        directions: a set with ``doses``, or a plan, which has its own.
        path: the file (``.gguf``), or the new folder of a checkpoint.
        to: ``gguf`` (llama.cpp), ``repeng``, ``easysteer``, or ``checkpoint``: a Hugging Face folder with the vectors
            in its biases, for any engine that loads it.
        doses: such as ``{"joy": 0.6, "fear": -0.3}``; 1.0 is an emotion's safe dose.
        raw: doses are shares of the site's median norm instead.
        model: the model that the directions belong to; needed for ``checkpoint``, else used to check and to name it.

    Returns:
        The path that was written.

    Raises:
        SteerError: an unknown format, a path where something is already, nothing to export, a plan that no file can
            hold, a site or a layer that the format has no place for, a family that a vector can't be baked into,
            another model's directions.
    """
    if to not in FORMATS:
        raise SteerError(f"There is no format {to!r}; choose from {', '.join(FORMATS)}.")
    plan = _plan(directions, doses, raw=raw)
    sums = constant(plan)
    if model is not None:
        Directions(term.direction for term in plan.terms).expect(model)
    target = Path(path).expanduser()
    if target.exists():
        raise SteerError(f"{target} exists already: choose another name, or remove it.")
    if to == "checkpoint":
        if model is None:
            raise SteerError("A checkpoint is written from the model itself: give export model=.")
        from affectlens.steering.exporting.baking import bake

        return bake(model, plan, sums, target)
    from affectlens.steering.exporting.vectors import write_vectors

    vectors = by_layer(sums)
    methods = dict.fromkeys(term.direction.method for term in plan.terms if term.strength)
    hint = str(model.hf.config.model_type) if model is not None else plan.terms[0].direction.model
    return write_vectors(target, vectors, to=to, hint=hint, method=", ".join(methods), provenance=as_json(plan))


def _plan(directions: Directions | SteeringPlan, doses: Mapping[str, float] | None, *, raw: bool) -> SteeringPlan:
    if isinstance(directions, SteeringPlan):
        if doses is not None or raw:
            raise SteerError("A plan has its doses already: give export either a plan, or directions with doses=.")
        return directions
    if doses is None:
        raise SteerError('Say how much to export: doses such as {"joy": 0.6}.')
    return plan_of(directions, doses, raw=raw)
