"""Chat: rooms and direct messages, each one log whose numbers have no gap."""
