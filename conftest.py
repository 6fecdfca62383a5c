"""Refuse a session in which a folder was imported under its bare name: that would be a second copy of the code."""

import sys

import pytest

BARE = ("probing", "patching", "steering", "circuits", "stimuli")


def pytest_collection_finish(session: pytest.Session) -> None:
    wrong = [name for name in BARE if name in sys.modules]
    if wrong:
        pytest.exit(f"imported bare: {', '.join(wrong)}; write affectlens.{wrong[0]}", returncode=4)
