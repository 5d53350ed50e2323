"""Revisions of the tables of shipping, the oldest first."""
