"""Payments: what is owed, and what the acquirer says."""
