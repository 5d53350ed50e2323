"""Analytics: windows in event time over each series, and how unusual each of them is."""
