"""One training step as a flat list of aten calls, recorded on fake tensors."""
