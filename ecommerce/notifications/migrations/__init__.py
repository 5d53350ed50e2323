"""Revisions of the tables of notifications, the oldest first."""
