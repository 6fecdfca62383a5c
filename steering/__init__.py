"""Directions and steering. Nothing is here yet."""
