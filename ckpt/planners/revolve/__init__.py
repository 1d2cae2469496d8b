"""Snapshots of a chain of equal steps."""
