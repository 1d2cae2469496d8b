"""Reverse mode for someone who has never seen it."""
