"""``import_directions``: a control vector of any engine as directions of ours."""

from pathlib import Path

import numpy as np

from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.sites import Site
from affectlens.steering.directions import Direction, Directions, spelled, unit
from affectlens.steering.exporting.noting import norms_in
from affectlens.steering.exporting.vectors import read_vectors
from affectlens.steering.norms import median_norms
from affectlens.texts import Texts
from affectlens.types import Json


def import_directions(
    path: str | Path, model: LensModel, *, emotion: str, texts: Texts | None = None, progress: bool | None = None
) -> Directions:
    """Read a GGUF control vector: of ours, repeng's, EasySteer's, or of llama.cpp's cvector-generator.

    ``direction.N`` becomes a direction at ``LN.resid_post``, as all these engines apply it. A direction has length one,
    and ``facts`` keep the file's ``length`` at its layer, the stream's median norm there (``norm_measured``), and
    ``raw``: the one dose at which all layers together do what the file does. It is the median over layers of length by
    measured norm, and each direction's ``norm`` is its length by ``raw``: of a single layer the measured norm itself.
    Nobody has validated it: there is no safe dose, so steer with ``raw=True``.

    Args:
        path: the ``.gguf`` file.
        model: the model to steer; the file must have its width, and layers that it has.
        emotion: what the vector stands for: one of Plutchik's eight, or a name of yours.
        texts: what the residual stream's norms are measured on; the battery ``starter`` by default. A file that was
            exported here from this very model states its norms, and they are taken from there.
        progress: show a bar while they are measured; by default where a person is looking.

    Returns:
        One direction a layer of the file, without those that are all zero.

    Raises:
        SteerError: not a control vector, one of another width or depth, or one that is all zero.
    """
    source = Path(path).expanduser()
    found, said = read_vectors(source)
    vectors = {layer: vector for layer, vector in sorted(found.items()) if vector.any()}
    if not vectors:
        raise SteerError(f"{source.name} is all zero: there is nothing to import.")
    for layer, vector in vectors.items():
        if layer >= model.n_layers or vector.size != model.d_model:
            raise SteerError(
                f"{source.name} has {vector.size} numbers at layer {layer}, and {model.name} has {model.d_model} at "
                f"layers 0 to {model.n_layers - 1}: it was made for another model."
            )
    sites = {layer: Site("resid_post", layer) for layer in vectors}
    norms = _norms(model, sites, said["provenance"], texts, progress=progress)
    lengths = {layer: float(np.linalg.norm(vector.astype(np.float64))) for layer, vector in vectors.items()}
    raw = float(np.median([length / norms[layer] for layer, length in lengths.items()]))
    return Directions(
        Direction(
            emotion=spelled(emotion), site=sites[layer].text, vector=unit(vector), norm=lengths[layer] / raw,
            method=said["method"] or "imported", model=model.name, fingerprint=model.fingerprint, position="",
            fixed=np.zeros((0, model.d_model), np.float32),
            facts=_facts(source, lengths[layer], norms[layer], raw, said),
        )
        for layer, vector in vectors.items()
    )  # fmt: skip


def _norms(
    model: LensModel, sites: dict[int, Site], provenance: str, texts: Texts | None, *, progress: bool | None
) -> dict[int, float]:
    stated = norms_in(provenance, model.fingerprint)
    if texts is None and set(sites) <= set(stated):
        return stated
    if texts is None:
        from affectlens.stimuli import load_battery

        texts = load_battery("starter")
    measured = median_norms(model, sites.values(), texts, progress=progress)
    return {layer: measured[site] for layer, site in sites.items()}


def _facts(source: Path, length: float, norm: float, raw: float, said: dict[str, str]) -> Json:
    return {
        "file": source.name, "file_sha256": said["sha256"], "model_hint": said["model_hint"],
        "length": length, "norm_measured": norm, "raw": raw,
    }  # fmt: skip
