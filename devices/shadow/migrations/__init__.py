"""Revisions of the tables of the shadows, the oldest first."""
