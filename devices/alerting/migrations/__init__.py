"""Revisions of the tables of alerting, the oldest first."""
