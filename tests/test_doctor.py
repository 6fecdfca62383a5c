"""The doctor: what a model needs, counted and compared with what is free, and the command for what is missing."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from affectlens import doctor
from affectlens.capturing import TOKEN_BUDGET
from affectlens.errors import ModelError
from affectlens.model import LensModel
from affectlens.needs import GIB, LIBRARIES, TOKENIZER, measure, needs, peak, verdict
from affectlens.stimuli import load_battery
from affectlens.testing import FAMILIES, tiny_hf, tiny_tokenizer
from affectlens.texts import TextList
from tests.test_loading import write_gguf

TEXTS = TextList(["The bus was late again.", "Rain fell."])


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_come_from_the_configuration_alone(family: str, tmp_path: Path) -> None:
    hf = tiny_hf(family)
    hf.config.save_pretrained(tmp_path)
    size = measure(tmp_path)
    assert size.parameters == sum(p.numel() for p in hf.parameters())
    assert (size.layers, size.d_model, size.heads, size.vocabulary) == (2, 32, 4, 260)
    assert size.d_mlp == (128 if family == "gpt2" else 64)


def test_needs_of_a_folder_are_counted(tmp_path: Path) -> None:
    hf = tiny_hf("llama")
    hf.config.save_pretrained(tmp_path)
    guessed = needs(str(tmp_path), TEXTS)
    assert guessed["tokens (about, from words)"] == round(5 * 1.3) + round(2 * 1.3)
    tiny_tokenizer().save_pretrained(tmp_path)
    facts = needs(str(tmp_path), TEXTS)
    assert facts["tokens (counted)"] == len(TEXTS.frame()["text"].str.cat())
    assert (facts["items"], facts["longest text (tokens)"]) == (2, 23)
    assert facts["verdict"].startswith("fits: float32 takes 0.")
    with pytest.raises(ModelError, match="no model 'smolm2-135m' here. Did you mean"):
        needs("smolm2-135m", TEXTS)
    (tmp_path / "config.json").write_text('{"model_type": "unheard-of"}')
    with pytest.raises(ModelError, match="has no configuration of a causal language model"):
        needs(str(tmp_path), TEXTS)


def test_the_peak_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    tiny_hf("llama").config.save_pretrained(tmp_path)
    size = measure(tmp_path)
    parts = LIBRARIES + TOKENIZER * 260 + 4 * size.parameters + TOKEN_BUDGET * 4 * (8 * 32 + 3 * 64 + 4 * 100)
    assert peak(size, 4, 100, 7) == parts + 7
    assert peak(size, 4, 100, 0) - peak(size, 4, 50, 0) == TOKEN_BUDGET * 4 * 4 * 50


def test_verdicts() -> None:
    here = (8 * GIB, "this machine")
    assert verdict(7 * GIB, 4 * GIB, here).startswith("fits")
    assert "try --dtype bfloat16, which takes 5.0 GiB" in verdict(9 * GIB, 5 * GIB, here)
    assert 'device_map="auto"' in verdict(19 * GIB, 10 * GIB, here)


def test_needs_of_a_gguf_file_and_of_what_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    facts = needs(str(tmp_path / "tiny.gguf"), TEXTS)
    assert (facts["layers"], facts["d_model"]) == (2, 32)
    assert "affectlens models pull smollm2-135m" in needs("smollm2-135m", TEXTS)["note"]
    assert "--accept-terms" in needs("gemma3-270m", TEXTS)["note"]
    assert "The size is not known: someone/model is not in the hub's cache" in needs("someone/model", TEXTS)["note"]


def test_what_is_missing_comes_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.missing() == []

    def without(name: str) -> str:
        if name in ("einops", "peft"):
            raise metadata.PackageNotFoundError(name)
        return "0.1" if name == "scipy" else metadata.version(name)

    monkeypatch.setattr(doctor, "version", without)
    told = doctor.missing()
    assert "einops (not installed): pip install 'einops>=0.8'" in told
    assert "scipy (0.1): pip install 'scipy>=1.14'" in told
    assert len(told) == 2
    assert "peft, for LoRA models: pip install peft" in doctor.optional()


def test_the_processor_is_named() -> None:
    said = doctor.processor()
    assert ("AVX" in said) == ("avx" in torch.backends.cpu.get_cpu_capability().lower())
    assert "bfloat16 is" in said


def test_doctor_on_the_command_line(tmp_path: Path) -> None:
    from tests.test_cli import run

    tiny_hf("llama").config.save_pretrained(tmp_path)
    facts = json.loads(run("doctor", str(tmp_path), "--json").stdout)
    assert facts["missing"] == "nothing"
    assert facts["needs"]["items"] == 160
    plain = run("doctor", str(tmp_path))
    assert "verdict" in plain.stdout
    assert plain.stderr == ""
    wrong = run("doctor", "smolm2-135m")
    assert wrong.returncode == 2
    assert len(wrong.stderr.strip().splitlines()) == 1


MEASURED = """
import pathlib, re
import affectlens as al
model = al.load_model("smollm2-135m", device="cpu")
al.capture(model, al.load_battery("starter"), cache=False)
print(int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) * 1024)
"""


@pytest.mark.real
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process alone is read from /proc")
def test_the_forecast_is_near_the_measured_peak(smol: LensModel) -> None:
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    measured = int(done.stdout) / GIB
    facts = needs("smollm2-135m", load_battery("starter"))
    assert facts["parameters (millions)"] == 134.5
    assert facts["peak, float32 (GiB)"] == pytest.approx(measured, rel=0.2)
