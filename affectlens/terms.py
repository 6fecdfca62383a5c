"""Terms of use: some weights may be used only by someone who has accepted them. Acceptance is kept in the cache."""

import json
from datetime import UTC, datetime
from pathlib import Path

from affectlens.catalog import Entry
from affectlens.errors import ModelError
from affectlens.paths import cache_dir, write_text


def accepted(entry: Entry) -> bool:
    """Whether ``entry`` has no terms, or they were accepted on this machine in the version that we know."""
    return entry.terms is None or _record(entry).is_file()


def accept(entry: Entry) -> None:
    """Record in the cache folder that the terms of ``entry`` were accepted, and when."""
    if entry.terms is not None and not accepted(entry):
        kept = vars(entry.terms) | {"accepted": datetime.now(UTC).isoformat(timespec="seconds")}
        write_text(_record(entry), json.dumps(kept, indent=1))


def require(entry: Entry) -> None:
    """Pass if the terms of ``entry`` are accepted.

    Raises:
        ModelError: if not; it says where the terms are and how to accept them.
    """
    if entry.terms is not None and not accepted(entry):
        raise ModelError(
            f"{entry.name} is under the {entry.terms.name} ({entry.terms.address}): read them, and if you accept "
            f"them, run: affectlens models pull {entry.name} --accept-terms"
        )


def _record(entry: Entry) -> Path:
    assert entry.terms is not None
    return cache_dir() / "terms" / f"{entry.terms.name.replace(' ', '-').lower()}-{entry.terms.dated}.json"
