"""A model from the Hugging Face hub: fetched whole, safetensors only, with the hub's refusals in plain words."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from affectlens.errors import ModelError

WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def fetch(repo: str, revision: str | None = None) -> tuple[Path, str]:
    """The local folder of ``repo`` and the commit it holds; the hub's own cache is used first when offline.

    Raises:
        ModelError: unknown id, gated model, no network, or a repository without safetensors weights.
    """
    from huggingface_hub import snapshot_download

    with _in_plain_words(repo, revision):
        path = Path(snapshot_download(repo, revision=revision, allow_patterns=WANTED))
    if not any(path.glob("*.safetensors")):
        raise ModelError(f"{repo}{_at(revision)} has no safetensors weights; AffectLens does not load pickled ones.")
    return path, path.name


def fetch_config(repo: str, revision: str | None = None) -> Path:
    """The local folder that holds ``config.json`` of ``repo``; only that file of a few kilobytes is fetched.

    Raises:
        ModelError: unknown id, gated model, or no network.
    """
    from huggingface_hub import hf_hub_download

    with _in_plain_words(repo, revision):
        return Path(hf_hub_download(repo, "config.json", revision=revision)).parent


def _at(revision: str | None) -> str:
    return f" at revision {revision!r}" if revision else ""


@contextmanager
def _in_plain_words(repo: str, revision: str | None) -> Iterator[None]:
    import httpx
    from huggingface_hub import errors as hub

    try:
        yield
    except hub.GatedRepoError:
        raise ModelError(
            f"{repo} is gated: accept its terms on its page on the hub, log in with `hf auth login`, and try again."
        ) from None
    except (hub.RepositoryNotFoundError, hub.RevisionNotFoundError, hub.HFValidationError):
        raise ModelError(
            f"The hub has no model {repo!r}{_at(revision)}, or it is private: check the spelling, or log in with "
            "`hf auth login`."
        ) from None
    except (
        hub.LocalEntryNotFoundError,
        hub.OfflineModeIsEnabled,
        hub.HfHubHTTPError,
        httpx.HTTPError,
        OSError,
    ):
        raise ModelError(
            f"{repo} is not in the hub's cache on this machine, and the hub cannot be reached: check the network, give "
            "a local folder, or use smollm2-135m, which comes from PyPI."
        ) from None
