"""Sparse autoencoders: any of SAELens's, from a folder, a release or this package. The only module that imports it.

SAELens (Bloom et al. 2024) reads and writes them; here they get an address in a model of ours.
"""

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
    def encode_and_rebuild(
        self, x: Float[Tensor, "*rows d_in"]
    ) -> tuple[Float[Tensor, "*rows n_features"], Float[Tensor, "*rows d_in"]]:
        """The features' activations and what they make of ``x``, whatever the architecture and the scaling."""
        codes = self.encode(x)
        return codes, self.inner.decode(codes.to(self.device)).float().to(x.device)

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
