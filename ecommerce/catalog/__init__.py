"""Catalog: what is sold, for how much."""
