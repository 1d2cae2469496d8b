"""Planners that need no search."""
