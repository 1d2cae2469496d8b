"""What the tape is made of: nodes, Values, ops, and how one is applied."""
