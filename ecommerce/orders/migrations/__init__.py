"""Revisions of the tables of orders, the oldest first."""
