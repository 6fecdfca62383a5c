"""Training dictionaries: texts, harvest, SAELens' trainer, resuming, evaluation; features as sites."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

import affectlens as al
from affectlens.errors import SiteError, StoreError
from affectlens.model_sites import Dictionary
from affectlens.probing.features import harvesting, training
from affectlens.probing.features.codes import encode_battery
from affectlens.probing.features.corpora import documents, windows
from affectlens.probing.features.evaluating import evaluate_saes
from affectlens.probing.features.harvesting import batches, harvest, values
from affectlens.probing.features.recipes import Recipe
from affectlens.probing.features.training import train_sae
from affectlens.probing.sae import Sae, sae_lens
from affectlens.probing.sae_files import wrap
from affectlens.sites import Site
from affectlens.testing import FAMILIES, tiny_model, tiny_sae

SITE = Site("resid_post", 1)
SMALL = Recipe(n_features=96, k=6, activations=12_000, batch=256, lr=2e-3, dead_after=4_000, checkpoints=4)


@pytest.fixture(scope="module")
def model() -> al.LensModel:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def pieces(model: al.LensModel) -> list[list[int]]:
    texts = iter(al.load_battery("starter").frame()["text"])
    return windows(model, texts, tokens=10**6, context=64, held_out=0.0).train


@pytest.fixture(scope="module")
def shards(model: al.LensModel, pieces: list[list[int]], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harvesting, "SHARD", 8_000)
        return harvest(model, SITE, pieces, tmp_path_factory.mktemp("harvest"))


@pytest.fixture(scope="module")
def trained(model: al.LensModel, shards: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Sae:
    return train_sae(model, SITE, shards, SMALL, tmp_path_factory.mktemp("sae"), facts={"text": "starter"})


# texts


def test_documents_of_every_kind_of_file_come_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n---\ntwo")
    (tmp_path / "b.jsonl").write_text('{"text": "three"}\n{"text": "four"}\n')
    (tmp_path / "c.csv").write_text('text,label\n"five, six",1\n')
    (tmp_path / "d.tsv").write_text("label\ttext\n1\tseven\n")
    (tmp_path / "e.bin").write_text("no text")
    assert list(documents([tmp_path])) == ["one", "two", "three", "four", "five, six", "seven"]


@pytest.mark.parametrize("name", ["absent", "absent.txt"])
def test_text_that_is_not_there_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match=r"There is no text at .*absent"):
        list(documents([tmp_path / name]))


def test_a_table_without_the_column_is_said(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"body": "three"}\n')
    with pytest.raises(StoreError, match="column 'text'"):
        list(documents([tmp_path]))


def test_a_document_is_on_one_side_whatever_the_order(model: al.LensModel) -> None:
    texts = [f"document {i} tells of the quay and of {i * i} crates" for i in range(400)] * 2
    one = windows(model, iter(texts), tokens=10**6, held_out=0.2)
    two = windows(model, iter(reversed(texts)), tokens=10**6, held_out=0.2)
    aside, kept = ({tuple(p) for p in side} for side in (one.held_out, one.train))
    assert not aside & kept
    assert aside == {tuple(p) for p in two.held_out}
    assert len(one.train) + len(one.held_out) == 400, "a document that comes twice is read once"
    assert 50 <= len(one.held_out) <= 115


def test_windows_are_no_longer_than_the_context_and_no_more_than_needed(model: al.LensModel) -> None:
    found = windows(
        model, iter(["quay " * 100] + [f"{i} crates stood there" for i in range(99)]), tokens=300, context=32
    )
    assert max(map(len, found.train)) <= 32
    assert 300 <= found.tokens < 340


# harvest


def test_harvest_is_the_site_without_first_tokens(
    model: al.LensModel, pieces: list[list[int]], shards: list[Path]
) -> None:
    with torch.no_grad(), al.record(model, SITE) as seen:
        model.hf(torch.tensor([pieces[3]]))
    ends = np.cumsum([len(p) - 1 for p in pieces])
    got = values(model, SITE, pieces[:6])[ends[2] : ends[3]]
    torch.testing.assert_close(got, seen[SITE][0, 1:])
    first = next(iter(batches(shards[:1], 1)))
    assert first.shape == (1, model.d_model)


def test_a_stopped_harvest_goes_on(
    model: al.LensModel, pieces: list[list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harvesting, "SHARD", 4_000)
    whole = harvest(model, SITE, pieces[:200], tmp_path / "whole")
    assert len(whole) > 2
    cut = harvest(model, SITE, pieces[:200], tmp_path / "cut")
    kept = cut[0].stat().st_mtime_ns
    cut[1].unlink()
    again = harvest(model, SITE, pieces[:200], tmp_path / "cut")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in whole]
    assert again[0].stat().st_mtime_ns == kept, "what was there is not made again"


def test_batches_go_on_where_they_were_and_see_everything_once_a_pass(shards: list[Path]) -> None:
    all_of = list(islice(batches(shards, 100, seed=3), 400))
    for skip in (1, 79, 80, 250):
        rest = list(islice(batches(shards, 100, seed=3, skip=skip), 5))
        assert all(torch.equal(a, b) for a, b in zip(rest, all_of[skip : skip + 5], strict=True)), skip
    total = sum(harvesting._count(path) for path in shards)
    one_pass = torch.cat(list(islice(batches(shards, 1, seed=0), total)))
    other = torch.cat(list(islice(batches(shards, 1, seed=1), total)))
    assert not torch.equal(one_pass, other)
    torch.testing.assert_close(one_pass.double().sum(0), other.double().sum(0))


def test_too_little_text_for_a_batch_is_said(shards: list[Path]) -> None:
    with pytest.raises(StoreError, match="fewer than one batch"):
        next(batches(shards, 10**6))


# training


def test_training_learns_what_the_activations_are_made_of(
    model: al.LensModel, trained: Sae, pieces: list[list[int]]
) -> None:
    found = evaluate_saes(
        model, {"trained": trained, "random": tiny_sae(model, n_features=96, k=6)}, pieces[:60], losses=0
    )
    explained = found[found["measure"] == "explained_variance"].set_index("sae")["value"]
    assert explained["trained"] > 0.6
    assert explained["trained"] > explained["random"] + 0.2
    l0 = found[(found["measure"] == "l0") & (found["sae"] == "trained")]["value"].iloc[0]
    assert 5 < l0 <= 6


def test_what_is_saved_encodes_alike(
    model: al.LensModel, trained: Sae, pieces: list[list[int]], tmp_path: Path
) -> None:
    again = al.load_sae(trained.save(tmp_path / "copy"))
    x = values(model, SITE, pieces[:5])
    assert torch.equal(trained.encode(x), again.encode(x))
    assert (again.sha256, again.site, again.name, again.facts) == (trained.sha256, SITE, trained.name, trained.facts)
    assert again.facts["recipe"] == SMALL.facts()
    assert again.facts["text"] == "starter"


def test_a_stopped_training_ends_at_the_same_weights(
    model: al.LensModel, shards: list[Path], trained: Sae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = training._keep

    def stop(trainer: object, home: Path) -> None:
        keep(trainer, home)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "_keep", stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_sae(model, SITE, shards, SMALL, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["18"], "one checkpoint is kept, the last"
    monkeypatch.setattr(training, "_keep", keep)
    assert train_sae(model, SITE, shards, SMALL, tmp_path).sha256 == trained.sha256
    assert not (tmp_path / "checkpoints").exists()


def test_seeds_differ_and_a_seed_repeats(model: al.LensModel, shards: list[Path], tmp_path: Path) -> None:
    short = replace(SMALL, activations=2_000)
    one, same, other = (
        train_sae(model, SITE, shards, replace(short, seed=seed), tmp_path / name)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one.sha256 == same.sha256 != other.sha256


def test_a_frozen_decoder_stays(model: al.LensModel, shards: list[Path], tmp_path: Path) -> None:
    short = replace(SMALL, activations=3_000)
    frozen = train_sae(model, SITE, shards, replace(short, frozen_decoder=True), tmp_path / "a")
    longer = train_sae(model, SITE, shards, replace(short, frozen_decoder=True, activations=4_000), tmp_path / "b")
    free = train_sae(model, SITE, shards, short, tmp_path / "c")
    cosine = [np.abs((a.decoder * longer.decoder).sum(1)) / np.linalg.norm(a.decoder, axis=1) for a in (frozen, free)]
    norms = np.linalg.norm(longer.decoder, axis=1)
    np.testing.assert_allclose(cosine[0], norms, rtol=1e-4)
    assert (cosine[1] < norms * 0.999).any()


def test_jumprelu_trains_and_loads(
    model: al.LensModel, shards: list[Path], pieces: list[list[int]], tmp_path: Path
) -> None:
    sae = train_sae(model, SITE, shards, replace(SMALL, architecture="jumprelu"), tmp_path)
    assert sae.architecture == "jumprelu"
    codes = sae.encode(values(model, SITE, pieces[:20]))
    assert 0 < float((codes > 0).float().sum(-1).mean()) < 48
    assert torch.equal(codes, al.load_sae(tmp_path / "sae").encode(values(model, SITE, pieces[:20])))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"architecture": "vanilla"}, "choose from topk, jumprelu"), ({"k": 96}, "at least one is active"),
     ({"k": 0}, "at least one is active"), ({"activations": 100}, "do not make one batch"),
     ({"warm_up": 0.9}, "together at most 1")],
)  # fmt: skip
def test_settings_that_cannot_be_are_said(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(StoreError, match=said):
        replace(SMALL, **wrong)  # type: ignore[arg-type]


# evaluation


def test_a_perfect_dictionary_costs_nothing_and_explains_all(model: al.LensModel, pieces: list[list[int]]) -> None:
    perfect = _identity(model)
    found = evaluate_saes(model, {"perfect": perfect}, pieces[:8], losses=8).set_index("measure")["value"]
    assert found["explained_variance"] == pytest.approx(1, abs=1e-5)
    assert found["loss_recovered"] == pytest.approx(1, abs=1e-3)
    assert found["loss_added"] == pytest.approx(0, abs=1e-4)


def test_a_dictionary_that_writes_the_mean_recovers_nothing(model: al.LensModel, pieces: list[list[int]]) -> None:
    sae = tiny_sae(model)
    sae.inner.W_dec.data.zero_()
    sae.inner.b_dec.data.copy_(values(model, SITE, pieces[:8]).mean(0))
    found = evaluate_saes(model, {"mean": sae}, pieces[:8], losses=8).set_index("measure")["value"]
    assert found["explained_variance"] == pytest.approx(0, abs=1e-5)
    assert found["loss_recovered"] == pytest.approx(0, abs=1e-3)


def test_the_clean_loss_is_the_models_own(model: al.LensModel, pieces: list[list[int]]) -> None:
    found = evaluate_saes(model, {"x": tiny_sae(model)}, pieces[:5], losses=5).set_index("measure")["value"]
    ids = [torch.tensor([piece]) for piece in pieces[:5]]
    with torch.no_grad():
        total = sum(float(model.hf(i, labels=i).loss) * (i.shape[1] - 1) for i in ids)
    assert found["loss_clean"] == pytest.approx(total / sum(i.shape[1] - 1 for i in ids), rel=1e-5)


def _identity(model: al.LensModel) -> Sae:
    """A dictionary that rebuilds everything: a positive and a negative feature a dimension."""
    sae = tiny_sae(model, n_features=64, k=63)
    eye = torch.eye(32)
    sae.inner.W_dec.data = torch.cat((eye, -eye))
    sae.inner.W_enc.data = sae.inner.W_dec.data.T.contiguous()
    return sae


# codes and sites


def test_codes_are_the_encoders_and_first_tokens_are_empty(model: al.LensModel) -> None:
    sae, texts = tiny_sae(model), ["The quay was empty. A bell rang.", "Two crates stood there."]
    codes = encode_battery(model, sae, texts, cache=False)
    acts = al.capture(model, texts, sites=SITE, positions="all", cache=False)
    for item in range(2):
        want = sae.encode(torch.from_numpy(np.array(acts.item(item)[:, 0]))).numpy()
        want[0] = 0
        got = codes.matrix[codes.offsets[item] : codes.offsets[item + 1]].toarray()
        np.testing.assert_allclose(got, want, atol=1e-6)
        np.testing.assert_allclose(codes.pooled("mean")[item], want[1:].mean(0), atol=1e-6)
        np.testing.assert_allclose(codes.pooled("max")[item], want.max(0), atol=1e-6)
        np.testing.assert_allclose(codes.pooled("share")[item], (want[1:] > 0).mean(0), atol=1e-6)
        np.testing.assert_allclose(codes.row(item, 5), want[:, 5], atol=1e-6)
    np.testing.assert_allclose(codes.pooled("ending")[0], sae_ending(sae, acts, "A bell rang."), atol=1e-6)
    assert codes.l0 == pytest.approx(4)
    assert codes.activations()["L1.features@tiny"].shape == (2, 64)


def sae_ending(sae: Sae, acts: al.Activations, ending: str) -> np.ndarray:
    tokens = len(ending.encode())
    return sae.encode(torch.from_numpy(np.array(acts.item(0)[-tokens:, 0]))).numpy().mean(0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["resid_post", "mlp_out", "z"])
def test_putting_codes_back_changes_no_bit_and_an_edit_moves_along_its_row(family: str, kind: str) -> None:
    model = tiny_model(family)
    sae = tiny_sae(model, f"L0.{kind}")
    sae.attach(model)
    ids = torch.tensor([[5, 9, 23, 42, 7, 77]])
    with torch.no_grad():
        with al.record(model, f"L0.{kind}") as plain:
            logits = model.hf(ids).logits
        with (
            al.edit(model, {"features@tiny": lambda v, _: v.clone()}, idle="ignore"),
            al.record(model, f"L0.{kind}") as same,
        ):
            assert torch.equal(model.hf(ids).logits, logits)
        assert torch.equal(same[f"L0.{kind}"], plain[f"L0.{kind}"])
        with al.edit(model, {"F7@tiny": lambda v, _: v + 2}), al.record(model, f"L0.{kind}") as moved:
            assert not torch.equal(model.hf(ids).logits, logits)
    change = (moved[f"L0.{kind}"] - plain[f"L0.{kind}"]).flatten(2)
    torch.testing.assert_close(change, torch.from_numpy(2 * sae.decoder[7]).expand_as(change), atol=1e-5, rtol=1e-4)


def test_a_dictionary_without_a_decoder_can_be_watched_alone(model: al.LensModel) -> None:
    model.sites.attach("blind", Dictionary(SITE, torch.relu, 32, "0" * 64))
    with pytest.raises(SiteError, match="without decode="), al.edit(model, {"F3@blind": lambda v, _: v + 1}):
        pass


# loading


def test_loading_says_what_is_wrong(tmp_path: Path, model: al.LensModel) -> None:
    with pytest.raises(StoreError, match="no release of SAELens called so"):
        al.load_sae("nosuch")
    (tmp_path / "cfg.json").write_text("{")
    with pytest.raises(StoreError, match="holds no autoencoder that SAELens can read"):
        al.load_sae(tmp_path)
    with pytest.raises(StoreError, match="Name one of the release gpt2-small-res-jb"):
        al.load_sae("gpt2-small-res-jb")
    with pytest.raises(StoreError, match="not in the hub's cache on this machine"):
        al.load_sae("gpt2-small-res-jb", "blocks.0.hook_resid_pre")


def test_another_models_dictionary_is_refused(model: al.LensModel) -> None:
    wide = wrap(tiny_sae(model).inner, "wide", site="L0.neurons")
    with pytest.raises(SiteError, match="reads 32 numbers and L0.neurons"):
        wide.attach(model)


def test_a_dictionary_that_does_not_say_what_it_reads_needs_a_site(model: al.LensModel) -> None:
    with pytest.raises(StoreError, match="give site="):
        wrap(tiny_sae(model).inner, "nameless")


def test_neuronpedia_is_linked_where_the_release_has_pages(model: al.LensModel) -> None:
    sae = tiny_sae(model)
    assert sae.neuronpedia(3) is None
    sae.inner.cfg.metadata.neuronpedia_id = "gpt2-small/0-res-jb"
    assert sae.neuronpedia(3) == "https://www.neuronpedia.org/gpt2-small/0-res-jb/3"


# what a folder is for


def test_a_folder_is_for_one_text_one_recipe_and_one_search(
    model: al.LensModel, pieces: list[list[int]], shards: list[Path], tmp_path: Path
) -> None:
    harvest(model, SITE, pieces[:9], tmp_path / "h")
    with pytest.raises(StoreError, match="begun with another site"):
        harvest(model, Site("resid_post", 0), pieces[:9], tmp_path / "h")
    with pytest.raises(StoreError, match="begun with another pieces"):
        harvest(model, SITE, pieces[:8], tmp_path / "h")
    short = replace(SMALL, activations=1_000)
    train_sae(model, SITE, shards, short, tmp_path / "t")
    with pytest.raises(StoreError, match="begun with another n_features"):
        train_sae(model, SITE, shards, replace(short, n_features=64), tmp_path / "t")


def test_weights_that_are_not_finite_are_not_kept(model: al.LensModel, shards: list[Path], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not finite"):
        train_sae(model, SITE, shards, replace(SMALL, activations=1_000, lr=1e30, checkpoints=0), tmp_path)
    assert not (tmp_path / "sae").exists()


def test_one_long_document_still_has_text_held_out(model: al.LensModel) -> None:
    found = windows(model, iter(["The quay was long and wet. " * 300]), tokens=10**6, context=64, held_out=0.05)
    assert len(found.held_out) == round(0.05 * (len(found.train) + len(found.held_out)))
    assert windows(model, iter(["The quay was long. " * 90]), tokens=10**6, held_out=0.0).held_out == []


# autoencoders of other kinds


def settings(**more: object) -> Sae:
    """A small standard autoencoder of SAELens's with other settings."""
    with sae_lens() as library, torch.random.fork_rng():
        torch.manual_seed(0)
        given = {"architecture": "standard", "d_in": 32, "d_sae": 48, "apply_b_dec_to_input": False} | more
        return wrap(library.SAE.from_dict(given), "other", site="L1.resid_post")


@pytest.mark.parametrize("scaling", ["layer_norm", "constant_norm_rescale"])
def test_where_each_input_is_scaled_features_are_watched_not_edited(
    model: al.LensModel, pieces: list[list[int]], scaling: str
) -> None:
    sae = settings(normalize_activations=scaling)
    sae.attach(model)
    with torch.no_grad(), al.record(model, "L1.features@other") as seen:
        model.hf(torch.tensor([pieces[0]]))
    assert (seen["L1.features@other"] > 0).any()
    with pytest.raises(SiteError, match="without decode="), al.edit(model, {"L1.F3@other": lambda v, _: v + 1}):
        pass
    with pytest.raises(StoreError, match="normalises each input"):
        sae.decode(torch.zeros(1, 48))
    found = evaluate_saes(model, {"other": sae}, pieces[:4], losses=0).set_index("measure")["value"]
    x = values(model, SITE, pieces[:4])
    want = 1 - (x - sae.inner(x)).square().sum() / (x - x.mean(0)).square().sum()
    assert found["explained_variance"] == pytest.approx(float(want), rel=1e-4)


def test_a_scale_that_is_not_known_is_refused() -> None:
    with pytest.raises(StoreError, match="does not say how they were scaled"):
        settings(normalize_activations="expected_average_only_in")


def test_half_precision_decodes_and_rows_are_what_an_activation_writes(model: al.LensModel) -> None:
    with sae_lens() as library:
        given = {"architecture": "topk", "d_in": 32, "d_sae": 48, "k": 4, "rescale_acts_by_decoder_norm": True}
        inner = library.SAE.from_dict(given)
    inner.W_dec.data *= 3
    x = torch.randn(20, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = inner.decode(inner.encode(x))
    sae = wrap(inner, "rows", site="L1.resid_post")
    torch.testing.assert_close(sae.decode(sae.encode(x)), want, atol=1e-5, rtol=1e-4)
    one = torch.zeros(1, 48)
    one[0, 7] = 1
    torch.testing.assert_close(sae.decode(one)[0] - sae.decode(0 * one)[0], torch.from_numpy(sae.decoder[7]))
    half = wrap(inner.to(dtype=torch.bfloat16), "half", site="L1.resid_post")
    assert half.decode(half.encode(x)).dtype == torch.float32


def test_heads_laid_side_by_side_are_read_whatever_the_release_does(model: al.LensModel) -> None:
    with sae_lens() as library:
        given = {"architecture": "topk", "d_in": 32, "d_sae": 48, "k": 4, "reshape_activations": "hook_z",
                 "metadata": {"hook_name": "blocks.1.attn.hook_z"}}  # fmt: skip
        sae = wrap(library.SAE.from_dict(given), "heads")
    sae.attach(model)
    with torch.no_grad(), al.record(model, "L1.features@heads") as seen:
        model.hf(torch.tensor([[5, 6, 7]]))
    assert seen["L1.features@heads"].shape == (1, 3, 48)
