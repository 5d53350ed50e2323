"""The edge process: tails of the log, fan-out, and the doors of WebSocket and HTTP clients."""
