"""The search for features from end to end, in Python and as a user types it, on a tiny model in a folder."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import affectlens as al
from affectlens.errors import RunError
from affectlens.probing.features import launching, study, telling
from affectlens.probing.features.enriching import enrichment
from affectlens.probing.features.evaluating import evaluate_captured
from affectlens.probing.features.report import FeatureReport
from affectlens.probing.features.sampling import self_text
from affectlens.probing.features.study import find_features
from affectlens.probing.features.training import train_sae
from affectlens.probing.features.untrained import untrained_like
from affectlens.probing.sae import Sae
from affectlens.stimuli import Battery
from affectlens.testing import tiny_hf, tiny_model, tiny_sae, tiny_tokenizer
from tests.conftest import Typed

DOMAINS = ("family", "work", "health", "travel")


def items() -> Iterator[dict[str, object]]:
    """Told apart by bytes: an emotional text has some of its own, and so has a keyword."""
    for i in range(48):
        emotion, domain = ("joy", "fear")[i % 2], DOMAINS[i // 2 % 4]
        for role, end in (("emotional", "zzzz"), ("neutral", "led to it"), ("keyword", f"zzzz {emotion}")):
            yield {
                "id": f"{i}.{role}", "text": f"Day {i * i}. The bridge {end}.", "split": "vignettes", "role": role,
                "affect": role != "neutral", "emotion": emotion, "domain": domain, "group": str(i), "valence": 0,
            }  # fmt: skip
    for i in range(16):
        emotion, domain = ("joy", "fear")[i % 2], DOMAINS[i // 2 % 4]
        yield {"id": f"d{i}", "text": f"{i}: {emotion} lane led to it.", "split": "decoys", "role": "decoy",
               "affect": False, "emotion": emotion, "domain": domain, "group": f"d{i}", "valence": 0}  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("battery") / "bytes.jsonl"
    home.write_text("\n".join(json.dumps(row) for row in items()))
    return home


@pytest.fixture(scope="module")
def battery(path: Path) -> Battery:
    return al.load_battery(str(path))


@pytest.fixture(scope="module")
def model() -> al.LensModel:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def sae(model: al.LensModel) -> Sae:
    return tiny_sae(model, n_features=96, k=8)


@pytest.fixture(scope="module")
def found(model: al.LensModel, sae: Sae, battery: Battery) -> FeatureReport:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFFECTLENS_CACHE", "/nonexistent")
        patch.setattr(study, "capture", lambda *a, **k: al.capture(*a, **k, cache=False))
        other = tiny_sae(model, n_features=96, k=8, seed=1)
        return find_features(model, sae, battery, beside=other, draws=19, cards=5)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("models") / "tiny"
    tiny_hf("llama").save_pretrained(home)
    tiny_tokenizer().save_pretrained(home)
    return home


@pytest.fixture(scope="module")
def folder(sae: Sae, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sae.save(tmp_path_factory.mktemp("saes") / "tiny-sae")


def test_a_search_finds_what_differs_and_places_it(found: FeatureReport) -> None:
    assert found.emotions[-1] == "affect"
    assert set(found.emotions) == {"joy", "fear", "affect"}
    best, placed = found.surviving(), found.placed
    assert len(best) > 3
    assert {(row["emotion"], row["feature"]) for row in best.to_dict("records")} <= {
        (row["emotion"], row["feature"]) for row in placed[placed["survives"]].to_dict("records")
    }
    assert set(placed["found_by"]) <= {"keyword-free", "keyword-rich", "both"}
    assert "both" in set(placed["found_by"])
    assert not placed.duplicated(["emotion", "feature"]).any()
    assert placed["scenes"].max() == 24, "placed by the scenes of the half that chose nothing"
    assert (best["d"].abs().diff().dropna() <= 0).all()
    with pytest.raises(KeyError, match="was not searched for"):
        found.surviving("disgust")


def test_the_sentences_say_counts_chance_classes_and_quality(found: FeatureReport) -> None:
    said = " ".join(found.summary())
    for words in (
        "features of `tiny`",
        "random labellings",
        "Keyword or affect?",
        "untrained explains",
        "trained from another seed",
    ):
        assert words in said, words
    assert f"keyword-free scenes **{len(found.surviving())}** of all emotions together" in said
    assert f"keyword-rich scenes **{len(found.surviving(texts='keyword-rich'))}** of all" in said
    assert "no crossed quadruples" in said


def test_a_report_comes_back_equal(found: FeatureReport, tmp_path: Path) -> None:
    found.save(tmp_path)
    again = FeatureReport.load(tmp_path)
    assert again.meta == json.loads(json.dumps(found.meta))
    for name in ("differential", "placed", "counts", "enrichment", "evaluation", "stability"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(found, name), check_dtype=False)
    assert again.summary() == found.summary()
    (tmp_path / "results" / "placed.parquet").write_bytes(b"torn")
    with pytest.raises(RunError, match="damaged"):
        FeatureReport.load(tmp_path)
    with pytest.raises(RunError, match="holds no finished search"):
        FeatureReport.load(tmp_path / "nowhere")


def test_cards_are_of_the_largest_effects_of_each_emotion(found: FeatureReport) -> None:
    assert 1 <= len(found.cards) <= 5
    ranked = found.placed.assign(size=found.placed["d"].abs()).sort_values("size", ascending=False)
    assert set(ranked.groupby("emotion").head(1)["feature"].astype(int)) <= set(found.cards)


def test_an_untrained_dictionary_is_of_the_same_size_and_fits_its_scale(model: al.LensModel, sae: Sae) -> None:
    x = torch.randn(500, 32) * 3 + 1
    plain = untrained_like(sae, x)
    assert (plain.n_features, plain.d_in, plain.site) == (96, 32, sae.site)
    rebuilt, mean = plain.decode(plain.encode(x)) - x.mean(0), x.mean(0)
    slope = float(((x - mean) * rebuilt).sum() / rebuilt.square().sum())
    assert slope == pytest.approx(1, abs=1e-3)


def test_quality_from_captured_activations_is_that_from_texts(model: al.LensModel, sae: Sae, battery: Battery) -> None:
    from affectlens.probing.features.evaluating import evaluate_saes, pieces_of

    acts = al.capture(model, battery, sites=sae.site, positions="all", cache=False)
    one = evaluate_captured({"tiny": sae}, acts).set_index("measure")["value"]
    two = evaluate_saes(model, {"tiny": sae}, pieces_of(model, battery), losses=0).set_index("measure")["value"]
    np.testing.assert_allclose(one.loc[two.index].to_numpy(float), two.to_numpy(float), rtol=1e-4)


def test_text_of_the_models_own_is_the_same_for_a_seed(model: al.LensModel) -> None:
    one, two, other = (
        [text for _, text in zip(range(40), self_text(model, length=12, seed=seed), strict=False)] for seed in (0, 0, 1)
    )
    assert one == two != other
    assert len(set(one)) > 30


# the command line


def test_find_show_and_report_as_typed(typed: Typed, tiny: Path, folder: Path, path: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, out, err = typed("features", "find", tiny, "--sae", folder, "--battery", path, "--draws", 19, "--out", run,
                           "--sparse", "affect", "--beside", folder)  # fmt: skip
    assert code == 0, err
    assert "Keyword or affect?" in out
    page = (run / "report.html").read_text()
    assert "keywords or affect?" in page
    assert "Few features or all: affect" in page
    assert "feature=" in (run / "dashboard.html").read_text()
    assert json.loads((run / "run.json").read_text())["status"] == "done"
    code, out, _ = typed("report", run, "--quiet")
    assert (code, out.strip()) == (0, str(run / "report.html"))
    code, out, _ = typed("features", "show", folder, "--json")
    assert json.loads(out)["features"] == 96


def test_a_stopped_search_goes_on_behind_what_it_has(
    typed: Typed, tiny: Path, folder: Path, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def stop(*_args: object, **_more: object) -> pd.DataFrame:
        raise KeyboardInterrupt

    monkeypatch.setattr(telling, "enrichment", stop)
    code, _, err = typed("features", "find", tiny, "--sae", folder, "--battery", path, "--draws", 19, "--out", run)
    assert (code, f"affectlens features find --resume {run}" in err) == (2, True)
    assert (run / "results" / "differential.parquet").is_file()
    monkeypatch.setattr(telling, "enrichment", enrichment)
    monkeypatch.setattr(telling, "differential", stop)
    code, out, err = typed("features", "find", "--resume", run, "--json")
    assert code == 0, err
    assert json.loads(out)["report"] == str(run / "report.html")


def test_a_run_goes_on_with_its_own_dictionary_only(
    typed: Typed, tiny: Path, folder: Path, path: Path, tmp_path: Path, model: al.LensModel
) -> None:
    run = tmp_path / "run"
    assert (
        typed("features", "find", tiny, "--sae", folder, "--battery", path, "--draws", 19, "--out", run, "-q")[0] == 0
    )
    other = tiny_sae(model, n_features=96, k=8, seed=9).save(tmp_path / "other")
    info = json.loads((run / "run.json").read_text())
    info["config"]["sae"] = str(other)
    (run / "run.json").write_text(json.dumps(info))
    code, _, err = typed("features", "find", "--resume", run)
    assert (code, "was begun with another dictionary" in err) == (2, True)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("find",), "Name a model"),
        (("find", "smollm2-135m", "--sae", "nosuch"), "no release of SAELens called so"),
        (("find", "--resume", "x", "--sae", "y"), "leave out --sae"),
        (("find", "--resume", "x", "--draws", "99", "--sparse", "affect"), "leave out --sparse, --draws"),
        (("find", "nosuch"), "No dictionary is bundled for nosuch"),
        (("train", "smollm2-135m", "--site", "L15.resid_post"), "--text FOLDER, or --self-text"),
        (("train", "smollm2-135m", "--text", "x", "--self-text", "--site", "L1.resid_post"), "Name a model, a site"),
        (("train", "--resume", "x", "--site", "L15.resid_post"), "leave out --site"),
        (("train", "--resume", "x", "--k", "9"), "leave out --k"),
    ],
)
def test_what_cannot_be_is_one_sentence(typed: Typed, args: tuple[str, ...], said: str) -> None:
    code, out, err = typed("features", *args)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_train_as_typed(typed: Typed, tiny: Path, path: Path, tmp_path: Path) -> None:
    text, run = tmp_path / "text", tmp_path / "sae"
    text.mkdir()
    rows = [f"The quay number {i} was {i * 7 % 13} feet long and {'dry' if i % 3 else 'wet'}." for i in range(400)]
    (text / "a.txt").write_text("\n---\n".join(rows))
    args = ("train", tiny, "--site", "L1.resid_post", "--text", text, "--tokens", 9000, "--batch", 256, "--k", 4,
            "--battery", path, "--dtype", "float32", "--out", run)  # fmt: skip
    code, out, err = typed("features", *args, "--dry-run", "--json")
    assert json.loads(out)["features"] == 256, err
    code, out, err = typed("features", *args)
    assert code == 0, err
    assert "explained variance" in out
    assert not (run / "harvest").exists()
    made = al.load_sae(run / "sae")
    assert made.facts["recipe"]["activations"] == 18_000
    assert {row["text"] for row in made.facts["evaluation"]} == {"held-out text", "bytes"}
    code, _, err = typed("features", *args)
    assert (code, "exists already" in err) == (2, True)


def test_less_text_than_asked_for_means_fewer_activations_not_more_passes() -> None:
    from affectlens.probing.features.corpora import Windows
    from affectlens.probing.features.making import Source, _scaled
    from affectlens.probing.features.recipes import Recipe

    cut = Windows([[1] * 101] * 10, [], "")
    asked = Recipe(activations=20_000, batch=100)
    with pytest.warns(UserWarning, match=r"gives 1,000 activations, not 10,000: training takes 2,000"):
        assert _scaled(asked, Source(tokens=10_000), cut).activations == 2_000
    assert _scaled(asked, Source(tokens=1_000), cut) == asked


def test_train_on_text_of_its_own_and_resume(
    typed: Typed, tiny: Path, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from affectlens.probing.features import making

    run = tmp_path / "sae"

    def stop(*_args: object, **_more: object) -> Sae:
        raise KeyboardInterrupt

    monkeypatch.setattr(making, "train_sae", stop)
    monkeypatch.setattr(making, "self_text", partial(self_text, length=40))
    code, _, err = typed("features", "train", tiny, "--site", "L0.mlp_out", "--self-text", "--tokens", 2000, "--batch",
                         128, "--k", 4, "--battery", path, "--dtype", "float32", "--out", run)  # fmt: skip
    assert (code, f"--resume {run}" in err) == (2, True)
    monkeypatch.setattr(making, "train_sae", train_sae)
    monkeypatch.setattr(making, "self_text", stop)
    code, _, err = typed("features", "train", "--resume", run, "--quiet")
    assert code == 0, err
    assert al.load_sae(run / "sae").site.text == "L0.mlp_out"


def test_a_forecast_names_time_and_memory(typed: Typed, tiny: Path, folder: Path, path: Path) -> None:
    code, out, err = typed("features", "find", tiny, "--sae", folder, "--battery", path, "--dry-run", "--json")
    assert code == 0, err
    assert "encoding and search (seconds)" in json.loads(out)


def test_sections_of_other_commands_join_the_report(tmp_path: Path) -> None:
    launching.write_section(tmp_path, "more", "What else", ["A **sentence**."], {"numbers": pd.DataFrame({"a": [1]})})
    from affectlens.probing.features.sections import _more

    (one,) = _more(tmp_path / "results")
    assert (one.title, one.sentences) == ("What else", ["A **sentence**."])
    assert one.tables["numbers"]["a"].tolist() == [1]
