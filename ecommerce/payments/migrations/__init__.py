"""Revisions of the tables of payments, the oldest first."""
