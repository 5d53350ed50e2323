"""Devices: a fleet that measures, what is kept of it, and who is told when something is wrong."""
