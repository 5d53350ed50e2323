"""The shadow of a device: what is wanted of it, and what it says of itself."""
