"""Registry: which devices there are, whether they may come in, and whether they are there."""
