"""A function of JAX and its backward as one flat list of equations."""
