"""Engines write many steered replies at once: each with its own doses, all in one forward pass where that can be."""
