"""Training a dictionary with SAELens' trainer, over activations of ours; a stopped training goes on where it was."""

import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from affectlens.errors import StoreError
from affectlens.model import LensModel
from affectlens.paths import written_whole
from affectlens.probing.features.harvesting import batches, only_for
from affectlens.probing.features.recipes import Recipe, trainer_settings, untrained
from affectlens.probing.sae import Sae, sae_lens
from affectlens.probing.sae_files import load_sae, wrap
from affectlens.progress import tracked
from affectlens.sites import Site
from affectlens.types import Json

MEASURED = 50  # batches from which the scale and the mean are taken


def train_sae(
    model: LensModel, site: Site, shards: Sequence[Path], recipe: Recipe, folder: str | Path, *,
    name: str | None = None, facts: Json | None = None, progress: bool | None = None,
) -> Sae:  # fmt: skip
    """Train on harvested activations and write the result to ``folder / "sae"``.

    Inputs are scaled to a mean norm of sqrt(d_in), and the decoder's bias begins at their mean; the scale is folded
    into the weights at the end. ``folder / "checkpoints"`` keeps the last checkpoint until then: the same call goes on
    behind it, to the same weights as without a stop.

    Args:
        model: whose activations these are; it is not run.
        site: what they are of.
        shards: from :func:`affectlens.probing.features.harvesting.harvest`.
        recipe: the settings.
        folder: the run's folder.
        name: what to call the result; the model's name and the site's by default.
        facts: what to keep beside the recipe, for example where the text is from.
        progress: show a bar.

    Returns:
        The dictionary, as :func:`affectlens.load_sae` reads it from ``folder / "sae"``.

    Raises:
        StoreError: too few activations, a site without an autoencoder, a loss or weights that are not finite, or a
            folder of another recipe.
    """
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    only_for(home / "recipe.json", recipe.facts() | {"site": str(site)})
    if (home / "sae").is_dir():
        return load_sae(home / "sae")
    d_in = next(batches(shards, 1)).shape[1]
    with sae_lens() as library, torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        device = str(model.device)
        inner = untrained(library, recipe, site, d_in, model.name, device)
        trainer = _trainer(inner, shards, recipe, home, device)
        _run(trainer, recipe, home, progress)
        inner.fold_activation_norm_scaling_factor(trainer.activation_scaler.scaling_factor)
        trainer.activation_scaler.scaling_factor = None
        trainer.set_final_sae_metadata()
        if not all(torch.isfinite(value).all() for value in inner.state_dict().values()):
            raise StoreError("The weights are not finite at the end of the training: lower the lr.")
        with written_whole(home / "sae") as work:
            inner.save_inference_model(work)
            made = wrap(library.SAE.load_from_disk(work), (name or f"{model.name}-{site}").lower(),
                        facts={"recipe": recipe.facts(), **(facts or {})})  # fmt: skip
            made.save(work)
    shutil.rmtree(home / "checkpoints", ignore_errors=True)
    return load_sae(home / "sae")


def _trainer(inner: Any, shards: Sequence[Path], recipe: Recipe, home: Path, device: str) -> Any:
    """SAELens' trainer, fresh or as the last checkpoint left it."""
    from sae_lens import SAETrainer

    kept = _last(home)
    at = int(kept.name) if kept else 0
    stream = batches(shards, recipe.batch, seed=recipe.seed, skip=at)
    trainer: Any = SAETrainer(trainer_settings(recipe, device), inner, stream)
    if kept:
        trainer.load_trainer_state(kept)
        inner.load_weights_from_checkpoint(kept)
        return trainer
    seen = torch.cat(list(islice(batches(shards, recipe.batch, seed=recipe.seed), MEASURED)))
    factor = inner.cfg.d_in**0.5 / float(seen.norm(dim=-1).mean())
    trainer.activation_scaler.scaling_factor = factor
    inner.b_dec.data.copy_(seen.mean(0) * factor)
    return trainer


def _run(trainer: Any, recipe: Recipe, home: Path, progress: bool | None) -> None:
    """The steps that are left, with a checkpoint now and then."""
    stops = {round(part * recipe.steps / (recipe.checkpoints + 1)) for part in range(1, recipe.checkpoints + 1)}
    for _ in _counted(recipe.steps - trainer.n_training_steps, recipe, progress):
        out = trainer.step(next(trainer.data_provider))
        trainer.n_training_steps += 1
        if trainer.n_training_steps in stops:
            if not torch.isfinite(out.loss):
                raise StoreError(f"The loss is {out.loss.item()} at step {trainer.n_training_steps}: lower the lr.")
            _keep(trainer, home)


def _counted(steps: int, recipe: Recipe, progress: bool | None) -> Iterator[int]:
    what = f"training on {recipe.activations:,} activations"
    return tracked(range(steps), what, show=progress)


def _keep(trainer: Any, home: Path) -> None:
    before = _last(home)
    with written_whole(home / "checkpoints" / str(trainer.n_training_steps)) as work:
        trainer.save_checkpoint("", base_path=work)
    if before:
        shutil.rmtree(before)


def _last(home: Path) -> Path | None:
    """The newest whole checkpoint."""
    there = [path for path in (home / "checkpoints").glob("*") if path.name.isdigit()]
    return max(there, key=lambda path: int(path.name), default=None)
