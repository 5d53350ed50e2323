"""Orders: what was bought, by whom, and how far it is."""
