"""Revisions of the tables of accounts, the oldest first."""
