"""Revisions of the tables of registry, the oldest first."""
