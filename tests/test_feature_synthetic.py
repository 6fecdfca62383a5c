"""From synthetic activations with known features to the features that are found: SAELens' generator, our training."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import affectlens as al
from affectlens.probing.features.differing import differential
from affectlens.probing.features.mating import mates
from affectlens.probing.features.recipes import Recipe
from affectlens.probing.features.training import train_sae
from affectlens.probing.sae import Sae, sae_lens
from affectlens.sites import Site
from affectlens.testing import tiny_model

TRUE, WIDTH, TOKENS = 24, 32, 24
PLANTED = (3, 11, 20)  # these fire more often in emotional items than in their neutral twins


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """Twenty-four orthogonal directions: where they overlap, what is planted in one does move its neighbours."""
    with sae_lens(), torch.random.fork_rng():
        from sae_lens.synthetic.feature_dictionary import orthogonalize_embeddings

        torch.manual_seed(0)
        return orthogonalize_embeddings(torch.randn(TRUE, WIDTH)).numpy()


def drawn(n: int, seed: int, more: np.ndarray | None = None) -> torch.Tensor:
    """Feature activations of so many tokens from SAELens' generator; ``more`` raises firing probabilities."""
    p = torch.full((TRUE,), 0.05) if more is None else torch.full((TRUE,), 0.05) + torch.from_numpy(more).float()
    with sae_lens(), torch.random.fork_rng():
        from sae_lens.synthetic import ActivationGenerator

        torch.manual_seed(seed)
        return ActivationGenerator(TRUE, p, std_firing_magnitudes=0.3, mean_firing_magnitudes=3.0).sample(n)


@pytest.fixture(scope="module")
def learnt(truth: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Sae:
    home = tmp_path_factory.mktemp("synthetic")
    x = drawn(60_000, 1) @ torch.from_numpy(truth)
    save_file({"activations": x.to(torch.bfloat16)}, home / "shard-00000.safetensors")
    recipe = Recipe(n_features=24, k=4, activations=240_000, batch=512, lr=3e-3, dead_after=20_000, checkpoints=0)
    return train_sae(tiny_model(), Site("resid_post", 1), [home / "shard-00000.safetensors"], recipe, home)


def test_training_recovers_the_dictionary(truth: np.ndarray, learnt: Sae) -> None:
    cosine = mates(truth, learnt.decoder)["cosine"]
    assert (cosine > 0.9).mean() > 0.9


def test_a_frozen_random_dictionary_does_not(truth: np.ndarray) -> None:
    rows = np.random.default_rng(0).normal(size=(24, WIDTH)).astype(np.float32)
    assert (mates(truth, rows)["cosine"] > 0.9).mean() == 0


def test_planted_features_are_found_at_the_stated_rate(truth: np.ndarray, learnt: Sae) -> None:
    items = al.load_battery("core").frame()
    items = items[(items["split"] == "vignettes") & (items["role"] != "keyword")].reset_index(drop=True)
    wanted = set(mates(truth, learnt.decoder).set_index("feature")["mate"].loc[list(PLANTED)])
    found, false = [], 0
    for seed in range(4):
        table = differential(_pooled(truth, learnt, items, seed), items, emotions=["affect"], seed=seed)
        survives = set(table[table["survives"]]["feature"])
        found.append(len(survives & wanted) / len(wanted))
        false += len(survives - wanted - _shadows(truth, learnt))
    assert np.mean(found) == 1.0
    assert false <= 1, "of some 15 that are found, at a rate of 0.05, then confirmed"


def test_without_a_plant_nothing_is_found(truth: np.ndarray, learnt: Sae) -> None:
    items = al.load_battery("core").frame()
    items = items[(items["split"] == "vignettes") & (items["role"] != "keyword")].reset_index(drop=True)
    for seed in range(3):
        pooled = _pooled(truth, learnt, items, seed, size=0.0)
        assert not differential(pooled, items, emotions=["affect"], seed=seed)["survives"].any()


def _pooled(truth: np.ndarray, sae: Sae, items: pd.DataFrame, seed: int, size: float = 0.06) -> np.ndarray:
    """Mean codes of synthetic tokens, the planted features likelier in emotional items."""
    more = np.zeros(TRUE)
    more[list(PLANTED)] = size
    emotional = (items["role"] == "emotional").to_numpy()
    out = np.zeros((len(items), sae.n_features), np.float32)
    for rows, change in ((emotional, more), (~emotional, None)):
        x = drawn(int(rows.sum()) * TOKENS, 100 + 2 * seed + int(change is None), change) @ torch.from_numpy(truth)
        out[rows] = sae.encode(x).numpy().reshape(int(rows.sum()), TOKENS, -1).mean(1)
    return out


def _shadows(truth: np.ndarray, sae: Sae) -> set[int]:
    """Learnt features that lie along a planted one: a second copy of it is no false discovery."""
    rows = sae.decoder / np.linalg.norm(sae.decoder, axis=1, keepdims=True)
    return set(np.flatnonzero(np.abs(rows @ truth[list(PLANTED)].T).max(1) > 0.3).tolist())
