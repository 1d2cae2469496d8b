"""The list of equations as a Graph."""
