"""Autoencoders from files: a folder, a release of SAELens, or this package; brought to one form."""

import hashlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from affectlens.errors import StoreError
from affectlens.probing.sae import FACTS, Sae, sae_lens
from affectlens.sites import Site
from affectlens.types import Json

DATA = Path(__file__).parent / "data"


def wrap(inner: Any, name: str, *, site: str | Site | None = None, facts: Json | None = None) -> Sae:
    """An autoencoder of SAELens in memory as one of ours.

    Args:
        inner: a ``sae_lens.SAE``.
        name: what to call it.
        site: what it reads, if its configuration does not say.
        facts: what is known of it.

    Raises:
        StoreError: it does not say what it reads or how its inputs were scaled, or it rebuilds something else.
    """
    meta = inner.cfg.metadata
    where = site or meta.hook_name
    if not where:
        raise StoreError(f"The autoencoder {name} does not say what it reads: give site=, for example L15.resid_post.")
    if inner.W_dec.shape[1] != inner.cfg.d_in:
        raise StoreError(f"{name} is a transcoder: it rebuilds another site than it reads, so no error can be kept.")
    if inner.cfg.normalize_activations == "expected_average_only_in":
        raise StoreError(
            f"{name} was trained on scaled inputs and does not say how they were scaled: save it with SAELens's "
            "save_inference_model, which folds the scale into its weights."
        )
    inner.to(dtype=torch.float32).eval().requires_grad_(False)
    inner.turn_off_forward_pass_hook_z_reshaping()  # heads are laid side by side before it is asked
    if getattr(inner.cfg, "rescale_acts_by_decoder_norm", False):
        inner.fold_W_dec_norm()  # then a row of the decoder is what an activation of 1 writes
        inner.cfg.rescale_acts_by_decoder_norm = False
    return Sae(name.lower(), where if isinstance(where, Site) else Site.parse(str(where)), str(meta.model_name or ""),
               digest(inner), inner, dict(facts or {}))  # fmt: skip


def digest(inner: Any) -> str:
    """A SHA-256 over weights, and the settings that change what they compute."""
    told = inner.cfg.to_dict()
    settings = {key: value for key, value in told.items() if key not in ("metadata", "device")}
    out = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, value in sorted(inner.state_dict().items()):
        out.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
    return out.hexdigest()


def bundled_saes() -> tuple[str, ...]:
    """The models that an autoencoder is bundled for."""
    return tuple(sorted(path.name.removeprefix("sae_") for path in DATA.glob("sae_*") if path.is_dir()))


def load_sae(
    name: str | Path, sae_id: str | None = None, *, site: str | Site | None = None, device: str = "cpu"
) -> Sae:
    """An autoencoder: the one bundled for a model, a local folder, or a release of SAELens.

    What is on this machine comes first; only a release that is not in the hub's cache is fetched.

    Args:
        name: a catalogue name such as ``smollm2-135m``, a folder with SAELens' files, or a release.
        sae_id: which one of the release.
        site: what it reads, if its configuration does not say.
        device: where its weights go; :meth:`Sae.attach` moves them to the model's.

    Raises:
        StoreError: no such folder or release, files that can't be read, or no network for a release.
    """
    folder = DATA / f"sae_{name}" if str(name) in bundled_saes() else Path(name).expanduser()
    if folder.is_dir() and not (folder / "cfg.json").is_file() and (folder / "sae").is_dir():
        folder = folder / "sae"  # a run of features train
    if not folder.is_dir():
        return _release(str(name), sae_id, site, device)
    with sae_lens() as library:
        try:
            inner = library.SAE.load_from_disk(folder, device=device, dtype="float32")
        except Exception as error:  # it raises whatever its parts do
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StoreError(
                f"{folder} holds no autoencoder that SAELens can read ({said}): it needs cfg.json and "
                "sae_weights.safetensors."
            ) from None
    path = folder / FACTS
    facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    name, own = facts.pop("name", folder.name), facts.pop("site", None)
    return wrap(inner, str(name), site=site or own, facts=facts)


def _release(release: str, sae_id: str | None, site: str | Site | None, device: str) -> Sae:
    with sae_lens() as library:
        from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

        known = get_pretrained_saes_directory()
        if release not in known and "/" not in release:
            raise StoreError(
                f"There is no folder {release}, no autoencoder bundled under that name "
                f"({', '.join(bundled_saes()) or 'none is bundled'}), and no release of SAELens called so."
            )
        ids = list(known[release].saes_map) if release in known else []
        if sae_id is None or (ids and sae_id not in ids):
            shown = ", ".join(ids[:6]) + (f" and {len(ids) - 6} more" if len(ids) > 6 else "")
            raise StoreError(f"Name one of the release {release}: {shown or 'the folder of the one you want'}.")
        try:
            inner = _offline_first(library, release, sae_id, device)
        except Exception as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StoreError(
                f"{release} {sae_id} is not in the hub's cache on this machine and could not be fetched ({said[:120]}):"
                " check the network, or give a local folder."
            ) from None
    return wrap(inner, f"{release}/{sae_id}".replace("/", "-"), site=site, facts={"release": release, "id": sae_id})


def _offline_first(library: ModuleType, release: str, sae_id: str, device: str) -> Any:
    """From the hub's cache; over the network only if it is not there."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        return library.SAE.from_pretrained(release, sae_id, device=device)
    except Exception:
        if before:
            raise
    finally:
        constants.HF_HUB_OFFLINE = before
    return library.SAE.from_pretrained(release, sae_id, device=device)
