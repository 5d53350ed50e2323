"""The command line: one file per command, and how an error becomes words and an exit code."""

from gateway.cli.program import main

__all__ = ["main"]
