"""``affectlens steer`` as a user types it, on a tiny model in a folder with planted directions."""

import io
import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import typer

import affectlens.model
from affectlens.cli import main
from affectlens.errors import SteerError
from affectlens.model import LensModel, load_model
from affectlens.probing.probes import Probes
from affectlens.quiet import quiet_transformers
from affectlens.run import Run
from affectlens.steering import Direction, Directions
from affectlens.steering.cli import steer
from affectlens.steering.engines import gguf_files
from affectlens.steering.explaining import one_line
from affectlens.steering.typed import parse_doses, parse_layers
from affectlens.steering.writing import write
from affectlens.testing import tiny_hf, tiny_tokenizer

Typed = Callable[..., tuple[int, str, str]]
MESSAGES = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
TEMPLATE = MESSAGES + "{% if add_generation_prompt %}<assistant>{% endif %}"


def saved(home: Path, *, seed: int = 0, template: str | None = None) -> Path:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    with quiet_transformers():
        tiny_hf("llama", seed=seed).save_pretrained(home)
    tokenizer.save_pretrained(home)
    return home


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models") / "tiny", template=TEMPLATE)


@pytest.fixture(scope="module")
def lens(tiny: Path) -> LensModel:
    return load_model(str(tiny))


@pytest.fixture(scope="module")
def vectors(lens: LensModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random directions of joy (two layers), fear and trust; trust has no safe dose."""
    rng = np.random.default_rng(0)

    def one(emotion: str, layer: int, safe: float | None) -> Direction:
        v, nothing = rng.standard_normal(lens.d_model), np.zeros((0, lens.d_model), np.float32)
        return Direction(emotion, f"L{layer}.resid_post", (v / np.linalg.norm(v)).astype(np.float32), 5.0, "random",
                         lens.name, lens.fingerprint, fixed=nothing, safe=safe)  # fmt: skip

    made = [one("joy", 0, 0.5), one("joy", 1, 0.5), one("fear", 0, 0.5), one("trust", 0, None)]
    return Directions(made).save(tmp_path_factory.mktemp("directions") / "tiny.safetensors")


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lens: LensModel) -> Typed:
    """``affectlens steer ARGS``: the exit code, standard output and standard error; the model is loaded once."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(steer)
    app.callback()(lambda: None)
    monkeypatch.setattr("affectlens.cli.app", app)

    def loaded(name: str, **_: object) -> LensModel:
        return lens if name == lens.name else load_model(name)

    monkeypatch.setattr(affectlens.model, "load_model", loaded)

    def run(*args: object, said: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["affectlens", "steer", *map(str, args)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(said))
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    return run


@pytest.fixture
def joyful(typed: Typed, tiny: Path, vectors: Path) -> Typed:
    """``typed`` with the model and its directions given."""

    def run(*args: object, said: str = "") -> tuple[int, str, str]:
        return typed(tiny, *args, "--directions", vectors, "--max-new-tokens", "8", said=said)

    return run


def strict(text: str) -> Any:
    """JSON as the standard has it: without NaN and Infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def refused(done: tuple[int, str, str], sentence: str) -> None:
    code, out, err = done
    assert code == 2, err
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""


def test_side_by_side_is_the_default(joyful: Typed, lens: LensModel, vectors: Path) -> None:
    code, out, err = joyful("hi", "--emotion", "joy=2", "--layers", "0")
    assert (code, err) == (0, "")
    plan, _, rest = out.partition("\n\n")
    assert plan == (
        "L0.resid_post: joy dose +2: add, +1.000 of the norm (5), all (random); Warning: joy is at 1.00 of the norm, "
        "beyond the 0.50 that was safe."
    )
    (plain,) = write(lens, ["hi"], max_new_tokens=8)
    (steered,) = write(lens, ["hi"], doses={"joy": 2.0}, directions=vectors, layers=[0], max_new_tokens=8)
    assert rest.startswith(f"plain: {plain}\nsteered: {steered}\n")
    assert plain != steered
    assert "joy at L1.resid_post, read anew: plain mean" in rest
    assert "Read anew: the plain model reads both" in rest


def test_plain_quiet_and_stream_say_the_same(joyful: Typed) -> None:
    luck = ("--temperature", "1.0", "--seed", "5")
    args = ("hi", "--emotion", "joy=1", "--emotion", "fear=-0.5", *luck)
    code, alone, err = joyful(*args, "--quiet")
    assert (code, err) == (0, "")
    assert joyful(*args, "--quiet")[1] == alone != joyful(*args[:-1], "6", "--quiet")[1]
    explained, _, reply = joyful(*args, "--plain")[1].partition("\n\n")
    assert (reply, explained.startswith("L0.resid_post: joy dose +1")) == (alone, True)
    assert joyful(*args, "--quiet", "--stream")[1] == alone
    both = joyful(*args, "--stream")[1]
    assert both.endswith(f"\nsteered: {alone}")
    facts = strict(joyful(*args, "--json")[1])
    assert facts["pairs"][0]["steered"]["reply"] + "\n" == alone
    assert f"\nplain: {facts['pairs'][0]['plain']['reply']}\n" in both
    assert strict(joyful(*args, "--json", "--plain")[1])["reply"] + "\n" == alone


def test_json_is_whole(joyful: Typed) -> None:
    facts = strict(joyful("hi", "--emotion", "joy=1", "--json")[1])
    assert (facts["steered by"], facts["seed"], facts["max_new_tokens"]) == ("joy +1", 0, 8)
    told = facts["pairs"][0]["steered"]
    assert len(told["readings"]) == len(facts["readers"])
    assert {len(told["readings"][0][f]) for f in ("as written", "read anew")} == {len(told["tokens"])}


def test_dose_zero_is_the_plain_reply(joyful: Typed) -> None:
    facts = strict(joyful("hi", "--emotion", "joy=0", "--temperature", "1", "--json")[1])["pairs"][0]
    assert facts["plain"] == facts["steered"]


def test_explain_writes_nothing(joyful: Typed, monkeypatch: pytest.MonkeyPatch, lens: LensModel) -> None:
    monkeypatch.setattr(lens.hf, "generate", None)
    code, out, err = joyful("--emotion", "joy=0.5", "--layers", "0-1", "--positions", "first(3)", "--explain")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "L0.resid_post:", "  joy dose +0.5: add, +0.250 of the norm (5), first(3) (random)",
        "L1.resid_post:", "  joy dose +0.5: add, +0.250 of the norm (5), first(3) (random)",
    ]  # fmt: skip
    facts = strict(joyful("--emotion", "terror=-0.4", "--raw", "--explain", "--json")[1])
    assert facts["nothing"] is False
    assert [(t["emotion"], t["dose"], t["raw"], t["strength"]) for t in facts["terms"]] == [("fear", -0.4, True, -0.4)]


def test_options_reach_the_plan(joyful: Typed) -> None:
    def said(*args: str) -> str:
        return joyful("hi", "--explain", *args)[1]

    assert "turned by +15.0 degrees, response" in said(
        "--emotion", "joy=0.5", "--operator", "rotate(30)", "--positions", "response"
    )
    assert "decay(4)" in said("--emotion", "joy=0.5", "--schedule", "decay(4)")
    assert "Conflicts: at each site only the largest" in said(
        "--emotion", "joy=0.5", "--emotion", "fear=1", "--conflict", "strongest"
    )


def test_probes_colour(joyful: Typed, lens: LensModel, tmp_path: Path) -> None:
    shape = (lens.n_layers, 2, lens.d_model)
    path = Probes("category", ("anger", "joy"), 1, "resid_post", "mean", lens.name, lens.fingerprint, "planted", "b",
                  {"logistic": np.ones(shape)[:, :1]}, {"logistic": np.zeros((lens.n_layers, 1))})  # fmt: skip
    file = path.save(tmp_path / "category.safetensors")
    facts = strict(joyful("hi", "--emotion", "joy=1", "--probes", file, "--json")[1])
    assert facts["shown"].startswith("Logit of joy of the logistic probe of category at L1.resid_post.")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("hi", "--emotion", "joy"), "--emotion joy has no dose: write --emotion joy=0.6."),
        (("hi", "--emotion", "=0.6"), "has no dose"),
        (("hi", "--emotion", "joy=much"), "The dose of joy is 'much', which is not a number"),
        (("hi", "--emotion", "joy=inf"), "not a number"),
        (("hi", "--emotion", "joy=1", "-e", "Joy=2"), "joy is named twice: give it one dose"),
        (("hi", "--emotion", "joy=1", "-e", "ecstasy=2"), "joy is named twice (ecstasy and joy are one"),
        (("hi", "--emotion", "hunger=1"), "There is no direction of 'hunger'; there are joy, fear, trust."),
        (("hi", "--emotion", "trust=1"), "No safe dose of trust is known"),
        (("hi",), "No emotion is named"),
        ((" ", "--emotion", "joy=1"), "The prompt is empty"),
        (("--emotion", "joy=1"), "The prompt is empty"),
        (("hi", "--emotion", "joy=1", "--layers", "one"), "--layers one is not known"),
        (("hi", "-e", "joy=1", "--layers", "²"), "--layers ² is not known: write 14, or 12,14, or 12-16, or all"),
        (("hi", "--emotion", "joy=1", "--layers", "7"), "joy has no direction at layers [7]"),
        (("hi", "--emotion", "joy=1", "--operator", "add(3)"), "There is no operator 'add(3)'"),
        (("hi", "--emotion", "joy=1", "--positions", "odd"), "positions='odd' is not known"),
        (("hi", "--emotion", "joy=1", "--schedule", "odd"), "schedule='odd' is not known"),
        (("hi", "--emotion", "joy=1", "--conflict", "odd"), "--conflict odd is not known"),
        (("hi", "--emotion", "joy=1", "--operator", "clamp(90)"), "does not know percentile 90"),
        (("hi", "--emotion", "joy=1", "--stream", "--json"), "--stream has no use for --json"),
        (("hi", "--interactive"), "--interactive has no use for PROMPT"),
        (("--interactive", "--no-chat"), "--interactive has no use for --no-chat"),
        (("hi", "--emotion", "joy=1", "--quick"), "--quick, --out and --endpoint belong to --evaluate"),
        (("hi", "--evaluate"), "--evaluate has no use for --max-new-tokens, PROMPT"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_input_gets_a_sentence(joyful: Typed, args: tuple[str, ...], sentence: str) -> None:
    refused(joyful(*args), sentence)


@pytest.mark.parametrize(
    "wrong", [("--emotion", "hunger=1"), ("--positions", "odd"), ("--operator", "odd"), ("--conflict", "odd")], ids=str
)
def test_it_is_refused_before_a_model_is_loaded(
    joyful: Typed, wrong: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(affectlens.model, "load_model", None)
    assert joyful("hi", "--emotion", "fear=1", *wrong)[0] == 2


def test_models_and_files_that_cannot_be(typed: Typed, tiny: Path, vectors: Path, tmp_path: Path) -> None:
    dose = ("--emotion", "joy=1")
    refused(typed(*dose), "Name a model, for example: affectlens steer smollm2-135m")
    refused(typed(tiny, "hi", *dose), f"No directions are bundled for {tiny}")
    refused(typed(tiny, "hi", *dose, "--directions", tmp_path / "no"), "There is no file of directions")
    refused(typed(tiny, "hi", *dose, "--directions", tiny / "model.safetensors"), "is not a readable file")
    base, other = saved(tmp_path / "base"), saved(tmp_path / "other", seed=1)
    refused(typed(base, "hi", *dose, "--directions", vectors), "has no chat template: with --no-chat it goes on")
    refused(typed(base, "--interactive", "--directions", vectors), "has no chat template, so it can't hold")
    refused(typed(other, "hi", *dose, "--directions", vectors, "--no-chat"), "Extract them anew")


def test_without_a_template(joyful: Typed, lens: LensModel, vectors: Path) -> None:
    (reply,) = write(lens, ["hi"], doses={"joy": 1.0}, directions=vectors, chat=False, max_new_tokens=8)
    assert joyful("hi", "--emotion", "joy=1", "--no-chat", "-q")[1] == f"{reply}\n"


class Planted:
    """What an evaluation hands back."""

    safe: ClassVar[dict[str, float | None]] = {"joy": 0.3, "trust": None}

    def summary(self) -> list[str]:
        return ["**joy** is said.", "`trust` is not."]

    def table(self) -> pd.DataFrame:
        return pd.DataFrame([{"emotion": "joy", "p": 0.01}, {"emotion": "trust", "p": float("nan")}])


@pytest.fixture
def studied(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The calls of an evaluation that does nothing but open its run."""
    calls: list[dict[str, Any]] = []

    def study(model: str, **given: Any) -> tuple[Run, Planted]:
        calls.append({"model": model, **given})
        config = {k: v for k, v in calls[-1].items() if k not in ("out", "resume", "progress")}
        run = Run.open(given["out"]) if given["resume"] else Run.create(given["out"], command="steer", config=config)
        if given["seed"] == 13:
            raise KeyboardInterrupt
        return run, Planted()

    module = types.ModuleType("affectlens.steering.evaluating.study")
    module.evaluate = study  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def test_an_endpoint_is_a_judge_more(typed: Typed, studied: list[dict[str, Any]], tmp_path: Path) -> None:
    server = ("--endpoint", "http://localhost:8000/v1", "--endpoint-key", "KEY")
    code, _, err = typed("smollm2-135m", "--evaluate", *server, "--out", tmp_path / "a")
    assert (code, "--endpoint-model NAME" in err) == (2, True)
    assert typed("smollm2-135m", "--evaluate", *server, "--endpoint-model", "m", "--out", tmp_path / "a")[0] == 0
    assert studied[-1]["endpoint"] == {"url": "http://localhost:8000/v1", "model": "m", "key_env": "KEY"}
    typed("--resume", tmp_path / "a")
    assert studied[-1]["endpoint"]["model"] == "m"
    code, _, err = typed("smollm2-135m", "hello", "--emotion", "joy=0.1", *server)
    assert (code, "belong to --evaluate" in err) == (2, True)


def test_an_evaluation_is_begun_told_and_continued(
    typed: Typed, studied: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    code, said, err = typed("smollm2-135m", "--evaluate", "--emotion", "joy", "--quick", "--out", out)
    assert (code, err) == (0, "")
    assert said.splitlines() == ["joy is said.", "trust is not.", "", f"Report: {out / 'report.html'}"]
    asked = {"model": "smollm2-135m", "emotions": ["joy"], "quick": True, "seed": 0, "dtype": "float32",
             "device": None, "revision": None, "directions": None, "endpoint": None}  # fmt: skip
    assert studied[0] == asked | {"out": out, "resume": False, "progress": None}
    facts = strict(typed("--resume", out, "--json")[1])
    assert studied[1] == asked | {"out": out, "resume": True, "progress": False}
    assert facts["results"] == [{"emotion": "joy", "p": 0.01}, {"emotion": "trust", "p": None}]
    assert facts["safe"] == {"joy": 0.3, "trust": None}
    monkeypatch.chdir(tmp_path)
    assert typed("a/b", "--evaluate", "-q")[1].startswith("runs/a_b-steer-")
    refused(typed("--evaluate"), "Name a model, for example: affectlens steer smollm2-135m --evaluate")
    refused(typed("m", "--evaluate", "--emotion", "joy=0.3"), "--evaluate goes through doses by itself")
    refused(typed("m", "--resume", out), "--resume has no use for MODEL")
    refused(typed("--resume", out, "--seed", "1"), "--resume has no use for --seed")
    refused(typed("m", "--evaluate", "--temperature", "1", "--raw"), "no use for --raw, --temperature")
    refused(typed("m", "--evaluate", "--seed", "13", "--out", "n"), "continue with: affectlens steer --resume n")
    Run.create(tmp_path / "probed", command="probe", config={})
    refused(typed("--resume", tmp_path / "probed"), "is a run of affectlens probe")


def test_explain_tells_gate_and_loop(joyful: Typed, lens: LensModel, tmp_path: Path) -> None:
    probes = Probes("category", ("anger", "joy"), 0, "resid_post", "mean", lens.name, lens.fingerprint, "planted", "b",
                    {"logistic": np.ones((lens.n_layers, 1, lens.d_model))},
                    {"logistic": np.zeros((lens.n_layers, 1))})  # fmt: skip
    file = probes.save(tmp_path / "category.safetensors")
    watched = ("--gate", "probe:joy>0.5", "--loop", "probe:joy<1", "--probes", file)
    steered = ("--emotion", "joy=0.5", "--layers", "1", "--explain", "--json")
    (term,) = strict(joyful(*steered, *watched)[1])["terms"]
    assert term["gate"] == "probe of joy at layer 0 above 0.5"
    assert term["loop"] == "probe of joy at layer 0 is below 1"
    (term,) = strict(joyful(*steered)[1])["terms"]
    assert (term["gate"], term["loop"]) == (None, None)


def test_explain_fetches_no_file_for_llama_cpp(joyful: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_files, "find_gguf", None)
    asked = ("--engine", "llama.cpp", "--emotion", "joy=0.5", "--layers", "1")
    code, out, err = joyful(*asked, "--explain")
    assert (code, err) == (0, "")
    assert out.startswith("L1.resid_post:\n  joy dose +0.5: add")
    refused(joyful(*asked, "--explain", "--gguf", "nowhere.gguf"), "There is no file nowhere.gguf")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("--operator", "rotate(30)", "--layers", "1"), "the operator rotate(30) is asked for: the PyTorch engine can"),
        (("--gate", "fear>90", "--layers", "1"), "a gate or a loop is asked for: the PyTorch engine can"),
        (("--loop", "joy<75", "--layers", "1"), "a gate or a loop is asked for: the PyTorch engine can"),
        ((), "llama.cpp has no control vector for layer 0"),
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", [("hi",), ("--explain",), ("--interactive",)], ids=str)
def test_what_llama_cpp_cannot_do_is_refused_before_anything_is_loaded(
    joyful: Typed, monkeypatch: pytest.MonkeyPatch, mode: tuple[str], args: tuple[str, ...], sentence: str
) -> None:
    monkeypatch.setattr(gguf_files, "find_gguf", None)
    monkeypatch.setattr(affectlens.model, "load_model", None)
    refused(joyful(*mode, "--engine", "llama.cpp", "--emotion", "joy=0.5", *args), sentence)


def test_parsing() -> None:
    assert parse_doses(["joy=0.6", " Fear = -.3 "]) == {"joy": 0.6, "fear": -0.3}
    assert parse_doses([]) == {}
    assert parse_doses(["Grief=1", "Mood=2", "mood=3"]) == {"sadness": 1.0, "Mood": 2.0, "mood": 3.0}
    with pytest.raises(SteerError, match="joy is named twice"):
        parse_doses(["ecstasy=0.2", "joy=0"])
    assert parse_layers(None) is parse_layers(" all ") is None
    assert parse_layers("12-14, 3,13") == [3, 12, 13, 14]
    for wrong in ("", "-3", "3-", "5-3", "1;2", "²", "1-2-3", "0-99999999999"):
        with pytest.raises(SteerError, match="write 14, or 12,14, or 12-16"):
            parse_layers(wrong)
    assert one_line("One line.") == "One line."


def test_the_module_is_light() -> None:
    heavy = ("torch", "transformers", "pandas", "numpy", "plotly")
    code = f"import affectlens.steering.cli, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
