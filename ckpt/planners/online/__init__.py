"""Eviction when memory runs out."""
