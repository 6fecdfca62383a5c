"""Activation patching and ablation. Nothing is here yet."""
