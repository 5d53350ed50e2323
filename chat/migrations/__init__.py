"""Revisions of the tables of chat, the oldest first."""
