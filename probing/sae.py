"""Sparse autoencoders: any of SAELens's, from a folder, a release or this package. The only module that imports it.

SAELens (Bloom et al. 2024) reads and writes them; here they get an address in a model of ours.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.errors import SiteError, StoreError
from affectlens.model import LensModel
from affectlens.model_sites import Dictionary
from affectlens.paths import write_text
from affectlens.quiet import quiet_transformers
from affectlens.sites import Site
from affectlens.types import Json

DATA = Path(__file__).parent / "data"
FACTS = "affectlens.json"  # beside SAELens' own two files: recipe and evaluation


@contextmanager
def sae_lens() -> Iterator[ModuleType]:
    """The library, imported when first needed: it takes some seconds, and warns of its own parts' ages."""
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sae_lens as library

        yield library


@dataclass(frozen=True, eq=False)
class Sae:
    """A sparse autoencoder, ready for a model; ``features`` are its latents."""

    name: str  # in lower case, as it stands in L15.features@NAME
    site: Site  # what it reads and rebuilds
    model: str  # the model that it was trained on; empty if nothing says which
    sha256: str  # of its weights and configuration
    inner: Any = field(repr=False)  # the sae_lens.SAE
    facts: Json = field(default_factory=dict, repr=False)  # recipe and evaluation, if it came with them

    @property
    def n_features(self) -> int:
        return int(self.inner.cfg.d_sae)

    @property
    def d_in(self) -> int:
        return int(self.inner.cfg.d_in)

    @property
    def architecture(self) -> str:
        """SAELens' name for it: topk, jumprelu, standard, gated."""
        return str(self.inner.cfg.architecture())

    @property
    def device(self) -> torch.device:
        return next(self.inner.parameters()).device

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows n_features"]:
        """The features' activations, in float32 on the device of ``x``; most are zero."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.inner.encode(x.to(self.device, torch.float32)).float().to(x.device)

    @torch.no_grad()
    def rebuild(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_in"]:
        """What the autoencoder makes of ``x``, whatever its architecture and scaling."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.inner(x.to(self.device, torch.float32)).float().to(x.device)

    @property
    def scales_each_input(self) -> bool:
        """Whether inputs are normalised one by one: then codes alone do not say what they decode to."""
        return self.inner.cfg.normalize_activations in ("layer_norm", "constant_norm_rescale")

    @torch.no_grad()
    def decode(self, codes: Float[Tensor, "*rows n_features"]) -> Float[Tensor, "*rows d_in"]:
        """What the features write together, the bias included.

        Raises:
            StoreError: inputs were normalised one by one, so that codes alone do not decode.
        """
        if self.scales_each_input:
            raise StoreError(
                f"{self.name} normalises each input ({self.inner.cfg.normalize_activations}), so its codes alone do "
                "not say what they write: its features can be watched, not edited."
            )
        return self.inner.decode(codes.to(self.device, torch.float32)).float().to(codes.device)

    @cached_property
    def decoder(self) -> Float[np.ndarray, "feature d_in"]:
        """What each feature writes for an activation of 1, in the model's own space, in float32."""
        return self.inner.W_dec.detach().float().cpu().numpy()

    def attach(self, model: LensModel, name: str | None = None) -> Site:
        """Make the features sites of ``model``, ``L15.features@NAME`` and ``L15.F7@NAME``, and say where.

        Raises:
            SiteError: a site that the model lacks, or one of another width.
        """
        self.check_fits(model)
        shape, called = model.sites.shape(self.site), name or self.name
        self.inner.to(model.device)
        flat = len(shape) > 1  # heads, which it reads side by side

        def encode(x: Tensor) -> Tensor:
            return self.encode(x.flatten(-2) if flat else x)

        def decode(codes: Tensor) -> Tensor:
            out = self.decode(codes)
            return out.reshape(*out.shape[:-1], *shape) if flat else out

        known = None if self.scales_each_input else decode
        model.sites.attach(called, Dictionary(self.site, encode, self.n_features, self.sha256, known))
        return Site("features", self.site.layer, None, called)

    def check_fits(self, model: LensModel) -> None:
        """Pass if ``model`` has the site, of the right width.

        Raises:
            SiteError: if not.
        """
        width = int(np.prod(model.sites.shape(self.site)))
        if width != self.d_in:
            raise SiteError(
                f"The autoencoder {self.name} reads {self.d_in} numbers and {self.site} of {model.name} has {width}: "
                "it was trained on another model or site."
            )

    def neuronpedia(self, feature: int) -> str | None:
        """The feature's page, where its release has pages."""
        of = self.inner.cfg.metadata.neuronpedia_id
        return f"https://www.neuronpedia.org/{of}/{feature}" if of else None

    def save(self, folder: str | Path) -> Path:
        """Write SAELens' two files and ours into ``folder``; :func:`load_sae` reads them back equal."""
        home = Path(folder)
        self.inner.save_model(home)
        write_text(home / FACTS, json.dumps(self.facts | {"name": self.name, "site": str(self.site)}, indent=1))
        return home

    def __repr__(self) -> str:
        of = f" of {self.model}" if self.model else ""
        return f"Sae({self.name}: {self.n_features:,} {self.architecture} features at {self.site}{of})"


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
