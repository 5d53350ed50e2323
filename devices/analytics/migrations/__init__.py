"""Revisions of the tables of analytics, the oldest first."""
