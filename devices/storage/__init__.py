"""Storage: every reading, its rollups, and the newest of each series."""
