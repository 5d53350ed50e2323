"""Revisions of the tables of catalog, the oldest first."""
