"""A schedule of the equations: one by one, and as a function that XLA compiles."""
