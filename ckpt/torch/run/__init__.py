"""A schedule as straight-line Python behind autograd nodes."""
