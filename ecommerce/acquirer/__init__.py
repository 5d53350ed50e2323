"""The acquirer, simulated: a bank that approves, declines, takes its time and says things twice."""
