"""What commands share and what needs nothing of theirs."""
