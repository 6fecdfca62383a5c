"""Moods that move: a valence-arousal-dominance state beside a conversation, which sets the doses.

``Conversation`` keeps one in a live conversation. ``run`` measures what it does to replies, in scripted conversations
of 25 turns beside controls without the loop.
"""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.steering.dynamics.conversation import Conversation
    from affectlens.steering.dynamics.dosing import Dosing
    from affectlens.steering.dynamics.feeding import Feed, Readings
    from affectlens.steering.dynamics.lexicons import LexiconFeed
    from affectlens.steering.dynamics.reading import JudgeFeed, ProbeFeed, encoder_feed
    from affectlens.steering.dynamics.result import DynamicsReport, report_on
    from affectlens.steering.dynamics.scripts import Script, load_scripts
    from affectlens.steering.dynamics.settings import Setup
    from affectlens.steering.dynamics.state import FirstOrder, Mood, MoodState, SecondOrder, trajectory
    from affectlens.steering.dynamics.study import reload, run

_FROM = {
    "conversation": ("Conversation",), "dosing": ("Dosing",), "feeding": ("Feed", "Readings"),
    "lexicons": ("LexiconFeed",), "reading": ("JudgeFeed", "ProbeFeed", "encoder_feed"),
    "result": ("DynamicsReport", "report_on"), "scripts": ("Script", "load_scripts"), "settings": ("Setup",),
    "state": ("FirstOrder", "Mood", "MoodState", "SecondOrder", "trajectory"), "study": ("reload", "run"),
}  # fmt: skip
__all__ = [
    "Conversation",
    "Dosing",
    "DynamicsReport",
    "Feed",
    "FirstOrder",
    "JudgeFeed",
    "LexiconFeed",
    "Mood",
    "MoodState",
    "ProbeFeed",
    "Readings",
    "Script",
    "SecondOrder",
    "Setup",
    "encoder_feed",
    "load_scripts",
    "reload",
    "report_on",
    "run",
    "trajectory",
]
__getattr__, __dir__ = lazily(__name__, {name: module for module, names in _FROM.items() for name in names})
