"""``affectlens serve``: an OpenAI-compatible server whose requests may each say how they are steered."""
