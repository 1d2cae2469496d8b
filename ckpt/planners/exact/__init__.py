"""Integer programs, and search over everything."""
