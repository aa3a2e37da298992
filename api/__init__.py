"""The HTTP API: commands in, reports out. It holds no state of its own."""
