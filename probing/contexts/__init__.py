"""Directions taken to new contexts: after the passage, under a system prompt, in another format."""
