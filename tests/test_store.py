"""The store: killed, damaged, full, shared and cleared, it gives the same bytes or says why not."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from typer.testing import CliRunner

from affectlens import capturing, passes
from affectlens.capturing import capture
from affectlens.cli import app
from affectlens.errors import StoreError
from affectlens.keeping import kept, prune
from affectlens.manifests import LOG, shard_name
from affectlens.model import LensModel
from affectlens.paths import cache_dir
from affectlens.store import Activations
from affectlens.stored import DamagedStore
from affectlens.testing import tiny_model
from affectlens.texts import TextList
from tests.test_capture import TEXTS


def kept_folder() -> Path:
    (folder,) = (cache_dir() / "activations").iterdir()
    return folder


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that were computed."""
    sizes: list[int] = []
    real = passes.run_batch

    def counted(model: LensModel, batch: list[Any], *rest: Any) -> Any:
        sizes.append(len(batch))
        return real(model, batch, *rest)

    monkeypatch.setattr(passes, "run_batch", counted)
    return sizes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the test forks; the store itself does not")
def test_killed_at_fifty_random_moments_it_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    script = Path(__file__).parent / "kill_and_resume.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "50"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["wrong"] == []
    states = {state for states in told["stopped"] for state in states}
    assert len(states) >= 10, states  # the kills came at many stages, or the test would say nothing


def test_a_stopped_capture_goes_on_where_it_was(
    llama: LensModel, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = capture(llama, TEXTS, token_budget=60, cache=False)
    total, counted = len(ran), passes.run_batch
    ran.clear()

    def stopping(*args: Any) -> Any:
        if len(ran) == 2:
            raise KeyboardInterrupt
        return counted(*args)

    monkeypatch.setattr(passes, "run_batch", stopping)
    with pytest.raises(KeyboardInterrupt):
        capture(llama, TEXTS, token_budget=60)
    assert [one.state for one in kept()] == [f"2 of {total} batches"]
    with pytest.raises(StoreError, match=f"is not complete: {total - 2} batches are missing; capture again to go on"):
        Activations.load(kept_folder())
    monkeypatch.setattr(passes, "run_batch", counted)
    resumed = capture(llama, TEXTS, token_budget=999)  # the plan of the first run is replayed
    assert len(ran) == total > 2
    for position in whole.positions:
        assert resumed.at(position).tobytes() == whole.at(position).tobytes()
    assert [one.state for one in kept()] == ["complete"]


def test_the_second_time_comes_from_the_store(llama: LensModel, ran: list[int]) -> None:
    first = capture(llama, TEXTS)
    ran.clear()
    again = capture(llama, TEXTS, positions=("ending", "mean"))
    assert not ran
    assert again.positions == ("ending", "mean")
    assert again.at("mean").tobytes() == first.at("mean").tobytes()
    assert again.items["text"].tolist() == TEXTS


def test_what_is_written_into_the_arrays_stays_in_memory(llama: LensModel) -> None:
    capture(llama, TEXTS).at()[:] = 0
    assert capture(llama, TEXTS).at().any()


def test_another_model_text_site_position_or_template_is_another_address(llama: LensModel) -> None:
    capture(llama, TEXTS)
    capture(llama, TEXTS[:4])
    capture(llama, TEXTS, positions="last")
    capture(llama, TEXTS, sites="L0.resid_post")
    capture(tiny_model("llama", seed=1, check=False), TEXTS)
    chatty = tiny_model("llama", check=False)
    chatty.tokenizer.chat_template = "{% for m in messages %}>{{ m.content }}{% endfor %}"
    capture(chatty, TEXTS)
    capture(chatty, TEXTS, chat=True)
    assert len(list((cache_dir() / "activations").iterdir())) == 7


def test_the_shards_are_plain_safetensors(llama: LensModel) -> None:
    acts = capture(llama, TEXTS, sites=("z", "L1.N3"), positions=("mean", "all"))
    shard = safetensors.numpy.load_file(kept_folder() / "z.safetensors")
    np.testing.assert_array_equal(shard["mean"], acts.at("mean"))
    np.testing.assert_array_equal(shard["all"], acts.at("all"))
    assert shard["all"].shape == (sum(map(len, TEXTS)), 2, 4, 8)
    assert safetensors.numpy.load_file(kept_folder() / "N3.safetensors")["mean"].shape == (5, 1)


FILES = ["resid_post.safetensors", "pattern.safetensors", "tokens.safetensors", "items.parquet", "manifest.json", LOG]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", ["head", "first third", "middle", "last third", "tail"])
def test_a_flipped_byte_in_any_file_is_noticed_and_mended(
    llama: LensModel, name: str, where: str, ran: list[int]
) -> None:
    asked: dict[str, Any] = {"sites": ("resid_post", "pattern"), "positions": ("mean", "last"), "token_budget": 60}
    first = capture(llama, TEXTS, **asked)
    before = {path.name: path.read_bytes() for path in kept_folder().iterdir()}
    assert sorted(before) == sorted(FILES)
    total = len(ran)
    ran.clear()
    content = bytearray(before[name])
    at = {"head": 3, "first third": len(content) // 3, "middle": len(content) // 2, "last third": 2 * len(content) // 3,
          "tail": len(content) - 2}[where]  # fmt: skip
    content[at] ^= 0x10
    (kept_folder() / name).write_bytes(bytes(content))
    with pytest.raises(StoreError, match="damaged|no readable activations|is not complete|another version"):
        Activations.load(kept_folder())
    if name == LOG:  # a line that can't be read, or whose digest is another, only costs its batch
        again = capture_warned(llama, asked)
        assert 1 <= len(ran) <= 2
    else:  # what describes the values is written anew; of the values, only the damaged batch is computed
        with pytest.warns(DamagedStore, match="now"):
            again = capture(llama, TEXTS, **asked)
        values = name in ("resid_post.safetensors", "pattern.safetensors") and where != "head"
        assert len(ran) == int(values) < total
    after = {path.name: path.read_bytes() for path in kept_folder().iterdir()}
    assert {n: b for n, b in after.items() if n != LOG} == {n: b for n, b in before.items() if n != LOG}
    for what in first.sites:
        for position in first.positions:
            assert again.at(position, what).tobytes() == first.at(position, what).tobytes()
    ran.clear()
    capture(llama, TEXTS, **asked)
    assert not ran


def test_a_passing_error_of_the_system_costs_nothing(llama: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    capture(llama, TEXTS)
    before = (kept_folder() / "resid_post.safetensors").read_bytes()
    real = Path.read_bytes

    def failing(self: Path) -> bytes:
        if self.name == "manifest.json":
            raise OSError(24, "Too many open files")
        return real(self)

    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(OSError, match="Too many open files"):
        capture(llama, TEXTS)
    monkeypatch.setattr(Path, "read_bytes", real)
    assert (kept_folder() / "resid_post.safetensors").read_bytes() == before
    assert [one.state for one in kept()] == ["complete"]


@pytest.mark.parametrize("kept_bytes", [0, 1, 20])
def test_a_torn_last_line_of_the_log_costs_its_batch_alone(llama: LensModel, ran: list[int], kept_bytes: int) -> None:
    asked: dict[str, Any] = {"token_budget": 60}
    first = capture(llama, TEXTS, **asked)
    lines = (kept_folder() / LOG).read_bytes().splitlines(keepends=True)
    (kept_folder() / LOG).write_bytes(b"".join(lines[:-1]) + lines[-1][:kept_bytes])
    assert [one.state for one in kept()] == [f"{len(lines) - 1} of {len(lines)} batches"]
    ran.clear()
    assert capture(llama, TEXTS, **asked).at().tobytes() == first.at().tobytes()
    assert len(ran) == 1
    assert (kept_folder() / LOG).read_bytes() == b"".join(lines)


def test_mending_keeps_the_plan_that_the_values_were_computed_with(llama: LensModel, ran: list[int]) -> None:
    first = capture(llama, TEXTS, token_budget=60)
    ran.clear()
    (kept_folder() / "items.parquet").unlink()
    with pytest.warns(DamagedStore, match="mended now"):
        assert capture(llama, TEXTS, token_budget=9999).at().tobytes() == first.at().tobytes()
    assert not ran


def test_a_damaged_batch_is_computed_in_as_many_parts_as_before(
    llama: LensModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that its bytes are the same, although there is room for the whole now."""
    real = passes.run_batch
    sizes: list[int] = []

    def limited(model: LensModel, batch: list[Any], *rest: Any) -> Any:
        if len(batch) > limit:
            raise torch.OutOfMemoryError
        sizes.append(len(batch))
        return real(model, batch, *rest)

    monkeypatch.setattr(passes, "run_batch", limited)
    limit = 1
    first = capture(llama, TEXTS, token_budget=9999)
    content = bytearray((kept_folder() / "resid_post.safetensors").read_bytes())
    content[-9] ^= 4
    (kept_folder() / "resid_post.safetensors").write_bytes(bytes(content))
    limit = 99
    sizes.clear()
    assert capture_warned(llama, {}).at().tobytes() == first.at().tobytes()
    assert sizes == [1] * len(TEXTS)


def test_a_missing_file_is_mended(llama: LensModel, ran: list[int]) -> None:
    first = capture(llama, TEXTS)
    for name in ("manifest.json", "items.parquet", "tokens.safetensors"):
        ran.clear()
        (kept_folder() / name).unlink()
        with pytest.warns(DamagedStore, match="mended now"):
            assert capture(llama, TEXTS).at().tobytes() == first.at().tobytes()
        assert not ran
    for name in ("resid_post.safetensors", LOG):
        ran.clear()
        (kept_folder() / name).unlink()
        again = capture_warned(llama, {})
        assert again.at().tobytes() == first.at().tobytes()
        assert len(ran) == 1


def test_under_the_users_own_hooks_the_store_is_left_alone(llama: LensModel) -> None:
    handle = llama.blocks[0].register_forward_hook(lambda _m, _a, out: torch.as_tensor(out) + 100)
    with pytest.warns(UserWarning, match="nothing is read from the store or kept in it"):
        bent = capture(llama, TEXTS)
    handle.remove()
    plain = capture(llama, TEXTS)
    assert not np.allclose(bent.at(), plain.at())
    np.testing.assert_array_equal(plain.at(), capture(llama, TEXTS, cache=False).at())
    llama.hf(input_ids=torch.tensor([[5, 6]]), output_hidden_states=True)  # transformers leaves hooks of its own
    capture(llama, TEXTS)


def test_a_template_that_changes_after_the_first_capture_is_noticed() -> None:
    model = tiny_model("llama", check=False)
    values = []
    for mark in ("<", "["):
        model.tokenizer.chat_template = "{% for m in messages %}" + mark + "{{ m.content }}{% endfor %}"
        values.append(capture(model, TEXTS, chat=True).at())
        np.testing.assert_array_equal(values[-1], capture(model, TEXTS, chat=True, cache=False).at())
    assert not np.allclose(values[0], values[1])


def test_two_captures_of_one_model_in_two_threads(llama: LensModel) -> None:
    many = [[f"{text} {n}" for text in TEXTS] for n in range(4)]
    results: dict[int, Activations] = {}

    def run(n: int) -> None:
        results[n] = capture(llama, many[n], token_budget=30, cache=False)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(4):
        np.testing.assert_array_equal(results[n].at(), capture(llama, many[n], token_budget=30, cache=False).at())


def test_dictionaries_of_like_names_do_not_meet(llama: LensModel) -> None:
    names = ["a/b", "a_b", "A_b", "x" * 300]
    assert len({shard_name(f"features@{name}").lower() for name in names}) == 4
    assert all(len(shard_name(f"features@{name}")) < 120 for name in names)
    assert shard_name("H3.pattern") == "H3.pattern.safetensors"


def capture_warned(llama: LensModel, asked: dict[str, Any]) -> Activations:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedStore)
        return capture(llama, TEXTS, **asked)


def test_a_full_disk_is_said_before_anything_is_computed(llama: LensModel, ran: list[int]) -> None:
    """A real refusal by the system: no file of this process may pass 200 kB."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(
            StoreError, match=r"need .* MB in .*free. Make room \(affectlens cache prune\), set AFFECTLENS_CACHE"
        ):
            capture(llama, TEXTS * 40, positions="all")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not ran
    assert not list((cache_dir() / "activations").iterdir())


def test_a_disk_that_fills_up_meanwhile_loses_nothing(
    llama: LensModel, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from affectlens.shards import Shards

    real, left = Shards._scatter, [6]

    def filling(self: Shards, *args: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real(self, *args)

    monkeypatch.setattr(Shards, "_scatter", filling)
    with pytest.raises(StoreError, match="can't be written .* MB are free"):
        capture(llama, TEXTS, token_budget=60)
    done = len(ran) - 1
    monkeypatch.setattr(Shards, "_scatter", real)
    ran.clear()
    resumed = capture(llama, TEXTS, token_budget=60)
    assert done == 3
    assert len(ran) == len(json.loads((kept_folder() / "manifest.json").read_text())["plan"]["batches"]) - done
    assert resumed.at().tobytes() == capture(llama, TEXTS, token_budget=60, cache=False).at().tobytes()


def test_two_at_once_compute_once(llama: LensModel, ran: list[int]) -> None:
    """Threads stand for processes: the lock is the system's, on a file."""
    results: list[Activations] = []
    threads = [
        threading.Thread(target=lambda: results.append(capture(llama, TEXTS, token_budget=60))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({acts.at().tobytes() for acts in results}) == 1
    assert len(results) == 3
    assert len(ran) == len(json.loads((kept_folder() / "manifest.json").read_text())["plan"]["batches"])


def test_the_lock_of_another_process_is_waited_for(llama: LensModel, tmp_path: Path) -> None:
    capture(llama, TEXTS)
    lock = cache_dir() / "locks" / f"{kept_folder().name}.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys, time; from filelock import FileLock; lock = FileLock(sys.argv[1]);"
         "lock.acquire(); print('held', flush=True); time.sleep(60)", str(lock)], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert prune(everything=True)[1][0].path == kept_folder()  # busy: it stays
    threading.Timer(0.5, holder.kill).start()  # however it ends, its lock goes with it
    capture(llama, TEXTS)
    assert holder.wait() == -9
    holder.stdout.close()


def test_save_and_load(llama: LensModel, tmp_path: Path) -> None:
    acts = capture(llama, TEXTS, sites=("resid_post", "H1"), positions=("mean", "all"), cache=False)
    acts.save(tmp_path / "acts")
    loaded = Activations.load(tmp_path / "acts")
    assert repr(loaded) == repr(acts)
    for what in acts.sites:
        for position in acts.positions:
            assert loaded.at(position, what).tobytes() == acts.at(position, what).tobytes()
    np.testing.assert_array_equal(loaded.item("t2"), acts.item(2))
    np.testing.assert_array_equal(loaded.ids, acts.ids)
    with pytest.raises(StoreError, match="exists already"):
        acts.save(tmp_path / "acts")
    with pytest.raises(StoreError, match="holds no readable activations"):
        Activations.load(tmp_path)


def test_the_store_gives_back_todays_names(llama: LensModel) -> None:
    capture(llama, TextList(TEXTS, name="old"))
    assert capture(llama, TextList(TEXTS, name="new")).battery == "new"


def test_list_and_prune(llama: LensModel) -> None:
    capture(llama, TEXTS, sites=("resid_post", "H1"))
    capture(llama, TEXTS[:2])
    old = cache_dir() / "activations" / "0123"
    old.mkdir()
    (old / "manifest.json").write_text('{"format": 1}')
    left = cache_dir() / "activations" / ".4567.tmp"
    left.mkdir()
    listed = json.loads(CliRunner().invoke(app, ["cache", "list", "--json"]).stdout)["captures"]
    assert [(one["sites"], one["items"], one["state"]) for one in listed][:2] == [
        ("resid_post H1", 5, "complete"), ("resid_post", 2, "complete"),
    ]  # fmt: skip
    assert "resid_post H1" in CliRunner().invoke(app, ["cache", "list"]).stdout
    assert "Would remove 1 captures" in CliRunner().invoke(app, ["cache", "prune", "--dry-run"]).stdout
    assert "Removed 1 captures" in CliRunner().invoke(app, ["cache", "prune"]).stdout
    assert not old.exists()
    assert left.exists()  # it may be another process's, which is at work
    assert len(kept()) == 3
    assert prune(older_than=1.0) == ([], [])
    assert len(prune(older_than=-1.0, dry_run=True)[0]) == 2
    os.utime(left, (0, 0))
    assert "Removed 3 captures" in CliRunner().invoke(app, ["cache", "prune", "--all"]).stdout
    assert "Nothing is kept" in CliRunner().invoke(app, ["cache", "list"]).stdout
    capture(llama, TEXTS)


def test_threads_are_those_of_the_plan(llama: LensModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = passes.run_batch

    def counted(*args: Any) -> Any:
        seen.append(torch.get_num_threads())
        return real(*args)

    monkeypatch.setattr(passes, "run_batch", counted)
    before = torch.get_num_threads()
    monkeypatch.setattr(capturing, "plan_capture", with_threads(3, capturing.plan_capture))
    capture(llama, TEXTS)
    assert set(seen) == {3}
    assert torch.get_num_threads() == before


def with_threads(number: int, real: Any) -> Any:
    from dataclasses import replace

    return lambda *args: replace(real(*args), threads=number)
