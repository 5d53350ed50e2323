"""E-commerce: seven services that sell things, each with a database of its own, and meet in ``events.py`` alone."""
