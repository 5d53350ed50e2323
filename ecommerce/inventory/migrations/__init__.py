"""Revisions of the tables of inventory, the oldest first."""
