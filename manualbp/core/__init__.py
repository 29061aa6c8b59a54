"""What a formula is, and how one is run."""
