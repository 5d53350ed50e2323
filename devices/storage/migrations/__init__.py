"""Revisions of the tables of storage, the oldest first."""
