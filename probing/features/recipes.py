"""How a dictionary is trained: the settings, and what SAELens makes of them."""

from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

from affectlens.errors import StoreError
from affectlens.sites import Site
from affectlens.types import Json

ARCHITECTURES = ("topk", "jumprelu")
EXPANSION = 8  # features a dimension of the site, unless their number is given
HOOKS = {
    "resid_pre": "hook_resid_pre", "resid_mid": "hook_resid_mid", "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out", "mlp_out": "hook_mlp_out", "z": "attn.hook_z", "neurons": "mlp.hook_post",
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """Top-k of Gao et al. (2024) with its auxiliary loss for dead features, or JumpReLU (Rajamanoharan et al. 2024)."""

    n_features: int = 0  # 8 times the site's width, if 0
    k: int = 32  # active features a token; of JumpReLU the number aimed at
    architecture: str = "topk"
    activations: int = 4_000_000  # trained on in all; beyond those harvested in further passes
    batch: int = 2048
    lr: float = 2e-3
    warm_up: float = 0.05  # share of the steps over which the learning rate rises
    decay: float = 0.2  # share of the last steps, over which it falls to zero
    dead_after: int = 400_000  # activations without firing after which a feature counts as dead
    checkpoints: int = 10
    frozen_decoder: bool = False  # a baseline: the decoder stays as it was drawn
    autocast: bool = False  # matrix products in bfloat16
    seed: int = 0

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise StoreError(f"There is no architecture {self.architecture!r}; choose from {', '.join(ARCHITECTURES)}.")
        if self.k < 1 or 0 < self.n_features <= self.k:
            raise StoreError(f"k is {self.k}; of {self.n_features:,} features at least one is active and one is not.")
        if self.activations < self.batch or self.batch < 1:
            raise StoreError(f"{self.activations:,} activations do not make one batch of {self.batch:,}.")
        if not 0 <= self.warm_up + self.decay <= 1 or self.lr <= 0:
            raise StoreError("warm_up and decay are shares of the steps, together at most 1, and lr is above 0.")

    @property
    def steps(self) -> int:
        return self.activations // self.batch

    def facts(self) -> Json:
        """The settings, for the record."""
        return asdict(self)


def untrained(library: ModuleType, recipe: Recipe, site: Site, d_in: int, model: str, device: str) -> Any:
    """SAELens' training autoencoder as the recipe begins.

    Raises:
        StoreError: a site that SAELens has no name for.
    """
    if site.kind not in HOOKS or site.index is not None:
        raise StoreError(f"No dictionary is trained on {site}: choose {', '.join(HOOKS)} of a layer.")
    from sae_lens.saes.sae import SAEMetadata

    meta = SAEMetadata(model_name=model, hook_name=f"blocks.{site.layer}.{HOOKS[site.kind]}")
    given: Json = {
        "d_in": d_in, "d_sae": recipe.n_features or EXPANSION * d_in, "device": device, "metadata": meta,
        "normalize_activations": "expected_average_only_in",
    }  # fmt: skip
    if recipe.architecture == "topk":
        inner = library.TopKTrainingSAE(library.TopKTrainingSAEConfig(k=recipe.k, **given))
    else:
        warming = max(1, int(recipe.warm_up * recipe.steps))
        config = library.JumpReLUTrainingSAEConfig(
            jumprelu_sparsity_loss_mode="quadratic", target_l0=float(recipe.k), l0_warm_up_steps=warming, **given
        )
        inner = library.JumpReLUTrainingSAE(config)
    inner.W_dec.requires_grad_(not recipe.frozen_decoder)
    return inner


def trainer_settings(recipe: Recipe, device: str) -> Any:
    """SAELens' own settings of a training run."""
    from sae_lens.config import LoggingConfig, SAETrainerConfig

    return SAETrainerConfig(
        total_training_samples=recipe.steps * recipe.batch, train_batch_size_samples=recipe.batch, lr=recipe.lr,
        lr_end=recipe.lr, lr_warm_up_steps=int(recipe.warm_up * recipe.steps), device=device,
        lr_decay_steps=int(recipe.decay * recipe.steps), autocast=recipe.autocast,
        dead_feature_window=max(1, recipe.dead_after // recipe.batch), feature_sampling_window=recipe.steps + 1,
        logger=LoggingConfig(log_to_wandb=False),
    )  # fmt: skip
