"""Accounts: who people are, how they prove it, and the keys by which the gateway believes it."""
