"""Engines write many steered replies at once: each with its own doses, all in one forward pass where that can be."""

from affectlens.steering.engines.engine import Busy, Closed, Engine
from affectlens.steering.engines.request import End, Load, Piece, Request
from affectlens.steering.engines.runner import Runner
from affectlens.steering.engines.together import Together

__all__ = ["Busy", "Closed", "End", "Engine", "Load", "Piece", "Request", "Runner", "Together"]
