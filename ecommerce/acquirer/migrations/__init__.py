"""Revisions of the tables of acquirer, the oldest first."""
