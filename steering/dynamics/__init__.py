"""Moods that move: a valence-arousal-dominance state beside a conversation, which sets the doses."""
