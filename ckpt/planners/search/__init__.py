"""The portfolio, and a local search."""
