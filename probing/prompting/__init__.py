"""Asking the model instead of reading it: prompted baselines, and the quadruples' factual checks."""
