"""``python -m gateway.cli``: how ``gateway up`` starts the other processes, whatever is on PATH."""

from gateway.cli import main

main()
